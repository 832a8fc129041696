"""How a network is optimised, by the settings that every kind of training shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

SCHEDULES = ("multistep", "cosine", "one_cycle", "plateau", "constant")
OPTIMIZERS = ("sgd", "adamw")
# What a checkpoint has to agree in with the data and the recipe.
IDENTITY = ("model", "num_classes", "layout", "num_persons", "in_channels", "frames")


class Optimized(lightning.LightningModule):
    """Optimiser, parameter groups and schedule of ``model``, from hyper-parameters of these names:
    ``optimizer``, ``lr``, ``min_lr``, ``momentum``, ``nesterov``, ``betas``, ``weight_decay``,
    ``decay_norms``, ``reference_batch``, ``batch_size``, ``schedule``, ``milestones`` and
    ``warmup_epochs``; see :class:`skelops.train.Recognizer`.

    A network with ``lr_scale(name)`` has its learning rates scaled per parameter; parameters that
    require no gradient are left out.
    """

    model: nn.Module

    def _check_settings(self, schedule: str, optimizer: str, reference: Any, batch: Any) -> None:
        name = type(self).__name__
        for what, value, known in (
            ("schedule", schedule, SCHEDULES),
            ("optimizer", optimizer, OPTIMIZERS),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected {what} in {known}, got {value!r}")
        if reference and not batch:
            raise ValueError(
                f"{name}: expected a batch_size with reference_batch {reference}, got {batch}"
            )

    def peak_lr(self) -> float:
        """Learning rate at the number of clips that one optimiser step sees."""
        h: Any = self.hparams
        if not h.reference_batch:
            return h.lr
        clips = h.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        return h.lr * clips / h.reference_batch

    def _parameter_groups(self) -> list[dict[str, Any]]:
        h: Any = self.hparams
        scale: Callable[[str], float] = getattr(self.model, "lr_scale", lambda name: 1.0)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                decay = h.weight_decay if h.decay_norms or parameter.dim() > 1 else 0.0
                groups.setdefault((decay, scale(name)), []).append(parameter)
        peak = self.peak_lr()
        return [
            {"params": group, "weight_decay": decay, "lr": peak * factor}
            for (decay, factor), group in groups.items()
        ]

    def configure_optimizers(self):
        h: Any = self.hparams
        groups = self._parameter_groups()
        if h.optimizer == "sgd":
            nesterov = h.nesterov and h.momentum > 0
            optimizer: Any = torch.optim.SGD(groups, momentum=h.momentum, nesterov=nesterov)
        else:
            optimizer = torch.optim.AdamW(groups, betas=tuple(h.betas))
        if h.schedule == "plateau":
            plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
            return [optimizer], [{"scheduler": plateau, "monitor": "val_loss"}]
        self.trainer.fit_loop.setup_data()  # the schedule goes by the batches of an epoch
        total = max(self.trainer.estimated_stepping_batches, 1)
        if h.schedule == "one_cycle":
            peaks = [group["lr"] for group in groups]
            scheduler: Any = OneCycleLR(optimizer, peaks, int(total), pct_start=0.25)
        else:
            per_epoch = math.ceil(
                self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            )
            scheduler = LambdaLR(
                optimizer, lambda step: self._lr_factor(step / per_epoch, step / total)
            )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def _lr_factor(self, epoch: float, progress: float) -> float:
        h: Any = self.hparams
        if h.schedule == "multistep":
            epoch = math.floor(epoch + 1e-6)
            if epoch < h.warmup_epochs:
                return (epoch + 1) / h.warmup_epochs
            return 0.1 ** sum(epoch >= m for m in h.milestones)
        warm = min(epoch / h.warmup_epochs, 1.0) if h.warmup_epochs else 1.0
        if h.schedule == "constant":
            return warm
        low = h.min_lr / h.lr if h.min_lr else 0.0
        return warm * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        theirs = checkpoint.get("hyper_parameters", {})
        for name in IDENTITY:
            ours = self.hparams.get(name)
            if ours is not None and theirs.get(name, ours) != ours:
                raise ValueError(
                    f"{type(self).__name__}: expected a checkpoint of {name} {ours}, as the data "
                    f"and the recipe have it, got one of {name} {theirs[name]}"
                )
