"""Attention drop without parameters: what a feature map attends to most is taken from it."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def simam_attention(x: Tensor, strength: float = 1e-4) -> Tensor:
    r"""SimAM: attention of every cell of its channel's map, (N, C, T, V) -> (N, C, T, V).

    .. math::
        e = (x - \bar x)^2, \qquad
        a = \sigma\Big(\frac{e}{4 (\sum_{tv} e / (TV - 1) + \lambda)} + \frac12\Big)

    Source: Yang et al., SimAM, ICML 2021, eq. 5.
    """
    e = (x - x.mean((2, 3), keepdim=True)).square()
    cells = max(x.shape[2] * x.shape[3] - 1, 1)
    return (e / (4 * (e.sum((2, 3), keepdim=True) / cells + strength)) + 0.5).sigmoid()


def simam_drop(x: Tensor, keep: float = 0.7, strength: float = 1e-4) -> Tensor:
    """Zero the joints, and the cells, whose attention reaches ``keep``; nothing is random.

    Both masks are rescaled by the share that the whole batch keeps. Where all attend alike, every
    cell has attention sigmoid(1/2), which is less than 0.7, and nothing is dropped.

    Args:
        x: (N, C, T, V).
        keep: attention from which on a joint (its mean over channels and frames) or cell is zero.
        strength: see ``simam_attention``.

    Returns:
        (N, C, T, V). Attention carries no gradient.

    Source: Guo et al., AimCLR, AAAI 2022, section 3.3 (energy-based attention-guided drop).
    """
    a = simam_attention(x, strength)
    joint = (a.mean((1, 2)) < keep).to(x.dtype)
    cell = (a < keep).to(x.dtype)
    scale = joint.numel() / joint.sum().clamp(min=1) * cell.numel() / cell.sum().clamp(min=1)
    return x * (joint[:, None, None, :] * cell * scale)
