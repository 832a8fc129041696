"""What benchmarks of units at inference share: their end, by layers and as the ops take it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from benchmarks.case import FORWARD, Arguments, Case, Draw

SIZES = ((64, 64), (128, 32), (256, 16))
NORM = ("weight", "bias", "running_mean", "running_var")


def fixed(draw: Draw, *shape: int, fan: int = 1) -> Tensor:
    """A parameter or features without gradient."""
    return draw.weight(*shape, fan=fan).detach()


def norm(draw: Draw, channels: int) -> list[Tensor]:
    return [draw.norm(channels)[name].detach() for name in NORM]


def ending(draw: Draw, *shape: int) -> Arguments:
    """The end of a unit with a result of this shape."""
    return {"norm": norm(draw, shape[1]), "residual": fixed(draw, *shape)}


def normalised(x: Tensor, norm: list[Tensor]) -> Tensor:
    weight, bias, mean, var = norm
    return F.batch_norm(x, mean, var, weight, bias)


def ended(z: Tensor, norm: list[Tensor], residual: Tensor) -> Tensor:
    return F.relu(normalised(z, norm) + residual)


def unit_case(name: str, C: int, T: int, draw, ours, peer, flops, prepare=dict) -> Case:
    """Two people of a clip."""
    return Case(
        f"{name} C={C} T={T}", {"B": 2, "C": C, "T": T}, draw, ours, peer, flops, prepare,
        directions=(FORWARD,), saving=(), targets={FORWARD: {"eager": 1.5}},
    )  # fmt: skip
