"""Networks that predict the terms of Lagrange's equations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skelops.ops import lagrange_tau, sym_packed_matvec


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with rectifiers in between."""
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class LagrangianForces(NamedTuple):
    """tau = M qdd + C qd + gravity + friction, (N, T, d) each."""

    tau: Tensor
    gravity: Tensor
    friction: Tensor | None
    kinetic: Tensor  # (N, T) energies, qd . M qd / 2
    lower: Tensor  # (N, T, d (d + 1) / 2), see ``lagrange_tau``


class LagrangianNetwork(nn.Module):
    """Forces of a motion under learned dynamics.

    Whatever the weights, M is positive definite and C does no work beside the change of M: see
    ``lagrange_tau``, which forms none of the matrices.

    Args:
        dof: d, coordinates.
        hidden: width of the networks.
        friction: whether there is a term of position and velocity.

    Source: Ji et al., LaDy, CVPR 2026, NeuralDynamicsModule.
    """

    def __init__(self, dof: int, hidden: int = 128, friction: bool = True) -> None:
        super().__init__()
        self.mass = mlp(dof, hidden, hidden, dof * (dof + 1) // 2)
        self.coriolis = mlp(2 * dof, hidden, hidden, dof * (dof - 1) // 2)
        self.gravity = mlp(dof, hidden, hidden, dof)
        self.friction = mlp(2 * dof, hidden, hidden, dof) if friction else None

    def forward(self, q: Tensor, qd: Tensor, qdd: Tensor) -> LagrangianForces:
        """q, qd, qdd (N, T, d)."""
        state = torch.cat([q, qd], -1)
        lower, gravity = self.mass(q), self.gravity(q)
        tau, kinetic = lagrange_tau(lower, self.coriolis(state), qd, qdd)
        tau = tau + gravity
        friction = None if self.friction is None else self.friction(state)
        if friction is not None:
            tau = tau + friction
        return LagrangianForces(tau, gravity, friction, kinetic, lower)


class InverseMassNetwork(nn.Module):
    """Accelerations M^-1 (J - C) with a predicted inverse mass matrix, symmetric by construction.

    Args:
        features: width of the input.
        dof: d, coordinates.
        hidden: widths of the two hidden layers of the networks of J and C, and of M^-1.

    Source: Zhang et al., PhysMoP, WACV 2024.
    """

    def __init__(
        self,
        features: int,
        dof: int,
        hidden: Sequence[int] = (512, 256),
        mass_hidden: Sequence[int] = (512, 512),
    ) -> None:
        super().__init__()
        self.actuation = mlp(features, *hidden, dof)
        self.bias = mlp(features, *hidden, dof)
        self.inverse_mass = mlp(features, *mass_hidden, dof * (dof + 1) // 2)

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, d)."""
        force = self.actuation(features) - self.bias(features)
        return sym_packed_matvec(self.inverse_mass(features), force)


class AccelerationNetwork(nn.Module):
    r"""Accelerations of a motion under learned dynamics, without a linear solve.

    .. math:: \ddot q = M^{-1} \tau - \hat C - \hat g

    with the inverse mass matrix, symmetric by construction, and the terms of velocity and gravity
    already multiplied by it.

    Args:
        dof: d, coordinates.
        hidden: widths of the two hidden layers of the networks of the three terms.
        mass_hidden: of the network of the inverse mass matrix.

    Source: Zheng et al., FineTec, AAAI 2026, with the sizes of PhysMoP.
    """

    def __init__(
        self, dof: int, hidden: Sequence[int] = (512, 256), mass_hidden: Sequence[int] = (512, 512)
    ) -> None:
        super().__init__()
        self.minv = mlp(4 * dof, *mass_hidden, dof * (dof + 1) // 2)
        self.tau = mlp(4 * dof, *hidden, dof)
        self.coriolis = mlp(4 * dof, *hidden, dof)
        self.gravity = mlp(2 * dof, *hidden, dof)

    def forward(self, position: Tensor, velocity: Tensor) -> Tensor:
        """Global and local positions and their velocities, (..., 2 d) each -> (..., d)."""
        state = torch.cat([position, velocity], -1)
        force = sym_packed_matvec(self.minv(state), self.tau(state))
        return force - self.coriolis(state) - self.gravity(position)
