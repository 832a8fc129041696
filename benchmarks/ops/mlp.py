"""Feed-forward of MAMP against PyTorch's layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(draw: Draw, B: int, C: int, H: int) -> Arguments:
    """B sequences of 750 tokens."""
    return {
        "x": draw.normal(B * 750, C),
        "w1": draw.weight(H, C, fan=C),
        "b1": draw.normal(H, scale=0.1),
        "w2": draw.weight(C, H, fan=H),
        "b2": draw.normal(C, scale=0.1),
    }


def _eager(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)


def _flops(B: int, C: int, H: int) -> dict[str, float]:
    product = 2 * B * 750 * C * H
    return {FORWARD: 2 * product, TRAINING: 6 * product}


CASES = [
    Case(
        "256 channels, 1024 units", {"B": 8, "C": 256, "H": 1024}, _draw, skelops.mlp, _eager,
        _flops, targets={TRAINING: {"eager": 1}}, gpu={"B": 64}, quick={"B": 2},
        headline="feed-forward of 256 channels, 1024 units",
    ),
]  # fmt: skip
