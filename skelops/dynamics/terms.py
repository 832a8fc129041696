"""Terms and energies of Lagrange's equations, all from the ops on a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skelops.ops import forward_kinematics, inverse_dynamics, mass_matrix
from skelops.ops._tree import GRAVITY, Tree, gravity_vector, tables


class LagrangeTerms(NamedTuple):
    """M qdd + bias = tau, bias = C qd + gravity."""

    mass: Tensor
    bias: Tensor
    gravity: Tensor


def bias_force(
    tree: Tree, q: Tensor, qd: Tensor, gravity: Tensor | Sequence[float] | None = GRAVITY
) -> Tensor:
    """Forces (..., n) that a motion without accelerations takes: C(q, qd) qd + g(q)."""
    return inverse_dynamics(tree, q, qd, None, gravity)


def gravity_force(
    tree: Tree, q: Tensor, gravity: Tensor | Sequence[float] | None = GRAVITY
) -> Tensor:
    """Forces (..., n) that hold a pose: g(q), the gradient of the potential energy."""
    return inverse_dynamics(tree, q, None, None, gravity)


def lagrange_terms(
    tree: Tree, q: Tensor, qd: Tensor, gravity: Tensor | Sequence[float] | None = GRAVITY
) -> LagrangeTerms:
    """Mass matrix (..., n, n), bias (..., n) and gravity (..., n) of states."""
    return LagrangeTerms(
        mass_matrix(tree, q), bias_force(tree, q, qd, gravity), gravity_force(tree, q, gravity)
    )


def coriolis_matrix(tree: Tree, q: Tensor, qd: Tensor) -> Tensor:
    """C(q, qd), (..., n, n), of Christoffel's symbols: dM/dt - 2 C is skew.

    C qd is quadratic in qd, and C half its derivative: 4 C e = h(qd + e) - h(qd - e), exactly.
    """
    q, qd = torch.broadcast_tensors(q, qd)
    units = torch.eye(len(tree)).to(qd)
    ahead, behind = (
        inverse_dynamics(tree, q[..., None, :], qd[..., None, :] + way * units, gravity=None)
        for way in (1, -1)
    )
    return (ahead - behind).mT / 4


def kinetic_energy(tree: Tree, q: Tensor, qd: Tensor) -> Tensor:
    """qd . M(q) qd / 2, (...): M is not formed."""
    return (qd * inverse_dynamics(tree, q, None, qd, gravity=None)).sum(-1) / 2


def center_of_mass(tree: Tree, q: Tensor) -> Tensor:
    """(..., 3) in the world."""
    position, rotation = forward_kinematics(tree, q)
    inertia, _, _ = tables(tree, position)
    mass, moment = inertia[:, :1], inertia[:, 1:4]
    moments = mass * position + (rotation @ moment[..., None]).squeeze(-1)
    return moments.sum(-2) / mass.sum()


def potential_energy(
    tree: Tree, q: Tensor, gravity: Tensor | Sequence[float] | None = GRAVITY
) -> Tensor:
    """-m g . c, (...): zero with the centre of mass at the world's origin."""
    center = center_of_mass(tree, q)
    g = gravity_vector(gravity, center)
    if g is None:
        return center.new_zeros(center.shape[:-1])
    return -tree.inertia[:, 0].sum().to(center) * (center * g).sum(-1)
