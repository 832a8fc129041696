"""inverse_dynamics: what mechanics demands of it, and how it refuses."""

import re

import pytest
import torch

from skelops import forward_dynamics, forward_kinematics, inverse_dynamics, mass_matrix
from skelops.dynamics import Body, Tree

G = 9.81


def pendulum(length=0.7, mass=1.5):
    """A point mass on a massless rod, which hangs along -y and turns about z."""
    return Tree.from_bodies([Body("rod", None, "hinge", mass=mass, com=(0, -length, 0))])


def body(n=3, joint="ball", seed=0):
    """A chain of bodies that floats."""
    random = torch.Generator().manual_seed(seed)

    def draw(low, high, *shape):
        return (low + (high - low) * torch.rand(shape, generator=random)).tolist()

    bodies = [Body("root", None, "free", mass=2.0, com=(0.1, 0, 0), inertia=(0.2, 0.3, 0.4))]
    for i in range(n):
        above = bodies[-1].name if i % 2 else "root"
        moments, com, offset = draw(0.1, 0.2, 3), draw(-0.2, 0.2, 3), draw(0.2, 0.5, 3)
        bodies.append(Body(f"b{i}", above, joint, offset, 1.0 + i, com, moments))
    return Tree.from_bodies(bodies)


def state(tree, *batch, seed=1):
    random = torch.Generator().manual_seed(seed)
    shape = (*batch, len(tree))
    return [torch.randn(shape, dtype=torch.float64, generator=random) for _ in range(3)]


def test_pendulum():
    q, qd, qdd = (torch.tensor([[value]], dtype=torch.float64) for value in (0.4, 2.0, -1.0))
    tau = inverse_dynamics(pendulum(), q, qd, qdd, gravity=(0, -G, 0))
    torch.testing.assert_close(tau, 1.5 * 0.7**2 * qdd + 1.5 * G * 0.7 * q.sin())


def test_free_fall_takes_no_force():
    tree = body()
    q, _, _ = state(tree, 4)
    qdd = torch.zeros_like(q)
    qdd[:, 2] = -G
    torch.testing.assert_close(inverse_dynamics(tree, q, None, qdd), torch.zeros_like(q))


def test_weight_rests_on_the_root():
    tree = body()
    q, _, _ = state(tree, 4)
    expected = torch.tensor([0, 0, G * tree.inertia[:, 0].sum()], dtype=torch.float64).expand(4, 3)
    torch.testing.assert_close(inverse_dynamics(tree, q)[:, :3], expected)


def test_is_the_mass_matrix_times_accelerations():
    tree = body()
    q, qd, qdd = state(tree, 2, 3)
    bias = inverse_dynamics(tree, q, qd)
    expected = (mass_matrix(tree, q) @ qdd[..., None]).squeeze(-1) + bias
    torch.testing.assert_close(inverse_dynamics(tree, q, qd, qdd), expected)


def test_undoes_forward_dynamics():
    tree = body(5)
    q, qd, qdd = state(tree, 9)
    wrench = torch.randn(9, len(tree), 6, dtype=torch.float64)
    tau = inverse_dynamics(tree, q, qd, qdd, wrench=wrench)
    torch.testing.assert_close(forward_dynamics(tree, q, qd, tau, wrench=wrench), qdd)


def test_a_wrench_that_is_the_weight_replaces_gravity():
    tree = body()
    q, qd, qdd = state(tree, 3)
    _, rotation = forward_kinematics(tree, q)
    weight = tree.inertia[:, :1] * torch.tensor([0, 0, -G], dtype=torch.float64)
    arm = (rotation @ tree.inertia[:, 1:4, None]).squeeze(-1)
    moment = torch.linalg.cross(arm, torch.tensor([0, 0, -G], dtype=arm.dtype).expand_as(arm))
    wrench = torch.cat([weight.expand(3, -1, -1), moment], -1)
    torch.testing.assert_close(
        inverse_dynamics(tree, q, qd, qdd, gravity=None, wrench=wrench),
        inverse_dynamics(tree, q, qd, qdd),
    )


