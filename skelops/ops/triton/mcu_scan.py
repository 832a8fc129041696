"""Recurrent units on a GPU: a program owns some clips of one modality for all frames.

A row of the state fits into registers, so that normalisation needs no exchange; what a product
contracts goes through a scratch of one frame, which stays in the cache. States enter products in
two halves where the weights are of a half type: the recurrence is as exact as in float32. Weights
stream from the second-level cache once per frame.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("pre", "weight", "ln_weight", "ln_bias", "h0")
VARYING = ("N", "T", "N_BLOCKS")
MAX_WIDTH = 512  # beyond, rows of three gates no longer fit into registers
BLOCK_N = tl.constexpr(16)  # rows of a matrix instruction


@triton.jit
def _product(
    a_ptr, a_stride, w_ptr, w_row, w_column, rows, K, D, acc,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """acc (n, d) + sum_k a[n, k] w[k, d], a in float32."""
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    for k0 in range(0, K, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        a = tl.load(
            a_ptr + n[:, None] * a_stride + k, mask=(n < rows)[:, None] & (k < K), other=0.0
        )
        w = tl.load(
            w_ptr + k[:, None] * w_row + d[None, :] * w_column,
            mask=(k < K)[:, None] & (d < D),
            other=0.0,
        )
        if w_ptr.dtype.element_ty == tl.float32:
            acc = tl.dot(a, w, acc, input_precision="tf32x3")
        else:
            high = a.to(w.dtype)
            acc = tl.dot(high, w, acc)
            acc = tl.dot((a - high.to(tl.float32)).to(w.dtype), w, acc)
    return acc


@triton.jit
def _normalised(a, known, D, NORM: tl.constexpr):
    """x = (a - mean) / sigma with zeros behind D, and 1 / sigma."""
    rstd = tl.full((BLOCK_N,), 1.0, tl.float32)
    if NORM:
        mean = tl.sum(a, axis=1) / D
        a = tl.where(known, a - mean[:, None], 0.0)
        rstd = 1.0 / tl.sqrt(tl.sum(a * a, axis=1) / D + 1e-5)
        a *= rstd[:, None]
    return a, rstd


@triton.jit
def _argument(x, gate: tl.constexpr, ln_weight_ptr, ln_bias_ptr, d, D):
    """w x + b."""
    if ln_weight_ptr is not None:
        w = tl.load(ln_weight_ptr + gate * D + d, mask=d < D, other=0.0).to(tl.float32)
        b = tl.load(ln_bias_ptr + gate * D + d, mask=d < D, other=0.0).to(tl.float32)
        x = x * w[None, :] + b[None, :]
    return x


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@kernel(VARYING)
def _mcu_scan_fwd_kernel(
    pre_ptr, weight_ptr, ln_weight_ptr, ln_bias_ptr, h0_ptr, out_ptr, notes_ptr, rstd_ptr,
    scratch_ptr, N, T, N_BLOCKS, D,
    AFTER: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    s = (tl.program_id(0) // N_BLOCKS).to(tl.int64)
    n0 = tl.program_id(0) % N_BLOCKS * BLOCK_N
    rows = tl.minimum(N - n0, BLOCK_N)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    known = (n < rows)[:, None] & (d < D)
    NORM: tl.constexpr = ln_weight_ptr is not None
    KEPT: tl.constexpr = 4 if AFTER else 3
    weight_ptr += s * 3 * D * D
    if NORM:
        ln_weight_ptr += s * 3 * D
        ln_bias_ptr += s * 3 * D
    first = s * N + n0
    scratch_ptr += first * D
    held = scratch_ptr + n[:, None] * D + d
    h = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    if h0_ptr is not None:
        at = h0_ptr + (first + n)[:, None] * D + d
        h += tl.load(at, mask=known, other=0.0).to(tl.float32)
    for t in range(T):
        row = (first + n) * T + t
        pre = pre_ptr + row[:, None] * (3 * D) + d
        notes = notes_ptr + row[:, None] * (KEPT * D) + d
        tl.debug_barrier()  # the scratch is free
        tl.store(held, h, mask=known)
        tl.debug_barrier()
        a = tl.load(pre + D, mask=known, other=0.0).to(tl.float32)
        a = _product(scratch_ptr, D, weight_ptr + D * D, 1, D, rows, D, D, a, BLOCK_K, BLOCK_D)
        x, rstd = _normalised(a, known, D, NORM)
        tl.store(notes + D, x, mask=known)
        tl.store(rstd_ptr + row * 3 + 1, rstd, mask=n < rows)
        z = tl.sigmoid(_argument(x, 1, ln_weight_ptr, ln_bias_ptr, d, D))
        a = tl.load(pre, mask=known, other=0.0).to(tl.float32)
        a = _product(scratch_ptr, D, weight_ptr, 1, D, rows, D, D, a, BLOCK_K, BLOCK_D)
        x, rstd = _normalised(a, known, D, NORM)
        tl.store(notes, x, mask=known)
        tl.store(rstd_ptr + row * 3, rstd, mask=n < rows)
        r = tl.sigmoid(_argument(x, 0, ln_weight_ptr, ln_bias_ptr, d, D))
        a = tl.load(pre + 2 * D, mask=known, other=0.0).to(tl.float32)
        if AFTER:
            m = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
            m = _product(
                scratch_ptr, D, weight_ptr + 2 * D * D, 1, D, rows, D, D, m, BLOCK_K, BLOCK_D
            )
            tl.store(notes + 3 * D, m, mask=known)
            a += r * m
        else:
            tl.debug_barrier()
            tl.store(held, r * h, mask=known)
            tl.debug_barrier()
            a = _product(
                scratch_ptr, D, weight_ptr + 2 * D * D, 1, D, rows, D, D, a, BLOCK_K, BLOCK_D
            )
        x, rstd = _normalised(a, known, D, NORM)
        tl.store(notes + 2 * D, x, mask=known)
        tl.store(rstd_ptr + row * 3 + 2, rstd, mask=n < rows)
        h += z * (_tanh(_argument(x, 2, ln_weight_ptr, ln_bias_ptr, d, D)) - h)
        tl.store(out_ptr + row[:, None] * D + d, h.to(out_ptr.dtype.element_ty), mask=known)


@triton.jit
def _back_through_norm(
    dy, x, rstd, total_w, total_b, gate: tl.constexpr, ln_weight_ptr, d, known, D
):
    """From the gradient of w x + b that of its argument; the sums over rows are added up."""
    if ln_weight_ptr is not None:
        total_w += tl.sum(dy * x, axis=0)
        total_b += tl.sum(dy, axis=0)
        w = tl.load(ln_weight_ptr + gate * D + d, mask=d < D, other=0.0).to(tl.float32)
        dy *= w[None, :]
        mean = tl.sum(dy, axis=1) / D
        slope = tl.sum(dy * x, axis=1) / D
        dy = (dy - mean[:, None] - x * slope[:, None]) * rstd[:, None]
    return tl.where(known, dy, 0.0), total_w, total_b


@kernel(VARYING)
def _mcu_scan_bwd_kernel(
    grad_ptr, weight_ptr, ln_weight_ptr, ln_bias_ptr, h0_ptr, out_ptr, notes_ptr, rstd_ptr,
    dpre_ptr, prev_ptr, side_ptr, norms_ptr, dh0_ptr, scratch_ptr, N, T, N_BLOCKS, D,
    AFTER: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Also writes what the gradient of the weights is a product of: the states before (prev), and
    the reset states, or with AFTER the gradient of the product that is reset (side)."""
    s = (tl.program_id(0) // N_BLOCKS).to(tl.int64)
    n0 = tl.program_id(0) % N_BLOCKS * BLOCK_N
    rows = tl.minimum(N - n0, BLOCK_N)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    known = (n < rows)[:, None] & (d < D)
    KEPT: tl.constexpr = 4 if AFTER else 3
    dtype = dpre_ptr.dtype.element_ty
    weight_ptr += s * 3 * D * D
    if ln_weight_ptr is not None:
        ln_weight_ptr += s * 3 * D
        ln_bias_ptr += s * 3 * D
    first = s * N + n0
    scratch_ptr += first * 2 * D
    held = scratch_ptr + n[:, None] * (2 * D) + d
    dh = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    w_r = tl.zeros((BLOCK_D,), dtype=tl.float32)
    w_z, w_n, b_r, b_z, b_n = w_r, w_r, w_r, w_r, w_r
    for step in range(T):
        t = T - 1 - step
        row = (first + n) * T + t
        notes = notes_ptr + row[:, None] * (KEPT * D) + d
        rstd = rstd_ptr + row * 3
        dpre = dpre_ptr + row[:, None] * (3 * D) + d
        at = row[:, None] * D + d
        prev = tl.load(out_ptr + at - D, mask=known & (t > 0), other=0.0).to(tl.float32)
        if h0_ptr is not None:
            start = h0_ptr + (first + n)[:, None] * D + d
            prev += tl.load(start, mask=known & (t == 0), other=0.0).to(tl.float32)
        dh += tl.load(grad_ptr + at, mask=known, other=0.0).to(tl.float32)
        x_z = tl.load(notes + D, mask=known, other=0.0)
        x_n = tl.load(notes + 2 * D, mask=known, other=0.0)
        z = tl.sigmoid(_argument(x_z, 1, ln_weight_ptr, ln_bias_ptr, d, D))
        c = _tanh(_argument(x_n, 2, ln_weight_ptr, ln_bias_ptr, d, D))
        dz = dh * (c - prev) * z * (1.0 - z)
        dn = dh * z * (1.0 - c * c)
        dh *= 1.0 - z
        factor = tl.load(rstd + 1, mask=n < rows, other=0.0)
        dz, w_z, b_z = _back_through_norm(dz, x_z, factor, w_z, b_z, 1, ln_weight_ptr, d, known, D)
        factor = tl.load(rstd + 2, mask=n < rows, other=0.0)
        dn, w_n, b_n = _back_through_norm(dn, x_n, factor, w_n, b_n, 2, ln_weight_ptr, d, known, D)
        x_r = tl.load(notes, mask=known, other=0.0)
        r = tl.sigmoid(_argument(x_r, 0, ln_weight_ptr, ln_bias_ptr, d, D))
        tl.store(dpre + D, dz.to(dtype), mask=known)
        tl.store(dpre + 2 * D, dn.to(dtype), mask=known)
        tl.store(prev_ptr + at, prev.to(dtype), mask=known)
        product = dn
        if AFTER:
            product = dn * r
            tl.store(side_ptr + at, product.to(dtype), mask=known)
        else:
            tl.store(side_ptr + at, (r * prev).to(dtype), mask=known)
        tl.debug_barrier()  # the scratch is free
        tl.store(held, product, mask=known)
        tl.debug_barrier()
        g = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
        g = _product(
            scratch_ptr, 2 * D, weight_ptr + 2 * D * D, D, 1, rows, D, D, g, BLOCK_K, BLOCK_D
        )
        if AFTER:
            dr = dn * tl.load(notes + 3 * D, mask=known, other=0.0)
            dh += g
        else:
            dr = g * prev
            dh += g * r
        dr *= r * (1.0 - r)
        factor = tl.load(rstd, mask=n < rows, other=0.0)
        dr, w_r, b_r = _back_through_norm(dr, x_r, factor, w_r, b_r, 0, ln_weight_ptr, d, known, D)
        tl.store(dpre, dr.to(dtype), mask=known)
        tl.debug_barrier()
        tl.store(held, dr, mask=known)
        tl.store(held + D, dz, mask=known)
        tl.debug_barrier()
        dh = _product(scratch_ptr, 2 * D, weight_ptr, D, 1, rows, 2 * D, D, dh, BLOCK_K, BLOCK_D)
    if dh0_ptr is not None:
        at = dh0_ptr + (first + n)[:, None] * D + d
        tl.store(at, dh.to(dh0_ptr.dtype.element_ty), mask=known)
    if ln_weight_ptr is not None:
        norms_ptr += tl.program_id(0).to(tl.int64) * 6 * D + d
        tl.store(norms_ptr, w_r, mask=d < D)
        tl.store(norms_ptr + D, w_z, mask=d < D)
        tl.store(norms_ptr + 2 * D, w_n, mask=d < D)
        tl.store(norms_ptr + 3 * D, b_r, mask=d < D)
        tl.store(norms_ptr + 4 * D, b_z, mask=d < D)
        tl.store(norms_ptr + 5 * D, b_n, mask=d < D)


def supports(pre, weight, ln_weight, ln_bias, h0, reset_after) -> str | None:
    if pre.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(pre.dtype).removeprefix('torch.')} kernel"
    if weight.shape[2] > MAX_WIDTH:
        return f"at most {MAX_WIDTH} channels, got {weight.shape[2]}"
    return None


