"""A2J's post-processing and both terms of its loss, against the published loop over samples."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(draw: Draw, B: int, A: int, V: int) -> Arguments:
    anchors = draw.normal(A, 2, scale=80, shift=144).detach()
    return {
        "logits": draw.normal(B, A, V, scale=2),
        "offset": draw.normal(B, A, V, 2, scale=10),
        "extra": draw.normal(B, A, V),
        "anchors": anchors,
    }


def _ours(logits: Tensor, offset: Tensor, extra: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    return skelops.anchor_regression(logits, offset, anchors, extra)


def _peer(logits: Tensor, offset: Tensor, extra: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    joints, means = [], []
    for j in range(logits.shape[0]):
        l, o, e = logits[j], offset[j], extra[j]
        weight = l.softmax(0)
        twice = weight[:, :, None].expand(-1, -1, 2)
        place = anchors[:, None].expand_as(o)
        joint = (twice * (place + o)).sum(0)
        joints.append(torch.cat([joint, (weight * e).sum(0)[:, None]], 1))
        means.append((twice * place).sum(0))
    return torch.stack(joints), torch.stack(means)


def _flops(B: int, A: int, V: int) -> dict[str, float]:
    return {FORWARD: 20 * B * A * V, TRAINING: 50 * B * A * V}


CASES = [
    Case(
        "ITOP, 5184 anchors", {"B": 16, "A": 5184, "V": 15}, _draw, _ours, _peer, _flops,
        targets={FORWARD: {"eager": 10}, TRAINING: {"eager": 20}},
        activations=("logits", "offset", "extra"),
        headline="anchor-to-joint regression", gpu={"B": 64}, quick={"B": 4},
    ),
]  # fmt: skip
