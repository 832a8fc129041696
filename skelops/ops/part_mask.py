"""Masking of body parts: y[n, t, v] = x[n, t, v] of kept joints, a learned vector of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tokens


def part_mask(x: Tensor, token: Tensor, mask: Tensor) -> Tensor:
    r"""Replace the features of masked joints by a learned vector, in all frames of a clip.

    .. math::
        y_{ntv} = \begin{cases} x_{ntv} & \text{if } mask_{nv} \\ token & \text{else} \end{cases}

    Args:
        x: (N, T, V, C) features; frames that are masked each for themselves are N clips of T = 1.
        token: (C,).
        mask: (V,) for all clips or (N, V), bool, True = kept.

    Returns:
        (N, T, V, C), x's dtype.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: ``x`` or ``token`` is not floating point, dtypes differ outside autocast,
            ``mask`` is not bool.

    Backends: cpu, triton, reference.

    Example:
        >>> mask = torch.ones(17, dtype=torch.bool)
        >>> mask[[8, 10, 14, 16]] = False  # right arm and leg
        >>> part_mask(torch.randn(2, 64, 17, 64), torch.zeros(64), mask).shape
        torch.Size([2, 64, 17, 64])

    Source: Yan et al., SkeletonMAE, ICCV 2023, section 3.1.
    """
    name = "part_mask"
    x, token = _check.autocast(x, token)
    _check.tensors(name, x=x, token=token)
    _check.shape(name, "x", x, "N T V C")
    N, _, V, C = x.shape
    _check.shape(name, "token", token, "C", C=C)
    _tokens.check_integers(name, "mask", mask, x, torch.bool)
    _check.shape(name, "mask", mask, "V" if mask.dim() == 1 else "N V", N=N, V=V)
    return _op(x, token, mask)


def _reference(x: Tensor, token: Tensor, mask: Tensor) -> Tensor:
    kept = mask[:, None, :, None] if mask.dim() == 2 else mask[:, None]
    return torch.where(kept, x, token).contiguous()


_op = define(
    "part_mask",
    "(Tensor x, Tensor token, Tensor mask) -> Tensor",
    _reference,
    fake=lambda x, token, mask: torch.empty_like(x, memory_format=torch.contiguous_format),
    grads=("x", "token"),
    gpu=("triton",),
)
