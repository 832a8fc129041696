"""Masking of body parts of SkeletonMAE, against torch.where."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw
from benchmarks.masked import TokenCase

T, V, WIDTH = 64, 17, 64


def _draw(draw: Draw, B: int) -> Arguments:
    mask = torch.ones(V, dtype=torch.bool, device=draw.device)
    mask[[8, 10, 14, 16]] = False
    return {"x": draw.normal(B, T, V, WIDTH), "token": draw.normal(WIDTH), "mask": mask}


def _peer(x: Tensor, token: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None], x, token)


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: B * T * V * WIDTH, TRAINING: 2 * B * T * V * WIDTH}


CASES = [
    TokenCase(
        "COCO, T=64, C=64", {"B": 128}, _draw, skelops.part_mask, _peer, _flops,
        targets={TRAINING: {"eager": 1.5}},
    ),
]  # fmt: skip
