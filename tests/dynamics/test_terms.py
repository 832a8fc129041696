"""Terms, energies, differences, coordinates and the loss of energies."""

import math

import pytest
import torch

from skelops import dynamics, lagrange_tau
from skelops.dynamics import Body, Frame, Tree


@pytest.fixture
def tree():
    return Tree.from_bodies(
        [
            Body("root", None, "free", mass=2.0, com=(0.1, 0, 0), inertia=(0.2, 0.3, 0.4)),
            Body("arm", "root", "ball", (0, 0.3, 0.4), 1.0, (0, 0, -0.2), (0.02, 0.03, 0.01)),
        ]
    )


def state(tree, *batch):
    q, qd = torch.randn(2, *batch, len(tree), dtype=torch.float64)
    return q, qd


def test_terms_add_up(tree):
    q, qd = state(tree, 2, 3)
    M, bias, gravity = dynamics.lagrange_terms(tree, q, qd)
    C = dynamics.coriolis_matrix(tree, q, qd)
    torch.testing.assert_close((C @ qd[..., None]).squeeze(-1) + gravity, bias)
    energy = (qd[..., None, :] @ M @ qd[..., None]).squeeze((-1, -2)) / 2
    torch.testing.assert_close(dynamics.kinetic_energy(tree, q, qd), energy)


def test_change_of_mass_minus_twice_coriolis_is_skew(tree):
    q, qd = state(tree)
    h = 1e-6
    rate = dynamics.mass_matrix(tree, q + h * qd) - dynamics.mass_matrix(tree, q - h * qd)
    S = rate / (2 * h) - 2 * dynamics.coriolis_matrix(tree, q, qd)
    torch.testing.assert_close(S, -S.mT, rtol=1e-7, atol=1e-7)


def test_gravity_is_the_gradient_of_the_potential(tree):
    q, _ = state(tree, 4)
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(dynamics.potential_energy(tree, q).sum(), q)
    torch.testing.assert_close(gradient, dynamics.gravity_force(tree, q.detach()))
    assert not dynamics.potential_energy(tree, q, gravity=None).any()


def test_second_derivatives_of_the_kinetic_energy_are_the_mass_matrix(tree):
    q, qd = state(tree)
    hessian = torch.autograd.functional.hessian(lambda v: dynamics.kinetic_energy(tree, q, v), qd)
    torch.testing.assert_close(hessian, dynamics.mass_matrix(tree, q))


def test_differences():
    q = torch.tensor([1.0, 3.0, 6.0, 10.0])[:, None]
    flat = {
        first: dynamics.velocity(q, 0.5, first).flatten().tolist()
        for first in ("value", "zero", "repeat")
    }
    assert flat == {"value": [2, 4, 6, 8], "zero": [0, 4, 6, 8], "repeat": [4, 4, 6, 8]}
    curve = {
        first: dynamics.acceleration(q, 0.5, first).flatten().tolist()
        for first in ("value", "zero", "repeat")
    }
    assert curve == {"value": [4, 4, 4, 4], "zero": [0, 4, 4, 0], "repeat": [4, 4, 4, 4]}
    moved = dynamics.velocity(q.mT[None], 0.5, "value", dim=2)
    assert moved.flatten().tolist() == flat["value"]


@pytest.mark.parametrize("first", ["value", "zero", "repeat"])
@pytest.mark.parametrize("T", [0, 1, 2])
def test_short_clips(T, first):
    q = torch.ones(2, T, 3)
    assert dynamics.velocity(q, first=first).shape == q.shape
    assert dynamics.acceleration(q, first=first).shape == q.shape


def test_unknown_convention():
    with pytest.raises(ValueError, match=r"^velocity: expected first to be one of value, zero"):
        dynamics.velocity(torch.ones(3, 2), first="mirror")


def test_turning_a_body_turns_its_own_coordinates_only():
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    parents, frame = (0, 0, 1, 2), Frame(0, 1, 2, 3)
    a, b = torch.tensor(0.4), torch.tensor(1.1)
    turn = torch.tensor(
        [[a.cos(), -a.sin(), 0], [a.sin(), a.cos(), 0], [0, 0, 1]], dtype=torch.float64
    )
    turn = turn @ torch.tensor(
        [[1, 0, 0], [0, b.cos(), -b.sin()], [0, b.sin(), b.cos()]], dtype=torch.float64
    )
    q, moved = (dynamics.rotation_coordinates(p, parents, frame) for p in (x, x @ turn.T))
    assert q.shape == (5, 3 + 6)
    angles = [t[:, 3:].unflatten(1, (2, 3)).norm(dim=-1) for t in (q, moved)]
    torch.testing.assert_close(*angles)


def test_angles_in_the_plane():
    x = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    q = dynamics.rotation_coordinates(x, (0, 0, 1, 2), Frame(0, 1, 2, 3))
    torch.testing.assert_close(q, torch.tensor([0.0, math.pi / 2, math.pi / 2]))


@pytest.mark.parametrize("angle", [0.0, 1e-3, 1.0, 3.0, math.pi])
def test_rotation_vector(angle):
    axis = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    axis = axis / axis.norm()
    K = torch.linalg.cross(axis.expand(3, 3), torch.eye(3, dtype=torch.float64)).mT
    found = dynamics.coordinates.rotation_vector(torch.linalg.matrix_exp(angle * K))
    sign = -1 if angle == math.pi and found @ axis < 0 else 1
    torch.testing.assert_close(sign * found, angle * axis, rtol=1e-6, atol=1e-6)


def test_loss_vanishes_where_the_work_is_the_change_of_energy():
    lower, skew = torch.randn(2, 9, 10).double(), torch.zeros(2, 9, 6).double()
    qd = torch.randn(2, 9, 4).double()
    _, kinetic = lagrange_tau(lower, skew, qd, qd)
    # Forces along the velocity whose mean power is the change.
    power = torch.zeros_like(kinetic)
    for t in range(8):
        power[:, t + 1] = 2 * (kinetic[:, t + 1] - kinetic[:, t]) - power[:, t]
    tau = power[..., None] * qd / qd.square().sum(-1, keepdim=True)
    zero = torch.zeros_like(tau)
    assert dynamics.energy_consistency_loss(kinetic, tau, zero, None, qd) < 1e-9
    assert dynamics.energy_consistency_loss(kinetic, tau + 1, zero, zero, qd, 0.5) > 1e-3
