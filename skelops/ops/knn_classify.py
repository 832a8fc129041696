"""Nearest-neighbour classification of features by their angle."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops import _check
from skelops.ops.knn_vote import knn_vote


def knn_classify(
    test: Tensor, train: Tensor, label: Tensor, k: int = 1, num_classes: int | None = None
) -> Tensor:
    """Majority vote of the k training features of largest cosine similarity.

    :func:`knn_vote` with equal votes: the similarities of some test features exist at a time.

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
    test, train = F.normalize(test, dim=1), F.normalize(train, dim=1)
    return knn_vote(test, train, label, classes, k=k).argmax(1)
