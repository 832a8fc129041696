"""Weighted trilinear sampling of a volume of tokens at learned places.

out[n, q, g] = sum_p w[n, q, g, p] trilinear(value[n, ..., g, :], loc[n, q, g, p])
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define

PADDINGS = ("border", "zeros")


def deform_sample_3d(
    value: Tensor, loc: Tensor, weight: Tensor | None = None, *, padding: str = "border"
) -> Tensor:
    r"""Sample a channels-last volume at P places per query and group, and add the samples up.

    .. math::
        \mathrm{out}_{nqg} = \sum_p w_{nqgp} \sum_{ijk}
            \Lambda(\tau_p - i) \Lambda(\eta_p - j) \Lambda(\xi_p - k)\; \mathrm{value}_{nijkg},
        \qquad \Lambda(x) = \max(0, 1 - |x|)

    with :math:`(\tau, \eta, \xi)` the place in units of cells. The corners of a sample are never
    stored, and the gradient of the volume is summed in a fixed order. Where a place is moved to
    the border its gradient is 0. P = 1 without weights samples tokens; T = 1 is sampling in 2-D.

    Args:
        value: (N, T, H, W, G, C), C channels of G groups in every cell; at least one cell.
        loc: (N, Q, G, P, 3), places (t, y, x), value's dtype or float32, which autocast leaves as
            it is. 0 is the centre of the first cell: the place p in [-1, 1] of ``grid_sample``
            without ``align_corners`` is (p + 1) * W / 2 - 1 / 2.
        weight: (N, Q, G, P), or None for ones.
        padding: "border", places outside are moved to the border; "zeros", there are zeros.

    Returns:
        (N, Q, G, C), value's dtype, computed in float32 for half types.

    Raises:
        ValueError: shapes do not fit, there is no cell, an unknown padding, or tensors are on
            different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> z = torch.randn(2, 16, 14, 14, 4, 128)
        >>> places = torch.rand(2, 392, 4, 1, 3) * 13
        >>> deform_sample_3d(z, places).shape
        torch.Size([2, 392, 4, 128])

    Source: Kim, Ahn and Ko, Cross-Modal Learning with 3D Deformable Attention for Action
    Recognition, ICCV 2023, section 3.2; weights: Zhu et al., Deformable DETR, ICLR 2021, eq. 2.
    """
    op = "deform_sample_3d"
    value, weight = _check.autocast(value, weight)
    _check.tensors(op, value=value, weight=weight)
    _check.norm_tensors(op, value, loc=loc)
    _check.shape(op, "value", value, "N T H W G C")
    N, *sizes, G, _ = value.shape
    if 0 in sizes:
        raise _check.fail(op, "value with at least one cell", _check.shape_text(value.shape))
    _check.shape(op, "loc", loc, "N Q G P 3", N=N, G=G, **{"3": 3})
    if weight is not None:
        _check.shape(op, "weight", weight, "N Q G P", N=N, Q=loc.shape[1], G=G, P=loc.shape[3])
    if padding not in PADDINGS:
        raise _check.fail(op, f"padding in {PADDINGS}", repr(padding))
    return _op(value, loc, weight, padding == "zeros")


def deform_attention_3d(
    value: Tensor,
    reference: Tensor,
    offset: Tensor,
    logits: Tensor,
    *,
    padding: str = "border",
) -> Tensor:
    r"""Deformable attention: samples around a place of reference, weighted by a softmax.

    .. math::
        \mathrm{out}_{nqg} = \sum_p \mathrm{softmax}_p(a_{nqgp})\;
            \mathrm{value}_{ng}(\rho_{nq} + \Delta_{nqgp})

    Args:
        value: (N, T, H, W, G, C), G the heads.
        reference: (N, Q, 3) or (Q, 3), places (t, y, x) in units of cells.
        offset: (N, Q, G, P, 3), learned offsets in units of cells.
        logits: (N, Q, G, P), learned scores of the points.
        padding: see :func:`deform_sample_3d`.

    Returns:
        (N, Q, G, C).

    Raises:
        ValueError, TypeError: as :func:`deform_sample_3d`, whose arguments these become.

    Example:
        >>> z = torch.randn(2, 4, 7, 7, 8, 64)
        >>> at = torch.rand(196, 3) * 3
        >>> offset, logits = torch.randn(2, 196, 8, 4, 3), torch.randn(2, 196, 8, 4)
        >>> deform_attention_3d(z, at, offset, logits).shape
        torch.Size([2, 196, 8, 64])

    Source: Zhu et al., Deformable DETR, ICLR 2021, eq. 2, with a third axis.
    """
    if reference.dim() not in (2, 3) or reference.shape[-1] != 3:
        expected = "reference of shape ([N,] Q, 3)"
        raise _check.fail("deform_attention_3d", expected, _check.shape_text(reference.shape))
    _check.shape("deform_attention_3d", "offset", offset, "N Q G P 3", **{"3": 3})
    if reference.shape[-2] != offset.shape[1]:
        expected = f"reference of {offset.shape[1]} queries"
        raise _check.fail("deform_attention_3d", expected, _check.shape_text(reference.shape))
    loc = reference[..., None, None, :] + offset
    weight = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return deform_sample_3d(value, loc, weight.to(value.dtype), padding=padding)


def _axis(x: Tensor, size: int, zeros: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Cells below and above places along one axis, and their shares of a sample."""
    x = x.clamp(-1, size) if zeros else x.clamp(0, size - 1)
    below = x.detach().floor()
    for cell, share in ((below, 1 - (x - below)), (below + 1, x - below)):
        outside = (cell < 0) | (cell >= size)
        yield cell.clamp(0, size - 1).long(), share.masked_fill(outside, 0) if zeros else share


def _reference(value: Tensor, loc: Tensor, weight: Tensor | None, zeros: bool) -> Tensor:
    full = torch.promote_types(value.dtype, torch.float32)
    N, *sizes, G, C = value.shape
    _, Q, _, P, _ = loc.shape
    rows = value.to(full).flatten(1, 3)
    axes = [_axis(loc[..., a].to(full), sizes[a], zeros) for a in range(3)]
    samples = value.new_zeros(N, Q, G, P, C, dtype=full)
    for (t, share_t), (y, share_y), (x, share_x) in itertools.product(*axes):
        cell = (t * sizes[1] + y) * sizes[2] + x
        index = cell.transpose(2, 3).reshape(N, Q * P, G, 1).expand(N, Q * P, G, C)
        corner = rows.gather(1, index).view(N, Q, P, G, C).transpose(2, 3)
        samples = samples + (share_t * share_y * share_x).unsqueeze(-1) * corner
    if weight is not None:
        samples = samples * weight.to(full).unsqueeze(-1)
    return samples.sum(3).to(value.dtype)


def _fake(value, loc, weight, zeros):
    return value.new_empty(value.shape[0], loc.shape[1], *value.shape[-2:])


_op = define(
    "deform_sample_3d",
    "(Tensor value, Tensor loc, Tensor? weight, bool zeros) -> Tensor",
    _reference,
    fake=_fake,
    grads=("value", "loc", "weight"),
    gpu=("triton",),
)
