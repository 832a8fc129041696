"""Graph convolution on a GPU: rows of joints times the K adjacencies, summed in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _pointwise, _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("x", "A", "weight", "bias")


@kernel(_tiles.VARYING)
def _graph_aggregate_kernel(
    x_ptr, a_ptr, w_ptr, b_ptr, out_ptr,
    C_IN, C, T, C_BLOCKS, T_BLOCKS, x_stride_n, x_stride_k, a_stride_n,
    V: tl.constexpr, K: tl.constexpr, SUM: tl.constexpr, TRANSPOSED: tl.constexpr,
    BIAS_PER_SUBSET: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_I: tl.constexpr,
    BLOCK_X: tl.constexpr,
):  # fmt: skip
    """out[n, m, c, t, o] = sum_k sum_i A[n, k, o, i] f[n, k, c, t, i], over all k if SUM = K, for
    k = m if SUM = 1; f is x, or x transformed by w."""
    pid = tl.program_id(0)
    t0 = pid % T_BLOCKS * BLOCK_T
    c0 = pid // T_BLOCKS % C_BLOCKS * BLOCK_C
    nm = (pid // T_BLOCKS // C_BLOCKS).to(tl.int64)
    n = nm // (K // SUM)
    m = (nm % (K // SUM)).to(tl.int32)
    dtype = x_ptr.dtype.element_ty
    TV = T * V
    row = tl.arange(0, BLOCK_C * BLOCK_T)
    c = c0 + row // BLOCK_T
    t = t0 + row % BLOCK_T
    offset = (row // BLOCK_T * TV + t * V)[:, None]  # (c t, 1)
    o = tl.arange(0, BLOCK_V)
    if w_ptr is not None:
        h = tl.arange(0, BLOCK_X)
        wc = c0 + tl.arange(0, BLOCK_C)
        column = tl.arange(0, BLOCK_T * BLOCK_V)
        ct = t0 + column // BLOCK_V
        cv = column % BLOCK_V
        x = tl.load(
            x_ptr + n * x_stride_n + (h[:, None] * TV + ct * V + cv),
            mask=(h < C_IN)[:, None] & (ct < T) & (cv < V),
            other=0.0,
        )  # (h, t v)

    z = tl.zeros((BLOCK_C * BLOCK_T, BLOCK_V), dtype=tl.float32)
    for j in tl.static_range(SUM):
        k = m + j
        for i0 in range(0, V, BLOCK_I):
            i = i0 + tl.arange(0, BLOCK_I)
            inside = (c < C)[:, None] & (t < T)[:, None] & (i < V)
            if w_ptr is None:
                base = n * x_stride_n + k.to(tl.int64) * x_stride_k + c0.to(tl.int64) * TV
                f = tl.load(x_ptr + base + (offset + i), mask=inside, other=0.0)
            else:
                w = tl.load(
                    w_ptr + (k * C + wc)[:, None] * C_IN + h,
                    mask=(wc < C)[:, None] & (h < C_IN),
                    other=0.0,
                )  # (c, h)
                f = tl.dot(w, x, input_precision=PRECISION)
                f = tl.reshape(f, (BLOCK_C * BLOCK_T, BLOCK_I))
            if BIAS_PER_SUBSET:
                b = tl.load(b_ptr + k * C + c, mask=c < C, other=0.0)
                f = tl.where(inside, f + b[:, None], 0.0)
            if TRANSPOSED:
                edge = i[:, None] * V + o
            else:
                edge = o * V + i[:, None]
            a = tl.load(
                a_ptr + n * a_stride_n + k * V * V + edge,
                mask=(i < V)[:, None] & (o < V),
                other=0.0,
            )  # (i, o)
            z = tl.dot(f.to(dtype), a, z, input_precision=PRECISION)
    if b_ptr is not None and not BIAS_PER_SUBSET:
        z += tl.load(b_ptr + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
    tl.store(
        out_ptr + (nm * C + c0) * TV + (offset + o),
        z.to(dtype),
        mask=(c < C)[:, None] & (t < T)[:, None] & (o < V),
    )


@triton.jit
def _rows(ptr, b_ptr, m, v, T, ROWS, V: tl.constexpr, BLOCK_M: tl.constexpr):
    """(row, v) tile of the rows (c, t) of a sample from m on, with a bias per channel."""
    row = tl.arange(0, BLOCK_M)
    inside = (m + row < ROWS)[:, None] & (v < V)
    at = ptr + tl.cast(m, tl.int64) * V
    x = tl.load(at + (row[:, None] * V + v), mask=inside, other=0.0)
    if b_ptr is not None:
        b = tl.load(b_ptr + (m + row) // T, mask=m + row < ROWS, other=0.0)
        x = tl.where(inside, x + b[:, None], 0.0).to(ptr.dtype.element_ty)
    return x


@kernel(_tiles.VARYING)
def _graph_grad_a_kernel(
    l_ptr, lb_ptr, r_ptr, rb_ptr, out_ptr,
    C, T, SPLITS, l_stride_n, l_stride_k, r_stride_n, r_stride_k,
    V: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """out[n, k, split, u, v] = sum_c sum_t l[n, k, c, t, u] r[n, k, c, t, v]."""
    pid = tl.program_id(0)
    split = pid % SPLITS
    k = pid // SPLITS % K
    n = (pid // SPLITS // K).to(tl.int64)
    v = tl.arange(0, BLOCK_V)
    l_ptr += n * l_stride_n + k.to(tl.int64) * l_stride_k
    r_ptr += n * r_stride_n + k.to(tl.int64) * r_stride_k
    if lb_ptr is not None:
        lb_ptr += k * C
    if rb_ptr is not None:
        rb_ptr += k * C
    acc = tl.zeros((BLOCK_V, BLOCK_V), dtype=tl.float32)
    for m in range(split * BLOCK_M, C * T, SPLITS * BLOCK_M):
        left = _rows(l_ptr, lb_ptr, m, v, T, C * T, V, BLOCK_M)
        right = _rows(r_ptr, rb_ptr, m, v, T, C * T, V, BLOCK_M)
        acc = tl.dot(tl.trans(left), right, acc, input_precision=PRECISION)
    tl.store(
        out_ptr + pid.to(tl.int64) * V * V + (v[:, None] * V + v),
        acc,
        mask=(v < V)[:, None] & (v < V),
    )


def supports(x, A, weight, bias, transposed) -> str | None:
    return _tiles.unsupported(x)


def _fuses(x: Tensor, weight: Tensor | None) -> bool:
    """Transform on chip what else would be written and read again, while one tile holds C."""
    small = x.shape[1] <= 64 and _tiles.joints(x.shape[3]) <= 64
    return weight is not None and small and x.dtype in _tiles.HALF


def _aggregate(x, A, weight, bias, outputs: int, channels: int, transposed: bool) -> Tensor:
    """x (N, C, T, V) with weight, else (N, K, C', T, V) or (N, 1, C', T, V) -> (N, M, C', T, V)."""
    N, (T, V), K = x.shape[0], x.shape[-2:], A.shape[-3]
    out = x.new_empty(N, outputs, channels, T, V)
    if out.numel() == 0:
        return out
    BLOCK_V = _tiles.joints(V)
    if weight is None:
        BLOCK_I = _tiles.contraction(x)
        BLOCK_T = _tiles.pow2(T, high=16)
        BLOCK_C = max(1, 4096 // BLOCK_V // BLOCK_T)
    else:
        BLOCK_I = BLOCK_V
        BLOCK_T = _tiles.pow2(T, high=max(1, 128 // BLOCK_V))
        BLOCK_C = _tiles.pow2(channels, 16, 64)
    C_BLOCKS, T_BLOCKS = _tiles.cdiv(channels, BLOCK_C), _tiles.cdiv(T, BLOCK_T)
    _graph_aggregate_kernel[N * outputs * C_BLOCKS * T_BLOCKS,](
        x, A, weight, bias, out,
        x.shape[1], channels, T, C_BLOCKS, T_BLOCKS,
        x.stride(0), 0 if x.dim() == 4 or x.shape[1] == 1 else x.stride(1),
        A.stride(0) if A.dim() == 4 else 0,
        V=V, K=K, SUM=K // outputs, TRANSPOSED=transposed,
        BIAS_PER_SUBSET=bias is not None and bias.dim() == 2, PRECISION=_tiles.precision(x),
        BLOCK_C=BLOCK_C, BLOCK_T=BLOCK_T, BLOCK_V=BLOCK_V, BLOCK_I=BLOCK_I,
        BLOCK_X=_tiles.pow2(x.shape[1], 16), num_warps=4 if weight is None else 8, num_stages=1,
    )  # fmt: skip
    return out


def _grad_a(grad: Tensor, f: Tensor, A: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """grad (N, C', T, V), f (N, K, C', T, V) without its bias -> the gradient of A."""
    N, K, C, T, V = f.shape
    BLOCK_V = _tiles.joints(V)
    BLOCK_M = (4096 if f.dtype in _tiles.HALF else 2048) // BLOCK_V
    SPLITS = _tiles.splits(f, N * K, _tiles.cdiv(C * T, BLOCK_M))
    parts = f.new_empty(N, K, SPLITS, V, V, dtype=torch.float32)
    if parts.numel():
        sides = [(grad, None, grad.stride(0), 0), (f, bias, f.stride(0), f.stride(1))]
        (l, lb, l_n, l_k), (r, rb, r_n, r_k) = sides[::-1] if transposed else sides
        _graph_grad_a_kernel[N * K * SPLITS,](
            l, lb, r, rb, parts,
            C, T, SPLITS, l_n, l_k, r_n, r_k,
            V=V, K=K, PRECISION=_tiles.precision(f), BLOCK_M=BLOCK_M, BLOCK_V=BLOCK_V,
            num_warps=4 if BLOCK_V < 128 else 8, num_stages=1,
        )  # fmt: skip
    return parts.sum(2 if A.dim() == 4 else (0, 2)).to(A.dtype)


@_tiles.on_device
def forward(x, A, weight, bias, transposed):
    x, A, weight, bias = _tiles.contiguous(x, A, weight, bias)
    K = A.shape[-3]
    channels = x.shape[1] // K if weight is None else weight.shape[1]
    if not _fuses(x, weight):
        x = (x if weight is None else _pointwise.transform(weight.flatten(0, 1), x)).unflatten(
            1, (K, channels)
        )
        weight = None
    return _aggregate(x, A, weight, bias, 1, channels, transposed).squeeze(1)


@_tiles.on_device
def backward(grad, x, A, weight, bias, transposed, needs):
    grad, x, A, weight, bias = _tiles.contiguous(grad, x, A, weight, bias)
    K, channels = A.shape[-3], grad.shape[1]
    wants = _tiles.wants(GRADS, needs)
    found = {name: grad.new_empty(0) for name in GRADS}
    subset_bias = bias is not None and bias.dim() == 2
    rows = None if weight is None else weight.flatten(0, 1)
    if wants("A"):
        f = (x if weight is None else _pointwise.transform(rows, x)).unflatten(1, (K, channels))
        found["A"] = _grad_a(grad, f, A, bias if subset_bias else None, transposed)
    if wants("x") or wants("weight") or (wants("bias") and subset_bias):
        df = _aggregate(grad.unsqueeze(1), A, None, None, K, channels, not transposed)
        if wants("x"):
            found["x"] = df.view(x.shape) if weight is None else _pointwise.transform(rows.mT, df)
        if wants("weight"):
            found["weight"] = _pointwise.weight_grad(df, x).view(weight.shape).to(weight.dtype)
        if wants("bias") and subset_bias:
            found["bias"] = df.sum((0, 3, 4))
    if wants("bias") and not subset_bias:
        found["bias"] = grad.sum((0, 2, 3))
    return tuple(found.values())