def _blocks(x: Tensor, D: int) -> dict[str, int]:
    BLOCK_D = _tiles.pow2(D, 16)
    BLOCK_K = min(BLOCK_D, _tiles.contraction(x))
    return dict(BLOCK_K=BLOCK_K, BLOCK_D=BLOCK_D, num_warps=8 if BLOCK_D > 128 else 4, num_stages=2)


@_tiles.on_device
def forward(pre, weight, ln_weight, ln_bias, h0, reset_after):
    pre, weight, ln_weight, ln_bias, h0 = _tiles.contiguous(pre, weight, ln_weight, ln_bias, h0)
    (S, N, T, _), D = pre.shape, weight.shape[2]
    out = pre.new_empty(S, N, T, D)
    notes = pre.new_empty(S, N, T, 3 + reset_after, D, dtype=torch.float32)
    rstd = pre.new_empty(S, N, T, 3, dtype=torch.float32)
    if out.numel():
        N_BLOCKS = _tiles.cdiv(N, BLOCK_N.value)
        scratch = pre.new_empty(S, N, D, dtype=torch.float32)
        _mcu_scan_fwd_kernel[S * N_BLOCKS,](
            pre, weight, ln_weight, ln_bias, h0, out, notes, rstd, scratch, N, T, N_BLOCKS, D,
            AFTER=reset_after, **_blocks(pre, D),
        )  # fmt: skip
    return out, notes, rstd