def test_coriolis_forces_do_no_work_beside_the_change_of_mass():
    """dM/dt - 2 C is skew: qd . C qd = qd . (dM/dt) qd / 2."""
    tree = body()
    q, qd, _ = state(tree, 1)
    power = (qd * inverse_dynamics(tree, q, qd, gravity=None)).sum()
    rate = (mass_matrix(tree, q + 1e-6 * qd) - mass_matrix(tree, q - 1e-6 * qd)) / 2e-6
    torch.testing.assert_close(power, (qd @ rate[0] @ qd.T).sum() / 2, rtol=1e-7, atol=1e-7)


def test_turning_the_world_changes_nothing():
    """A free body's internal torques do not depend on where it stands or which way it faces."""
    tree = body()
    q, qd, qdd = state(tree, 1)
    moved = q.clone()
    moved[:, :3] += 10.0
    torch.testing.assert_close(
        inverse_dynamics(tree, moved, qd, qdd), inverse_dynamics(tree, q, qd, qdd)
    )


@pytest.mark.parametrize("n", [1, 4])
def test_large_angles(n):
    tree = body(n)
    q, qd, qdd = state(tree, 5)
    turns = 2 * torch.pi * torch.randint(-1000, 1000, q.shape).double()
    turns[:, :3] = 0
    torch.testing.assert_close(
        inverse_dynamics(tree, q + turns, qd, qdd),
        inverse_dynamics(tree, q, qd, qdd),
        rtol=1e-9,
        atol=1e-9,
    )
    q[0, 3] = 1e9
    assert inverse_dynamics(tree, q, qd, qdd).isfinite().all()


def test_nan_stays_in_its_frame():
    tree = body()
    q, qd, qdd = state(tree, 11)
    q[3, 4] = float("nan")
    tau = inverse_dynamics(tree, q, qd, qdd)
    assert tau[3].isnan().any() and tau[[*range(3), *range(4, 11)]].isfinite().all()


def test_batches_and_dtypes_broadcast():
    tree = body()
    q, qd, _ = state(tree, 2, 3)
    tau = inverse_dynamics(tree, q.float(), qd[0])
    assert tau.shape == q.shape and tau.dtype == torch.float64


def test_masses_are_learned():
    tree = body()
    q, qd, qdd = state(tree, 20)
    target = inverse_dynamics(tree, q, qd, qdd)
    inertia = (0.5 * tree.inertia).requires_grad_()
    optimizer = torch.optim.LBFGS([inertia], max_iter=200, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = (inverse_dynamics(tree.with_inertia(inertia), q, qd, qdd) - target).square().mean()
        loss.backward()
        return loss

    before = closure().item()
    optimizer.step(closure)
    assert closure().item() < 1e-6 * before


BAD = [
    (dict(q=torch.zeros(2, 8)), ValueError, "q of shape (..., n) with n=9, got (2, 8)"),
    (dict(qd=torch.zeros(3, 9)), ValueError, "batches that broadcast, got q (2, 9), qd (3, 9)"),
    (dict(q=torch.zeros(2, 9).long()), TypeError, "q of a floating dtype, got torch.int64"),
    (dict(qdd=[0.0]), TypeError, "qdd to be a tensor, got list"),
    (dict(qd=torch.zeros(2, 9, device="meta")), ValueError, "qd on q's device cpu, got meta"),
    (dict(wrench=torch.zeros(2, 9)), ValueError, "wrench of shape (..., n, 6) with n=9, got"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(q=torch.zeros(2, 9), qd=None, qdd=None) | change
    with pytest.raises(error, match="^" + re.escape(f"inverse_dynamics: expected {message}")):
        inverse_dynamics(body(1), **arguments)
