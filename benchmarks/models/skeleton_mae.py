"""The GIN layer of SkeletonMAE, one PyTorch call after the other, against the one on fused ops."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmarks.case import TRAINING
from benchmarks.network import LayerCase, V
from skelops.graph import get_layout
from skelops.nn import GINConv

LAYOUT = get_layout("ntu25")
A = (LAYOUT.adjacency("binary") - LAYOUT.adjacency("identity"))[0]


class EagerGIN(nn.Module):
    """(B, C, T, V) of features, gathered over the neighbours of every joint."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        C = sizes["C"]
        self.register_buffer("A", A, persistent=False)
        self.register_buffer("eps", torch.zeros(1))
        self.linear1, self.linear2 = nn.Linear(C, C), nn.Linear(C, C)
        self.norm1, self.norm2 = nn.BatchNorm1d(C), nn.BatchNorm1d(C)
        self.act1, self.act2 = nn.PReLU(), nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        B, C, T, _ = x.shape
        h = x.permute(0, 2, 3, 1)
        h = ((1 + self.eps) * h + self.A @ h).reshape(-1, C)
        h = self.act1(self.norm1(self.linear1(h)))
        h = self.act2(self.norm2(self.linear2(h)))
        return h.view(B, T, V, C).permute(0, 3, 1, 2)


def _multiplications(sizes: Mapping[str, int]) -> float:
    B, C, T = (sizes[name] for name in "BCT")
    neighbours = int((A != 0).sum()) + V
    return float(B * T * (2 * V * C * C + neighbours * C))


CASES = [
    LayerCase(
        "GIN layer C=64 T=64", TRAINING, {"B": 16, "C": 64, "T": 64},
        published=EagerGIN, ours=lambda sizes: GINConv(sizes["C"], sizes["C"], sizes["C"], A),
        multiplications=_multiplications, targets={TRAINING: {"eager": 1.5}},
        headline="SkeletonMAE, GIN layer, C=64", gpu={"B": 128},
    ),
]  # fmt: skip
