"""What learned dynamics are held to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check


def energy_consistency_loss(
    kinetic: Tensor,
    tau: Tensor,
    gravity: Tensor,
    friction: Tensor | None,
    qd: Tensor,
    weight: float = 1.0,
) -> Tensor:
    r"""Work of the net forces against the change of the kinetic energy.

    .. math::
        r_t = \frac{\Delta K_t - W_t}{|\Delta K_t| + |W_t| + 0.1}, \qquad
        W_t = \tfrac12 (P_t + P_{t+1}), \qquad P = (\tau - F - G) \cdot \dot q

    and zero where :math:`|\Delta K| + |W| \le 10^{-3}`; the loss is smooth L1, averaged.

    Args:
        kinetic: (N, T) energies, as ``lagrange_tau`` returns them.
        tau, gravity, qd: (N, T, d) forces, the part of gravity, velocities.
        friction: (N, T, d), or None.
        weight: for example ``min(1, step / 2000)``, LaDy's warm-up.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not fit.

    Source: Ji et al., LaDy, CVPR 2026, EnergyConsistencyLoss.
    """
    op = "energy_consistency_loss"
    _check.shape(op, "kinetic", kinetic, "N T")
    N, T = kinetic.shape
    for name, t in (("tau", tau), ("gravity", gravity), ("friction", friction), ("qd", qd)):
        if t is not None:
            _check.shape(op, name, t, "N T d", N=N, T=T, d=qd.shape[-1])
    net = tau - gravity if friction is None else tau - friction - gravity
    power = (net * qd).sum(-1)
    work = (power[:, :-1] + power[:, 1:]) / 2
    change = kinetic.diff(dim=1)
    size = change.abs() + work.abs()
    residual = torch.where(size > 1e-3, (change - work) / (size + 0.1), 0.0)
    return weight * F.smooth_l1_loss(residual, torch.zeros_like(residual))
