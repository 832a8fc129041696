"""Static graph convolution: learnable dense graphs, the sparse skeleton, and the 1x1 in front."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

K, V = 3, 25
SIZES = ((64, 64), (128, 32), (256, 16))


def _draw_dense(draw: Draw, B: int, C: int, T: int) -> Arguments:
    return {"x": draw.normal(B, K * C, T, V), "A": draw.normal(K, V, V, scale=0.2)}


def _dense(x: Tensor, A: Tensor) -> Tensor:
    return skelops.graph_conv(x, A, transposed=True)


def _flops_dense(B: int, C: int, T: int) -> dict[str, float]:
    aggregate = 2 * B * K * C * T * V * V
    return {FORWARD: aggregate, TRAINING: 3 * aggregate}


def _draw_skeleton(draw: Draw, B: int, C: int, T: int) -> Arguments:
    return {
        "x": draw.normal(B, K * C, T, V),
        "A": draw.constant(peers.skeleton_graph()),
        "importance": draw.normal(K, V, V, scale=0.1, shift=1.0),
    }


def _skeleton(x: Tensor, A: Tensor, importance: Tensor) -> Tensor:
    return skelops.graph_conv(x, A * importance, transposed=True)


def _skeleton_peer(x: Tensor, A: Tensor, importance: Tensor) -> Tensor:
    return peers.aggregate(x, A * importance)


def _flops_skeleton(B: int, C: int, T: int) -> dict[str, float]:
    aggregate = 2 * B * C * T * int(peers.skeleton_graph().count_nonzero())
    return {FORWARD: aggregate, TRAINING: 3 * aggregate}


def _draw_unit(draw: Draw, B: int, C: int, T: int) -> Arguments:
    return {
        "x": draw.normal(B, C, T, V),
        "A": draw.normal(K, V, V, scale=0.2),
        "weight": draw.weight(K, C, C, fan=C),
        "bias": draw.weight(K, C, fan=C),
    }


def _unit(x: Tensor, A: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return skelops.graph_conv(x, A, weight, bias, transposed=True)


def _unit_peer(x: Tensor, A: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return peers.aggregate(peers.pointwise(x, weight, bias), A)


def _flat(args: Arguments) -> Arguments:
    return args | {name: args[name].flatten(0, 1) for name in ("weight", "bias")}


def _flops_unit(B: int, C: int, T: int) -> dict[str, float]:
    forward = _flops_dense(B, C, T)[FORWARD] + 2 * B * K * C * C * T * V
    return {FORWARD: forward, TRAINING: 3 * forward}


BOTH = {TRAINING: {"eager": 2, "compile": 2}}

CASES = [
    *(
        Case(
            f"dense C={C} T={T}", {"B": 32, "C": C, "T": T},
            _draw_dense, _dense, peers.aggregate, _flops_dense, targets=BOTH,
            headline=f"graph convolution, dense, C={C}, T={T}" if C == 64 else "",
        )
        for C, T in SIZES
    ),
    *(
        Case(
            f"skeleton C={C} T={T}", {"B": 32, "C": C, "T": T},
            _draw_skeleton, _skeleton, _skeleton_peer, _flops_skeleton, targets=BOTH,
            headline=f"graph convolution, skeleton, C={C}, T={T}" if C == 64 else "",
        )
        for C, T in SIZES
    ),
    *(
        Case(
            f"unit C={C} T={T}", {"B": 32, "C": C, "T": T},
            _draw_unit, _unit, _unit_peer, _flops_unit, _flat,
        )
        for C, T in SIZES
    ),
]  # fmt: skip
