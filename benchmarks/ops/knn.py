"""Nearest neighbours against a matrix of distances and top-k."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD
from benchmarks.clouds import CloudCase

NEIGHBOURS = 16


def _ours(query: Tensor, points: Tensor) -> dict[str, Tensor]:
    return {"distance": skelops.knn(query, points, NEIGHBOURS)[1]}


def _peer(query: Tensor, points: Tensor) -> dict[str, Tensor]:
    distance = torch.cdist(query, points, compute_mode="donot_use_mm_for_euclid_dist")
    return {"distance": distance.topk(NEIGHBOURS, largest=False).values.square()}


CASES = [
    CloudCase(
        "16 of 4096 points", {"N": 8, "L": 4096, "Q": 1024}, {FORWARD: {"eager": 10}},
        headline="nearest 16 of 4096 points (forward)", gpu={"N": 64}, quick={"N": 2},
        peers=("eager", "compile"), ours=_ours, peer=_peer,
    ),
]  # fmt: skip
