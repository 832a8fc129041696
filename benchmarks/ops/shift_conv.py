"""Shift and 1x1 convolution at the heads of EPAM-Net's blocks, against one after the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(pixels: int):
    def draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
        x = draw.normal(B, C, T, pixels, pixels)
        return {"x": x, "weight": draw.weight(C * 9 // 4, C, fan=C)}

    return draw


def _ours(x: Tensor, weight: Tensor) -> Tensor:
    return skelops.shift_conv(x, weight, 4)


def _peer(x: Tensor, weight: Tensor) -> Tensor:
    f = x.shape[1] // 4
    y = torch.zeros_like(x)
    y[:, :f, :-1] = x[:, :f, 1:]
    y[:, f : 2 * f, 1:] = x[:, f : 2 * f, :-1]
    y[:, 2 * f :] = x[:, 2 * f :]
    return F.conv3d(y, weight[:, :, None, None, None])


def _flops(pixels: int):
    def flops(B: int, C: int, T: int) -> dict[str, float]:
        product = 2 * B * T * pixels**2 * C * (C * 9 // 4)
        return {FORWARD: product, TRAINING: 3 * product}

    return flops


CASES = [
    Case(
        f"pose stream, C={C}, {pixels} x {pixels}", {"B": 4, "C": C, "T": 48}, _draw(pixels), _ours,
        _peer, _flops(pixels), targets={TRAINING: {"eager": 1.5}},
        quick={"B": 1}, gpu={"B": 32},
        headline="temporal shift and 1x1 convolution" if C == 24 else "",
    )
    for C, pixels in ((24, 28), (48, 14), (96, 7))
]  # fmt: skip
