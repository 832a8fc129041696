"""Votes of nearest neighbours: score[n, c] = sum of w over those of the k most similar with c."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check
from skelops.ops.nn_lookup import check_ids

_BLOCK = 1 << 25  # similarities at a time: 134 MB in float32


def knn_vote(
    x: Tensor,
    bank: Tensor,
    label: Tensor,
    num_classes: int,
    *,
    k: int = 1,
    temperature: float | None = None,
) -> Tensor:
    r"""Class scores of samples by the labels of their k most similar ones in a bank.

    .. math:: score_{nc} = \sum_{j \in kNN(n),\, y_j = c} w_{nj}, \qquad
        w_{nj} = e^{x_n \cdot b_j / \tau} \;\text{ or } 1

    A function of PyTorch calls that holds the similarities of some samples at a time. The class is
    ``score.argmax(1)``: of equal scores the first class. No gradient flows.

    Args:
        x: (N, D); for cosine similarity rows of unit norm.
        bank: (B, D) likewise.
        label: (B,) int64 in 0..num_classes - 1.
        num_classes: columns of the result.
        k: neighbours, at most B count.
        temperature: tau; None for equal votes.

    Returns:
        (N, num_classes), x's dtype.

    Raises:
        ValueError: shapes do not fit, ``k`` is below 1, or tensors are on different devices.
        TypeError: tensors are not floating point or of different dtypes, labels not int64.

    Example:
        >>> score = knn_vote(F.normalize(test), F.normalize(train), label, 60, k=5)
        >>> (score.argmax(1) == truth).float().mean()

    Source: Wu et al., CVPR 2018; the evaluations of STARS (arXiv 2407.10935) and HaLP (CVPR 2023).
    """
    name = "knn_vote"
    _check.tensors(name, x=x, bank=bank)
    _check.shape(name, "x", x, "N D")
    _check.shape(name, "bank", bank, "B D", D=x.shape[1])
    check_ids(name, x, label=(label, bank.shape[0]))
    if k < 1:
        raise _check.fail(name, "k >= 1", k)
    with torch.no_grad():
        score = x.new_zeros(x.shape[0], num_classes)
        rows = max(_BLOCK // max(bank.shape[0], 1), 1)
        for first in range(0, x.shape[0], rows):
            part = slice(first, first + rows)
            similarity, near = (x[part] @ bank.T).topk(min(k, bank.shape[0]), dim=1)
            vote = F.one_hot(label[near], num_classes).to(x.dtype)
            if temperature is not None:
                vote *= (similarity / temperature).exp()[..., None]
            score[part] = vote.sum(1)
        return score
