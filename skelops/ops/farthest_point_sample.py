"""Farthest point sampling: i_0 = start, i_{k+1} = argmax_l min_{j <= k} |p_l - p_{i_j}|^2."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _points

ORIGIN = 1e-3  # squared distance below which a point is taken for padding


def farthest_point_sample(
    points: Tensor, count: int, *, start: int = 0, skip_origin: bool = False
) -> Tensor:
    r"""Choose points of a cloud that cover it: always the one farthest from those chosen so far.

    .. math::
        i_0 = start, \qquad i_{k+1} = \arg\max_l \min_{j \le k} |p_l - p_{i_j}|^2

    Of equally far points the first is chosen. Distances are float32 for half types. A point with a
    coordinate that is not finite is never chosen; when no other is left, point 0 repeats, as it
    does in a cloud of fewer distinct points than ``count``.

    Args:
        points: (N, L, 3).
        count: K, points to choose, from 1 to L.
        start: index of the first.
        skip_origin: never choose points with :math:`|p|^2 \le 10^{-3}` but as the first: some
            clouds are padded by points at the origin.

    Returns:
        (N, K) int64 indices, in the order of choice.

    Raises:
        ValueError: shapes do not fit, ``count`` or ``start`` out of range.
        TypeError: ``points`` is not floating point or requires a gradient.

    Backends: cpu, triton, reference.

    Example:
        >>> chosen = farthest_point_sample(torch.randn(2, 2048, 3), 512)
        >>> chosen.shape
        torch.Size([2, 512])

    Source: Qi et al., PointNet++, NeurIPS 2017, section 3.2; ``skip_origin``: its CUDA code.
    """
    op = "farthest_point_sample"
    _points.check_cloud(op, points=points)
    _points.check_count(op, "count", count, points)
    if not 0 <= start < points.shape[1]:
        raise _check.fail(op, f"start from 0 to {points.shape[1] - 1}", start)
    return _op(points, count, start, skip_origin)


def _reference(points: Tensor, count: int, start: int, skip_origin: bool) -> Tensor:
    out = points.new_zeros(points.shape[0], count, dtype=torch.int64)
    if points.shape[0] == 0:
        return out
    allowed = points.isfinite().all(2)
    if skip_origin:
        allowed &= _points.squared_distance(points, torch.zeros_like(points)) > ORIGIN
    distance = torch.where(allowed, torch.inf, -1.0).to(_points.compute_dtype(points))
    chosen = torch.full_like(out[:, :1], start)
    for k in range(count):
        out[:, k : k + 1] = chosen
        center = points.gather(1, chosen[..., None].expand(-1, -1, 3))
        distance = torch.minimum(distance, _points.squared_distance(points, center))
        # Of equal ones argmax may return any.
        farthest = distance == distance.amax(1, keepdim=True)
        chosen = farthest.to(torch.uint8).argmax(1, keepdim=True)
    return out


def _fake(points, count, start, skip_origin):
    return points.new_empty(points.shape[0], count, dtype=torch.int64)


_op = define(
    "farthest_point_sample",
    "(Tensor points, int count, int start, bool skip_origin) -> Tensor",
    _reference,
    fake=_fake,
    grads=(),
    gpu=("triton",),
)
