"""InfoNCE against a queue, against the logits and the cross-entropy of the published code."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

TAU = 0.07
# (branches, mined), batch, queue
SIZES = ((1, 0, 256, 32768), (1, 0, 64, 16384), (3, 1, 128, 32768))


def _draw(draw: Draw, R: int, B: int, K: int, D: int, mine: int) -> Arguments:
    queue = F.normalize(draw.normal(K, D).detach(), dim=1)
    return {
        "q": draw.normal(R, B, D),
        "key": draw.normal(B, D).detach(),
        "queue": queue,
        "mine": mine,
    }


def _ours(q: Tensor, key: Tensor, queue: Tensor, mine: int) -> Tensor:
    targets = [None, *range(len(q) - 1)]
    return skelops.info_nce(q, key, queue, temperature=TAU, targets=targets, mine=mine).mean(1)


def _peer(q: Tensor, key: Tensor, queue: Tensor, mine: int) -> Tensor:
    """Logits of every view; the targets of the first are its key and what was mined."""
    views = [F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1) for x in q]
    key, queue = F.normalize(key.to(views[0].dtype), dim=1), queue.to(views[0].dtype).T
    logits = [
        torch.cat([torch.einsum("nd,nd->n", x, key)[:, None], x @ queue], 1) / TAU for x in views
    ]
    if mine:
        positive = torch.zeros_like(logits[0])
        positive[:, 0] = 1
        for z in logits:
            positive.scatter_(1, z[:, 1:].topk(mine, 1).indices + 1, 1)
        hard = -(positive * logits[0].log_softmax(1)).sum(1) / positive.sum(1)
    else:
        hard = F.cross_entropy(
            logits[0], torch.zeros(len(key), dtype=torch.long, device=key.device), reduction="none"
        )
    losses = [hard.mean()]
    for target, z in pairwise(logits):
        p = target.detach().softmax(1)
        losses.append(-(p * z.log_softmax(1)).sum(1).mean())
    return torch.stack(losses)


def _flops(R: int, B: int, K: int, D: int, mine: int) -> dict[str, float]:
    # The log-sum-exp takes one product, its gradient another one; the exponential counts as one.
    return {FORWARD: R * B * K * (2 * D + 3), TRAINING: R * B * K * (4 * D + 5)}


CASES = [
    Case(
        f"N={B} K={K}" + f" {R} views, mined" * (R > 1),
        {"R": R, "B": B, "K": K, "D": 128, "mine": mine}, _draw, _ours, _peer, _flops,
        targets={TRAINING: {"eager": 2.5 if R > 1 else 2, "compile": 1}},
        activations=("q", "key", "queue"),
        headline="InfoNCE against a queue, N=256, K=32768" if B == 256 else "",
        gpu={"B": 4096, "K": 65536} if R == 1 else {"B": 1024},
    )
    for R, mine, B, K in SIZES
]  # fmt: skip
