"""The layers of a transformer block against PyTorch's."""

from __future__ import annotations

import torch.nn.functional as F

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(draw: Draw, B: int, C: int, D: int) -> Arguments:
    """B sequences of 750 tokens."""
    return {
        "x": draw.normal(B * 750, C),
        "weight": draw.weight(D, C, fan=C),
        "bias": draw.normal(D, scale=0.1),
    }


def _flops(B: int, C: int, D: int) -> dict[str, float]:
    product = 2 * B * 750 * C * D
    return {FORWARD: product, TRAINING: 3 * product}


CASES = [
    Case(
        f"{C} to {D} channels", {"B": 8, "C": C, "D": D}, _draw, skelops.linear, F.linear, _flops,
        targets={TRAINING: {"eager": 1}}, gpu={"B": 64}, quick={"B": 2},
        headline="linear layer, 256 to 768 channels" if D == 768 else "",
    )
    for C, D in ((256, 768), (256, 256))
]  # fmt: skip
