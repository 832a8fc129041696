"""Training without labels, and the encoder that it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from skelops import _check, ops
from skelops.models import Pretext, create_pretext, load_published
from skelops.train.metrics import ClipScores
from skelops.train.optimizing import Optimized


class Pretrainer(Optimized):
    """Trains a :class:`skelops.models.Pretext`; labels serve for its validation only.

    Validation logs ``val_nn1``, the share of validation clips whose nearest other one, by the
    cosine of their features, is of the same class.

    Args:
        model: name for :func:`skelops.models.create_pretext`.
        layout, num_persons, in_channels, frames: of the data.
        model_kwargs: further arguments of the model.
        start: a run (its folder or checkpoint) of this model, which goes on as a whole (STARS from
            its second stage), or a run of another one or a published checkpoint, whose encoder is
            the start of this one.
        clip_each: largest norm of the gradient of every parameter on its own.
        optimizer, lr, min_lr, momentum, nesterov, betas, weight_decay, decay_norms: see
            :class:`skelops.train.Recognizer`.
        reference_batch, batch_size, schedule, milestones, warmup_epochs: likewise.

    Raises:
        ValueError: unknown schedule, optimiser or model; a ``reference_batch`` without
            ``batch_size``; a ``start`` of another encoder; on resuming, a checkpoint of another
            model or skeleton.
    """

    FACTS = ("layout", "num_persons", "in_channels", "frames")  # of the data

    def __init__(
        self,
        model: str = "mamp",
        layout: str = "ntu25",
        num_persons: int = 2,
        in_channels: int = 3,
        frames: int = 120,
        model_kwargs: dict[str, Any] | None = None,
        start: str | None = None,
        clip_each: float | None = None,
        optimizer: Literal["sgd", "adamw"] = "adamw",
        lr: float = 1e-3,
        min_lr: float = 0.0,
        momentum: float = 0.9,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.05,
        decay_norms: bool = False,
        reference_batch: int | None = None,
        batch_size: int | None = None,
        schedule: Literal["multistep", "cosine", "one_cycle", "constant"] = "cosine",
        milestones: Sequence[int] = (),
        warmup_epochs: float = 0,
    ) -> None:
        super().__init__()
        self._check_settings(schedule, optimizer, reference_batch, batch_size)
        self.save_hyperparameters()
        self.model = _build(dict(self.hparams))
        if start is not None:
            _start(self.model, model, start)
        self.train_loss = MeanMetric()
        self.train_loss.persistent(True)
        self.features = ClipScores()

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        x, _, clip = batch
        loss = self.model.loss(x, clip)
        self.train_loss.update(loss.detach(), len(x))
        self.log("loss", loss.detach(), prog_bar=True)
        self.log("train_loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_start(self) -> None:
        self.model.start_epoch(self.current_epoch)

    def on_after_backward(self) -> None:
        self.model.end_step()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        largest = self.hparams["clip_each"]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if largest is not None:
            norms = torch.stack(torch._foreach_norm(gradients))
            factors = (largest / (norms + 1e-6)).clamp(max=1)
            torch._foreach_mul_(gradients, list(factors))

    def on_validation_epoch_start(self) -> None:
        self.features.reset()

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        self.features.update(self.model.encoder(batch[0]), *batch[1:])

    def on_validation_epoch_end(self) -> None:
        found = self.features.by_clip()
        z, label, clip = F.normalize(found["logits"]), found["label"], found["clip"]
        nearest = ops.nn_lookup(z, z, clip, clip)
        right = (label[nearest] == label) & (clip[nearest] != clip)
        self.log("val_nn1", right.float().mean(), prog_bar=True, sync_dist=True)


def _build(h: Mapping[str, Any]) -> Pretext:
    return create_pretext(
        h["model"],
        layout=h["layout"],
        num_frames=h["frames"],
        num_persons=h["num_persons"],
        in_channels=h["in_channels"],
        **(h["model_kwargs"] or {}),
    )


def read_run(run: str | Path) -> dict[str, Any]:
    """The checkpoint of a run, by its folder or its file; nothing in it is executed."""
    return torch.load(checkpoint_of(run), map_location="cpu", weights_only=True)


def checkpoint_of(run: str | Path) -> Path:
    """The last checkpoint of a run, from its folder, or that file."""
    path = Path(run)
    path = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not path.is_file():
        raise _check.fail(str(run), "the folder or a checkpoint of a run", "none")
    return path


def run_folder(run: str | Path) -> Path:
    """The folder of a run, from it or from its checkpoint."""
    path = Path(run)
    if path.is_file():
        path = path.parent
    return path.parent if path.name == "checkpoints" else path


def data_settings(run: str | Path) -> dict[str, Any]:
    """Arguments of the data module of a run."""
    recorded = read_run(run).get("datamodule_hyper_parameters", {})
    return {name: value for name, value in recorded.items() if not name.startswith("_")}


def load_encoder(run: str | Path, *, random: bool = False) -> nn.Module:
    """The encoder of a run of :class:`Pretrainer`.

    Args:
        run: its folder or its checkpoint.
        random: leave the weights as they were initialised, to compare with.

    Raises:
        ValueError: no such run, or one that did not train without labels.
    """
    checkpoint = read_run(run)
    settings = checkpoint.get("hyper_parameters", {})
    if "frames" not in settings:
        raise _check.fail(str(run), "a run that trained without labels", "one with labels")
    model = _build(settings)
    if not random:
        model.load_state_dict(_weights(checkpoint))
    return model.encoder


def _weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state of the model in the checkpoint of a run."""
    start = "model."
    state = checkpoint["state_dict"].items()
    return {key.removeprefix(start): value for key, value in state if key.startswith(start)}


def _start(model: Pretext, name: str, source: str | Path) -> None:
    """Fill a model from a run of the same name, or its encoder from any other source."""
    checkpoint = read_run(source)
    if checkpoint.get("hyper_parameters", {}).get("model") != name:
        load_encoder_(model.encoder, source)
        model.encoder_loaded()
        return
    weights, own = _weights(checkpoint), model.state_dict()
    for key in own | weights:
        expected, found = (tuple(s[key].shape) if key in s else None for s in (own, weights))
        if found != expected:
            raise _check.fail(str(source), f"a run of {name} with {key} of {expected}", str(found))
    model.load_state_dict(weights)


def load_encoder_(encoder: nn.Module, source: str | Path) -> None:
    """Fill an encoder from a run or from a published checkpoint of it.

    Raises:
        ValueError: the source lacks weights of this encoder, or has others in their place.
    """
    checkpoint = read_run(source)
    if "hyper_parameters" in checkpoint:
        encoder.load_state_dict(load_encoder(source).state_dict())
        return
    missing = load_published(encoder, checkpoint, strict=False).missing
    if missing:
        raise _check.fail(str(source), f"a checkpoint with {missing[0]}", "one without")
