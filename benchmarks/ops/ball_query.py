"""Ball query against the masked sort of PyTorch implementations of PointNet++."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD
from benchmarks.clouds import CloudCase

RADIUS, SLOTS = 0.4, 32


def _ours(query: Tensor, points: Tensor) -> dict[str, Tensor]:
    return {"found": skelops.ball_query(query, points, RADIUS, SLOTS)[0]}


def _peer(query: Tensor, points: Tensor) -> dict[str, Tensor]:
    (N, Q, _), L = query.shape, points.shape[1]
    index = torch.arange(L, device=points.device).repeat(N, Q, 1)
    distance = (query[:, :, None] - points[:, None]).square().sum(-1)
    index[distance >= RADIUS**2] = L
    index = index.sort(dim=-1)[0][:, :, :SLOTS]
    first = index[:, :, :1].expand(-1, -1, SLOTS)
    return {"found": torch.where(index == L, first, index)}


CASES = [
    CloudCase(
        "32 of 4096 points", {"N": 8, "L": 4096, "Q": 1024}, {FORWARD: {"eager": 10}},
        headline="ball query, 32 of 4096 points (forward)", gpu={"N": 64}, quick={"N": 2},
        peers=("eager", "compile"), ours=_ours, peer=_peer,
    ),
]  # fmt: skip
