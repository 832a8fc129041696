"""The temporal convolution of ST-GCN against PyTorch's."""

from __future__ import annotations

from functools import partial

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


def _eager(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, weight[..., None], bias, (stride, 1), padding=(TAPS // 2, 0))


def _flops(N: int, C: int, T: int, stride: int) -> dict[str, float]:
    """Of the six products per four frames and three taps, of every phase of a stride."""
    groups = stride * -(-TAPS // (3 * stride))
    product = 2 * N * (6 * -(-T // (4 * stride))) * JOINTS * C * C * groups
    return {FORWARD: product, TRAINING: 3 * product}


CASES = [
    Case(
        f"{C} channels, {T} frames" + (", every second one" if stride == 2 else ""),
        {"N": 16, "C": C, "T": T}, _draw, partial(skelops.temporal_conv, stride=stride),
        partial(_eager, stride=stride), partial(_flops, stride=stride),
        targets={TRAINING: {"eager": 1.3 if stride == 1 else 1.1}}, gpu={"N": 128},
        quick={"N": 2},
        headline="9 x 1 convolution, 128 channels, 32 frames" if (C, T) == (128, 32) else "",
    )
    for C, T, stride in ((64, 64, 1), (128, 32, 1), (256, 16, 1), (128, 64, 2), (256, 32, 2))
]  # fmt: skip
