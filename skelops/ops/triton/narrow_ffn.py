"""Narrow feed-forward on a GPU: hidden units stay in registers, in both directions.

The backward computes them again, once for the gradient of x and once for those of the weights,
whose sums over rows are split among programs and merged: no atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from skelops.ops.triton import _dropout, _tiles
from skelops.ops.triton._dropout import kept
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._merge import merge

GRADS = ("x", "w1", "b1", "w2", "b2")
MAX_CHANNELS = 128
BLOCK_H = _dropout.UNITS
VARYING = ("N", "SPLITS", "DROPPED")


@triton.jit
def _rows(x_ptr, n, N, D, d):
    inside = (n < N)[:, None] & (d < D)[None, :]
    return tl.load(x_ptr + n.to(tl.int64)[:, None] * D + d, mask=inside, other=0.0)


@triton.jit
def _units(x, w1_ptr, b1_ptr, h, d, H, D, PRECISION: tl.constexpr):
    """Rectified units (row, unit) of rows x (row, channel)."""
    inside = (h < H)[None, :] & (d < D)[:, None]
    w1 = tl.load(w1_ptr + h[None, :] * D + d[:, None], mask=inside, other=0.0)  # (d, h)
    z = tl.dot(x, w1, input_precision=PRECISION)
    z += tl.load(b1_ptr + h, mask=h < H, other=0.0).to(tl.float32)[None, :]
    return tl.where(z < 0, 0.0, z)  # NaN stays


@triton.jit
def _slopes(g, units, w2_ptr, h, d, H, D, PRECISION: tl.constexpr):
    """Gradients of the units in front of the rectifier, without the dropout between."""
    inside = (h < H)[None, :] & (d < D)[:, None]
    w2 = tl.load(w2_ptr + d[:, None] * H + h[None, :], mask=inside, other=0.0)  # (d, h)
    return tl.where(units <= 0, 0.0, tl.dot(g, w2, input_precision=PRECISION))


@kernel(VARYING)
def _narrow_ffn_fwd_kernel(
    x_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, seed_ptr, out_ptr, N, H, D, DROPPED, scale,
    TILE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    x = _rows(x_ptr, n, N, D, d)
    y = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    y += tl.load(b2_ptr + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    for h0 in range(0, H, BLOCK_H):
        h = h0 + tl.arange(0, BLOCK_H)
        units = _units(x, w1_ptr, b1_ptr, h, d, H, D, PRECISION)
        if seed_ptr is not None:
            keep = kept(seed_ptr, n, h0, DROPPED, BLOCK_N, TILE)
            units = tl.where(keep, units * scale, 0.0)
        inside = (h < H)[:, None] & (d < D)[None, :]
        w2 = tl.load(w2_ptr + d[None, :] * H + h[:, None], mask=inside, other=0.0)  # (h, d)
        y = tl.dot(units.to(w2.dtype), w2, y, input_precision=PRECISION)
    at = out_ptr + n.to(tl.int64)[:, None] * D + d
    tl.store(at, y.to(out_ptr.dtype.element_ty), mask=(n < N)[:, None] & (d < D)[None, :])


@kernel(VARYING)
def _narrow_ffn_grad_x_kernel(
    grad_ptr, x_ptr, w1_ptr, b1_ptr, w2_ptr, seed_ptr, dx_ptr, N, H, D, DROPPED, scale,
    TILE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    x, g = _rows(x_ptr, n, N, D, d), _rows(grad_ptr, n, N, D, d)
    dx = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    for h0 in range(0, H, BLOCK_H):
        h = h0 + tl.arange(0, BLOCK_H)
        units = _units(x, w1_ptr, b1_ptr, h, d, H, D, PRECISION)
        slope = _slopes(g, units, w2_ptr, h, d, H, D, PRECISION)
        if seed_ptr is not None:
            keep = kept(seed_ptr, n, h0, DROPPED, BLOCK_N, TILE)
            slope = tl.where(keep, slope * scale, 0.0)
        inside = (h < H)[:, None] & (d < D)[None, :]
        w1 = tl.load(w1_ptr + h[:, None] * D + d, mask=inside, other=0.0)  # (h, d)
        dx = tl.dot(slope.to(w1.dtype), w1, dx, input_precision=PRECISION)
    at = dx_ptr + n.to(tl.int64)[:, None] * D + d
    tl.store(at, dx.to(dx_ptr.dtype.element_ty), mask=(n < N)[:, None] & (d < D)[None, :])


@kernel(VARYING)
def _narrow_ffn_grad_weights_kernel(
    grad_ptr, x_ptr, w1_ptr, b1_ptr, w2_ptr, seed_ptr, parts_ptr, bias_ptr, N, H, D, SPLITS,
    DROPPED, scale,
    TILE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """parts[split] = rows of w2 transposed, then of w1; bias[split] = b1."""
    split, h0 = tl.program_id(0), tl.program_id(1) * BLOCK_H
    h = h0 + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    dw1 = tl.zeros((BLOCK_H, BLOCK_D), dtype=tl.float32)
    dw2 = tl.zeros((BLOCK_H, BLOCK_D), dtype=tl.float32)
    db1 = tl.zeros((BLOCK_H,), dtype=tl.float32)
    for n0 in range(split * BLOCK_N, N, SPLITS * BLOCK_N):
        n = n0 + tl.arange(0, BLOCK_N)
        x, g = _rows(x_ptr, n, N, D, d), _rows(grad_ptr, n, N, D, d)
        units = _units(x, w1_ptr, b1_ptr, h, d, H, D, PRECISION)
        slope = _slopes(g, units, w2_ptr, h, d, H, D, PRECISION)
        if seed_ptr is not None:
            keep = kept(seed_ptr, n, h0, DROPPED, BLOCK_N, TILE)
            units = tl.where(keep, units * scale, 0.0)
            slope = tl.where(keep, slope * scale, 0.0)
        db1 += tl.sum(slope, 0)
        dw1 = tl.dot(tl.trans(slope.to(x.dtype)), x, dw1, input_precision=PRECISION)
        dw2 = tl.dot(tl.trans(units.to(g.dtype)), g, dw2, input_precision=PRECISION)
    inside = (h < H)[:, None] & (d < D)[None, :]
    at = parts_ptr + split.to(tl.int64) * 2 * H * D + h[:, None] * D + d
    tl.store(at, dw2, mask=inside)
    tl.store(at + H * D, dw1, mask=inside)
    tl.store(bias_ptr + split.to(tl.int64) * H + h, db1, mask=h < H)


def supports(x, w1, b1, w2, b2, seed, dropped) -> str | None:
    if x.shape[1] > MAX_CHANNELS:
        return f"at most {MAX_CHANNELS} channels, got {x.shape[1]}"
    if x.shape[0] >= 2**31:
        return f"less than {2**31} rows"
    if w1.numel() >= 2**31:
        return f"less than {2**31} weights"
    if x.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(x.dtype).removeprefix('torch.')} kernel"
    return None


def _options(x, dropped: int) -> tuple[tuple, dict]:
    """Arguments and constants that the kernels share."""
    BLOCK_D = _tiles.pow2(x.shape[1], 16)
    BLOCK_N = 64 if x.dtype in _tiles.HALF else 32
    return _dropout.arguments(dropped), {
        "TILE": _dropout.TILE,
        "PRECISION": _tiles.precision(x),
        "BLOCK_N": BLOCK_N,
        "BLOCK_H": BLOCK_H,
        "BLOCK_D": BLOCK_D,
    }


@_tiles.on_device
def forward(x, w1, b1, w2, b2, seed, dropped):
    x, w1, b1, w2, b2 = _tiles.contiguous(x, w1, b1, w2, b2)
    (N, D), H = x.shape, w1.shape[0]
    out = torch.empty_like(x)
    if out.numel():
        drop, options = _options(x, dropped)
        grid = (_tiles.cdiv(N, options["BLOCK_N"]),)
        _narrow_ffn_fwd_kernel[grid](x, w1, b1, w2, b2, seed, out, N, H, D, *drop, **options)
    return out


def _grad_weights(grad, x, w1, b1, w2, seed, dropped, found) -> None:
    (N, D), H = x.shape, w1.shape[0]
    drop, options = _options(x, dropped)
    options["BLOCK_N"] = 32  # two sums of weights are in registers too
    chunks, steps = _tiles.cdiv(H, BLOCK_H), _tiles.cdiv(N, options["BLOCK_N"])
    SPLITS = _tiles.splits(x, chunks, steps, 2) if N else 0
    parts = x.new_empty(SPLITS, 2 * H, D, dtype=torch.float32)
    bias = x.new_empty(SPLITS, 1, H, dtype=torch.float32)
    if SPLITS and H:
        _narrow_ffn_grad_weights_kernel[SPLITS, chunks](
            grad, x, w1, b1, w2, seed, parts, bias, N, H, D, SPLITS, *drop, **options, num_warps=8
        )
    merge(parts, (found.get("w2"), H), (found.get("w1"), H))
    if "b1" in found:
        merge(bias, (found["b1"], 1))


@_tiles.on_device
def backward(grad, x, w1, b1, w2, b2, seed, dropped, needs):
    grad, x, w1, b1, w2, b2 = _tiles.contiguous(grad, x, w1, b1, w2, b2)
    (N, D), H = x.shape, w1.shape[0]
    wants = _tiles.wants(GRADS, needs)
    inputs = dict(zip(GRADS, (x, w1, b1, w2, b2), strict=True))
    found = {name: torch.empty_like(t) for name, t in inputs.items() if wants(name)}
    if wants("x") and x.numel():
        drop, options = _options(x, dropped)
        grid = (_tiles.cdiv(N, options["BLOCK_N"]),)
        _narrow_ffn_grad_x_kernel[grid](
            grad, x, w1, b1, w2, seed, found["x"], N, H, D, *drop, **options, num_warps=8
        )
    if any(wants(name) for name in ("w1", "b1", "w2")):
        _grad_weights(grad, x, w1, b1, w2, seed, dropped, found)
    if wants("b2"):
        found["b2"] = grad.sum(0)
    return tuple(found.get(name, grad.new_empty(0)) for name in GRADS)
