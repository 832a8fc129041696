"""The temporal convolution of ST-GCN against PyTorch's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

TAPS, JOINTS = 9, 25


def _draw(draw: Draw, N: int, C: int, T: int) -> Arguments:
    return {
        "x": draw.normal(N, C, T, JOINTS),
        "weight": draw.weight(C, C, TAPS, fan=C * TAPS),
        "bias": draw.normal(C, scale=0.1),
    }


def _eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight[..., None], bias, padding=(TAPS // 2, 0))


def _flops(N: int, C: int, T: int) -> dict[str, float]:
    """Of the six products per four frames and three taps."""
    product = 2 * N * (6 * ((T + 3) // 4)) * JOINTS * C * C * (TAPS // 3)
    return {FORWARD: product, TRAINING: 3 * product}


CASES = [
    Case(
        f"{C} channels, {T} frames", {"N": 16, "C": C, "T": T}, _draw, skelops.temporal_conv,
        _eager, _flops, targets={TRAINING: {"eager": 1.3}}, gpu={"N": 128}, quick={"N": 2},
        headline="9 x 1 convolution, 128 channels, 32 frames" if C == 128 else "",
    )
    for C, T in ((64, 64), (128, 32), (256, 16))
]  # fmt: skip
