"""What a training run writes beside Lightning's logs: speed, confusion matrix, predictions."""

from __future__ import annotations

import csv
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import multiclass_confusion_matrix


class Throughput(Callback):
    """Logs ``clips_per_s`` over all processes and ``data_share``, the share of the step time that
    was spent waiting for the batch; both over the last steps of this process.

    Steps next to a validation or a checkpoint and the first one of a run do not count.

    Args:
        window: number of steps.
    """

    def __init__(self, window: int = 50) -> None:
        self.steps: deque[tuple[float, float, int]] = deque(maxlen=window)
        self._before: float | None = None  # the end of the step before, if it counts
        self._waited = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch and self.steps:
            self._before = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._before is not None:
            self._waited = time.perf_counter() - self._before

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        now = time.perf_counter()
        if self._before is not None:
            clips = len(batch[1]) * trainer.world_size
            self.steps.append((self._waited, now - self._before, clips))
            waited, seconds, clips = map(sum, zip(*self.steps, strict=True))
            self.log("clips_per_s", clips / seconds, prog_bar=True)
            self.log("data_share", waited / seconds, prog_bar=True)
        self._before = now

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = None

    def on_save_checkpoint(self, *_: Any) -> None:
        self._before = None


class ExactResume(Callback):
    """Lets a run that resumes, also in mid-epoch, continue as if it had not stopped.

    A training loader with ``state_dict`` and ``load_state_dict`` gets its state back; of any other
    the batches that were trained are drawn again and dropped. A single process also gets back the
    state of torch's random numbers; they differ only after a stop between the last step of an epoch
    and its end, where Lightning leaves out the validation.
    """

    def __init__(self) -> None:
        self._random: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Tensor]:
        cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
        return {"cpu": torch.get_rng_state(), **cuda}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        self._random = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop, loader = trainer.fit_loop, trainer.train_dataloader
        if isinstance(loader, DataLoader) and loader.generator is None:
            loader.generator = torch.Generator()  # starting an epoch leaves torch's numbers alone
        if not loop.is_resuming:
            return
        trained = loop.epoch_loop.batch_progress.current.ready
        in_epoch = loop.restarting and trained < trainer.num_training_batches
        self._begin(trainer, trained if in_epoch else 0)
        if trainer.world_size == 1:
            for device, state in self._random.items():
                torch.set_rng_state(state) if device == "cpu" else torch.cuda.set_rng_state(state)

    def _begin(self, trainer: Trainer, trained: int) -> None:
        """Begin the epoch behind its first batches. Lightning has begun it too early: before the
        loader knew the epoch and its state."""
        loop, loader = trainer.fit_loop, trainer.train_dataloader
        if hasattr(getattr(loader, "sampler", None), "set_epoch"):
            loader.sampler.set_epoch(trainer.current_epoch)
        stateful = hasattr(loader, "load_state_dict")
        if stateful:
            loop._load_combined_loader_states()
        batches = iter(loop._data_fetcher.combined_loader)
        for _ in range(0 if stateful else trained):
            next(batches)


class ConfusionMatrix(Callback):
    """Writes ``confusion.csv`` and ``confusion.png`` after a test: rows are the true classes."""

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = pl_module.scores.by_clip()
        if not trainer.is_global_zero:
            return
        from skelops import viz

        found, label = scores["softmax"], scores["label"]
        matrix = multiclass_confusion_matrix(found, label, found.shape[1]).cpu().numpy()
        classes = [str(c) for c in range(len(matrix))]
        if trainer.datamodule is not None:
            classes = list(trainer.datamodule.clips.classes)
        folder = _folder(trainer)
        with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["true \\ predicted", *classes])
            table.writerows([name, *row] for name, row in zip(classes, matrix, strict=True))
        viz.confusion_matrix(matrix, classes, folder / "confusion.png")


class WritePredictions(Callback):
    """Writes ``predictions.npz`` after a prediction, the file that ``skelops ensemble`` reads.

    Plain arrays: ``name`` (N,) str and ``label`` (N,) int64 of the clips, ``logits`` and
    ``softmax`` (N, classes) float32, both means over the views of a clip, ``classes`` (classes,)
    str, ``class_counts`` (classes,) int64, training clips of each, ``stream`` (of a part of the
    body its name, of pictures their modalities) and ``run``, str.
    """

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = {name: score.cpu().numpy() for name, score in pl_module.scores.by_clip().items()}
        if not trainer.is_global_zero:
            return
        data, folder = trainer.datamodule, _folder(trainer)
        np.savez(
            folder / "predictions.npz",
            name=data.clips.name[scores.pop("clip")],
            classes=np.array(data.clips.classes),
            class_counts=np.array(data.class_counts),
            stream=data.hparams["part"]
            or "+".join(data.hparams["modalities"] or data.hparams["streams"]),
            run=folder.resolve().name,
            **scores,
        )


def _folder(trainer: Trainer) -> Path:
    folder = Path(trainer.default_root_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


CALLBACKS: Sequence[type[Callback]] = (
    Throughput,
    ExactResume,
    ConfusionMatrix,
    WritePredictions,
)
