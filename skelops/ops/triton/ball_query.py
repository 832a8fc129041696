"""Ball query on a GPU: tiles of points in order, until the slots of some queries are filled."""

from __future__ import annotations

import numpy as np
import torch
import triton.language as tl

from skelops.ops.triton import _points, _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._points import load_points, squared_distance


@kernel(("Q", "L", "k", "Q_BLOCKS", "limit"))
def _ball_query_kernel(
    query_ptr, points_ptr, index_ptr, count_ptr, Q, L, k, Q_BLOCKS, limit,
    BLOCK_Q: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // Q_BLOCKS).to(tl.int64)
    q = tl.program_id(0) % Q_BLOCKS * BLOCK_Q + tl.arange(0, BLOCK_Q)
    x, y, z = load_points(query_ptr + n * Q * 3, q, q < Q)
    index_ptr += (n * Q + q)[:, None] * k
    found = tl.where(q < Q, 0, k)
    first = tl.full((BLOCK_Q,), 0x7FFFFFFF, tl.int32)
    l0 = 0
    while (l0 < L) & (tl.min(found, 0) < k):
        l = l0 + tl.arange(0, BLOCK_L)
        px, py, pz = load_points(points_ptr + n * L * 3, l, l < L)
        inside = squared_distance(x[:, None], y[:, None], z[:, None], px, py, pz) < limit
        slot = found[:, None] + tl.cumsum(inside.to(tl.int32), 1) - 1
        place = tl.zeros((BLOCK_Q, BLOCK_L), dtype=tl.int64) + l
        tl.store(index_ptr + slot, place, mask=inside & (slot < k))
        first = tl.minimum(first, tl.min(tl.where(inside, l, 0x7FFFFFFF), 1))
        found += tl.sum(inside.to(tl.int32), 1)
        l0 += BLOCK_L
    found = tl.minimum(found, k)
    tl.store(count_ptr + n * Q + q, found.to(tl.int64), mask=q < Q)
    first = tl.where(found > 0, first, 0).to(tl.int64)
    for k0 in range(0, k, BLOCK_K):
        slot = k0 + tl.arange(0, BLOCK_K)
        left = (slot >= found[:, None]) & (slot < k) & (q < Q)[:, None]
        fill = tl.zeros((BLOCK_Q, BLOCK_K), dtype=tl.int64) + first[:, None]
        tl.store(index_ptr + slot, fill, mask=left)


def supports(query, points, radius, k) -> str | None:
    return _points.unsupported(points, held=False)


@_tiles.on_device
def forward(query, points, radius, k):
    query, points = _tiles.contiguous(query, points)
    (N, Q, _), L = query.shape, points.shape[1]
    index = query.new_empty(N, Q, k, dtype=torch.int64)
    count = query.new_empty(N, Q, dtype=torch.int64)
    limit = float(np.float32(radius) * np.float32(radius))
    BLOCK_Q = 8
    Q_BLOCKS = _tiles.cdiv(Q, BLOCK_Q)
    if N * Q:
        _ball_query_kernel[N * Q_BLOCKS,](
            query, points, index, count, Q, L, k, Q_BLOCKS, limit, BLOCK_Q=BLOCK_Q,
            BLOCK_L=_tiles.pow2(L, high=256), BLOCK_K=_tiles.pow2(k, high=64),
            num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return index, count
