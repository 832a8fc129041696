"""Decoder input of MAMP, against concatenation, a wide gather and two additions."""

from __future__ import annotations

import skelops
from benchmarks import masked
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw
from benchmarks.masked import KEPT, WIDTH, L, TokenCase


def _draw(draw: Draw, B: int) -> Arguments:
    return {
        "z": draw.normal(B, KEPT, WIDTH),
        "mask_token": draw.normal(WIDTH, scale=0.02),
        "ids": masked.order(draw, B),
        **masked.tables(draw),
    }


def _ours(z, mask_token, ids, pos, temp):
    return skelops.token_restore(z, mask_token, ids, pos, temp)


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: 2 * B * L * WIDTH, TRAINING: 5 * B * L * WIDTH}


CASES = [
    TokenCase(
        "MAMP, 74 of 750 tokens", {"B": 64}, _draw, _ours, masked.restoring, _flops,
        targets={TRAINING: {"eager": 4}}, headline="restoring masked tokens",
    ),
]  # fmt: skip
