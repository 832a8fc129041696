"""Sampling of volumes on a GPU: corners are read once, eight per point, with all their channels.

The gradient of the volume takes no atomics: it is the product of the matrix of shares, made on the
fly from the distances between cells and places, with the gradient of the samples. Points are tried
in blocks, and a block that touches none of a program's cells costs three loads.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("value", "loc", "weight")
VARYING = ("N", "Q", "Q_BLOCKS", "L_BLOCKS")


@triton.jit
def _held(x, SIZE, ZEROS: tl.constexpr):
    """Places along an axis, moved to where sampling stays the same, and whether they were there."""
    low = -1.0 if ZEROS else 0.0
    high = SIZE * 1.0 if ZEROS else SIZE - 1.0
    return tl.minimum(tl.maximum(x, low), high), (x >= low) & (x <= high)


@triton.jit
def _side(x, SIDE: tl.constexpr, SIZE, ZEROS: tl.constexpr):
    """The cell below (0) or above (1) places, its share and the slope of the share."""
    below = tl.floor(x)
    part = x - below
    cell = below.to(tl.int32) + SIDE
    inside = (cell >= 0) & (cell < SIZE)
    share = part if SIDE == 1 else 1.0 - part
    slope = tl.full(x.shape, 1.0 if SIDE == 1 else -1.0, tl.float32)
    if ZEROS:
        share = tl.where(inside, share, 0.0)
        slope = tl.where(inside, slope, 0.0)
    return tl.minimum(tl.maximum(cell, 0), SIZE - 1), share, slope


@kernel(VARYING)
def _deform_sample_fwd_kernel(
    value_ptr, loc_ptr, weight_ptr, out_ptr, Q, Q_BLOCKS, G, P, C, T, H, W,
    ZEROS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // Q_BLOCKS).to(tl.int64)
    q = tl.program_id(0) % Q_BLOCKS * BLOCK_Q + tl.arange(0, BLOCK_Q)
    g = tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = q < Q
    here = known[:, None] & (c < C)
    value_ptr += (n * T * H * W * G + g) * C
    row = (n * Q + q) * G + g
    total = tl.zeros((BLOCK_Q, BLOCK_C), dtype=tl.float32)
    for p in range(P):
        at = row * P + p
        t = tl.load(loc_ptr + at * 3, mask=known, other=0.0).to(tl.float32)
        y = tl.load(loc_ptr + at * 3 + 1, mask=known, other=0.0).to(tl.float32)
        x = tl.load(loc_ptr + at * 3 + 2, mask=known, other=0.0).to(tl.float32)
        t, _ = _held(t, T, ZEROS)
        y, _ = _held(y, H, ZEROS)
        x, _ = _held(x, W, ZEROS)
        scale = 1.0
        if weight_ptr is not None:
            scale = tl.load(weight_ptr + at, mask=known, other=0.0).to(tl.float32)
        for i in tl.static_range(2):
            cell_t, share_t, _ = _side(t, i, T, ZEROS)
            for j in tl.static_range(2):
                cell_y, share_y, _ = _side(y, j, H, ZEROS)
                for k in tl.static_range(2):
                    cell_x, share_x, _ = _side(x, k, W, ZEROS)
                    cell = ((cell_t * H + cell_y) * W + cell_x).to(tl.int64)
                    corner = tl.load(
                        value_ptr + cell[:, None] * G * C + c, mask=here, other=0.0
                    ).to(tl.float32)
                    total += (share_t * share_y * share_x * scale)[:, None] * corner
    tl.store(out_ptr + row[:, None] * C + c, total.to(out_ptr.dtype.element_ty), mask=here)


@kernel(VARYING)
def _deform_sample_grad_points_kernel(
    grad_ptr, value_ptr, loc_ptr, weight_ptr, dloc_ptr, dweight_ptr, Q, Q_BLOCKS, G, P, C, T, H, W,
    ZEROS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // Q_BLOCKS).to(tl.int64)
    q = tl.program_id(0) % Q_BLOCKS * BLOCK_Q + tl.arange(0, BLOCK_Q)
    g = tl.program_id(1)
    p = tl.program_id(2)
    known = q < Q
    value_ptr += (n * T * H * W * G + g) * C
    row = (n * Q + q) * G + g
    at = row * P + p
    t = tl.load(loc_ptr + at * 3, mask=known, other=0.0).to(tl.float32)
    y = tl.load(loc_ptr + at * 3 + 1, mask=known, other=0.0).to(tl.float32)
    x = tl.load(loc_ptr + at * 3 + 2, mask=known, other=0.0).to(tl.float32)
    t, in_t = _held(t, T, ZEROS)
    y, in_y = _held(y, H, ZEROS)
    x, in_x = _held(x, W, ZEROS)
    dt = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    dy = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    dx = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    dweight = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        here = known[:, None] & (c < C)
        grad = tl.load(grad_ptr + row[:, None] * C + c, mask=here, other=0.0).to(tl.float32)
        for i in tl.static_range(2):
            cell_t, share_t, slope_t = _side(t, i, T, ZEROS)
            for j in tl.static_range(2):
                cell_y, share_y, slope_y = _side(y, j, H, ZEROS)
                for k in tl.static_range(2):
                    cell_x, share_x, slope_x = _side(x, k, W, ZEROS)
                    cell = ((cell_t * H + cell_y) * W + cell_x).to(tl.int64)
                    corner = tl.load(
                        value_ptr + cell[:, None] * G * C + c, mask=here, other=0.0
                    ).to(tl.float32)
                    product = tl.sum(grad * corner, axis=1)
                    dt += product * (slope_t * share_y * share_x)
                    dy += product * (share_t * slope_y * share_x)
                    dx += product * (share_t * share_y * slope_x)
                    dweight += product * (share_t * share_y * share_x)
    if dloc_ptr is not None:
        scale = 1.0
        if weight_ptr is not None:
            scale = tl.load(weight_ptr + at, mask=known, other=0.0).to(tl.float32)
        dtype = dloc_ptr.dtype.element_ty
        tl.store(dloc_ptr + at * 3, tl.where(in_t, dt * scale, 0.0).to(dtype), mask=known)
        tl.store(dloc_ptr + at * 3 + 1, tl.where(in_y, dy * scale, 0.0).to(dtype), mask=known)
        tl.store(dloc_ptr + at * 3 + 2, tl.where(in_x, dx * scale, 0.0).to(dtype), mask=known)
    if dweight_ptr is not None:
        tl.store(dweight_ptr + at, dweight.to(dweight_ptr.dtype.element_ty), mask=known)


@kernel(VARYING)
def _deform_sample_grad_value_kernel(
    grad_ptr, loc_ptr, weight_ptr, dvalue_ptr, Q, L_BLOCKS, G, P, C, T, H, W,
    ZEROS: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Of BLOCK_L cells in a row: the shares of (cell, point), times the gradients of the points."""
    n = (tl.program_id(0) // L_BLOCKS).to(tl.int64)
    first = tl.program_id(0) % L_BLOCKS * BLOCK_L
    cell = first + tl.arange(0, BLOCK_L)
    g = tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    cell_t = (cell // (H * W)).to(tl.float32)[:, None]
    cell_y = (cell // W % H).to(tl.float32)[:, None]
    cell_x = (cell % W).to(tl.float32)[:, None]
    first_t = first // (H * W)
    last_t = (first + BLOCK_L - 1) // (H * W)
    dtype = grad_ptr.dtype.element_ty
    total = tl.zeros((BLOCK_L, BLOCK_C), dtype=tl.float32)
    for p0 in range(0, Q * P, BLOCK_P):
        point = p0 + tl.arange(0, BLOCK_P)
        known = point < Q * P
        row = (n * Q + point // P) * G + g
        at = row * P + point % P
        t = tl.load(loc_ptr + at * 3, mask=known, other=0.0).to(tl.float32)
        t, _ = _held(t, T, ZEROS)
        near = known & (t > first_t - 1) & (t < last_t + 1)
        if tl.max(near.to(tl.int32), axis=0) > 0:
            y = tl.load(loc_ptr + at * 3 + 1, mask=near, other=0.0).to(tl.float32)
            x = tl.load(loc_ptr + at * 3 + 2, mask=near, other=0.0).to(tl.float32)
            y, _ = _held(y, H, ZEROS)
            x, _ = _held(x, W, ZEROS)
            share = tl.maximum(1.0 - tl.abs(t[None, :] - cell_t), 0.0)
            share *= tl.maximum(1.0 - tl.abs(y[None, :] - cell_y), 0.0)
            share *= tl.maximum(1.0 - tl.abs(x[None, :] - cell_x), 0.0)
            share = tl.where(near[None, :], share, 0.0)
            if tl.max(tl.max(share, axis=1), axis=0) > 0:
                if weight_ptr is not None:
                    share *= tl.load(weight_ptr + at, mask=near, other=0.0).to(tl.float32)[None, :]
                grad = tl.load(
                    grad_ptr + row[:, None] * C + c, mask=near[:, None] & (c < C), other=0.0
                )
                total = tl.dot(share.to(dtype), grad, total, input_precision="tf32x3")
    here = (cell < T * H * W)[:, None] & (c < C)
    to = ((n * T * H * W + cell)[:, None] * G + g) * C + c
    tl.store(dvalue_ptr + to, total.to(dvalue_ptr.dtype.element_ty), mask=here)


def supports(value, loc, weight, zeros) -> str | None:
    if value.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(value.dtype).removeprefix('torch.')} kernel"
    if max(value.shape[1:4].numel(), loc.shape[1] * loc.shape[3]) >= _tiles.MAX_PLANE:
        return f"less than {_tiles.MAX_PLANE} cells and points per sample"
    return None


@_tiles.on_device
def forward(value, loc, weight, zeros):
    value, loc, weight = _tiles.contiguous(value, loc, weight)
    (N, T, H, W, G, C), (Q, P) = value.shape, (loc.shape[1], loc.shape[3])
    out = value.new_empty(N, Q, G, C)
    if out.numel():
        BLOCK_C = _tiles.pow2(C, 16, 128)
        BLOCK_Q = _tiles.pow2(Q, high=2048 // BLOCK_C)
        Q_BLOCKS = _tiles.cdiv(Q, BLOCK_Q)
        _deform_sample_fwd_kernel[N * Q_BLOCKS, G, _tiles.cdiv(C, BLOCK_C)](
            value, loc, weight, out, Q, Q_BLOCKS, G, P, C, T, H, W,
            ZEROS=zeros, BLOCK_Q=BLOCK_Q, BLOCK_C=BLOCK_C, num_warps=4,
        )  # fmt: skip
    return out


@_tiles.on_device
def backward(grad, value, loc, weight, zeros, needs):
    grad, value, loc, weight = _tiles.contiguous(grad, value, loc, weight)
    (N, T, H, W, G, C), (Q, P) = value.shape, (loc.shape[1], loc.shape[3])
    wants = _tiles.wants(GRADS, needs)
    dvalue, dloc, dweight = (
        torch.empty_like(t) if wants(name) else None
        for name, t in zip(GRADS, (value, loc, weight), strict=True)
    )
    if N * Q * G * P and (wants("loc") or wants("weight")):
        BLOCK_C = _tiles.pow2(C, 16, 128)
        BLOCK_Q = _tiles.pow2(Q, high=1024 // BLOCK_C)
        Q_BLOCKS = _tiles.cdiv(Q, BLOCK_Q)
        _deform_sample_grad_points_kernel[N * Q_BLOCKS, G, P](
            grad, value, loc, weight, dloc, dweight, Q, Q_BLOCKS, G, P, C, T, H, W,
            ZEROS=zeros, BLOCK_Q=BLOCK_Q, BLOCK_C=BLOCK_C, num_warps=4,
        )  # fmt: skip
    if dvalue is not None and dvalue.numel():
        BLOCK_L, BLOCK_C = _tiles.pow2(T * H * W, 16, 64), _tiles.pow2(C, 16, 128)
        L_BLOCKS = _tiles.cdiv(T * H * W, BLOCK_L)
        _deform_sample_grad_value_kernel[N * L_BLOCKS, G, _tiles.cdiv(C, BLOCK_C)](
            grad, loc, weight, dvalue, Q, L_BLOCKS, G, P, C, T, H, W,
            ZEROS=zeros, BLOCK_L=BLOCK_L, BLOCK_P=_tiles.contraction(value), BLOCK_C=BLOCK_C,
            num_warps=4, num_stages=2,
        )  # fmt: skip
    return tuple(grad.new_empty(0) if t is None else t for t in (dvalue, dloc, dweight))
