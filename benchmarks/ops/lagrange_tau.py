"""Forces of learned Lagrangian dynamics, against LaDy's matrices in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(draw: Draw, B: int, T: int, d: int) -> Arguments:
    return {
        "lower": draw.normal(B, T, d * (d + 1) // 2, scale=0.3),
        "skew": draw.normal(B, T, d * (d - 1) // 2, scale=0.3),
        "qd": draw.normal(B, T, d),
        "qdd": draw.normal(B, T, d),
    }


def _ours(lower: Tensor, skew: Tensor, qd: Tensor, qdd: Tensor) -> Tensor:
    return skelops.lagrange_tau(lower, skew, qd, qdd)[0]


def _peer(lower: Tensor, skew: Tensor, qd: Tensor, qdd: Tensor) -> Tensor:
    d = qd.shape[-1]
    L = torch.zeros(*qd.shape, d, device=qd.device, dtype=qd.dtype)
    rows, columns = torch.tril_indices(d, d)
    L[..., rows, columns] = lower
    diagonal = torch.arange(d)
    L[..., diagonal, diagonal] = F.softplus(L[..., diagonal, diagonal]) + 1e-5
    M = L @ L.transpose(-1, -2)
    dM = torch.cat([M[:, :1], M[:, 1:] - M[:, :-1]], dim=1)
    N = torch.zeros(*qd.shape, d, device=qd.device, dtype=qd.dtype)
    rows, columns = torch.triu_indices(d, d, 1)
    N[..., rows, columns] = skew
    C = 0.5 * (dM - (N - N.transpose(-1, -2)))
    inertial = (M @ qdd.unsqueeze(-1)).squeeze(-1)
    return inertial + (C @ qd.unsqueeze(-1)).squeeze(-1)


def _flops(B: int, T: int, d: int) -> dict[str, float]:
    return {FORWARD: 11 * B * T * d * d, TRAINING: 30 * B * T * d * d}


@dataclass(frozen=True)
class LearnedCase(Case):
    def small(self) -> LearnedCase:
        return self.resized(B=2, T=4)


CASES = [
    LearnedCase(
        f"d={d}", {"B": 16, "T": 64, "d": d}, _draw, _ours, _peer, _flops,
        targets={FORWARD: {"eager": 10}, TRAINING: {"eager": 10}} if d == 66 else {},
        activations=("lower", "skew", "qd", "qdd"),
        headline="learned Lagrangian forces, 66 dof" if d == 66 else "",
        gpu={"B": 128}, quick={"B": 2},
    )
    for d in (24, 66)
]  # fmt: skip
