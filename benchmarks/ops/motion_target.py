"""Normalised motion targets of MAMP."""

from __future__ import annotations

import skelops
from benchmarks import masked
from benchmarks.case import FORWARD, Arguments, Draw
from benchmarks.masked import PATCH, L, TokenCase


def _draw(draw: Draw, B: int) -> Arguments:
    return {"x": masked.clips(draw, B)}


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: 6 * B * L * PATCH}


CASES = [
    TokenCase(
        "MAMP", {"B": 128}, _draw, skelops.motion_target, masked.target, _flops,
        targets={FORWARD: {"eager": 5}}, directions=(FORWARD,), saving=(),
    ),
]  # fmt: skip