@_tiles.on_device
def backward(
    grad, pre, weight, ln_weight, ln_bias, h0, reset_after, states, notes, rstd, needs
):  # fmt: skip
    grad, weight, ln_weight, ln_bias, h0 = _tiles.contiguous(grad, weight, ln_weight, ln_bias, h0)
    (S, N, T, _), D = pre.shape, weight.shape[2]
    wants = _tiles.wants(GRADS, needs)
    N_BLOCKS = _tiles.cdiv(N, BLOCK_N.value)
    dpre = pre.new_empty(pre.shape)
    prev, side = pre.new_empty(S, N, T, D), pre.new_empty(S, N, T, D)
    norms = pre.new_empty(S, N_BLOCKS, 2, 3, D, dtype=torch.float32)
    dh0 = torch.empty_like(h0) if wants("h0") else None
    if N * S * D:
        scratch = pre.new_empty(S, N, 2 * D, dtype=torch.float32)
        _mcu_scan_bwd_kernel[S * N_BLOCKS,](
            grad, weight, ln_weight, ln_bias, h0, states, notes, rstd,
            dpre, prev, side, norms, dh0, scratch, N, T, N_BLOCKS, D,
            AFTER=reset_after, **_blocks(pre, D),
        )  # fmt: skip
    found = {"pre": dpre, "h0": dh0}
    if wants("weight"):
        found["weight"] = _weight_grad(dpre, prev, side, D, reset_after)
    if wants("ln_weight") or wants("ln_bias"):
        sums = norms.sum(1)
        found["ln_weight"] = sums[:, 0].to(ln_weight.dtype, memory_format=torch.contiguous_format)
        found["ln_bias"] = sums[:, 1].to(ln_bias.dtype, memory_format=torch.contiguous_format)
    return tuple(found[name] if wants(name) else grad.new_empty(0) for name in GRADS)


def _weight_grad(dpre: Tensor, prev: Tensor, side: Tensor, D: int, reset_after: bool) -> Tensor:
    """(S, 3 D, D): arguments' gradients by the states that their products took."""
    dpre, prev, side = (t.flatten(1, 2) for t in (dpre, prev, side))
    left, right = (side, prev) if reset_after else (dpre[..., 2 * D :], side)
    dweight = dpre.new_empty(dpre.shape[0], 3 * D, D)
    dweight[:, : 2 * D] = dpre[..., : 2 * D].mT @ prev
    dweight[:, 2 * D :] = left.mT @ right
    return dweight
