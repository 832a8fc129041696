"""Multi-head hypergraph convolution: transform and aggregation of eight heads, virtual joints."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

K, Q = 8, 3


def _draw(draw: Draw, B: int, C: int, D: int, T: int, V: int) -> Arguments:
    return {
        "x": draw.normal(B, C, T, V),
        "A": draw.normal(B, K, V, V + Q, scale=0.2),
        "weight": draw.weight(D, C // K, fan=C // K),
        "bias": draw.weight(D, fan=C // K),
        "virtual": draw.normal(Q, C),
    }


def _all_rows(args: Arguments) -> Arguments:
    """The published form aggregates to virtual joints too, and drops the result."""
    return args | {"A": F.pad(args["A"], (0, 0, 0, Q))}


def _peer(x: Tensor, A: Tensor, weight: Tensor, bias: Tensor, virtual: Tensor) -> Tensor:
    return peers.aggregate_heads(peers.with_virtual(x, virtual), A, weight, bias)[..., : x.shape[3]]


def _flops(B: int, C: int, D: int, T: int, V: int) -> dict[str, float]:
    forward = 2 * B * T * V * (C * D // K + V * min(C, D))
    return {FORWARD: forward, TRAINING: 3 * forward}


def _case(C: int, D: int, T: int, V: int = 25, targets: bool = False) -> Case:
    return Case(
        f"C={C}" + (f" to {D}" if D != C else "") + f" T={T}" + (f" V={V}" if V != 25 else ""),
        {"B": 32, "C": C, "D": D, "T": T, "V": V},
        _draw,
        skelops.hypergraph_conv,
        _peer,
        _flops,
        _all_rows,
        targets={TRAINING: {"eager": 2, "compile": 2}} if targets else {},
        headline=f"hypergraph convolution, C={C}, T={T}" if (C, T) == (128, 64) and targets else "",
    )


CASES = [
    _case(128, 128, 64, targets=True),
    _case(256, 256, 32, targets=True),
    _case(256, 256, 16, targets=True),
    _case(128, 256, 64),
    _case(128, 128, 64, V=20),
]
