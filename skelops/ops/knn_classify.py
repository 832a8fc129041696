"""Nearest-neighbour classification of features by their angle, without a similarity matrix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops import _check

# 4096 x 8192 similarities are 134 MB in float32.
TEST_ROWS, TRAIN_ROWS = 4096, 8192


@torch.no_grad()
def knn_classify(
    test: Tensor, train: Tensor, label: Tensor, k: int = 1, num_classes: int | None = None
) -> Tensor:
    """Majority vote of the k training features of largest cosine similarity.

    Similarities are computed in tiles, of which only the best k per row remain; the memory does
    not grow with the number of features.

    Args:
        test: (N, D) features; zero ones are orthogonal to all others.
        train: (L, D) features.
        label: (L,) int64 of the training features.
        k: neighbours that vote, 1 to L. Of classes with as many votes the smallest wins.
        num_classes: default: one more than the largest label.

    Returns:
        (N,) int64 classes.

    Raises:
        ValueError: shapes do not fit, a k out of 1..L, labels out of 0..num_classes - 1.
        TypeError: features of other dtypes than floating ones, labels that are not int64.

    Example:
        >>> train = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> knn_classify(torch.tensor([[0.1, 2.0]]), train, torch.tensor([4, 7])).tolist()
        [7]

    Source: Wu et al., Unsupervised feature learning, CVPR 2018; the protocol of CMD and HaLP.
    """
    op = "knn_classify"
    _check.tensors(op, test=test, train=train)
    _check.shape(op, "test", test, "N D")
    _check.shape(op, "train", train, "L D", D=test.shape[1])
    if label.dtype != torch.int64:
        raise TypeError(f"{op}: expected label of dtype torch.int64, got {label.dtype}")
    L = len(train)
    _check.shape(op, "label", label, "L", L=L)
    if not 1 <= k <= L:
        raise _check.fail(op, f"k in 1..{L}", k)
    low, high = (int(v) for v in label.aminmax())
    classes = high + 1 if num_classes is None else num_classes
    if not 0 <= low <= high < classes:
        raise _check.fail(op, f"labels in 0..{classes - 1}", f"{low}..{high}")
    train = F.normalize(train, dim=1)
    found = [
        _vote(label[_nearest(rows, train, k)], classes)
        for rows in F.normalize(test, dim=1).split(TEST_ROWS)
    ]
    return torch.cat(found) if found else label.new_empty(0)


def _nearest(test: Tensor, train: Tensor, k: int) -> Tensor:
    """(N, k) rows of ``train``, nearest first."""
    best = test.new_empty(len(test), 0)
    at = torch.empty(len(test), 0, dtype=torch.int64, device=test.device)
    for start in range(0, len(train), TRAIN_ROWS):
        similarity = test @ train[start : start + TRAIN_ROWS].T
        value, row = similarity.topk(min(k, similarity.shape[1]), dim=1)
        best, at = torch.cat([best, value], 1), torch.cat([at, row + start], 1)
        if start:
            best, kept = best.topk(min(k, best.shape[1]), dim=1)
            at = at.gather(1, kept)
    return at


def _vote(label: Tensor, classes: int) -> Tensor:
    if label.shape[1] == 1:
        return label[:, 0]
    votes = torch.zeros(len(label), classes, dtype=torch.int32, device=label.device)
    votes.scatter_add_(1, label, torch.ones_like(label, dtype=torch.int32))
    return votes.argmax(1)  # the first of several maxima
