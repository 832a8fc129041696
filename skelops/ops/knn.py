"""Nearest neighbours: the k points of a cloud that are nearest to each query."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops._library import define
from skelops.ops import _points


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""The k nearest points of every query, by squared Euclidean distance, the nearest first.

    .. math:: d_{ql} = |u_q - p_l|^2

    Of equally near points the first comes first. Distances are float32 for half types; one that is
    not a number counts as infinite. No matrix of distances is written.

    Args:
        query: (N, Q, 3).
        points: (N, L, 3), query's dtype.
        k: from 1 to L.

    Returns:
        indices: (N, Q, k) int64.
        distances: (N, Q, k) squared, float64 for float64 points, else float32.

    Raises:
        ValueError: shapes do not fit, ``k`` out of range, tensors are on different devices.
        TypeError: a tensor is not floating point or requires a gradient, dtypes differ.

    Backends: cpu, triton, reference.

    Example:
        >>> points = torch.randn(2, 2048, 3)
        >>> indices, distances = knn(points[:, :512], points, 16)
        >>> indices.shape
        torch.Size([2, 512, 16])

    Source: the grouping of DGCNN, Wang et al., ACM TOG 2019, section 3.1.
    """
    _points.check_cloud("knn", query=query, points=points)
    _points.check_count("knn", "k", k, points)
    return _op(query, points, k)


def _reference(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distance = _points.squared_distance(query[:, :, None], points[:, None])
    distance, index = distance.sort(dim=2, stable=True)
    return index[..., :k].contiguous(), distance[..., :k].contiguous()


def _fake(query, points, k):
    shape = (*query.shape[:2], k)
    dtype = _points.compute_dtype(query)
    return query.new_empty(shape, dtype=torch.int64), query.new_empty(shape, dtype=dtype)


_op = define(
    "knn",
    "(Tensor query, Tensor points, int k) -> (Tensor indices, Tensor distances)",
    _reference,
    fake=_fake,
    grads=(),
    gpu=("triton",),
)
