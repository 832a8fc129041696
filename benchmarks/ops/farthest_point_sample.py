"""Farthest point sampling against the loop of PyTorch implementations of PointNet++."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks.case import FORWARD
from benchmarks.clouds import CloudCase


def _first(points: Tensor, chosen: Tensor) -> dict[str, Tensor]:
    """Late choices may hinge on a rounding."""
    return {"chosen": chosen[:, :8].to(points.dtype)}


def _ours(query: Tensor, points: Tensor) -> dict[str, Tensor]:
    return _first(points, skelops.farthest_point_sample(points, query.shape[1]))


def _peer(query: Tensor, points: Tensor) -> dict[str, Tensor]:
    N, L, _ = points.shape
    distance = points.new_full((N, L), float("inf"))
    chosen = points.new_zeros(N, query.shape[1]).long()
    farthest = chosen[:, 0]
    rows = chosen.new_tensor(range(N))
    for k in range(query.shape[1]):
        chosen[:, k] = farthest
        center = points[rows, farthest][:, None]
        distance = distance.minimum((points - center).square().sum(-1))
        farthest = distance.argmax(1)
    return _first(points, chosen)


CASES = [
    CloudCase(
        "512 of 4096 points", {"N": 8, "L": 4096, "Q": 512}, {FORWARD: {"eager": 10}},
        headline="farthest points, 512 of 4096 (forward)", gpu={"N": 64}, quick={"N": 2},
        peers=("eager",), ours=_ours, peer=_peer, flops=10,
    ),
]  # fmt: skip
