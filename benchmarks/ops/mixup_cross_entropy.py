"""Weighted, smoothed cross-entropy of label pairs, against two calls of torch's and their mean."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

SMOOTHING = 0.1
SIZES = ((16, 60), (64, 120), (256, 120), (1024, 400), (4096, 400))


def _draw(draw: Draw, B: int, C: int) -> Arguments:
    def label() -> Tensor:
        return torch.randint(C, (B,), generator=draw.generator).to(draw.device)

    weight = 0.5 + torch.rand(C, generator=draw.generator)
    return {
        "logits": draw.normal(B, C, scale=2.0),
        "label": label(),
        "label_b": label(),
        "mix": torch.tensor(0.64, device=draw.device),
        "weight": weight.to(draw.device),
    }


def _ours(logits: Tensor, label: Tensor, label_b: Tensor, mix: Tensor, weight: Tensor) -> Tensor:
    return skelops.mixup_cross_entropy(
        logits, label, label_b, mix, weight=weight, label_smoothing=SMOOTHING
    )


def _peer(logits: Tensor, label: Tensor, label_b: Tensor, mix: Tensor, weight: Tensor) -> Tensor:
    def of(y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(
            z, y, weight.to(z.dtype), label_smoothing=SMOOTHING
        )

    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return mix * of(label) + (1 - mix) * of(label_b)


def _flops(B: int, C: int) -> dict[str, float]:
    return {FORWARD: 6 * B * C, TRAINING: 11 * B * C}


CASES = [
    Case(
        f"N={B} K={C}", {"B": B, "C": C}, _draw, _ours, _peer, _flops,
        targets={direction: {"eager": 2, "compile": 1} for direction in (FORWARD, TRAINING)},
        activations=("logits", "label", "label_b"),
        headline="cross-entropy of label pairs, N=256, K=120" if B == 256 else "",
        gpu={}, quick={},
    )
    for B, C in SIZES
]  # fmt: skip
