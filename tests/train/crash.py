"""For runs in other processes: a network without batch statistics, a callback that kills."""

import os
import signal
from pathlib import Path

import lightning
from torch import nn

from skelops.models import register_model


class Crash(lightning.Callback):
    """Kills its process in front of an optimiser step, once: ``marker`` tells that it happened."""

    def __init__(self, step: int = -1, marker: str = "crashed", rank: int = 0) -> None:
        self.step, self.marker, self.rank = step, Path(marker), rank

    def on_train_batch_start(self, trainer, *_):
        here = (trainer.global_step, trainer.global_rank) == (self.step, self.rank)
        if here and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@register_model("plain")
class Plain(nn.Sequential):
    def __init__(self, num_classes, dropout=0.0, **_):
        super().__init__(
            nn.Flatten(),
            nn.Linear(3 * 8 * 25 * 2, 32),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Linear(32, num_classes),
        )
