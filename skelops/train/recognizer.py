"""Supervised skeleton action recognition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torchmetrics.classification import MulticlassAccuracy

from skelops.models import create_model

SCHEDULES = ("multistep", "cosine", "one_cycle", "constant")


class Recognizer(lightning.LightningModule):
    """A network (N, C, T, V, M) -> logits (N, num_classes), trained with SGD and cross-entropy.

    The defaults are the published NTU RGB+D recipe of CTR-GCN (ICCV 2021): Nesterov momentum 0.9,
    learning rate 0.1 divided by 10 at epochs 35 and 55, five warm-up epochs, weight decay 4e-4.

    Args:
        model: name for :func:`skelops.models.create_model`, or a module.
        num_classes: number of classes.
        layout: joint layout of the data; used when ``model`` is a name.
        num_persons: persons M per clip; used when ``model`` is a name.
        model_kwargs: further arguments of the named model.
        lr: peak learning rate.
        momentum: of SGD, with Nesterov's correction.
        weight_decay: on all parameters.
        schedule: "multistep" (by epoch, as published), "cosine" (by step, to zero), "one_cycle"
            (by step: rise over a quarter, then cosine, momentum against it; for short trainings,
            Smith and Topin, 2018) or "constant".
        milestones: epochs at which "multistep" divides by ten.
        warmup_epochs: linear warm-up: (e + 1) / warmup_epochs in epoch e of "multistep", by step
            with "cosine" and "constant".
        label_smoothing: of the cross-entropy.

    Raises:
        ValueError: unknown schedule or model.
    """

    def __init__(
        self,
        model: str | nn.Module = "ctr_gcn",
        num_classes: int = 60,
        layout: str = "ntu25",
        num_persons: int = 2,
        model_kwargs: dict[str, Any] | None = None,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 4e-4,
        schedule: str = "multistep",
        milestones: Sequence[int] = (35, 55),
        warmup_epochs: float = 5,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise ValueError(f"Recognizer: expected schedule in {SCHEDULES}, got {schedule!r}")
        self.save_hyperparameters(ignore=() if isinstance(model, str) else "model")
        if isinstance(model, str):
            given = {"num_classes": num_classes, "layout": layout, "num_persons": num_persons}
            model = create_model(model, **given, **(model_kwargs or {}))
        self.model = model
        self.train_top1 = MulticlassAccuracy(num_classes, average="micro")
        self.val_top1 = MulticlassAccuracy(num_classes, average="micro")
        self.test_top1 = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def _step(self, batch: tuple[Tensor, Tensor], stage: str, smoothing: float = 0.0) -> Tensor:
        x, y = batch
        logits = self(x)
        loss = cross_entropy(logits, y, label_smoothing=smoothing)
        top1 = getattr(self, f"{stage}_top1")
        top1(logits, y)
        log: dict[str, Any] = {
            "prog_bar": True,
            "on_step": False,
            "on_epoch": True,
            "batch_size": len(y),
        }
        self.log(f"{stage}_loss", loss, sync_dist=stage != "train", **log)
        self.log(f"{stage}_top1", top1, **log)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return self._step(batch, "train", self.hparams["label_smoothing"])

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self._step(batch, "test")

    def predict_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Logits (N, num_classes) of a batch (x, y)."""
        return self(batch[0])

    def configure_optimizers(self):
        h: Any = self.hparams
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=h.lr,
            momentum=h.momentum,
            nesterov=h.momentum > 0,
            weight_decay=h.weight_decay,
        )
        total = max(self.trainer.estimated_stepping_batches, 1)
        if h.schedule == "one_cycle":
            scheduler: Any = OneCycleLR(optimizer, h.lr, int(total), pct_start=0.25)
        else:
            per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
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
        return warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
