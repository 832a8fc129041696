"""Trees: what they are made of, and what they refuse."""

import re

import pytest
import torch

from skelops.dynamics import Body, Tree, center_of_mass


def test_joints_of_several_degrees_of_freedom_are_chains():
    tree = Tree.from_bodies([Body("a", None, "free", mass=2.0), Body("b", "a", "ball", (0, 1, 0))])
    assert tree.parent == (-1, 0, 1, 2, 3, 4, 5, 6, 7)
    assert tree.joint == (0, 0, 0, 1, 1, 1, 1, 1, 1)
    assert tree.inertia[:, 0].tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 1]
    assert tree.offset[6].tolist() == [0, 1, 0] and not tree.offset[7:].any()


def test_inertia_is_about_the_origin():
    tree = Tree.from_bodies([Body("a", None, "hinge", mass=2.0, com=(0, 3, 0), inertia=(1, 2, 4))])
    assert tree.inertia.tolist() == [[2, 0, 6, 0, 1 + 18, 0, 2, 0, 0, 4 + 18]]


def test_moves_and_converts():
    tree = Tree.from_bodies([Body("a")])
    assert tree.to(torch.float32).inertia.dtype == torch.float32
    assert tree.to("meta").offset.device.type == "meta"


def test_mass_may_require_a_gradient():
    mass = torch.tensor([1.0, 2.0], requires_grad=True)
    axis = torch.tensor([[0, 0, 1.0], [0, 0, 1.0]])
    offset = torch.tensor([[0, 0, 0], [1.0, 0, 0]])
    com = torch.tensor([[0.5, 0, 0], [0.5, 0, 0]])
    tree = Tree.from_dofs((-1, 0), (1, 1), axis, offset, mass, com, torch.zeros(2, 3, 3))
    center_of_mass(tree, torch.zeros(2))[0].backward()
    # c = (0.5 m + 1.5 n) / (m + n)
    torch.testing.assert_close(mass.grad, torch.tensor([-2 / 9, 1 / 9]))


BODIES = [
    ([], "at least one body, got none"),
    ([Body("a"), Body("a")], "bodies of different names, got ['a', 'a']"),
    ([Body("a", "b")], "parent of 'a' among the bodies, got 'b'"),
    (
        [Body("a", "b", offset=(1, 0, 0)), Body("b", "a", offset=(1, 0, 0))],
        "bodies without a cycle",
    ),
    ([Body("b", "a", offset=(1, 0, 0)), Body("a")], "parent 'a' before 'b', got the reverse"),
    ([Body("a"), Body("b")], "one connected tree, got roots [0, 3]"),
    ([Body("a", mass=0)], "mass of 'a' above zero, got 0"),
    ([Body("a", mass=float("nan"))], "mass of 'a' above zero, got nan"),
    ([Body("a"), Body("b", "a")], "a bone from 'a' to 'b', got length zero"),
    ([Body("a", joint="knee")], "joint of 'a' to be one of free, point, ball, universal, hinge"),
    ([Body("a", joint="hinge", axis=(0, 0, 0))], "axis of body 0 of some length, got 0.0"),
]


@pytest.mark.parametrize("bodies, message", BODIES)
def test_bad_bodies(bodies, message):
    with pytest.raises(ValueError, match="^" + re.escape(f"Tree: expected {message}")):
        Tree.from_bodies(bodies)


DOFS = [
    (dict(parent=(-1, 2, 1)), "bodies without a cycle, got body 1 in or below one"),
    (dict(parent=(-1, 1, 0)), "bodies without a cycle, got body 1 in or below one"),
    (dict(parent=(1, -1, 0)), "parent of body 0 before it, got 1"),
    (dict(parent=(-1, 5, 0)), "parent of body 1 from -1 to 2, got 5"),
    (dict(parent=(-1, -1, 0)), "one connected tree, got roots [0, 1]"),
    (dict(joint=(0, 1, 2)), "3 joints of kind 0 or 1, got [0, 1, 2]"),
    (dict(mass=torch.tensor([1.0, 1.0, -1.0])), "mass of body 2 not below zero, got -1.0"),
    (dict(mass=torch.tensor([1.0, 1.0, 0.0])), "mass beyond joint 2, got none"),
    (dict(com=torch.zeros(3, 2)), "com of shape (n, 3) with n=3, got (3, 2)"),
]


@pytest.mark.parametrize("change, message", DOFS)
def test_bad_degrees_of_freedom(change, message):
    line = torch.tensor([[0, 0, 1.0]]).repeat(3, 1)
    arguments = dict(parent=(-1, 0, 1), joint=(1, 1, 1), axis=line, offset=line, mass=torch.ones(3))
    arguments |= dict(com=line, inertia=torch.zeros(3, 3, 3)) | change
    with pytest.raises(ValueError, match="^" + re.escape(f"Tree: expected {message}")):
        Tree.from_dofs(**arguments)
