"""Mean over time, against ``x.mean(2)``."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

V = 25


def _draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
    return {"x": draw.normal(B, C, T, V)}


def _peer(x: Tensor) -> Tensor:
    return x.mean(2)


def _flops(B: int, C: int, T: int) -> dict[str, float]:
    return {FORWARD: B * C * T * V, TRAINING: B * C * (T + 1) * V}


CASES = [
    Case(
        f"C={C} T={T}", {"B": 32, "C": C, "T": T}, _draw, skelops.temporal_mean, _peer, _flops,
        targets={FORWARD: {"eager": 1}},
    )
    for C, T in ((64, 64), (256, 16))
]  # fmt: skip
