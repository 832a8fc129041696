"""Inverse dynamics of a tree of rigid bodies: tau = M(q) qdd + C(q, qd) qd + g(q)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops._library import define
from skelops.ops import _tree
from skelops.ops._tree import GRAVITY, Tree, cross, dot, matvec


def inverse_dynamics(
    tree: Tree,
    q: Tensor,
    qd: Tensor | None = None,
    qdd: Tensor | None = None,
    gravity: Tensor | Sequence[float] | None = GRAVITY,
    wrench: Tensor | None = None,
) -> Tensor:
    r"""Generalised forces of a motion, by the recursive Newton-Euler algorithm in O(n).

    .. math::
        \tau = M(q)\,\ddot q + C(q, \dot q)\,\dot q + g(q) - \sum_i J_i^\top w_i

    Without ``qdd`` these are the forces of velocity and gravity, without ``qd`` as well those of
    gravity alone, without ``gravity`` and ``qd`` M(q) qdd: M(q) times any vector.

    The gradient takes two sweeps over the tree more and stores nothing of size n x n. Computed in
    the widest dtype of the coordinates, under autocast too.

    Args:
        tree: n joints; its ``inertia`` may require a gradient.
        q: (..., n) coordinates.
        qd, qdd: (..., n) velocities and accelerations; None for zero.
        gravity: acceleration (3,) in the world; None for none.
        wrench: (..., n, 6) force and moment about the body's origin, in world axes, that act on
            every body; None for none.

    Returns:
        (..., n) forces, torques for revolute joints.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point.

    Backends: cpu, cuda, reference.

    Example:
        >>> tau = inverse_dynamics(tree, q, qd, qdd)  # q, qd, qdd (N, T, n)

    Source: Featherstone, Rigid Body Dynamics Algorithms, 2008, chapter 5.
    """
    batch, (q, qd, qdd, wrench) = _tree.frames(
        "inverse_dynamics", tree, q=q, qd=qd, qdd=qdd, wrench=wrench
    )
    tau = _op(
        q,
        qd,
        qdd,
        wrench,
        *_tree.tables(tree, q),
        _tree.gravity_vector(gravity, q),
        tree.parent,
        tree.joint,
    )
    return _tree.result(tau, batch)


def reference(
    q: Tensor,
    qd: Tensor | None,
    qdd: Tensor | None,
    wrench: Tensor | None,
    inertia: Tensor,
    offset: Tensor,
    axis: Tensor,
    gravity: Tensor | None,
    parent: Sequence[int],
    joint: Sequence[int],
) -> Tensor:
    zero = q.new_zeros(q.shape[0], 3)
    qd = torch.zeros_like(q) if qd is None else qd
    qdd = torch.zeros_like(q) if qdd is None else qdd
    world = zero if gravity is None else zero - gravity
    motions: list[tuple[Tensor, Tensor, Tensor]] = []
    steps, forces, moments = [], [], []
    for step in _tree.steps(q, offset, axis, parent, joint):
        i, z, r = step.body, step.z, step.r
        w, al, a = motions[step.parent] if step.parent >= 0 else (zero, zero, world)
        a = a + cross(al, r) + cross(w, cross(w, r))
        rate, acceleration = qd[:, i, None], qdd[:, i, None]
        if step.revolute:
            w, al = w + z * rate, al + cross(w, z) * rate + z * acceleration
        else:
            a = a + 2 * cross(w, z) * rate + z * acceleration
        m, h, I = _tree.inertia_of(inertia, step)
        force = m * a + cross(al, h) + cross(w, cross(w, h))
        moment = cross(h, a) + matvec(I, al) + cross(w, matvec(I, w))
        if wrench is not None:
            force, moment = force - wrench[:, i, :3], moment - wrench[:, i, 3:]
        steps.append(step)
        motions.append((w, al, a))
        forces.append(force)
        moments.append(moment)
    tau = []
    for step in reversed(steps):
        i, l = step.body, step.parent
        tau.append(dot(step.z, moments[i] if step.revolute else forces[i]))
        if l >= 0:
            forces[l] = forces[l] + forces[i]
            moments[l] = moments[l] + moments[i] + cross(step.r, forces[i])
    return torch.stack(tau[::-1], -1)


_op = define(
    "inverse_dynamics",
    "(Tensor q, Tensor? qd, Tensor? qdd, Tensor? wrench, Tensor inertia, Tensor offset, "
    "Tensor axis, Tensor? gravity, int[] parent, int[] joint) -> Tensor",
    _tree.in_full_precision(reference),
    fake=lambda q, *_: q.new_empty(q.shape),
    grads=("q", "qd", "qdd", "wrench", "inertia"),
    gpu=("cuda",),
)
