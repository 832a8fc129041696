"""Point masses on rigid bones, against the dense system of constraints in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

# Parents that lead to joint 0: the Kinect's 25 joints, and COCO's 17.
SKELETONS = {
    25: (0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 22, 7, 24, 11),
    17: (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 0, 0, 11, 12, 13, 14),
}


def _draw(draw: Draw, B: int, V: int, D: int) -> Arguments:
    with torch.no_grad():
        mass = 0.5 + draw.normal(V).abs()
    named = {name: draw.normal(B, V, D) for name in ("x", "v", "force")}
    return {**named, "mass": mass.requires_grad_()}


def _ours(x: Tensor, v: Tensor, force: Tensor, mass: Tensor) -> Tensor:
    return skelops.point_dynamics(x, v, force, mass, SKELETONS[x.shape[1]])[0]


def _peer(x: Tensor, v: Tensor, force: Tensor, mass: Tensor) -> Tensor:
    """J M^-1 J^T lam = -gamma - J M^-1 f, a = M^-1 (f + J^T lam)."""
    B, V, D = x.shape
    parents = torch.tensor(SKELETONS[V][1:], device=x.device)
    joints = torch.arange(1, V, device=x.device)
    e = x[:, 1:] - x[:, parents]
    rows = torch.arange(V - 1, device=x.device)
    J = x.new_zeros(B, V - 1, V, D)
    J[:, rows, joints] = e
    J[:, rows, parents] = -e
    gamma = (v[:, 1:] - v[:, parents]).square().sum(-1)
    J = J.flatten(2)
    inverse = (1 / mass).repeat_interleave(D)
    f = force.flatten(1)
    right = -gamma - (J @ (inverse * f)[..., None]).squeeze(-1)
    lam = torch.linalg.solve(J * inverse @ J.mT, right)
    return (inverse * (f + (J.mT @ lam[..., None]).squeeze(-1))).view(B, V, D)


def _flops(B: int, V: int, D: int) -> dict[str, float]:
    return {FORWARD: 160 * B * V, TRAINING: 400 * B * V}


@dataclass(frozen=True)
class PointCase(Case):
    def small(self) -> PointCase:
        return self.resized(B=3)


CASES = [
    PointCase(
        name, {"B": 8192, "V": V, "D": D}, _draw, _ours, _peer, _flops,
        targets={FORWARD: {"eager": 40}, TRAINING: {"eager": 200}} if V == 25 else {},
        activations=("x", "v", "force"), slack=10.0, headline=headline,
        gpu={"B": 65536}, quick={"B": 512},
    )
    for name, V, D, headline in (
        ("25 joints in space", 25, 3, "point masses on 25 joints"),
        ("17 joints in the plane", 17, 2, ""),
    )
]  # fmt: skip
