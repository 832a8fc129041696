"""point_dynamics: rigid bones, momentum, and the same masses in reduced coordinates."""

import re

import pytest
import torch

from skelops import forward_dynamics, forward_kinematics, point_dynamics
from skelops.dynamics import Body, Tree

NTU25 = (0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 22, 7, 24, 11)


def inputs(N=4, parents=NTU25, D=3, seed=0, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    V = len(parents)
    x, v, force = (
        torch.randn(N, V, D, generator=random, dtype=torch.float64).to(dtype) for _ in range(3)
    )
    mass = (0.5 + torch.rand(V, generator=random, dtype=torch.float64)).to(dtype)
    return x, v, force, mass


@pytest.mark.parametrize("D", [2, 3])
def test_solves_the_dense_system(D):
    x, v, force, mass = inputs(D=D)
    V = len(NTU25)
    acc, multiplier = point_dynamics(x, v, force, mass, NTU25)
    J = x.new_zeros(4, V - 1, V, D)
    gamma = x.new_zeros(4, V - 1)
    for row, j in enumerate(range(1, V)):
        p = NTU25[j]
        J[:, row, j], J[:, row, p] = x[:, j] - x[:, p], x[:, p] - x[:, j]
        gamma[:, row] = (v[:, j] - v[:, p]).square().sum(-1)
    J = J.flatten(2)
    W = (1 / mass).repeat_interleave(D)
    system = J * W @ J.mT
    rest = -gamma - (J @ (W * force.flatten(1))[..., None]).squeeze(-1)
    expected = torch.linalg.solve(system, rest)
    torch.testing.assert_close(multiplier, expected, rtol=1e-9, atol=1e-9)
    pull = (J.mT @ expected[..., None]).squeeze(-1).view(force.shape)
    torch.testing.assert_close(acc, (force + pull) / mass[:, None], rtol=1e-9, atol=1e-9)


def test_momentum_is_that_of_the_forces():
    x, v, force, mass = inputs()
    acc, _ = point_dynamics(x, v, force, mass, NTU25)
    torch.testing.assert_close((mass[:, None] * acc).sum(1), force.sum(1))


def test_free_fall():
    x, _, _, mass = inputs()
    g = torch.tensor([0, 0, -9.81], dtype=torch.float64)
    acc, multiplier = point_dynamics(x, torch.zeros_like(x), mass[:, None] * g.expand_as(x), mass,
                                     NTU25)  # fmt: skip
    torch.testing.assert_close(acc, g.expand_as(acc))
    torch.testing.assert_close(multiplier, torch.zeros_like(multiplier), rtol=0, atol=1e-10)


def test_hanging_bone_carries_its_weight():
    """Tension is minus the multiplier times the length."""
    x = torch.tensor([[[0.0, 0.0], [0.0, -0.5]]], dtype=torch.float64)
    mass = torch.tensor([1e9, 2.0], dtype=torch.float64)
    force = torch.tensor([[[0.0, 0.0], [0.0, -20.0]]], dtype=torch.float64)
    _, multiplier = point_dynamics(x, torch.zeros_like(x), force, mass, (0, 0))
    torch.testing.assert_close(-multiplier[0, 0] * 0.5, torch.tensor(20.0, dtype=torch.float64),
                               rtol=1e-6, atol=0)  # fmt: skip


def test_agrees_with_reduced_coordinates():
    """Root translation, and a universal joint per bone about axes normal to its direction."""
    parents = (0, 0, 1, 1, 3)
    mass = torch.tensor([3.0, 1.0, 0.5, 2.0, 0.7], dtype=torch.float64)
    bodies = [Body("0", None, "point", mass=3.0)]
    bones = [(0, 0, 0), (0, 0, 0.5), (0, 0, 0.4), (0, 0, 0.7), (0, 0, 0.3)]
    for j in range(1, 5):
        # The bone turns where it begins, at the end of the parent's.
        start = bones[parents[j]]
        here = start if any(start) else (0, 0, 1e-30)
        bodies.append(Body(str(j), str(parents[j]), "universal", here, mass[j].item(), bones[j]))
    tree = Tree.from_bodies(bodies)
    random = torch.Generator().manual_seed(3)
    q, qd, tau = (torch.randn(6, len(tree), generator=random, dtype=torch.float64) for _ in "abc")
    q = 0.7 * q
    last = [2, 4, 6, 8, 10]

    def joints(coordinates):
        position, rotation = forward_kinematics(tree, coordinates)
        tips = torch.tensor(bones, dtype=torch.float64)
        return position[:, last] + (rotation[:, last] @ tips[..., None]).squeeze(-1)

    x, v = _along(joints, q, qd)
    force = mass[:, None] * torch.tensor([0, 0, -9.81], dtype=torch.float64).expand_as(x)
    acc, _ = point_dynamics(x, v, force, mass, parents)
    qdd = forward_dynamics(tree, q, qd, torch.zeros_like(tau))
    h = 1e-4
    path = [joints(q + s * h * qd + s * s * h * h / 2 * qdd) for s in (-1, 0, 1)]
    expected = (path[0] - 2 * path[1] + path[2]) / h**2
    torch.testing.assert_close(acc, expected, rtol=1e-5, atol=1e-5)


def _along(function, q, qd):
    """Value and derivative along qd, by central differences."""
    h = 1e-6
    return function(q), (function(q + h * qd) - function(q - h * qd)) / (2 * h)


@pytest.mark.parametrize("D", [2, 3])
def test_single_precision(D):
    tensors = inputs(N=16, D=D)
    exact, _ = point_dynamics(*tensors, NTU25)
    found, _ = point_dynamics(*(t.float() for t in tensors), NTU25)
    assert (found.double() - exact).abs().max() <= 1e-4 * exact.abs().max()


def test_any_root():
    parents = (1, 2, 2, 2, 3)
    x, v, force, mass = inputs(parents=parents)
    acc, _ = point_dynamics(x, v, force, mass, parents, root=2)
    flipped = (0, 0, 1, 2, 3)
    other, _ = point_dynamics(x, v, force, mass, flipped, root=0)
    torch.testing.assert_close(acc, other)


BAD = [
    (dict(x=torch.zeros(2, 3, 4)), ValueError, "x of shape (..., V, D) with D=2 or 3, got"),
    (dict(v=torch.zeros(2, 3, 2)), ValueError, "v of x's shape (2, 3, 3), got (2, 3, 2)"),
    (dict(mass=torch.zeros(4)), ValueError, "mass of shape (V) with V=3, got (4,)"),
    (dict(parents=(0, 2, 1)), ValueError, "parents that lead to root 0, got [0, 2, 1]"),
    (dict(parents=(0, 0)), ValueError, "3 parents, got 2"),
    (dict(root=3), ValueError, "root from 0 to 2, got 3"),
    (dict(force=torch.zeros(2, 3, 3).double()), TypeError, "force of x's dtype torch.float32, got"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    point = torch.zeros(2, 3, 3)
    arguments = dict(x=point, v=point, force=point, mass=torch.ones(3), parents=(0, 0, 1)) | change
    with pytest.raises(error, match="^" + re.escape(f"point_dynamics: expected {message}")):
        point_dynamics(**arguments)
