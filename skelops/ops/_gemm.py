"""The 1x1 transform on a GPU: batched matrix products that read (N, C, T, V) in place."""

from __future__ import annotations

import torch
from torch import Tensor


def _planes(x: Tensor) -> Tensor:
    """(N, ..., T, V) contiguous -> (N, channels, T * V)."""
    return x.flatten(-2).flatten(1, -2)


def transform(weight: Tensor, x: Tensor) -> Tensor:
    """(C', C), (N, ..., T, V) of C channels -> (N, C', T, V)."""
    y = weight.expand(x.shape[0], -1, -1).bmm(_planes(x))
    return y.view(x.shape[0], weight.shape[0], *x.shape[-2:])


def weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """(N, ..., T, V) of C' channels, (N, ..., T, V) of C -> (C', C), in float32 for half types."""
    left, right = _planes(grad), _planes(x).mT
    if left.element_size() > 2:
        return left.bmm(right).sum(0)
    if left.is_cpu:
        return left.float().bmm(right.float()).sum(0)
    return torch.bmm(left, right, out_dtype=torch.float32).sum(0)
