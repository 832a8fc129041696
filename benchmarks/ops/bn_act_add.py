"""Tail of a block: normalisation, residual and ReLU, against three calls."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

V = 25


def _draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
    data = {"x": draw.normal(B, C, T, V), "residual": draw.normal(B, C, T, V)}
    return data | draw.norm(C)


def _draw_down(draw: Draw, B: int, C: int, T: int) -> Arguments:
    return _draw(draw, B, C, T) | draw.norm(C, "res_")


def _ours(**args: Tensor) -> Tensor:
    return skelops.bn_act_add(**args, training=True)


def _peer(x: Tensor, residual: Tensor, **norm: Tensor) -> Tensor:
    own = {name: t for name, t in norm.items() if not name.startswith("res_")}
    other = {name.removeprefix("res_"): t for name, t in norm.items() if name not in own}
    y = peers.batch_norm(x, **own)
    y = y + (peers.batch_norm(residual, **other) if other else residual)
    return y.relu()


def _flops(B: int, C: int, T: int) -> dict[str, float]:
    forward = 6 * B * C * T * V
    return {FORWARD: forward, TRAINING: 3 * forward}


CASES = [
    Case(
        f"{name} C={C} T={T}", {"B": 32, "C": C, "T": T}, draw, _ours, _peer, _flops,
        targets={TRAINING: {"eager": 1}}, activations=("x", "residual"), slack=30,
        headline="normalisation, residual, ReLU" if (name, C) == ("identity residual", 64) else "",
    )
    for name, draw in (("identity residual", _draw), ("normalised residual", _draw_down))
    for C, T in ((64, 64), (256, 16))
]  # fmt: skip
