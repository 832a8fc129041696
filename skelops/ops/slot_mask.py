"""Masking of single joints of single frames: y[n, t, v] = mask[n, t, v] x[n, t, v]."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tokens


def slot_mask(x: Tensor, noise: Tensor, *, mask_ratio: float = 0.3) -> tuple[Tensor, Tensor]:
    r"""Set a share of the slots (frame, joint) of every clip to zero, in all channels.

    .. math::
        y_{ntvc} = \begin{cases}
            0 & \text{if } U_{n,tV+v} \text{ is among the } S \text{ least of clip } n \\
            x_{ntvc} & \text{else}
        \end{cases}

    with S = max(1, int(``mask_ratio`` T V)), or 0 for a ratio of 0. Of equal numbers the first is
    less, NaN is largest. A recorded permutation p of the slots replays as the noise
    ``p.argsort().float()``.

    Args:
        x: (N, T, V, C) coordinates or features; padded frames take part.
        noise: (N, T * V), of any floating dtype.
        mask_ratio: share of masked slots in [0, 1].

    Returns:
        y: (N, T, V, C), x's dtype. Masked values are zero even where x is not finite.
        mask: (N, T, V) bool, True = kept.

    Raises:
        ValueError: shapes do not fit, ``mask_ratio`` out of range.
        TypeError: a tensor is not floating point.

    Backends: cpu, triton, reference.

    Example:
        >>> y, mask = slot_mask(torch.randn(2, 64, 25, 3), torch.rand(2, 1600))
        >>> int((~mask).sum())
        960

    Source: the masking of joints in CascadeFormer (arXiv 2509.00692) and its code.
    """
    name = "slot_mask"
    (x,) = _check.autocast(x)
    _check.tensors(name, x=x)
    _check.shape(name, "x", x, "N T V C")
    slots = x.shape[1] * x.shape[2]
    _tokens.check_noise(name, noise, x, slots)
    _tokens.check_ratio(name, mask_ratio)
    masked = min(slots, max(1, int(mask_ratio * slots))) if mask_ratio > 0 else 0
    return _op(x, noise, masked)


def _reference(x: Tensor, noise: Tensor, masked: int) -> tuple[Tensor, Tensor]:
    mask = ~_tokens.ranked(noise, masked).view(x.shape[:3])
    return x.where(mask[..., None], 0).contiguous(), mask


def _fake(x, noise, masked):
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(
        x.shape[:3], dtype=torch.bool
    )


_op = define(
    "slot_mask",
    "(Tensor x, Tensor noise, int masked) -> (Tensor out, Tensor mask)",
    _reference,
    fake=_fake,
    grads=("x",),
    saved=("mask",),
    gpu=("triton",),
)
