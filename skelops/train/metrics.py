"""Scores of clips and the accuracies that are reported of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.utilities import dim_zero_cat

from skelops.data.longtail import GROUPS, class_groups


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

    def by_clip(self) -> dict[str, Tensor]:
        """``clip`` and ``label`` (N,) int64; ``logits`` and ``softmax`` (N, classes) float32, means
        over the views of a clip; in the order of the clips."""
        # Of a single clip, a Metric makes scalars of what has one element.
        rows, scores = (-1,), (-1, self.logits[0].shape[1])
        shapes = {"clip": rows, "label": rows, "logits": scores, "softmax": scores}
        return {name: found.view(shapes[name]) for name, found in self.compute().items()}

    def compute(self) -> dict[str, Tensor]:
        """As :meth:`by_clip` has it, but for single elements."""
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


def accuracies(
    score: Tensor, label: Tensor, class_counts: Sequence[int] | None = None
) -> dict[str, float]:
    """Shares in [0, 1]: ``top1``, ``top5`` (of more than five classes) and ``mean_class``, the
    mean over the classes of their top-1.

    With a long-tailed training set, one whose rarest class has less than half of the clips of the
    most frequent one, also ``head``, ``medium`` and ``tail``: the mean over the classes of a group
    (see :func:`skelops.data.class_groups`) of their top-1. Classes without test clips do not count.

    Args:
        score: (N, classes) floating, largest for the predicted class.
        label: (N,) int64.
        class_counts: training clips of each class.
    """
    classes = score.shape[1]
    found = {"top1": multiclass_accuracy(score, label, classes, average="micro")}
    if classes > 5:
        found["top5"] = multiclass_accuracy(score, label, classes, average="micro", top_k=5)
    found["mean_class"] = multiclass_accuracy(score, label, classes, average="macro")
    if class_counts and 2 * min(class_counts) < max(class_counts):
        group = class_groups(class_counts).to(label.device)
        clips = label.bincount(minlength=classes)
        right = label[score.argmax(1) == label].bincount(minlength=classes)
        for g, name in enumerate(GROUPS):
            members = (group == g) & (clips > 0)
            if members.any():
                found[name] = (right[members] / clips[members]).mean()
    return {name: float(value) for name, value in found.items()}
