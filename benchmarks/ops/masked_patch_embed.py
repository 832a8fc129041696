"""Embedding of the kept tokens, against that of all tokens and a gather; and of all of them."""

from __future__ import annotations

import skelops
from benchmarks import masked
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw
from benchmarks.masked import KEPT, PATCH, SEGMENT, WIDTH, C, L, TokenCase


def _draw(draw: Draw, B: int) -> Arguments:
    return {
        "x": masked.clips(draw, B),
        "weight": draw.weight(WIDTH, C, SEGMENT, 1, fan=PATCH),
        "bias": draw.normal(WIDTH),
        **masked.tables(draw),
        "ids": masked.order(draw, B)[:, :KEPT].sort(1).values,
    }


def _flops(B: int, tokens: int = KEPT) -> dict[str, float]:
    forward = B * tokens * WIDTH * (2 * PATCH + 3)
    return {FORWARD: forward, TRAINING: 2 * forward}


def _draw_all(draw: Draw, B: int) -> Arguments:
    args = _draw(draw, B)
    del args["ids"]
    return args


def _flops_all(B: int) -> dict[str, float]:
    return _flops(B, L)


CASES = [
    TokenCase(
        "MAMP, 74 of 750 tokens", {"B": 128}, _draw, skelops.masked_patch_embed,
        masked.embedding, _flops, targets={TRAINING: {"eager": 6}},
        headline="embedding of kept tokens",
    ),
    TokenCase(
        "MAMP, all 750 tokens", {"B": 32}, _draw_all, skelops.masked_patch_embed,
        masked.embedding_of_all, _flops_all,
    ),
]  # fmt: skip
