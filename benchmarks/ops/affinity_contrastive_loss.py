"""Both losses of ACLNet at 120 classes, against their published form: a loop over the clips that
reads every label back, and all rows of the memory where only those of the batch are kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

CLASSES, WIDTH, TOP = 120, 256, 10
TEMPERATURES = (0.1, 0.5, 1.0)


def _label(draw: Draw, count: int) -> Tensor:
    return torch.randint(CLASSES, (count,), generator=draw.generator).to(draw.device)


def _draw_inter(draw: Draw, B: int) -> Arguments:
    order = torch.rand(CLASSES, CLASSES, generator=draw.generator).argsort(1)
    size = torch.randint(TOP, 3 * TOP, (CLASSES, 1), generator=draw.generator)
    return {
        "feature": draw.normal(B, WIDTH),
        "mean": draw.normal(CLASSES, WIDTH),
        "label": _label(draw, B),
        "superclass": (order < size).to(draw.device),
    }


def _inter(feature: Tensor, mean: Tensor, label: Tensor, superclass: Tensor) -> Tensor:
    size = superclass.sum(1)
    step = (size > TOP).long() + (size > 2 * TOP)
    return skelops.affinity_contrastive_loss(
        F.normalize(feature.float(), dim=1),
        F.normalize(mean.float(), dim=1),
        label,
        torch.arange(CLASSES, device=label.device),
        superclass,
        torch.tensor(TEMPERATURES, device=label.device)[step][label],
    ).mean()


def _published_inter(feature: Tensor, mean: Tensor, label: Tensor, superclass: Tensor) -> Tensor:
    feature, mean = (
        F.normalize(t.to(torch.promote_types(t.dtype, torch.float32)), dim=1)
        for t in (feature, mean)
    )
    total = feature.new_zeros(())
    for i in range(len(label)):
        y = label[i].item()
        members = superclass[y].nonzero()[:, 0].tolist()
        tau = TEMPERATURES[(len(members) > TOP) + (len(members) > 2 * TOP)]
        rows = torch.stack([mean[y], *(mean[b] for b in members)])
        logits = (rows @ feature[i]) / tau
        target = torch.zeros(1, dtype=torch.int64, device=label.device)
        total = total + F.cross_entropy(logits[None], target)
    return total / len(label)


def _inter_flops(B: int) -> dict[str, float]:
    forward = 2 * B * CLASSES * WIDTH
    return {FORWARD: forward, TRAINING: 3 * forward}


def _draw_intra(draw: Draw, B: int, memory: int) -> Arguments:
    return {
        "feature": draw.normal(B, WIDTH),
        "label": _label(draw, B),
        "older": F.normalize(draw.normal(memory - B, WIDTH), dim=1).detach(),
        "older_label": _label(draw, memory - B),
    }


def _intra(feature: Tensor, label: Tensor, older: Tensor, older_label: Tensor) -> Tensor:
    feature = F.normalize(feature.float(), dim=1)
    return skelops.affinity_contrastive_loss(
        feature,
        torch.cat([older.float(), feature]),
        label,
        torch.cat([older_label, label]),
        margin=0.1,
        eps=1e-6,
        own=True,
    ).mean()


def _published_intra(feature: Tensor, label: Tensor, older: Tensor, older_label: Tensor) -> Tensor:
    dtype = torch.promote_types(feature.dtype, torch.float32)
    f = torch.cat([older.to(dtype), F.normalize(feature.to(dtype), dim=1)])
    y = torch.cat([older_label, label])
    s = f @ f.T / 0.1
    s = s - s.max(1, keepdim=True).values.detach()
    same = (y[:, None] == y).to(dtype)
    other = 1 - torch.eye(len(y), dtype=dtype, device=y.device)
    positive = same * other
    negatives = (s.exp() * (1 - same)).sum(1, keepdim=True)
    log_share = s - (torch.exp(s - 0.1) + negatives + 1e-6).log()
    loss = -(positive * log_share).sum(1) / positive.sum(1).clamp(min=1)
    return loss[-len(label) :].mean()


def _intra_flops(B: int, memory: int) -> dict[str, float]:
    forward = 2 * B * memory * WIDTH
    return {FORWARD: forward, TRAINING: 3 * forward}


CASES = [
    Case(
        "inter-class, 120 classes", {"B": 64}, _draw_inter, _inter, _published_inter, _inter_flops,
        targets={TRAINING: {"eager": 10}}, activations=("feature", "label"),
        headline="ACLNet's inter-class loss, 120 classes", gpu={}, quick={"B": 8},
    ),
    Case(
        "intra-class, memory of 1024", {"B": 64, "memory": 1024}, _draw_intra, _intra,
        _published_intra, _intra_flops, targets={TRAINING: {"eager": 10}},
        activations=("feature", "label", "older", "older_label"), gpu={},
        quick={"B": 8, "memory": 64},
    ),
]  # fmt: skip
