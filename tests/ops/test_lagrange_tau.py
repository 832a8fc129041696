"""lagrange_tau: the mechanics of its learned matrices."""

import re

import pytest
import torch

from skelops import lagrange_tau
from skelops.ops.lagrange_tau import mass_factor


def inputs(N=2, T=5, d=6, dtype=torch.float64):
    lower = torch.randn(N, T, d * (d + 1) // 2, dtype=dtype)
    skew = torch.randn(N, T, d * (d - 1) // 2, dtype=dtype)
    qd, qdd = torch.randn(2, N, T, d, dtype=dtype)
    return lower, skew, qd, qdd


def test_constant_mass_has_no_coriolis_force():
    lower, skew, qd, qdd = inputs()
    lower = lower[:, :1].expand_as(lower)
    tau, _ = lagrange_tau(lower, torch.zeros_like(skew), qd, qdd)
    L = mass_factor(lower, 6)
    expected = (L @ L.mT @ qdd[..., None]).squeeze(-1)
    torch.testing.assert_close(tau[:, 1:], expected[:, 1:])


def test_power_is_the_change_of_kinetic_energy():
    """qd . C qd = qd . dM qd / 2: the skew part does no work."""
    lower, skew, qd, qdd = inputs()
    tau, _ = lagrange_tau(lower, skew, qd, torch.zeros_like(qdd))
    plain, _ = lagrange_tau(lower, torch.zeros_like(skew), qd, torch.zeros_like(qdd))
    torch.testing.assert_close((qd * tau).sum(-1), (qd * plain).sum(-1))


def test_kinetic_energy():
    lower, skew, qd, qdd = inputs()
    _, kinetic = lagrange_tau(lower, skew, qd, qdd)
    L = mass_factor(lower, 6)
    torch.testing.assert_close(kinetic, (qd[..., None, :] @ L).square().sum((-1, -2)) / 2)
    assert (kinetic > 0).all()


def test_large_diagonals_do_not_overflow():
    lower, skew, qd, qdd = inputs(dtype=torch.float32)
    lower = (lower * 0 + 100).requires_grad_()
    tau, kinetic = lagrange_tau(lower, skew, qd, qdd)
    (gradient,) = torch.autograd.grad(tau.sum() + kinetic.sum(), lower)
    assert tau.isfinite().all() and gradient.isfinite().all()


def test_clips_do_not_mix():
    tensors = inputs(N=3)
    tau, _ = lagrange_tau(*tensors)
    alone = [lagrange_tau(*(t[i : i + 1] for t in tensors))[0] for i in range(3)]
    torch.testing.assert_close(tau, torch.cat(alone))


BAD = [
    (dict(qd=torch.zeros(5, 6)), "qd of shape (N, T, d), got (5, 6)"),
    (dict(qdd=torch.zeros(2, 5, 7)), "qdd of shape (N, T, d) with N=2, T=5, d=6, got (2, 5, 7)"),
    (dict(lower=torch.zeros(2, 5, 20)), "lower of shape (N, T, d(d+1)/2) with N=2, T=5, d(d+1)/2"),
    (dict(skew=torch.zeros(2, 5, 20)), "skew of shape (N, T, d(d-1)/2) with N=2, T=5, d(d-1)/2"),
]


@pytest.mark.parametrize("change, message", BAD)
def test_bad_input(change, message):
    names = ("lower", "skew", "qd", "qdd")
    arguments = dict(zip(names, inputs(dtype=torch.float32), strict=True)) | change
    with pytest.raises(ValueError, match="^" + re.escape(f"lagrange_tau: expected {message}")):
        lagrange_tau(**arguments)
