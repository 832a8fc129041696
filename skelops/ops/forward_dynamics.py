"""Forward dynamics of a tree of rigid bodies: qdd = M(q)^-1 (tau - C(q, qd) qd - g(q))."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tree
from skelops.ops import inverse_dynamics as _inverse
from skelops.ops import mass_matrix as _mass
from skelops.ops import tree_solve as _solve
from skelops.ops._tree import GRAVITY, Tree

METHODS = ("articulated", "cholesky")


def forward_dynamics(
    tree: Tree,
    q: Tensor,
    qd: Tensor | None,
    tau: Tensor,
    gravity: Tensor | Sequence[float] | None = GRAVITY,
    wrench: Tensor | None = None,
    method: str = "articulated",
) -> Tensor:
    r"""Accelerations under generalised forces.

    .. math::
        \ddot q = M(q)^{-1} \bigl(\tau - C(q, \dot q)\,\dot q - g(q) + \sum_i J_i^\top w_i\bigr)

    At rest and without gravity it is M(q)^-1 times any vector. The gradient takes one more such
    solve and the sweeps of ``inverse_dynamics``: with w = M^-1 times the output's gradient, it is w
    for ``tau`` and that of ``inverse_dynamics`` at the accelerations, against -w, for all else.

    The articulated-body algorithm takes O(n) and never forms M; "cholesky" is ``mass_matrix``,
    ``inverse_dynamics`` and ``tree_solve``, with a loss of digits that grows with M's condition.

    A joint that moves no inertia, as a turn of point masses on a line about that line, has no
    finite acceleration.

    Args:
        tree: n joints; its ``inertia`` may require a gradient.
        q: (..., n) coordinates.
        qd: (..., n) velocities; None for zero.
        tau: (..., n) forces, torques for revolute joints.
        gravity: acceleration (3,) in the world; None for none.
        wrench: (..., n, 6) force and moment about the body's origin, in world axes, that act on
            every body; None for none.
        method: "articulated" or "cholesky".

    Returns:
        (..., n) accelerations.

    Raises:
        ValueError: shapes do not fit, tensors are on different devices, or no such method.
        TypeError: a tensor is not floating point.

    Backends: cpu, cuda, reference.

    Example:
        >>> qdd = forward_dynamics(tree, q, qd, tau)  # q, qd, tau (N, T, n)

    Source: Featherstone, Rigid Body Dynamics Algorithms, 2008, chapter 7;
    "cholesky" section 6.5.
    """
    if method not in METHODS:
        raise _check.fail("forward_dynamics", f"method to be one of {', '.join(METHODS)}", method)
    batch, (q, qd, tau, wrench) = _tree.frames(
        "forward_dynamics", tree, q=q, qd=qd, tau=tau, wrench=wrench
    )
    solve = _cholesky if method == "cholesky" else _op
    qdd = solve(
        q,
        qd,
        tau,
        wrench,
        *_tree.tables(tree, q),
        _tree.gravity_vector(gravity, q),
        tree.parent,
        tree.joint,
    )
    return _tree.result(qdd, batch)


@_tree.in_full_precision
def _cholesky(
    q: Tensor,
    qd: Tensor | None,
    tau: Tensor,
    wrench: Tensor | None,
    inertia: Tensor,
    offset: Tensor,
    axis: Tensor,
    gravity: Tensor | None,
    parent: Sequence[int],
    joint: Sequence[int],
) -> Tensor:
    M = _mass._op(q, inertia, offset, axis, parent, joint, True)
    bias = _inverse._op(q, qd, None, wrench, inertia, offset, axis, gravity, parent, joint)
    return _solve._op(M, tau - bias, parent)


def _reference(
    q: Tensor,
    qd: Tensor | None,
    tau: Tensor,
    wrench: Tensor | None,
    inertia: Tensor,
    offset: Tensor,
    axis: Tensor,
    gravity: Tensor | None,
    parent: Sequence[int],
    joint: Sequence[int],
) -> Tensor:
    M = _mass.reference(q, inertia, offset, axis, parent, joint, packed=False)
    bias = _inverse.reference(q, qd, None, wrench, inertia, offset, axis, gravity, parent, joint)
    return torch.linalg.solve(M, tau - bias)


_op = define(
    "forward_dynamics",
    "(Tensor q, Tensor? qd, Tensor tau, Tensor? wrench, Tensor inertia, Tensor offset, "
    "Tensor axis, Tensor? gravity, int[] parent, int[] joint) -> Tensor",
    _tree.in_full_precision(_reference),
    fake=lambda q, *_: q.new_empty(q.shape),
    grads=("q", "qd", "tau", "wrench", "inertia"),
    saved=("out",),
    gpu=("cuda",),
)
