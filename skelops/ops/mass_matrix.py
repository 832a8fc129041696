"""Mass matrix of a tree of rigid bodies: kinetic energy = qd . M(q) qd / 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops._library import define
from skelops.ops import _tree
from skelops.ops import inverse_dynamics as _inverse
from skelops.ops._tree import Tree


def mass_matrix(tree: Tree, q: Tensor, *, packed: bool = False) -> Tensor:
    r"""Mass matrix by composite rigid bodies.

    .. math:: M_{ij} = \sum_{k \text{ beyond } i \text{ and } j} J_{ki}^\top I_k J_{kj}

    An entry is zero unless one of its two joints is beyond the other; ``packed`` gives the others
    alone, in the order of ``tree.pattern``: the lower triangle row by row.

    Args:
        tree: n joints; its ``inertia`` may require a gradient.
        q: (..., n) coordinates.
        packed: leave out what is zero or given by symmetry.

    Returns:
        (..., n, n), or (..., nnz) where ``packed``.

    Raises:
        ValueError: shapes do not fit.
        TypeError: a tensor is not floating point.

    Backends: cpu, cuda, reference.

    Example:
        >>> M = mass_matrix(tree, q)  # q (N, T, n), M (N, T, n, n)

    Source: Featherstone, Rigid Body Dynamics Algorithms, 2008, chapter 6.
    """
    batch, (q,) = _tree.frames("mass_matrix", tree, q=q)
    M = _op(q, *_tree.tables(tree, q), tree.parent, tree.joint, packed)
    return _tree.result(M, batch)


def reference(
    q: Tensor,
    inertia: Tensor,
    offset: Tensor,
    axis: Tensor,
    parent: Sequence[int],
    joint: Sequence[int],
    packed: bool,
) -> Tensor:
    """Column j is the force of a unit acceleration of joint j, at rest and without gravity."""
    N, n = q.shape
    units = torch.eye(n).to(q).expand(N, n, n).reshape(-1, n)
    columns = _inverse.reference(
        q.repeat_interleave(n, 0), None, units, None, inertia, offset, axis, None, parent, joint
    )
    M = columns.view(N, n, n).mT
    if packed:
        rows, others = _tree.packed_pattern(parent)
        return M[:, list(rows), list(others)]
    related = torch.zeros(n, n, dtype=torch.bool)
    rows, others = _tree.packed_pattern(parent)
    related[list(rows), list(others)] = True
    lower = M * related.to(M)
    return lower + lower.tril(-1).mT


def _fake(q, inertia, offset, axis, parent, joint, packed):
    N, n = q.shape
    return q.new_empty(N, len(_tree.packed_pattern(parent)[0])) if packed else q.new_empty(N, n, n)


_op = define(
    "mass_matrix",
    "(Tensor q, Tensor inertia, Tensor offset, Tensor axis, int[] parent, int[] joint, "
    "bool packed) -> Tensor",
    _tree.in_full_precision(reference),
    fake=_fake,
    grads=("q", "inertia"),
    gpu=("cuda",),
)
