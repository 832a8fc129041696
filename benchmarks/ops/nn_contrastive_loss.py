"""Neighbours against the predictions of all, against the logits and the cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

TAU, WIDTH, QUEUE = 0.07, 256, 32768


def _draw(draw: Draw, B: int, P: int) -> Arguments:
    pred, queue = (
        F.normalize(draw.normal(rows, WIDTH).detach(), dim=1) for rows in (max(B, P), QUEUE)
    )
    idx = torch.randint(QUEUE, (B,), generator=draw.generator).to(draw.device)
    return {"pred": pred.requires_grad_(), "queue": queue, "idx": idx}


def _ours(pred: Tensor, queue: Tensor, idx: Tensor) -> Tensor:
    return skelops.nn_contrastive_loss(pred, queue, idx, TAU)


def _peer(pred: Tensor, queue: Tensor, idx: Tensor) -> Tensor:
    logits = queue[idx] @ pred.T / TAU
    return F.cross_entropy(logits, torch.arange(len(idx), device=idx.device))


def _flops(B: int, P: int) -> dict[str, float]:
    return {FORWARD: B * P * (2 * WIDTH + 3), TRAINING: B * P * (4 * WIDTH + 5)}


CASES = [
    Case(
        f"N={B} P={P}", {"B": B, "P": P}, _draw, _ours, _peer, _flops,
        targets={TRAINING: {"eager": 1}}, activations=("pred", "queue", "idx"),
        headline="neighbours against predictions, N=128" if B == P else "",
        gpu={"B": 8 * B, "P": 8 * P},
    )
    for B, P in ((128, 128), (128, 512), (1024, 4096))
]  # fmt: skip
