"""Masking of single joints of single frames, against a sort and a scatter for all clips at once.

Published code loops over the clips; the peer here does not.
"""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw
from benchmarks.masked import C, TokenCase, V, noise

T, RATIO = 64, 0.3


def _draw(draw: Draw, B: int) -> Arguments:
    return {"x": draw.normal(B, T, V, C), "noise": noise(draw, B, T * V)}


def _ours(x: Tensor, noise: Tensor) -> Tensor:
    return skelops.slot_mask(x, noise, mask_ratio=RATIO)[0]


def _peer(x: Tensor, noise: Tensor) -> Tensor:
    chosen = noise.argsort(1)[:, : int(RATIO * noise.shape[1])]
    kept = noise.new_ones(noise.shape).scatter(1, chosen, 0)
    return x * kept.view(*x.shape[:3], 1)


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: B * T * V * C, TRAINING: 2 * B * T * V * C}


CASES = [
    TokenCase(
        "NTU, T=64", {"B": 128}, _draw, _ours, _peer, _flops,
        targets={TRAINING: {"eager": 4}},
    ),
]  # fmt: skip
