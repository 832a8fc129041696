"""Scaled cosine error of SkeletonMAE's masked joints, against gather, two normalisations, power."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw
from benchmarks.masked import TokenCase

T, V, WIDTH = 64, 17, 64
PARTS = [8, 10, 14, 16]  # right arm and leg


def _draw(draw: Draw, B: int) -> Arguments:
    mask = torch.ones(V, dtype=torch.bool, device=draw.device)
    mask[PARTS] = False
    y = draw.normal(B, T, V, WIDTH).detach()
    return {"x": draw.normal(B, T, V, WIDTH), "y": y, "mask": mask}


def _peer(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    a, b = (F.normalize(t[:, :, PARTS], dim=-1) for t in (x, y))
    return (1 - (a * b).sum(-1)).pow(2).mean()


def _flops(B: int) -> dict[str, float]:
    masked = B * T * len(PARTS) * WIDTH
    return {FORWARD: 6 * masked, TRAINING: 16 * masked}


CASES = [
    TokenCase(
        "COCO, 4 of 17 joints, C=64", {"B": 128}, _draw, skelops.masked_cosine_loss, _peer,
        _flops, targets={TRAINING: {"eager": 2}}, activations=("x", "y", "mask"),
    ),
]  # fmt: skip
