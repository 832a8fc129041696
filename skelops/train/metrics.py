"""Scores of clips and the accuracies that are reported of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.utilities import dim_zero_cat


class ClipScores(Metric):
    """Class scores per clip: the mean over all views of a clip, gathered from all ranks.

    A clip that was seen twice, as a second crop or as padding of the last batch, counts once.
    """

    full_state_update = False
    clip: list[Tensor]
    label: list[Tensor]
    logits: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("clip", "label", "logits"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor, clip: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: (N, classes) floating.
            label: (N,) int64.
            clip: (N,) int64, which clip each row is a view of. Default: each row is a clip.
        """
        if clip is None:
            first = sum(map(len, self.label))
            clip = torch.arange(first, first + len(label), device=label.device)
            if torch.distributed.is_initialized():
                clip = clip * torch.distributed.get_world_size() + torch.distributed.get_rank()
        self.clip.append(clip)
        self.label.append(label)
        self.logits.append(logits.detach().float())

    def compute(self) -> dict[str, Tensor]:
        """``clip`` and ``label`` (N,) int64; ``logits`` and ``softmax`` (N, classes) float32, means
        over the views of a clip; in the order of the clips."""
        clip, row = torch.unique(dim_zero_cat(self.clip), return_inverse=True)
        label = torch.empty_like(clip).scatter_(0, row, dim_zero_cat(self.label))
        logits = dim_zero_cat(self.logits)
        views = torch.bincount(row)[:, None]

        def mean(score: Tensor) -> Tensor:
            return score.new_zeros(len(clip), score.shape[1]).index_add_(0, row, score) / views

        return {
            "clip": clip,
            "label": label,
            "logits": mean(logits),
            "softmax": mean(logits.softmax(1)),
        }


def accuracies(score: Tensor, label: Tensor) -> dict[str, float]:
    """Shares in [0, 1]: ``top1``, ``top5`` (of more than five classes) and ``mean_class``, the
    mean over the classes of their top-1.

    Args:
        score: (N, classes) floating, largest for the predicted class.
        label: (N,) int64.
    """
    classes = score.shape[1]
    found = {"top1": multiclass_accuracy(score, label, classes, average="micro")}
    if classes > 5:
        found["top5"] = multiclass_accuracy(score, label, classes, average="micro", top_k=5)
    found["mean_class"] = multiclass_accuracy(score, label, classes, average="macro")
    return {name: float(value) for name, value in found.items()}
