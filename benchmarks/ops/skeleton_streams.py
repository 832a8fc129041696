"""Streams of clips at hand: the four of PSUMNet, and what a user would write for them."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

V, M = 25, 2
# The joints of a part and their parents, within all joints, as published.
PARTS = {
    "body": (list(range(V)), list(peers.NTU25_PARENTS)),
    "hand": (
        [20, 4, 5, 6, 7, 21, 22, 8, 9, 10, 11, 23, 24],
        [20, 20, 4, 5, 6, 7, 7, 20, 8, 9, 10, 11, 11],
    ),
    "leg": ([0, *range(12, 20)], [0, 0, 12, 13, 0, 15, 16, 17, 19]),
}


def _draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
    return {"x": draw.normal(B, C, T, V, M)}


def _ours(part: str):
    joints, parents = PARTS[part]
    rows, kinds = [[-1] * len(joints), parents] * 2, [0, 0, 1, 1]
    return lambda x: skelops.skeleton_streams(x, rows, kinds, part=joints)


def plain_streams(part: str):
    """The feeder of PSUMNet for a batch, its loop over bones as one subtraction."""
    joints, parents = PARTS[part]

    def streams(x: Tensor) -> Tensor:
        joint, bone = x[:, :, :, joints], x[:, :, :, joints] - x[:, :, :, parents]
        last = torch.zeros_like(joint[:, :, :1])
        moves = (torch.cat([y[:, :, 1:] - y[:, :, :-1], last], dim=2) for y in (joint, bone))
        return torch.cat([joint, bone, *moves], dim=1)

    return streams


def _flops(part: str):
    def flops(B: int, C: int, T: int) -> dict[str, float]:
        forward = 3 * B * C * T * len(PARTS[part][0]) * M
        return {FORWARD: forward, TRAINING: 3 * forward}

    return flops


CASES = [
    Case(
        f"PSUMNet, {part}", {"B": 64, "C": 3, "T": 64}, _draw, _ours(part), plain_streams(part),
        _flops(part), targets={FORWARD: {"eager": 2}, TRAINING: {"eager": 2}},
        headline="joints, bones and their motion" if part == "body" else "",
    )
    for part in ("body", "hand")
]  # fmt: skip
