"""Ball query: of each query the first k points, in order of index, with |u_q - p_l|^2 < r^2."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _points


def ball_query(query: Tensor, points: Tensor, radius: float, k: int) -> tuple[Tensor, Tensor]:
    r"""Up to k points of a cloud within a ball around each query: the first, not the nearest.

    .. math:: \{ l : |u_q - p_l|^2 < r^2 \}, \text{ the } k \text{ least of them, ascending}

    The slots that are left repeat the first point found; without one they are 0. The square of the
    radius and the distances are float32 for half types.

    Args:
        query: (N, Q, 3).
        points: (N, L, 3), query's dtype.
        radius: r > 0; a point at exactly this distance is outside.
        k: slots, from 1 to L.

    Returns:
        indices: (N, Q, k) int64.
        count: (N, Q) int64, points found, at most k.

    Raises:
        ValueError: shapes do not fit, ``radius`` or ``k`` out of range, different devices.
        TypeError: a tensor is not floating point or requires a gradient, dtypes differ.

    Backends: cpu, triton, reference.

    Example:
        >>> points = torch.randn(2, 2048, 3)
        >>> indices, count = ball_query(points[:, :512], points, 0.2, 32)
        >>> indices.shape, count.shape
        (torch.Size([2, 512, 32]), torch.Size([2, 512]))

    Source: Qi et al., PointNet++, NeurIPS 2017, section 3.2, and its CUDA code.
    """
    op = "ball_query"
    _points.check_cloud(op, query=query, points=points)
    _points.check_count(op, "k", k, points)
    if not radius > 0:
        raise _check.fail(op, "radius > 0", radius)
    return _op(query, points, float(radius), k)


def _reference(query: Tensor, points: Tensor, radius: float, k: int) -> tuple[Tensor, Tensor]:
    r = torch.full((), radius, dtype=_points.compute_dtype(points), device=points.device)
    inside = _points.squared_distance(query[:, :, None], points[:, None]) < r * r
    L = points.shape[1]
    place = torch.arange(L, device=points.device)
    found = torch.where(inside, place, L).sort(2).values[..., :k]
    first = torch.where(found[..., :1] < L, found[..., :1], 0)
    return torch.where(found < L, found, first), inside.sum(2).clamp(max=k)


def _fake(query, points, radius, k):
    return (
        query.new_empty(*query.shape[:2], k, dtype=torch.int64),
        query.new_empty(query.shape[:2], dtype=torch.int64),
    )


_op = define(
    "ball_query",
    "(Tensor query, Tensor points, float radius, int k) -> (Tensor indices, Tensor count)",
    _reference,
    fake=_fake,
    grads=(),
    gpu=("triton",),
)
