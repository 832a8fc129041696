"""A layer of HaLP's encoder, two recurrent units that both run forward, against PyTorch's."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

UNITS = 2


def _draw(draw: Draw, B: int, T: int, C: int, H: int) -> Arguments:
    return {
        "x": draw.normal(B, T, C),
        "weight_ih": draw.weight(UNITS, 3 * H, C, fan=C),
        "weight_hh": draw.weight(UNITS, 3 * H, H, fan=H),
        "bias_ih": draw.normal(UNITS, 3 * H, scale=0.1),
        "bias_hh": draw.normal(UNITS, 3 * H, scale=0.1),
    }


def _stock(x: Tensor, **weights: Tensor) -> Tensor:
    """Layer by layer already, which the published network, frame by frame, is not."""
    start = x.new_zeros(1, len(x), weights["weight_hh"].shape[2])
    units = zip(*weights.values(), strict=True)
    return torch.cat(
        [torch.gru(x, start, unit, True, 1, 0.0, False, False, True)[0] for unit in units], 2
    )


def _flops(B: int, T: int, C: int, H: int) -> dict[str, float]:
    product = 2 * B * T * UNITS * 3 * H * (C + H)
    return {FORWARD: product, TRAINING: 3 * product}


CASES = [
    Case(
        f"recurrent layer, C={C} H={H}", {"B": 16, "T": 64, "C": C, "H": H}, _draw, skelops.gru,
        _stock, _flops,
        targets={TRAINING: {"eager": 1.3}}, gpu={"B": 64}, quick={"B": 2, "T": 16},
        headline="recurrent layer of HaLP, 2 x 512 units" if C == 1024 else "",
    )
    for C, H in ((150, 512), (1024, 512), (2048, 1024))
]  # fmt: skip
