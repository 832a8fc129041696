"""Feed-forward over the joints of CascadeFormer 1.2, against PyTorch's layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(draw: Draw, B: int, C: int, H: int) -> Arguments:
    """B clips of 64 frames of 25 joints."""
    return {
        "x": draw.normal(B * 64 * 25, C),
        "w1": draw.weight(H, C, fan=C),
        "b1": draw.normal(H, scale=0.1),
        "w2": draw.weight(C, H, fan=H),
        "b2": draw.normal(C, scale=0.1),
    }


def _eager(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)


def _flops(B: int, C: int, H: int) -> dict[str, float]:
    product = 2 * B * 64 * 25 * C * H
    return {FORWARD: 2 * product, TRAINING: 6 * product}


CASES = [
    Case(
        "24 channels, 2048 units", {"B": 8, "C": 24, "H": 2048}, _draw, skelops.narrow_ffn,
        _eager, _flops, targets={TRAINING: {"eager": 5}}, slack=4.0,
        headline="feed-forward of 24 channels, 2048 units", gpu={"B": 64}, quick={"B": 2},
    ),
    Case(
        "32 channels, 2048 units", {"B": 8, "C": 32, "H": 2048}, _draw, skelops.narrow_ffn,
        _eager, _flops, slack=4.0, gpu={"B": 64}, quick={"B": 2},
    ),
]  # fmt: skip
