"""Mass matrices of a human on the pattern of its tree, against dense Cholesky in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.bodies import body_case, human
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw


def _draw(draw: Draw, B: int) -> Arguments:
    """Diagonally dominant matrices."""
    rows, columns = (torch.tensor(i) for i in human().pattern)
    off = 0.1 * draw.normal(B, len(rows))
    with torch.no_grad():
        packed = off + 4 * (rows == columns).to(off)
    return {"packed": packed.requires_grad_(), "force": draw.normal(B, len(human()))}


def _ours(packed: Tensor, force: Tensor) -> Tensor:
    return skelops.tree_solve(human(), packed, force)


def _dense(packed: Tensor, force: Tensor) -> Tensor:
    rows, columns = (torch.tensor(i, device=packed.device) for i in human().pattern)
    n = force.shape[1]
    M = torch.zeros(len(force), n, n, device=force.device, dtype=force.dtype)
    M[:, rows, columns] = packed
    M[:, columns, rows] = packed
    return torch.cholesky_solve(force[..., None], torch.linalg.cholesky(M)).squeeze(-1)


def _operations() -> int:
    """A pair of ancestors, itself included, is updated by every body beyond both."""
    depths = torch.bincount(torch.tensor(human().pattern[0]))
    return int((depths * (depths + 1)).sum() + 4 * depths.sum())


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: B * _operations(), TRAINING: 3 * B * _operations()}


CASES = [
    body_case(
        "human", draw=_draw, ours=_ours, peer=_dense, flops=_flops, sizes={"B": 1024},
        targets={FORWARD: {"eager": 2}, TRAINING: {"eager": 2}},
        headline="mass matrix, solved, 51 dof",
    )
]  # fmt: skip
