"""mass_matrix: symmetric, positive definite, what kinetic energy is made of."""

import re

import pytest
import torch

from skelops import forward_kinematics, inverse_dynamics, mass_matrix
from skelops.dynamics import Body, Tree


def tree(slide=False):
    return Tree.from_bodies(
        [
            Body("root", None, "free", mass=4.0, com=(0.1, 0, 0), inertia=(0.3, 0.2, 0.1)),
            Body("arm", "root", "ball", (0, 0.2, 0.4), 1.5, (0, 0, -0.2), (0.04, 0.05, 0.01)),
            Body("hand", "arm", "slide" if slide else "hinge", (0, 0, -0.4), 0.5, (0.1, 0, 0),
                 (0.01, 0.02, 0.03), axis=(1, 1, 0)),
            Body("leg", "root", "universal", (0, -0.1, -0.3), 3.0, (0, 0, -0.2), (0.1, 0.1, 0.02)),
        ]
    )  # fmt: skip


def coordinates(t, *batch):
    return torch.randn(*batch, len(t), dtype=torch.float64)


@pytest.mark.parametrize("slide", [False, True])
def test_symmetric_and_positive_definite(slide):
    t = tree(slide)
    M = mass_matrix(t, coordinates(t, 6))
    assert torch.equal(M, M.mT)
    assert (torch.linalg.eigvalsh(M) > 0).all()


@pytest.mark.parametrize("slide", [False, True])
def test_is_what_accelerations_take(slide):
    t = tree(slide)
    q, a = coordinates(t, 2, 3), coordinates(t, 2, 3)
    expected = inverse_dynamics(t, q, None, a, gravity=None)
    torch.testing.assert_close((mass_matrix(t, q) @ a[..., None]).squeeze(-1), expected)


def test_kinetic_energy_of_moving_bodies():
    """Against velocities by finite differences of where the bodies are."""
    t = tree()
    q, qd, dt = coordinates(t, 1), coordinates(t, 1), 1e-5
    (p0, R0), (p1, R1) = (forward_kinematics(t, q + s * dt * qd) for s in (-1, 1))
    R = forward_kinematics(t, q)[1]
    v, turn = (p1 - p0) / (2 * dt), (R1 - R0) / (2 * dt) @ R.mT
    w = torch.stack([turn[..., 2, 1], turn[..., 0, 2], turn[..., 1, 0]], -1)
    m, h, I = t.inertia.split([1, 3, 6], 1)
    xx, xy, yy, xz, yz, zz = I.unbind(1)
    I = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).view(-1, 3, 3)
    h = (R @ h[..., None]).squeeze(-1)
    spin = (R @ I @ R.mT @ w[..., None]).squeeze(-1)
    energy = m[:, 0] * v.square().sum(-1) / 2
    energy = energy + (v * torch.linalg.cross(w, h)).sum(-1) + (w * spin).sum(-1) / 2
    expected = (qd[:, None] @ mass_matrix(t, q) @ qd[..., None]).sum() / 2
    torch.testing.assert_close(energy.sum(), expected, rtol=1e-8, atol=1e-8)


def test_packed_entries_are_the_others_than_zeros():
    t = tree()
    q = coordinates(t, 5)
    M, packed = mass_matrix(t, q), mass_matrix(t, q, packed=True)
    rows, columns = t.pattern
    assert torch.equal(packed, M[:, list(rows), list(columns)])
    rest = M.clone()
    rest[:, list(rows), list(columns)] = 0
    rest[:, list(columns), list(rows)] = 0
    assert not rest.any()
    assert len(rows) < len(t) * (len(t) + 1) // 2


BAD = [
    (torch.zeros(2, 5), ValueError, "q of shape (..., n) with n=12, got (2, 5)"),
    (torch.zeros(2, 12).long(), TypeError, "q of a floating dtype, got torch.int64"),
]


@pytest.mark.parametrize("q, error, message", BAD)
def test_bad_input(q, error, message):
    with pytest.raises(error, match="^" + re.escape(f"mass_matrix: expected {message}")):
        mass_matrix(tree(), q)
