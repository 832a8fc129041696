"""Linear systems of mass matrices on the pattern of their tree: x = M^-1 force."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops._library import define
from skelops.ops import _tree
from skelops.ops._tree import Tree


def tree_solve(tree: Tree, packed: Tensor, force: Tensor) -> Tensor:
    r"""Solve M x = force with a mass matrix in packed form.

    .. math:: M = L^\top D L, \qquad L_{ij} = 0 \text{ where } M_{ij} = 0

    Cholesky's factorisation without roots, from the leaves to the root: it has no fill-in on a
    tree, and takes O(n d^2) for depth d. With w = M^-1 times the output's gradient, the gradient is
    w for ``force`` and -w x^T for M.

    Args:
        tree: n joints.
        packed: (..., nnz) positive definite matrices, as of ``mass_matrix(..., packed=True)``.
        force: (..., n).

    Returns:
        (..., n).

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point.

    Backends: cpu, cuda, reference.

    Example:
        >>> qdd = tree_solve(tree, mass_matrix(tree, q, packed=True), tau)

    Source: Featherstone, Rigid Body Dynamics Algorithms, 2008, section 6.5.
    """
    batch, (packed, force) = _tree.frames("tree_solve", tree, packed=packed, force=force)
    return _tree.result(_op(packed, force, tree.parent), batch)


def _reference(packed: Tensor, force: Tensor, parent: Sequence[int]) -> Tensor:
    N, n = force.shape
    rows, columns = (list(i) for i in _tree.packed_pattern(parent))
    M = packed.new_zeros(N, n, n)
    M[:, rows, columns] = packed
    M[:, columns, rows] = packed
    return torch.linalg.solve(M, force)


_op = define(
    "tree_solve",
    "(Tensor packed, Tensor force, int[] parent) -> Tensor",
    _tree.in_full_precision(_reference),
    fake=lambda packed, force, parent: force.new_empty(force.shape),
    grads=("packed", "force"),
    gpu=("cuda",),
)
