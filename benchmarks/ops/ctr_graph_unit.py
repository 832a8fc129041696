"""Units of CTR-GCN over joints at inference, against layer by layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, Arguments, Draw
from benchmarks.units import SIZES, ended, ending, fixed, unit_case

K, V = 3, 25


def _draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
    R = C // 8
    return {
        "x": fixed(draw, B, C, T, V), "A": fixed(draw, K, V, V, fan=V), "alpha": fixed(draw, 1),
        "embed_weight": fixed(draw, 2, K, R, C, fan=C),
        "embed_bias": fixed(draw, 2, K, R, fan=C),
        "weight4": fixed(draw, K, C, R, fan=R), "bias4": fixed(draw, K, C, fan=R),
        "weight": fixed(draw, K, C, C, fan=C), "bias": fixed(draw, K, C, fan=C),
        **ending(draw, B, C, T, V),
    }  # fmt: skip


def _split(args: Arguments) -> Arguments:
    """Separate tensors per subset, as a module per subset has them."""
    split = {name: args[name] for name in ("x", "A", "alpha", "norm", "residual")}
    for kind in ("weight", "bias"):
        first, second = args[f"embed_{kind}"]
        named = {"1": first, "2": second, "3": args[kind], "4": args[f"{kind}4"]}
        split |= {f"{kind}{i}": list(t) for i, t in named.items()}
    return split


def _peer(norm: list[Tensor], residual: Tensor, **args: Any) -> Tensor:
    return ended(peers.ctr_unit(**args), norm, residual)


def _flops(B: int, C: int, T: int) -> dict[str, float]:
    R = C // 8
    frames = T * V * K * C * (C + V)
    return {FORWARD: 2 * B * (frames + K * R * (C * V * V + 2 * C * V))}


CASES = [
    unit_case("unit", C, T, _draw, skelops.ctr_graph_unit, _peer, _flops, _split) for C, T in SIZES
]
