"""Hyper-GCN and its unit as published, one PyTorch call after the other, against ``skelops``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from benchmarks.case import TRAINING
from benchmarks.network import CLASSES, INFERENCE, STEP, NetworkCase, UnitCase, V
from skelops.models import create_model
from skelops.models.hyper_gcn import PUBLISHED_KEYS
from skelops.nn import AdaptiveHypergraphConv, GraphUnit, make_stages
from skelops.testing import plain

HEADS, VIRTUAL = 8, 3
W = V + VIRTUAL
STAGES = make_stages(128, 9, inflate=(4,), down=(4, 7))  # the base size


class EagerUnit(plain.HyperUnit):
    """Without the table."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]


def _unit(sizes: Mapping[str, int]) -> nn.Module:
    C = sizes["C"]
    unit = GraphUnit(AdaptiveHypergraphConv(C, C, torch.zeros(1, V, V), VIRTUAL), C, C)
    unit.published_keys = PUBLISHED_KEYS
    return unit


def _unit_multiplications(inputs: int, outputs: int, T: int) -> int:
    """Of a sample: heads transform and gather V joints, the hyper-graph sees W vertices once."""
    embed = inputs // 4
    graph = 2 * W * inputs * embed // HEADS + W * W * embed + HEADS * V * W * W
    down = inputs * outputs if inputs != outputs else 0
    return T * V * (inputs * outputs // HEADS + outputs * V + down) + graph


def multiplications(sizes: Mapping[str, int]) -> float:
    T, inputs, total = sizes["T"], STAGES[0][0], 3 * STAGES[0][0] * sizes["T"] * V
    for outputs, stride in STAGES:
        total += _unit_multiplications(inputs, outputs, T)
        after = outputs**2 // 4 + 2 * 5 * (outputs // 4) ** 2
        after += inputs * outputs if inputs != outputs or stride > 1 else 0
        total += T * V * outputs**2 * 3 // 4 + T // stride * V * after
        T, inputs = T // stride, outputs
    return float(sizes["N"] * sizes["M"] * total)


def eager_network(sizes: Mapping[str, int]) -> nn.Module:
    return plain.HyperNet(STAGES, V, sizes["M"], 3, CLASSES)


NETWORK = {
    "published": eager_network,
    "ours": lambda sizes: create_model("hyper_gcn", num_classes=CLASSES),
    "multiplications": multiplications,
}
CASES = [
    *(
        UnitCase(
            f"unit C={C} T={T}", TRAINING, {"B": 16, "C": C, "T": T},
            published=lambda sizes: EagerUnit(sizes["C"], sizes["C"], V),
            ours=_unit,
            multiplications=lambda sizes: float(
                sizes["B"] * _unit_multiplications(sizes["C"], sizes["C"], sizes["T"])
            ),
            targets={TRAINING: {"eager": 3.5, "compile": 2.5}},
            headline=f"hyper-graph unit, C={C}, T={T}",
            gpu={"B": 128},
        )
        for C, T in ((128, 64), (256, 32), (256, 16))
    ),
    NetworkCase(
        "training step", STEP, {"N": 8, "M": 2, "T": 64}, **NETWORK,
        targets={STEP: {"eager": 2.2, "compile": 1.8, "saved": 0.5}},
        headline="Hyper-GCN, training step",
        gpu={"N": 64},
    ),
    NetworkCase(
        "inference", INFERENCE, {"N": 1, "M": 2, "T": 64}, **NETWORK,
        targets={INFERENCE: {"eager": 2, "compile": 1.5}},
        headline="Hyper-GCN, inference of one clip",
    ),
]  # fmt: skip
