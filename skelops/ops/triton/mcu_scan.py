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

GRADS = ("pre", "weight", "ln_weight", "ln_bias", "h0", "reset_bias")
VARYING = ("N", "T", "N_BLOCKS")
MAX_WIDTH = 512  # beyond, rows of three gates no longer fit into registers
MAX_CLIP = 2**25  # T * D; rows of a program are addressed by int32 from an int64 origin
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


@triton.jit
def _rows(stride, d):
    """Places of the clips' rows, in 32 bits: they need not stay in registers."""
    return tl.arange(0, BLOCK_N)[:, None] * stride + d


@triton.jit
def _load(ptr, stride, d, known):
    return tl.load(ptr + _rows(stride, d), mask=known, other=0.0).to(tl.float32)


@triton.jit
def _store(ptr, stride, d, known, x):
    tl.store(ptr + _rows(stride, d), x.to(ptr.dtype.element_ty), mask=known)


@triton.jit
def _gate(notes, stride, gate: tl.constexpr, ln_weight_ptr, ln_bias_ptr, d, D, known):
    """A gate from its note."""
    x = _load(notes + gate * D, stride, d, known)
    return tl.sigmoid(_argument(x, gate, ln_weight_ptr, ln_bias_ptr, d, D))


@kernel(VARYING)
def _mcu_scan_fwd_kernel(
    pre_ptr, weight_ptr, ln_weight_ptr, ln_bias_ptr, h0_ptr, bias_ptr, out_ptr, notes_ptr, rstd_ptr,
    scratch_ptr, N, T, N_BLOCKS, D,
    AFTER: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The scratch of a row is its state and its reset state: during a product nothing else but the
    sum is in registers."""
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
    scratch_ptr += first * 2 * D
    kept = T * KEPT * D  # from clip to clip
    h = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    if h0_ptr is not None:
        h += _load(h0_ptr + first * D, D, d, known)
    _store(scratch_ptr, 2 * D, d, known, h)
    for t in range(T):
        row = first * T + t
        pre = pre_ptr + row * (3 * D)
        notes = notes_ptr + row * (KEPT * D)
        rstd_t = rstd_ptr + row * 3 + n * (3 * T)
        tl.debug_barrier()
        for gate in tl.static_range(2):
            a = _load(pre + gate * D, 3 * T * D, d, known)
            a = _product(
                scratch_ptr, 2 * D, weight_ptr + gate * D * D, 1, D, rows, D, D, a,
                BLOCK_K, BLOCK_D,
            )  # fmt: skip
            x, rstd = _normalised(a, known, D, NORM)
            _store(notes + gate * D, kept, d, known, x)
            tl.store(rstd_t + gate, rstd, mask=n < rows)
        tl.debug_barrier()
        candidate = weight_ptr + 2 * D * D
        if AFTER:
            a = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
            if bias_ptr is not None:
                a += tl.load(bias_ptr + s * D + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
            a = _product(scratch_ptr, 2 * D, candidate, 1, D, rows, D, D, a, BLOCK_K, BLOCK_D)
            _store(notes + 3 * D, kept, d, known, a)
            a *= _gate(notes, kept, 0, ln_weight_ptr, ln_bias_ptr, d, D, known)
            a += _load(pre + 2 * D, 3 * T * D, d, known)
        else:
            r = _gate(notes, kept, 0, ln_weight_ptr, ln_bias_ptr, d, D, known)
            _store(scratch_ptr + D, 2 * D, d, known, r * _load(scratch_ptr, 2 * D, d, known))
            tl.debug_barrier()
            a = _load(pre + 2 * D, 3 * T * D, d, known)
            a = _product(scratch_ptr + D, 2 * D, candidate, 1, D, rows, D, D, a, BLOCK_K, BLOCK_D)
        x, rstd = _normalised(a, known, D, NORM)
        _store(notes + 2 * D, kept, d, known, x)
        tl.store(rstd_t + 2, rstd, mask=n < rows)
        c = _tanh(_argument(x, 2, ln_weight_ptr, ln_bias_ptr, d, D))
        z = _gate(notes, kept, 1, ln_weight_ptr, ln_bias_ptr, d, D, known)
        h = _load(scratch_ptr, 2 * D, d, known)
        h += z * (c - h)
        tl.debug_barrier()  # the product has read the state
        _store(scratch_ptr, 2 * D, d, known, h)
        _store(out_ptr + row * D, T * D, d, known, h)


@triton.jit
def _back_through_norm(
    dy, x, rstd_ptr, scales_ptr, shifts_ptr, gate: tl.constexpr, ln_weight_ptr, d, rows, D
):
    """From the gradient of w x + b that of its argument; the sums over rows are added up."""
    if ln_weight_ptr is not None:
        at = gate * D + d
        inside = d < D
        total = tl.load(scales_ptr + at, mask=inside, other=0.0)
        tl.store(scales_ptr + at, total + tl.sum(dy * x, axis=0), mask=inside)
        total = tl.load(shifts_ptr + at, mask=inside, other=0.0)
        tl.store(shifts_ptr + at, total + tl.sum(dy, axis=0), mask=inside)
        dy *= tl.load(ln_weight_ptr + at, mask=inside, other=0.0).to(tl.float32)[None, :]
        mean = tl.sum(dy, axis=1) / D
        slope = tl.sum(dy * x, axis=1) / D
        rstd = tl.load(rstd_ptr + gate, mask=tl.arange(0, BLOCK_N) < rows, other=0.0)
        dy = (dy - mean[:, None] - x * slope[:, None]) * rstd[:, None]
    return dy


@triton.jit
def _state_before(out, h0_ptr, first, t, T, d, D, known):
    h = _load(out - D, T * D, d, known & (t > 0))
    if h0_ptr is not None:
        h += _load(h0_ptr + first * D, D, d, known & (t == 0))
    return h


@kernel(VARYING)
def _mcu_scan_bwd_kernel(
    grad_ptr, weight_ptr, ln_weight_ptr, ln_bias_ptr, h0_ptr, out_ptr, notes_ptr, rstd_ptr,
    dpre_ptr, prev_ptr, side_ptr, scales_ptr, shifts_ptr, dh0_ptr, scratch_ptr, N, T, N_BLOCKS, D,
    AFTER: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Also writes what the gradient of the weights is a product of: the states before (prev), and
    the reset states, or with AFTER the gradient of the product that is reset (side). The scratch of
    a row is the gradient of its reset and of its update; what is needed again behind a product is
    read again."""
    s = (tl.program_id(0) // N_BLOCKS).to(tl.int64)
    n0 = tl.program_id(0) % N_BLOCKS * BLOCK_N
    rows = tl.minimum(N - n0, BLOCK_N)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    known = (n < rows)[:, None] & (d < D)
    KEPT: tl.constexpr = 4 if AFTER else 3
    weight_ptr += s * 3 * D * D
    if ln_weight_ptr is not None:
        ln_weight_ptr += s * 3 * D
        ln_bias_ptr += s * 3 * D
        scales_ptr += tl.program_id(0).to(tl.int64) * 3 * D
        shifts_ptr += tl.program_id(0).to(tl.int64) * 3 * D
    first = s * N + n0
    scratch_ptr += first * 2 * D
    kept = T * KEPT * D  # from clip to clip
    dh = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    for step in range(T):
        t = T - 1 - step
        row = first * T + t
        notes = notes_ptr + row * (KEPT * D)
        rstd = rstd_ptr + row * 3 + n * (3 * T)
        dpre = dpre_ptr + row * (3 * D)
        out = out_ptr + row * D
        dh += _load(grad_ptr + row * D, T * D, d, known)
        tl.debug_barrier()  # the scratch is free
        x = _load(notes + 2 * D, kept, d, known)
        c = _tanh(_argument(x, 2, ln_weight_ptr, ln_bias_ptr, d, D))
        dz = c - _state_before(out, h0_ptr, first, t, T, d, D, known)
        z = _gate(notes, kept, 1, ln_weight_ptr, ln_bias_ptr, d, D, known)
        dz *= dh * z * (1.0 - z)
        x = _load(notes + D, kept, d, known)
        dz = _back_through_norm(dz, x, rstd, scales_ptr, shifts_ptr, 1, ln_weight_ptr, d, rows, D)
        _store(dpre + D, 3 * T * D, d, known, dz)
        _store(scratch_ptr + D, 2 * D, d, known, dz)
        x = _load(notes + 2 * D, kept, d, known)
        c = _tanh(_argument(x, 2, ln_weight_ptr, ln_bias_ptr, d, D))
        z = _gate(notes, kept, 1, ln_weight_ptr, ln_bias_ptr, d, D, known)
        dn = dh * z * (1.0 - c * c)
        dh *= 1.0 - z
        dn = _back_through_norm(dn, x, rstd, scales_ptr, shifts_ptr, 2, ln_weight_ptr, d, rows, D)
        _store(dpre + 2 * D, 3 * T * D, d, known, dn)
        prev = _state_before(out, h0_ptr, first, t, T, d, D, known)
        _store(prev_ptr + row * D, T * D, d, known, prev)
        r = _gate(notes, kept, 0, ln_weight_ptr, ln_bias_ptr, d, D, known)
        dr = dn
        if AFTER:
            dr = dn * _load(notes + 3 * D, kept, d, known)
            dn *= r
            _store(side_ptr + row * D, T * D, d, known, dn)
        else:
            _store(side_ptr + row * D, T * D, d, known, r * prev)
        _store(scratch_ptr, 2 * D, d, known, dn)
        tl.debug_barrier()
        candidate = weight_ptr + 2 * D * D
        g = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
        g = _product(scratch_ptr, 2 * D, candidate, D, 1, rows, D, D, g, BLOCK_K, BLOCK_D)
        x = _load(notes, kept, d, known)
        r = tl.sigmoid(_argument(x, 0, ln_weight_ptr, ln_bias_ptr, d, D))
        if AFTER:
            dh += g
        else:
            dr = g * _state_before(out, h0_ptr, first, t, T, d, D, known)
            dh += g * r
        dr *= r * (1.0 - r)
        dr = _back_through_norm(dr, x, rstd, scales_ptr, shifts_ptr, 0, ln_weight_ptr, d, rows, D)
        _store(dpre, 3 * T * D, d, known, dr)
        tl.debug_barrier()
        _store(scratch_ptr, 2 * D, d, known, dr)
        tl.debug_barrier()
        dh = _product(scratch_ptr, 2 * D, weight_ptr, D, 1, rows, 2 * D, D, dh, BLOCK_K, BLOCK_D)
    if dh0_ptr is not None:
        _store(dh0_ptr + first * D, D, d, known, dh)


def supports(pre, weight, ln_weight, ln_bias, h0, reset_bias, reset_after) -> str | None:
    if pre.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(pre.dtype).removeprefix('torch.')} kernel"
    if weight.shape[2] > MAX_WIDTH:
        return f"at most {MAX_WIDTH} channels, got {weight.shape[2]}"
    if pre.shape[2] * weight.shape[2] >= MAX_CLIP:
        return f"less than {MAX_CLIP} values per clip"
    return None


def _blocks(D: int) -> dict[str, int]:
    BLOCK_D = _tiles.pow2(D, 16)
    warps = 8 if BLOCK_D > 128 else 4
    return dict(BLOCK_K=16, BLOCK_D=BLOCK_D, num_warps=warps, num_stages=3)


@_tiles.on_device
def forward(pre, weight, ln_weight, ln_bias, h0, reset_bias, reset_after):
    pre, weight, ln_weight, ln_bias = _tiles.contiguous(pre, weight, ln_weight, ln_bias)
    h0, reset_bias = _tiles.contiguous(h0, reset_bias)
    (S, N, T, _), D = pre.shape, weight.shape[2]
    out = pre.new_empty(S, N, T, D)
    notes = pre.new_empty(S, N, T, 3 + reset_after, D, dtype=torch.float32)
    rstd = pre.new_empty(S, N, T, 3, dtype=torch.float32)
    if out.numel():
        N_BLOCKS = _tiles.cdiv(N, BLOCK_N.value)
        scratch = pre.new_empty(S, N, 2 * D, dtype=torch.float32)
        _mcu_scan_fwd_kernel[S * N_BLOCKS,](
            pre, weight, ln_weight, ln_bias, h0, reset_bias, out, notes, rstd, scratch, N, T,
            N_BLOCKS, D, AFTER=reset_after, **_blocks(D),
        )  # fmt: skip
    return out, notes, rstd


@_tiles.on_device
def backward(
    grad, pre, weight, ln_weight, ln_bias, h0, reset_bias, reset_after, states, notes, rstd, needs
):  # fmt: skip
    grad, weight, ln_weight, ln_bias, h0 = _tiles.contiguous(grad, weight, ln_weight, ln_bias, h0)
    (S, N, T, _), D = pre.shape, weight.shape[2]
    wants = _tiles.wants(GRADS, needs)
    N_BLOCKS = _tiles.cdiv(N, BLOCK_N.value)
    dpre = pre.new_empty(pre.shape)
    prev, side = pre.new_empty(S, N, T, D), pre.new_empty(S, N, T, D)
    scales, shifts = pre.new_zeros(2, S, N_BLOCKS, 3, D, dtype=torch.float32)
    dh0 = torch.empty_like(h0) if wants("h0") else None
    if S * N:
        scratch = pre.new_empty(S, N, 2 * D, dtype=torch.float32)
        _mcu_scan_bwd_kernel[S * N_BLOCKS,](
            grad, weight, ln_weight, ln_bias, h0, states, notes, rstd,
            dpre, prev, side, scales, shifts, dh0, scratch, N, T, N_BLOCKS, D,
            AFTER=reset_after, **_blocks(D),
        )  # fmt: skip
    found = {"pre": dpre, "h0": dh0}
    if wants("weight"):
        found["weight"] = _weight_grad(dpre, prev, side, D, reset_after)
    if wants("ln_weight"):
        found["ln_weight"] = scales.sum(1).to(ln_weight.dtype)
    if wants("ln_bias"):
        found["ln_bias"] = shifts.sum(1).to(ln_bias.dtype)
    if wants("reset_bias"):
        found["reset_bias"] = side.sum((1, 2), dtype=torch.float32).to(reset_bias.dtype)
    return tuple(found[name] if wants(name) else grad.new_empty(0) for name in GRADS)


def _weight_grad(dpre: Tensor, prev: Tensor, side: Tensor, D: int, reset_after: bool) -> Tensor:
    """(S, 3 D, D): arguments' gradients by the states that their products took."""
    dpre, prev, side = (t.flatten(1, 2) for t in (dpre, prev, side))
    left, right = (side, prev) if reset_after else (dpre[..., 2 * D :], side)
    dweight = dpre.new_empty(dpre.shape[0], 3 * D, D)
    dweight[:, : 2 * D] = dpre[..., : 2 * D].mT @ prev
    dweight[:, 2 * D :] = left.mT @ right
    return dweight
