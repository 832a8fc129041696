"""Multi-scale units over frames at inference, against branches and concatenation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, Arguments, Draw
from benchmarks.units import SIZES, ending, fixed, norm, normalised, unit_case

V = 25


def _draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
    w = C // 4
    return {
        "x": fixed(draw, B, C, T, V),
        "weight": fixed(draw, C, C, fan=C), "bias": fixed(draw, C, fan=C),
        "conv_weights": [fixed(draw, w, w, 5, fan=5 * w) for _ in range(2)],
        "conv_biases": [fixed(draw, w, fan=5 * w) for _ in range(2)],
        "inner_norm": norm(draw, 3 * w), **ending(draw, B, C, T, V),
    }  # fmt: skip


def _ours(**args: Any) -> Tensor:
    widths = [args["x"].shape[1] // 4] * 3
    return skelops.ms_temporal_unit(**args, widths=widths, dilations=[1, 2], kernel_size=5)


def _split(args: Arguments) -> Arguments:
    """A convolution and a normalisation per branch."""
    parts: Arguments = {name: list(args[name].chunk(4)) for name in ("weight", "bias")}
    for name, count in (("inner_norm", 3), ("norm", 4)):
        parts[name] = list(zip(*(t.chunk(count) for t in args[name]), strict=True))
    return args | parts


def _peer(x: Tensor, residual: Tensor, **args: Any) -> Tensor:
    h = [peers.pointwise(x, w, b) for w, b in zip(args["weight"], args["bias"], strict=True)]
    a = [F.relu(normalised(h[i], args["inner_norm"][i])) for i in range(3)]
    branches = [
        peers.temporal(a[i], args["conv_weights"][i], args["conv_biases"][i], i + 1)
        for i in range(2)
    ]
    branches += [F.max_pool2d(a[2], (3, 1), (1, 1), (1, 0)), h[3]]
    y = [normalised(b, args["norm"][i]) for i, b in enumerate(branches)]
    return F.relu(torch.cat(y, 1) + residual)


def _flops(B: int, C: int, T: int) -> dict[str, float]:
    return {FORWARD: 2 * B * T * V * (C * C + 10 * (C // 4) ** 2)}


CASES = [unit_case("MS-TCN4", C, T, _draw, _ours, _peer, _flops, _split) for C, T in SIZES]
