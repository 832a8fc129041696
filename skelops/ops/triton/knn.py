"""Nearest neighbours on a GPU: the distances of some queries in registers, their least k times."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _points, _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._points import load_points, squared_distance


@kernel(("Q", "L", "k", "Q_BLOCKS"))
def _knn_kernel(
    query_ptr, points_ptr, index_ptr, distance_ptr, Q, L, k, Q_BLOCKS,
    BLOCK_Q: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // Q_BLOCKS).to(tl.int64)
    q = tl.program_id(0) % Q_BLOCKS * BLOCK_Q + tl.arange(0, BLOCK_Q)
    l = tl.arange(0, BLOCK_L)
    x, y, z = load_points(query_ptr + n * Q * 3, q, q < Q)
    px, py, pz = load_points(points_ptr + n * L * 3, l, l < L)
    d = squared_distance(x[:, None], y[:, None], z[:, None], px, py, pz)
    # The order of the bits of numbers that are not negative is their own.
    key = (d.to(tl.int32, bitcast=True).to(tl.int64) << 32) | l.to(tl.int64)
    key = tl.where(l < L, key, 0x7FFFFFFFFFFFFFFF)
    at = (n * Q + q) * k
    for j in range(k):
        least = tl.min(key, 1)
        tl.store(index_ptr + at + j, least & 0xFFFFFFFF, mask=q < Q)
        nearest = (least >> 32).to(tl.int32).to(tl.float32, bitcast=True)
        tl.store(distance_ptr + at + j, nearest, mask=q < Q)
        key = tl.where(key == least[:, None], 0x7FFFFFFFFFFFFFFF, key)


def supports(query, points, k) -> str | None:
    return _points.unsupported(points, held=True)


@_tiles.on_device
def forward(query, points, k):
    query, points = _tiles.contiguous(query, points)
    (N, Q, _), L = query.shape, points.shape[1]
    index = query.new_empty(N, Q, k, dtype=torch.int64)
    distance = query.new_empty(N, Q, k, dtype=torch.float32)
    BLOCK_L = _tiles.pow2(L)
    BLOCK_Q = _tiles.pow2(2048 // BLOCK_L, high=16)
    Q_BLOCKS = _tiles.cdiv(Q, BLOCK_Q)
    if N * Q:
        _knn_kernel[N * Q_BLOCKS,](
            query, points, index, distance, Q, L, k, Q_BLOCKS, BLOCK_Q=BLOCK_Q,
            BLOCK_L=BLOCK_L, num_warps=8 if BLOCK_L > 2048 else 4, enable_fp_fusion=False,
        )  # fmt: skip
    return index, distance
