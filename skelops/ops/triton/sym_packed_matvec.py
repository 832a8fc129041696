"""Symmetric matrices from their packed triangles, times vectors: a program per matrix.

Tiles of the whole matrix are gathered from the triangle, whose second reads the cache answers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("packed", "x")
MAX_SIZE = 512
TILE = 64


@triton.jit
def _place(i, j):
    """Of entries (i, j) and (j, i) in the triangle."""
    high, low = tl.maximum(i, j), tl.minimum(i, j)
    return high * (high + 1) // 2 + low


@kernel()
def _sym_packed_matvec_fwd_kernel(
    packed_ptr, x_ptr, y_ptr, n: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(0).to(tl.int64)
    packed_ptr += frame * (n * (n + 1) // 2)
    for i0 in range(0, n, BLOCK):
        i = i0 + tl.arange(0, BLOCK)
        y = tl.zeros((BLOCK,), dtype=ACC)
        for j0 in range(0, n, BLOCK):
            j = j0 + tl.arange(0, BLOCK)
            inside = (i < n)[:, None] & (j < n)[None, :]
            S = tl.load(packed_ptr + _place(i[:, None], j[None, :]), mask=inside, other=0.0)
            x = tl.load(x_ptr + frame * n + j, mask=j < n, other=0.0)
            y += tl.sum(S.to(ACC) * x.to(ACC)[None, :], axis=1)
        tl.store(y_ptr + frame * n + i, y.to(y_ptr.dtype.element_ty), mask=i < n)


@kernel()
def _sym_packed_matvec_grad_kernel(
    grad_ptr, x_ptr, out_ptr, n: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[i, j] = g_i x_j + g_j x_i below the diagonal, g_i x_i on it."""
    frame = tl.program_id(0).to(tl.int64)
    out_ptr += frame * (n * (n + 1) // 2)
    for i0 in range(0, n, BLOCK):
        i = i0 + tl.arange(0, BLOCK)
        gi = tl.load(grad_ptr + frame * n + i, mask=i < n, other=0.0).to(ACC)[:, None]
        xi = tl.load(x_ptr + frame * n + i, mask=i < n, other=0.0).to(ACC)[:, None]
        for j0 in range(0, i0 + BLOCK, BLOCK):
            j = j0 + tl.arange(0, BLOCK)
            gj = tl.load(grad_ptr + frame * n + j, mask=j < n, other=0.0).to(ACC)[None, :]
            xj = tl.load(x_ptr + frame * n + j, mask=j < n, other=0.0).to(ACC)[None, :]
            below = i[:, None] > j[None, :]
            value = gi * xj + tl.where(below, gj * xi, 0.0)
            tl.store(
                out_ptr + _place(i[:, None], j[None, :]),
                value.to(out_ptr.dtype.element_ty),
                mask=(i < n)[:, None] & (below | (i[:, None] == j[None, :])),
            )


def supports(packed, x) -> str | None:
    if x.dtype not in _tiles.DTYPES:
        return f"no {str(x.dtype).removeprefix('torch.')} kernel"
    if x.shape[1] > MAX_SIZE:
        return f"matrices of at most {MAX_SIZE} rows, got {x.shape[1]}"
    return None


def _multiply(packed, x):
    y = x.new_empty(x.shape)
    if y.numel():
        n = x.shape[1]
        _sym_packed_matvec_fwd_kernel[len(x),](
            packed, x, y, n=n, ACC=_tiles.accumulator(x), BLOCK=_tiles.pow2(n, high=TILE)
        )
    return y


@_tiles.on_device
def forward(packed, x):
    return _multiply(*_tiles.contiguous(packed, x))


@_tiles.on_device
def backward(grad, packed, x, needs):
    grad, packed, x = _tiles.contiguous(grad, packed, x)
    wants = _tiles.wants(GRADS, needs)
    dpacked = packed.new_empty(packed.shape if wants("packed") else 0)
    if dpacked.numel():
        n = x.shape[1]
        _sym_packed_matvec_grad_kernel[len(x),](
            grad, x, dpacked, n=n, ACC=_tiles.accumulator(x), BLOCK=_tiles.pow2(n, high=TILE)
        )
    return dpacked, _multiply(packed, grad) if wants("x") else x.new_empty(0)
