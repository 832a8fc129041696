"""Forward kinematics of a tree: origins and rotations of all bodies in the world."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops._library import define
from skelops.ops import _tree
from skelops.ops._tree import Tree


def forward_kinematics(tree: Tree, q: Tensor) -> tuple[Tensor, Tensor]:
    r"""Origin and rotation of every body.

    .. math::
        p_i = p_{l} + R_l\,o_i\ (+\, R_l a_i q_i \text{ if prismatic}), \qquad
        R_i = R_l\,\mathrm{Rot}(a_i, q_i)\ (\text{or } R_l), \qquad l = \text{parent}(i)

    Args:
        tree: n joints.
        q: (..., n) coordinates.

    Returns:
        positions (..., n, 3) and rotations (..., n, 3, 3), which take vectors of the body to the
        world.

    Raises:
        ValueError: shapes do not fit.
        TypeError: ``q`` is not floating point.

    Backends: cpu, cuda, reference.

    Example:
        >>> position, rotation = forward_kinematics(tree, q)  # q (N, T, n)

    Source: Featherstone, Rigid Body Dynamics Algorithms, 2008, section 4.3.
    """
    batch, (q,) = _tree.frames("forward_kinematics", tree, q=q)
    pos, rot = _op(q, *_tree.tables(tree, q)[1:], tree.parent, tree.joint)
    return _tree.result(pos, batch), _tree.result(rot, batch)


def _reference(
    q: Tensor, offset: Tensor, axis: Tensor, parent: Sequence[int], joint: Sequence[int]
) -> tuple[Tensor, Tensor]:
    origin = q.new_zeros(q.shape[0], 3)
    positions: list[Tensor] = []
    rotations: list[Tensor] = []
    for step in _tree.steps(q, offset, axis, parent, joint):
        positions.append((positions[step.parent] if step.parent >= 0 else origin) + step.r)
        rotations.append(step.R)
    return torch.stack(positions, 1), torch.stack(rotations, 1)


def _fake(q, offset, axis, parent, joint):
    N, n = q.shape
    return q.new_empty(N, n, 3), q.new_empty(N, n, 3, 3)


_op = define(
    "forward_kinematics",
    "(Tensor q, Tensor offset, Tensor axis, int[] parent, int[] joint) -> (Tensor pos, Tensor rot)",
    _tree.in_full_precision(_reference),
    fake=_fake,
    grads=("q",),
    gpu=("cuda",),
)
