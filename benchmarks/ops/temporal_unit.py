"""1x1 convolutions with the end of their unit at inference, against layer by layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, Arguments, Draw
from benchmarks.units import SIZES, ended, ending, fixed, unit_case

V = 25


def _draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
    weights = {"weight": fixed(draw, C, C, fan=C), "bias": fixed(draw, C, fan=C)}
    return {"x": fixed(draw, B, C, T, V), **weights, **ending(draw, B, C, T, V)}


def _peer(x: Tensor, weight: Tensor, bias: Tensor, **end: Any) -> Tensor:
    return ended(peers.pointwise(x, weight, bias), **end)


def _flops(B: int, C: int, T: int) -> dict[str, float]:
    return {FORWARD: 2 * B * T * V * C * C}


CASES = [unit_case("1x1", C, T, _draw, skelops.temporal_unit, _peer, _flops) for C, T in SIZES]
