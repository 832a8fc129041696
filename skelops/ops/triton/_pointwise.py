"""The 1x1 transform on a GPU: products of channels over all positions (t, v) of a sample."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops import _gemm
from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel


@triton.jit
def _step(channel, FRAME, FOLD):
    """How far from a channel's place in a temporal shift its values come from."""
    return tl.where(channel < FOLD, FRAME, tl.where(channel < 2 * FOLD, -FRAME, 0))


@kernel(("S_BLOCKS",))
def _transform_kernel(
    w_ptr, x_ptr, out_ptr, C_OUT, C_IN, S, S_BLOCKS, w_stride_o, w_stride_i, FRAME, FOLD,
    SHIFT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """out[n, o, s] = sum_i w[o, i] x[n, i, s], of "in" shifted x, or shifted back "out"."""
    n = (tl.program_id(0) // S_BLOCKS).to(tl.int64)
    s = tl.program_id(0) % S_BLOCKS * BLOCK_S + tl.arange(0, BLOCK_S)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    i = tl.arange(0, BLOCK_I)
    x_ptr += n * C_IN * S
    acc = tl.zeros((BLOCK_O, BLOCK_S), dtype=tl.float32)
    for i0 in range(0, C_IN, BLOCK_I):
        w = tl.load(
            w_ptr + (o[:, None] * w_stride_o + (i0 + i) * w_stride_i),
            mask=(o < C_OUT)[:, None] & (i0 + i < C_IN),
            other=0.0,
        )
        inside = (i0 + i < C_IN)[:, None] & (s < S)
        place = i[:, None] * S + s
        if SHIFT == "in":
            step = _step(i0 + i, FRAME, FOLD)[:, None]
            inside &= (s + step >= 0) & (s + step < S)
            place += step
        x = tl.load(x_ptr + tl.cast(i0, tl.int64) * S + place, mask=inside, other=0.0)
        acc = tl.dot(w, x, acc, input_precision=PRECISION)
    if SHIFT == "out":
        step = _step(o, FRAME, FOLD)[:, None]
        inside = (o < C_OUT)[:, None] & (s < S)
        out = out_ptr + n * C_OUT * S + (o.to(tl.int64)[:, None] * S + s)
        unseen = (s - step < 0) | (s - step >= S)
        zero = tl.zeros((BLOCK_O, BLOCK_S), dtype=out_ptr.dtype.element_ty)
        tl.store(out, zero, mask=inside & unseen)
        inside &= (s + step >= 0) & (s + step < S)
        tl.store(out + step, acc.to(out_ptr.dtype.element_ty), mask=inside)
        return
    tl.store(
        out_ptr + n * C_OUT * S + (o.to(tl.int64)[:, None] * S + s),
        acc.to(out_ptr.dtype.element_ty),
        mask=(o < C_OUT)[:, None] & (s < S),
    )


@kernel(("N", "S_BLOCKS", "SPLITS"))
def _weight_grad_kernel(
    g_ptr, x_ptr, part_ptr, bias_ptr, N, C_OUT, C_IN, S, S_BLOCKS, SPLITS, FRAME, FOLD,
    SHIFT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """part[split, o, i] = sum of g[n, o, s] x[n, i, s] over some (n, s); bias[split, o] of g."""
    split = tl.program_id(0)
    i_blocks = tl.cdiv(C_IN, BLOCK_I)
    o = tl.program_id(1) // i_blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    i = tl.program_id(1) % i_blocks * BLOCK_I + tl.arange(0, BLOCK_I)
    acc = tl.zeros((BLOCK_O, BLOCK_I), dtype=tl.float32)
    total = tl.zeros((BLOCK_O, BLOCK_S), dtype=tl.float32)
    for step in range(split, N * S_BLOCKS, SPLITS):
        n = tl.cast(step // S_BLOCKS, tl.int64)
        s = step % S_BLOCKS * BLOCK_S + tl.arange(0, BLOCK_S)
        g = tl.load(
            g_ptr + n * C_OUT * S + (o[:, None] * S + s),
            mask=(o < C_OUT)[:, None] & (s < S),
            other=0.0,
        )
        inside = (i < C_IN)[:, None] & (s < S)
        place = i[:, None] * S + s
        if SHIFT == "in":
            step = _step(i, FRAME, FOLD)[:, None]
            inside &= (s + step >= 0) & (s + step < S)
            place += step
        x = tl.load(x_ptr + n * C_IN * S + place, mask=inside, other=0.0)
        acc = tl.dot(g, tl.trans(x), acc, input_precision=PRECISION)
        if bias_ptr is not None:
            total += g.to(tl.float32)
    if bias_ptr is not None and tl.program_id(1) % i_blocks == 0:
        tl.store(bias_ptr + split * C_OUT + o, tl.sum(total, axis=1), mask=o < C_OUT)
    tl.store(
        part_ptr + (split.to(tl.int64) * C_OUT + o[:, None]) * C_IN + i,
        acc,
        mask=(o < C_OUT)[:, None] & (i < C_IN),
    )


def transform(weight: Tensor, x: Tensor, shift: str = "", fold: int = 0) -> Tensor:
    """(C', C), (N, ..., T, V) of C channels -> (N, C', T, V); with ``shift`` "in", of x whose
    first 2 * ``fold`` channels are shifted in time, with "out", shifted back."""
    if x.dtype in _tiles.HALF and not shift:
        return _gemm.transform(weight, x)
    (C_OUT, C_IN), N, (T, V) = weight.shape, x.shape[0], x.shape[-2:]
    out = x.new_empty(N, C_OUT, T, V)
    if out.numel():
        BLOCK_S, BLOCK_O = _tiles.pow2(T * V, 16, 128), _tiles.pow2(C_OUT, 16, 64)
        S_BLOCKS = _tiles.cdiv(T * V, BLOCK_S)
        _transform_kernel[N * S_BLOCKS, _tiles.cdiv(C_OUT, BLOCK_O)](
            weight, x, out, C_OUT, C_IN, T * V, S_BLOCKS, weight.stride(0), weight.stride(1),
            V, fold, SHIFT=shift, PRECISION=_tiles.precision(x), BLOCK_O=BLOCK_O,
            BLOCK_I=_tiles.pow2(C_IN, 16, 32), BLOCK_S=BLOCK_S,
            num_warps=4 if BLOCK_O < 64 else 8, num_stages=2,
        )  # fmt: skip
    return out


def weight_grad(
    grad: Tensor, x: Tensor, bias: bool = False, shift: str = "", fold: int = 0
) -> tuple[Tensor, Tensor | None]:
    """(N, ..., T, V) of C' channels, (N, ..., T, V) of C -> the gradient (C', C) of a weight and,
    if it is asked for, (C',) of a bias, in float32; ``shift`` as of ``transform``."""
    N, S = x.shape[0], x.shape[-2] * x.shape[-1]
    C_OUT, C_IN = (t.shape[1:-2].numel() for t in (grad, x))
    half = x.dtype in _tiles.HALF
    BLOCK_O, BLOCK_I = _tiles.pow2(C_OUT, 16, 128 if half else 64), _tiles.pow2(C_IN, 16, 64)
    BLOCK_S = _tiles.pow2(S, 16, 64 if half else 32)
    S_BLOCKS = _tiles.cdiv(S, BLOCK_S)
    blocks = _tiles.cdiv(C_OUT, BLOCK_O) * _tiles.cdiv(C_IN, BLOCK_I)
    SPLITS = _tiles.splits(x, blocks, N * S_BLOCKS, 2) if N * S else 0
    parts = x.new_empty(SPLITS, C_OUT, C_IN, dtype=torch.float32)
    sums = x.new_empty(SPLITS, C_OUT, dtype=torch.float32) if bias else None
    if SPLITS:
        _weight_grad_kernel[SPLITS, blocks](
            grad, x, parts, sums, N, C_OUT, C_IN, S, S_BLOCKS, SPLITS, x.shape[-1], fold,
            SHIFT=shift, PRECISION=_tiles.precision(x), BLOCK_O=BLOCK_O, BLOCK_I=BLOCK_I,
            BLOCK_S=BLOCK_S,
            num_warps=8 if BLOCK_O * BLOCK_I > 2048 else 4, num_stages=3 if half else 2,
        )  # fmt: skip
    return parts.sum(0), None if sums is None else sums.sum(0)
