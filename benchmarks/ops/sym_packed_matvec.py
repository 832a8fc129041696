"""Packed symmetric matrices times vectors, against mirroring in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(draw: Draw, B: int, n: int) -> Arguments:
    return {"packed": draw.normal(B, n * (n + 1) // 2), "x": draw.normal(B, n)}


def _peer(packed: Tensor, x: Tensor) -> Tensor:
    """Both triangles filled, as PhysMoP does."""
    n = x.shape[1]
    rows, columns = torch.tril_indices(n, n, device=x.device)
    S = torch.zeros(len(x), n, n, device=x.device, dtype=x.dtype)
    S[:, rows, columns] = packed
    S[:, columns, rows] = packed
    return (S @ x[..., None]).squeeze(-1)


def _flops(B: int, n: int) -> dict[str, float]:
    return {FORWARD: 2 * B * n * n, TRAINING: 6 * B * n * n}


@dataclass(frozen=True)
class PackedCase(Case):
    def small(self) -> PackedCase:
        return self.resized(B=3)


CASES = [
    PackedCase(
        f"n={n}", {"B": 8192, "n": n}, _draw, skelops.sym_packed_matvec, _peer, _flops,
        targets={FORWARD: {"eager": 2}, TRAINING: {"eager": 2}}, activations=("packed", "x"),
        gpu={"B": 65536}, quick={"B": 512},
    )
    for n in (34, 63)
]  # fmt: skip
