"""Unit on a hyper-graph: convolution of eight heads, normalisation, residual, ReLU."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw
from benchmarks.ops import hypergraph_conv

V = 25


def _draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
    conv = hypergraph_conv._draw(draw, B, C, C, T, V)
    norm = draw.norm(C)
    affine = {f"norm_{name}": norm.pop(name) for name in ("weight", "bias")}
    return conv | affine | norm


def _ours(**args: Tensor) -> Tensor:
    return skelops.hypergraph_unit(**args, residual=True, training=True)


def _peer(
    x: Tensor, A: Tensor, weight: Tensor, bias: Tensor, virtual: Tensor, norm_weight: Tensor,
    norm_bias: Tensor, running_mean: Tensor, running_var: Tensor,
) -> Tensor:  # fmt: skip
    z = hypergraph_conv._peer(x, A, weight, bias, virtual)
    return (peers.batch_norm(z, norm_weight, norm_bias, running_mean, running_var) + x).relu()


def _flops(B: int, C: int, T: int) -> dict[str, float]:
    forward = hypergraph_conv._flops(B, C, C, T, V)[FORWARD] + 6 * B * C * T * V
    return {FORWARD: forward, TRAINING: 3 * forward}


CASES = [
    Case(
        f"C={C} T={T}", {"B": 16, "C": C, "T": T}, _draw, _ours, _peer, _flops,
        hypergraph_conv._all_rows, targets={TRAINING: {"eager": 2, "compile": 2}},
        zero_gradients=("bias",), slack=30,
    )
    for C, T in ((128, 64), (256, 32), (256, 16))
]  # fmt: skip
