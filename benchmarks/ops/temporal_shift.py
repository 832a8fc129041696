"""Temporal shift at the inputs of EPAM-Net's blocks, against the published slices of zeros."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(pixels: int):
    def draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
        return {"x": draw.normal(B, C, T, pixels, pixels)}

    return draw


def _ours(x: Tensor) -> Tensor:
    return skelops.temporal_shift(x, 4)


def _peer(x: Tensor) -> Tensor:
    f = x.shape[1] // 4
    y = torch.zeros_like(x)
    y[:, :f, :-1] = x[:, :f, 1:]
    y[:, f : 2 * f, 1:] = x[:, f : 2 * f, :-1]
    y[:, 2 * f :] = x[:, 2 * f :]
    return y


def _flops(pixels: int):
    def flops(B: int, C: int, T: int) -> dict[str, float]:
        moved = B * C * T * pixels**2  # nothing is computed: a copy per value
        return {FORWARD: moved, TRAINING: 2 * moved}

    return flops


CASES = [
    Case(
        f"pose stream, C={C}, {pixels} x {pixels}", {"B": 4, "C": C, "T": 48}, _draw(pixels), _ours,
        _peer, _flops(pixels), targets={FORWARD: {"eager": 1.3}, TRAINING: {"eager": 1.3}},
        quick={"B": 1}, gpu={"B": 32}, headline="temporal shift" if C == 24 else "",
    )
    for C, pixels in ((24, 56), (48, 14))
]  # fmt: skip
