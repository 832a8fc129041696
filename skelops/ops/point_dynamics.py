"""Point masses on rigid bones: accelerations from positions, velocities and forces of joints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tree
from skelops.ops._tree import dot, matvec


def point_dynamics(
    x: Tensor,
    v: Tensor,
    force: Tensor,
    mass: Tensor,
    parents: Sequence[int],
    root: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Accelerations of joints under forces, their bones being rigid, in O(V).

    .. math::
        m_j a_j = f_j + \sum_b \lambda_b \frac{\partial \phi_b}{\partial x_j}, \qquad
        \phi_j = \tfrac12 (|x_j - x_{p(j)}|^2 - l_j^2), \qquad \ddot\phi = 0

    Works on joints as recorded, in the plane or in space, without angles. Bone j pulls its ends
    together with tension :math:`-\lambda_j l_j`. Without bones this would be :math:`a = f / m`.
    The gradient is the same solve once more.

    Args:
        x, v: (..., V, D) positions and velocities, D = 2 or 3.
        force: (..., V, D), gravity included.
        mass: (V,), above zero.
        parents: V indices that lead to ``root``, whose own is not used.
        root: the joint without a bone of its own.

    Returns:
        accelerations (..., V, D) and multipliers (..., V - 1), of the joints but the root in
        ascending order.

    Raises:
        ValueError: shapes do not fit, or the parents make no tree.
        TypeError: a tensor is not floating point, or dtypes differ.

    Backends: cpu, cuda, reference.

    Example:
        >>> parents = skelops.graph.get_layout("coco17").parents
        >>> acc, multiplier = point_dynamics(x, v, force, mass, parents)  # x (N, T, 17, 2)

    Source: the articulated-body recursion (Featherstone, 2008, chapter 7) for points; the
    multipliers are those of Lagrange's equations of the first kind.
    """
    op = "point_dynamics"
    _check.tensors(op, x=x, v=v, force=force, mass=mass)
    if x.dim() < 2 or x.shape[-1] not in (2, 3) or x.shape[-2] == 0:
        raise _check.fail(op, "x of shape (..., V, D) with D=2 or 3", _check.shape_text(x.shape))
    for name, t in (("v", v), ("force", force)):
        if t.shape != x.shape:
            raise _check.fail(
                op, f"{name} of x's shape {_check.shape_text(x.shape)}", _check.shape_text(t.shape)
            )
    V = x.shape[-2]
    _check.shape(op, "mass", mass, "V", V=V)
    parents = tuple(int(p) for p in parents)
    _order(parents, root, V)
    rows = [t.reshape(-1, *x.shape[-2:]) for t in (x, v, force)]
    acc, multiplier = _op(*rows, mass, parents, root)
    return _tree.result(acc, x.shape[:-2]), _tree.result(multiplier, x.shape[:-2])


def _order(parents: Sequence[int], root: int, V: int) -> list[int]:
    """Joints from the root to the leaves."""
    op = "point_dynamics"
    if len(parents) != V:
        raise _check.fail(op, f"{V} parents", len(parents))
    if not 0 <= root < V:
        raise _check.fail(op, f"root from 0 to {V - 1}", root)
    order, placed = [root], {root}
    for joint in range(V):
        path = []
        while joint not in placed:
            if joint in path or not 0 <= parents[joint] < V:
                raise _check.fail(op, f"parents that lead to root {root}", list(parents))
            path.append(joint)
            joint = parents[joint]
        order += reversed(path)
        placed.update(path)
    return order


def _reference(
    x: Tensor, v: Tensor, force: Tensor, mass: Tensor, parents: Sequence[int], root: int
) -> tuple[Tensor, Tensor]:
    V, D = x.shape[1:]
    order = _order(parents, root, V)
    phi = [m * torch.eye(D).to(x).expand(x.shape[0], D, D) for m in mass]
    b = list(force.unbind(1))
    inverse, k, s, bone = ([torch.empty(0)] * V for _ in range(4))
    for j in reversed(order):
        inverse[j] = torch.linalg.inv(phi[j])
        if j == root:
            break
        p = parents[j]
        e, rate = x[:, j] - x[:, p], v[:, j] - v[:, p]
        bone[j], k[j] = e, dot(e, matvec(inverse[j], e))
        s[j] = dot(e, matvec(inverse[j], b[j])) + dot(rate, rate)
        phi[p] = phi[p] + e[:, :, None] * e[:, None, :] / k[j][:, None, None]
        b[p] = b[p] + e * (s[j] / k[j])[:, None]
    acc, multiplier = {root: matvec(inverse[root], b[root])}, {}
    for j in order[1:]:
        multiplier[j] = (dot(bone[j], acc[parents[j]]) - s[j]) / k[j]
        acc[j] = matvec(inverse[j], b[j] + bone[j] * multiplier[j][:, None])
    pulls = [multiplier[j] for j in range(V) if j != root]
    return (
        torch.stack([acc[j] for j in range(V)], 1),
        torch.stack(pulls, 1) if pulls else x[:, :0, 0],
    )


def _fake(x, v, force, mass, parents, root):
    return x.new_empty(x.shape), x.new_empty(x.shape[0], x.shape[1] - 1)


_op = define(
    "point_dynamics",
    "(Tensor x, Tensor v, Tensor force, Tensor mass, int[] parents, int root) "
    "-> (Tensor acc, Tensor multiplier)",
    _tree.in_full_precision(_reference),
    fake=_fake,
    grads=("x", "v", "force", "mass"),
    gpu=("cuda",),
)
