"""Graph convolutions with the end of their unit at inference, against layer by layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, Arguments, Draw
from benchmarks.units import SIZES, ended, ending, fixed, unit_case

K, V = 3, 25


def _draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
    return {
        "x": fixed(draw, B, C, T, V), "A": fixed(draw, K, V, V, fan=V),
        "weight": fixed(draw, K, C, C, fan=C), "bias": fixed(draw, K, C, fan=C),
        **ending(draw, B, C, T, V),
    }  # fmt: skip


def _ours(**args: Any) -> Tensor:
    return skelops.graph_unit(**args, transposed=True)


def _peer(x: Tensor, A: Tensor, weight: Tensor, bias: Tensor, **end: Any) -> Tensor:
    return ended(peers.aggregate(peers.pointwise(x, weight, bias), A), **end)


def _flat(args: Arguments) -> Arguments:
    return args | {name: args[name].flatten(0, 1) for name in ("weight", "bias")}


def _flops(B: int, C: int, T: int) -> dict[str, float]:
    return {FORWARD: 2 * B * T * V * K * C * (C + V)}


CASES = [unit_case("dense", C, T, _draw, _ours, _peer, _flops, _flat) for C, T in SIZES]
