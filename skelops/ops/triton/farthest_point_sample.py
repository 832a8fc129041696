"""Farthest point sampling on a GPU: one program per cloud, which stays in registers."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.farthest_point_sample import ORIGIN
from skelops.ops.triton import _points, _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._points import load_points, squared_distance


@kernel(("L", "count", "start"))
def _farthest_point_kernel(
    points_ptr, out_ptr, L, count, start, ORIGIN: tl.constexpr, BLOCK_L: tl.constexpr
):
    n = tl.program_id(0).to(tl.int64)
    points_ptr += n * L * 3
    out_ptr += n * count
    l = tl.arange(0, BLOCK_L)
    x, y, z = load_points(points_ptr, l, l < L)
    infinite = float("inf")
    allowed = (tl.abs(x) < infinite) & (tl.abs(y) < infinite) & (tl.abs(z) < infinite)
    if ORIGIN > 0:
        allowed = allowed & (squared_distance(x, y, z, 0.0, 0.0, 0.0) > ORIGIN)
    distance = tl.where(allowed, infinite, -1.0)
    chosen = start.to(tl.int64)
    for k in range(count):
        tl.store(out_ptr + k, chosen)
        cx, cy, cz = load_points(points_ptr, chosen, True)
        distance = tl.minimum(distance, squared_distance(x, y, z, cx, cy, cz))
        # The order of the bits of numbers that are not negative is their own; of equal ones the
        # least index wins.
        bits = distance.to(tl.int32, bitcast=True).to(tl.int64)
        key = tl.max((tl.where(l < L, bits, -(2**31)) << 32) | (0x7FFFFFFF - l).to(tl.int64), 0)
        chosen = 0x7FFFFFFF - (key & 0x7FFFFFFF)


def supports(points, count, start, skip_origin) -> str | None:
    return _points.unsupported(points, held=True)


@_tiles.on_device
def forward(points, count, start, skip_origin):
    (points,) = _tiles.contiguous(points)
    N, L, _ = points.shape
    out = points.new_empty(N, count, dtype=torch.int64)
    if N:
        BLOCK_L = _tiles.pow2(L)
        _farthest_point_kernel[N,](
            points, out, L, count, start, ORIGIN=ORIGIN if skip_origin else 0.0, BLOCK_L=BLOCK_L,
            num_warps=_tiles.pow2(BLOCK_L // 256, low=1, high=16), enable_fp_fusion=False,
        )  # fmt: skip
    return out
