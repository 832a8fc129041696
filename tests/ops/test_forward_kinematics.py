"""forward_kinematics: chains worked out by hand."""

import math
import re

import pytest
import torch

from skelops import forward_kinematics
from skelops.dynamics import Body, Tree


def arm():
    """Two links in the plane, then a slide along the last one's x."""
    return Tree.from_bodies(
        [
            Body("upper", None, "hinge"),
            Body("lower", "upper", "hinge", (2.0, 0, 0)),
            Body("tip", "lower", "slide", (1.0, 0, 0), axis=(1, 0, 0)),
        ]
    )


def test_planar_arm():
    a, b, c = 0.3, 0.9, 0.5
    position, rotation = forward_kinematics(arm(), torch.tensor([a, b, c], dtype=torch.float64))
    expected = [
        [0, 0, 0],
        [2 * math.cos(a), 2 * math.sin(a), 0],
        [2 * math.cos(a) + 1.5 * math.cos(a + b), 2 * math.sin(a) + 1.5 * math.sin(a + b), 0],
    ]
    torch.testing.assert_close(position, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(rotation[2, :, 0], torch.tensor(
        [math.cos(a + b), math.sin(a + b), 0], dtype=torch.float64))  # fmt: skip


def test_rotations_about_any_axis():
    axis = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    tree = Tree.from_bodies([Body("a", None, "hinge", axis=axis.tolist())])
    q = torch.linspace(-4, 4, 17, dtype=torch.float64)[:, None]
    _, rotation = forward_kinematics(tree, q)
    x, y, z = (axis / axis.norm()).tolist()
    K = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    torch.testing.assert_close(rotation[:, 0], torch.linalg.matrix_exp(q[..., None] * K))


def test_rotations_are_rotations():
    tree = Tree.from_bodies([Body("a", None, "free"), Body("b", "a", "ball", (0, 1, 0))])
    _, R = forward_kinematics(tree, torch.randn(4, 5, 9, dtype=torch.float64))
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand(R.shape))
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(4, 5, 9, dtype=torch.float64))


def test_gradient_of_positions_alone():
    q = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    position, _ = forward_kinematics(arm(), q)
    (gradient,) = torch.autograd.grad(position[:, 2, 0].sum(), q)
    a, b, c = q.detach().unbind(1)
    expected = [-2 * a.sin() - (1 + c) * (a + b).sin(), -(1 + c) * (a + b).sin(), (a + b).cos()]
    torch.testing.assert_close(gradient, torch.stack(expected, 1))


def test_bad_input():
    message = "forward_kinematics: expected q of shape (..., n) with n=3, got (2, 4)"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        forward_kinematics(arm(), torch.zeros(2, 4))
