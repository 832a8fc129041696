"""A symmetric matrix times a vector, from the packed lower triangle: y_i = sum_j S_ij x_j."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def sym_packed_matvec(packed: Tensor, x: Tensor) -> Tensor:
    r"""Symmetric matrices that networks predict, times vectors.

    .. math::
        y_i = \sum_{j \le i} S_{ij} x_j + \sum_{j > i} S_{ji} x_j, \qquad
        S_{ij} = \text{packed}_{i (i + 1) / 2 + j}

    The triangle is read once; the mirrored matrix is never formed, nor is it for the gradient.

    Args:
        packed: (..., n (n + 1) / 2) lower triangles row by row, as ``torch.tril_indices`` orders
            them: an inverse mass matrix, for example.
        x: (..., n).

    Returns:
        (..., n), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> qdd = sym_packed_matvec(network(q), tau)  # network: 63 coordinates -> 2016 entries

    Source: Zhang et al., PhysMoP, WACV 2024: M^-1 (J - C) with M^-1 mirrored from its triangle.
    """
    op = "sym_packed_matvec"
    packed, x = _check.autocast(packed, x)
    _check.tensors(op, packed=packed, x=x)
    if x.dim() == 0:
        raise _check.fail(op, "x of shape (..., n)", "()")
    n = x.shape[-1]
    wanted = (*x.shape[:-1], n * (n + 1) // 2)
    if packed.shape != wanted:
        raise _check.fail(
            op, f"packed of shape {_check.shape_text(wanted)}", _check.shape_text(packed.shape)
        )
    return _op(packed.reshape(-1, wanted[-1]), x.reshape(-1, n)).reshape(x.shape)


def _reference(packed: Tensor, x: Tensor) -> Tensor:
    i = torch.arange(x.shape[1], device=x.device)
    row, column = torch.maximum(i[:, None], i), torch.minimum(i[:, None], i)
    S = packed[:, row * (row + 1) // 2 + column]
    return (S @ x[..., None]).squeeze(-1)


_op = define(
    "sym_packed_matvec",
    "(Tensor packed, Tensor x) -> Tensor",
    _reference,
    fake=lambda packed, x: x.new_empty(x.shape),
    grads=("packed", "x"),
    gpu=("triton",),
)
