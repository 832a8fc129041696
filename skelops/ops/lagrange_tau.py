"""Forces of learned Lagrangian dynamics: tau = M qdd + C qd, M = L L^T, C = (dM - N) / 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check
from skelops._library import define

DIAGONAL_SHIFT = 1e-5


def lagrange_tau(lower: Tensor, skew: Tensor, qd: Tensor, qdd: Tensor) -> tuple[Tensor, Tensor]:
    r"""Inertial and Coriolis forces of a mass matrix and a skew part that networks predict.

    .. math::
        M_t = L_t L_t^\top, \qquad C_t = \tfrac12 (M_t - M_{t-1} - N_t), \qquad
        \tau_t = M_t \ddot q_t + C_t \dot q_t, \qquad K_t = \tfrac12 \dot q_t^\top M_t \dot q_t

    with :math:`M_{-1} = 0`; dM - 2 C = N is skew, so that C does no work. The diagonal of L is
    softplus(.) + 1e-5. The products are taken factor by factor: of L, L L^T, dM, N, C none is
    formed, in either direction.

    Args:
        lower: (N, T, d (d + 1) / 2) entries of L row by row (``torch.tril_indices``), the diagonal
            before softplus.
        skew: (N, T, d (d - 1) / 2) entries of N above the diagonal row by row
            (``torch.triu_indices``).
        qd, qdd: (N, T, d) velocities and accelerations.

    Returns:
        forces (N, T, d) and kinetic energies (N, T), accumulated in float32 for half types.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, cuda, reference.

    Example:
        >>> tau, kinetic = lagrange_tau(net_M(q), net_C(q, qd), qd, qdd)

    Source: Ji et al., LaDy, CVPR 2026, NeuralDynamicsModule.
    """
    op = "lagrange_tau"
    lower, skew, qd, qdd = _check.autocast(lower, skew, qd, qdd)
    _check.tensors(op, lower=lower, skew=skew, qd=qd, qdd=qdd)
    _check.shape(op, "qd", qd, "N T d")
    N, T, d = qd.shape
    _check.shape(op, "qdd", qdd, "N T d", N=N, T=T, d=d)
    entries = {"N": N, "T": T, "d(d+1)/2": d * (d + 1) // 2, "d(d-1)/2": d * (d - 1) // 2}
    _check.shape(op, "lower", lower, "N T d(d+1)/2", **entries)
    _check.shape(op, "skew", skew, "N T d(d-1)/2", **entries)
    return _op(lower, skew, qd, qdd)


def mass_factor(lower: Tensor, d: int) -> Tensor:
    """L of its packed entries: (..., d (d + 1) / 2) -> (..., d, d)."""
    rows, columns = torch.tril_indices(d, d)
    L = lower.new_zeros(*lower.shape[:-1], d, d)
    L[..., rows, columns] = lower
    diagonal = L.diagonal(dim1=-2, dim2=-1)
    return L - torch.diag_embed(diagonal) + torch.diag_embed(F.softplus(diagonal) + DIAGONAL_SHIFT)


def _reference(lower: Tensor, skew: Tensor, qd: Tensor, qdd: Tensor) -> tuple[Tensor, Tensor]:
    d = qd.shape[-1]
    L = mass_factor(lower, d)
    M = L @ L.mT
    dM = torch.cat([M[:, :1], M[:, 1:] - M[:, :-1]], 1)
    rows, columns = torch.triu_indices(d, d, 1)
    U = skew.new_zeros(*skew.shape[:-1], d, d)
    U[..., rows, columns] = skew
    C = (dM - (U - U.mT)) / 2

    def times(matrix: Tensor, vector: Tensor) -> Tensor:
        return (matrix @ vector[..., None]).squeeze(-1)

    return times(M, qdd) + times(C, qd), (qd * times(M, qd)).sum(-1) / 2


def _fake(lower, skew, qd, qdd):
    return qd.new_empty(qd.shape), qd.new_empty(qd.shape[:2])


_op = define(
    "lagrange_tau",
    "(Tensor lower, Tensor skew, Tensor qd, Tensor qdd) -> (Tensor tau, Tensor kinetic)",
    _reference,
    fake=_fake,
    grads=("lower", "skew", "qd", "qdd"),
    gpu=("cuda",),
)
