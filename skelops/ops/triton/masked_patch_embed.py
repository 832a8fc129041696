"""Embedding of chosen tokens on a GPU: gather, product and places in one launch.

The gradients of the tables are products too, with the one-hot rows of joints and segments: no
atomics, and one read of the gradient for all parameters.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._merge import merge

GRADS = ("x", "weight", "bias", "pos", "temp")
MAX_PATCH, MAX_SEGMENTS, MAX_JOINTS = 127, 256, 128
VARYING = ("ROWS", "K", "L", "T", "K_BLOCKS", "SPLITS", "ROW0_POS", "ROW0_TEMP", "PARTS_ROWS")


@triton.jit
def _token(ids_ptr, row, k, inside, L):
    """Tokens of rows (n, k), and whether they are ones."""
    if ids_ptr is None:
        token = k
    else:
        token = tl.load(ids_ptr + row, mask=inside, other=0)
    inside = inside & (token >= 0) & (token < L)
    return tl.where(inside, token, 0).to(tl.int32), inside


@triton.jit
def _offsets(token, V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr, BLOCK_P: tl.constexpr):
    """Where in its clip the values (c, j) of a token stand, (token, value)."""
    p = tl.arange(0, BLOCK_P)
    origin = token // V * (SEGMENT * V * C) + token % V * C
    return origin[:, None] + (p % SEGMENT * (V * C) + p // SEGMENT)


@kernel(VARYING)
def _patch_embed_fwd_kernel(
    x_ptr, w_ptr, b_ptr, pos_ptr, temp_ptr, ids_ptr, out_ptr, K, L, T, K_BLOCKS, D,
    V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // K_BLOCKS).to(tl.int64)
    k = tl.program_id(0) % K_BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
    p = tl.arange(0, BLOCK_P)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    token, known = _token(ids_ptr, n * K + k, k, k < K, L)
    P: tl.constexpr = SEGMENT * C
    x = tl.load(
        x_ptr + n * T * (V * C) + _offsets(token, V, C, SEGMENT, BLOCK_P),
        mask=known[:, None] & (p < P),
        other=0.0,
    )  # (k, p)
    w = tl.load(w_ptr + d * P + p[:, None], mask=(p < P)[:, None] & (d < D), other=0.0)  # (p, d)
    y = tl.dot(x, w, input_precision=PRECISION)
    if b_ptr is not None:
        y += tl.load(b_ptr + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    here = known[:, None] & (d < D)
    if pos_ptr is not None:
        at = pos_ptr + (token % V)[:, None] * D + d
        y += tl.load(at, mask=here, other=0.0).to(tl.float32)
    if temp_ptr is not None:
        at = temp_ptr + (token // V)[:, None] * D + d
        y += tl.load(at, mask=here, other=0.0).to(tl.float32)
    at = n * K * D + (k[:, None] * D + d)
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=(k < K)[:, None] & (d < D))


@kernel(VARYING)
def _patch_embed_grad_tables_kernel(
    grad_ptr, x_ptr, ids_ptr, parts_ptr, ROWS, K, L, T, D, SPLITS, ROW0_POS, ROW0_TEMP,
    PARTS_ROWS,
    V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr, PATCH: tl.constexpr,
    BIAS: tl.constexpr, POS: tl.constexpr, TEMP: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """parts[split] = rows of weight (p, d), bias, pos and temp, as far as they are wanted."""
    split = tl.program_id(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    p = tl.arange(0, BLOCK_P)
    v = tl.arange(0, BLOCK_V)
    t = tl.arange(0, BLOCK_T)
    dtype = grad_ptr.dtype.element_ty
    P: tl.constexpr = PATCH * SEGMENT * C
    patch = tl.zeros((BLOCK_P, BLOCK_D), dtype=tl.float32)
    pos = tl.zeros((BLOCK_V, BLOCK_D), dtype=tl.float32)
    temp = tl.zeros((BLOCK_T, BLOCK_D), dtype=tl.float32)
    for r0 in range(split * BLOCK_R, ROWS, SPLITS * BLOCK_R):
        row = tl.cast(r0, tl.int64) + tl.arange(0, BLOCK_R)
        inside = row < ROWS
        g = tl.load(
            grad_ptr + row[:, None] * D + d, mask=inside[:, None] & (d < D), other=0.0
        )  # (r, d)
        token, known = _token(ids_ptr, row, row % K, inside, L)
        if PATCH or BIAS:
            x = tl.zeros((BLOCK_R, BLOCK_P), dtype=dtype)
            if PATCH:
                clip = (row // K) * T * (V * C)
                x = tl.load(
                    x_ptr + clip[:, None] + _offsets(token, V, C, SEGMENT, BLOCK_P),
                    mask=known[:, None] & (p < P),
                    other=0.0,
                )
            if BIAS:
                x = tl.where((p == P)[None, :] & inside[:, None], 1.0, x).to(dtype)
            patch = tl.dot(tl.trans(x), g, patch, input_precision=PRECISION)
        if POS:
            joint = ((token % V)[None, :] == v[:, None]) & known[None, :]
            pos = tl.dot(joint.to(dtype), g, pos, input_precision="ieee")
        if TEMP:
            segment = ((token // V)[None, :] == t[:, None]) & known[None, :]
            temp = tl.dot(segment.to(dtype), g, temp, input_precision="ieee")
    parts_ptr += split.to(tl.int64) * PARTS_ROWS * D
    if PATCH or BIAS:
        last: tl.constexpr = P + BIAS
        tl.store(parts_ptr + p[:, None] * D + d, patch, mask=(p < last)[:, None] & (d < D))
    if POS:
        at = parts_ptr + (ROW0_POS + v)[:, None] * D + d
        tl.store(at, pos, mask=(v < V)[:, None] & (d < D))
    if TEMP:
        at = parts_ptr + (ROW0_TEMP + t)[:, None] * D + d
        tl.store(at, temp, mask=(t < L // V)[:, None] & (d < D))


@kernel(VARYING)
def _patch_embed_grad_x_kernel(
    grad_ptr, w_ptr, ids_ptr, dx_ptr, K, L, T, K_BLOCKS, D,
    V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes the frames of the tokens; the others are zero before."""
    n = (tl.program_id(0) // K_BLOCKS).to(tl.int64)
    k = tl.program_id(0) % K_BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
    p = tl.arange(0, BLOCK_P)
    P: tl.constexpr = SEGMENT * C
    token, known = _token(ids_ptr, n * K + k, k, k < K, L)
    dx = tl.zeros((BLOCK_K, BLOCK_P), dtype=tl.float32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        at = n * K * D + (k[:, None] * D + d)
        g = tl.load(grad_ptr + at, mask=(k < K)[:, None] & (d < D), other=0.0)
        w = tl.load(w_ptr + d[:, None] * P + p, mask=(d < D)[:, None] & (p < P), other=0.0)
        dx = tl.dot(g, w, dx, input_precision=PRECISION)
    tl.store(
        dx_ptr + n * T * (V * C) + _offsets(token, V, C, SEGMENT, BLOCK_P),
        dx.to(dx_ptr.dtype.element_ty),
        mask=known[:, None] & (p < P),
    )


def supports(x, weight, bias, pos, temp, ids) -> str | None:
    segment = weight.shape[2]
    patch, segments = segment * x.shape[3], x.shape[1] // segment
    if patch > MAX_PATCH:
        return f"at most {MAX_PATCH} values per token, got {patch}"
    if segments > MAX_SEGMENTS:
        return f"at most {MAX_SEGMENTS} segments, got {segments}"
    if x[:1].numel() >= _tiles.MAX_PLANE:
        return f"less than {_tiles.MAX_PLANE} values per clip"
    return _tiles.unsupported(x, joints=MAX_JOINTS)


def _sizes(x: Tensor, weight: Tensor, ids: Tensor | None) -> tuple[int, int, int]:
    """(K, L, D)"""
    L = x.shape[1] // weight.shape[2] * x.shape[2]
    return (L if ids is None else ids.shape[1]), L, weight.shape[0]


@_tiles.on_device
def forward(x, weight, bias, pos, temp, ids):
    x, weight, bias, pos, temp, ids = _tiles.contiguous(x, weight, bias, pos, temp, ids)
    (N, T, V, C), segment = x.shape, weight.shape[2]
    K, L, D = _sizes(x, weight, ids)
    out = x.new_empty(N, K, D)
    if out.numel():
        BLOCK_K, BLOCK_D = _tiles.pow2(K, 16, 32), _tiles.pow2(D, 16, 128)
        K_BLOCKS = _tiles.cdiv(K, BLOCK_K)
        _patch_embed_fwd_kernel[N * K_BLOCKS, _tiles.cdiv(D, BLOCK_D)](
            x, weight, bias, pos, temp, ids, out, K, L, T, K_BLOCKS, D,
            V=V, C=C, SEGMENT=segment, PRECISION=_tiles.precision(x),
            BLOCK_K=BLOCK_K, BLOCK_P=_tiles.pow2(segment * C, 16), BLOCK_D=BLOCK_D,
        )  # fmt: skip
    return out


def _grad_tables(grad, x, weight, ids, wants, found) -> None:
    """Gradients of weight, bias, pos and temp from one read of grad."""
    (N, T, V, C), segment = x.shape, weight.shape[2]
    K, L, D = _sizes(x, weight, ids)
    patch, segments = segment * C, T // segment
    rows = [
        patch if wants("weight") else 0,
        int(wants("bias")),
        V if wants("pos") else 0,
        segments if wants("temp") else 0,
    ]
    BLOCK_R, BLOCK_D = _tiles.contraction(x), _tiles.pow2(D, 16, 2 * _tiles.contraction(x))
    columns = _tiles.cdiv(D, BLOCK_D)
    steps = _tiles.cdiv(N * K, BLOCK_R)
    SPLITS = _tiles.splits(x, columns, steps, 2) if N * K else 0
    parts = x.new_empty(SPLITS, sum(rows), D, dtype=torch.float32)
    if SPLITS:
        _patch_embed_grad_tables_kernel[SPLITS, columns](
            grad, x, ids, parts, N * K, K, L, T, D, SPLITS, sum(rows[:2]), sum(rows[:3]),
            sum(rows),
            V=V, C=C, SEGMENT=segment, PATCH=int(wants("weight")), BIAS=rows[1],
            POS=wants("pos"), TEMP=wants("temp"), PRECISION=_tiles.precision(x),
            BLOCK_R=BLOCK_R, BLOCK_P=_tiles.pow2(patch + 1, 16), BLOCK_V=_tiles.pow2(V, 16),
            BLOCK_T=_tiles.pow2(segments, 16), BLOCK_D=BLOCK_D,
        )  # fmt: skip
    results = [found[name] if wants(name) else None for name in GRADS[1:]]
    merge(parts, *zip(results, rows, strict=True))


@_tiles.on_device
def backward(grad, x, weight, bias, pos, temp, ids, needs):
    grad, x, weight, ids = _tiles.contiguous(grad, x, weight, ids)
    wants = _tiles.wants(GRADS, needs)
    inputs = dict(zip(GRADS, (x, weight, bias, pos, temp), strict=True))
    found = {
        name: torch.empty_like(t, memory_format=torch.contiguous_format)
        if wants(name)
        else grad.new_empty(0)
        for name, t in inputs.items()
    }
    if any(wants(name) for name in GRADS[1:]):
        _grad_tables(grad, x, weight, ids, wants, found)
    if wants("x"):
        found["x"].zero_()
        (N, T, V, C), segment = x.shape, weight.shape[2]
        K, L, D = _sizes(x, weight, ids)
        BLOCK_K = _tiles.pow2(K, 16, 32)
        K_BLOCKS = _tiles.cdiv(K, BLOCK_K)
        if N * K:
            _patch_embed_grad_x_kernel[N * K_BLOCKS,](
                grad, weight, ids, found["x"], K, L, T, K_BLOCKS, D,
                V=V, C=C, SEGMENT=segment, PRECISION=_tiles.precision(x),
                BLOCK_K=BLOCK_K, BLOCK_P=_tiles.pow2(segment * C, 16),
                BLOCK_D=_tiles.contraction(x),
            )  # fmt: skip
    return tuple(found.values())
