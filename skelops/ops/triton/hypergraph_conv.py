"""Hypergraph convolution on a GPU: a head's joints are mixed, then its channels, without leaving
the chip; the backward recomputes what it needs of both."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("x", "A", "weight", "bias", "virtual")
MAX_CHANNELS, MAX_JOINTS = 64, 64  # of a head, which one program holds


@triton.jit
def _joint_rows(x_ptr, C, T, t0, V, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, v):
    """(c t, v) tile of a head's features (C, T, V)."""
    row = tl.arange(0, BLOCK_C * BLOCK_T)
    c = row // BLOCK_T
    t = t0 + row % BLOCK_T
    return tl.load(
        x_ptr + ((c * T + t) * V)[:, None] + v,
        mask=((c < C) & (t < T))[:, None] & (v < V),
        other=0.0,
    )


@triton.jit
def _channel_rows(C, T, t0, V, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr):
    """Offsets and mask of a (c, t v) tile of a head's features (C, T, V)."""
    c = tl.arange(0, BLOCK_C)[:, None]
    column = tl.arange(0, BLOCK_T * BLOCK_V)
    t = t0 + column // BLOCK_V
    v = column % BLOCK_V
    return (c * T + t) * V + v, (c < C) & (t < T) & (v < V)


@kernel(_tiles.VARYING)
def _hyper_aggregate_kernel(
    x_ptr, a_ptr, w_ptr, b_ptr, p_ptr, out_ptr,
    C_IN, C_OUT, T, T_BLOCKS, a_stride_n, w_row, w_column,
    V: tl.constexpr, Q: tl.constexpr, K: tl.constexpr, TRANSPOSED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
    BLOCK_V: tl.constexpr,
):  # fmt: skip
    """out[n, k, c, t, o] = sum_i w[k, c, i] sum_v a[n, k, o, v] x[n, k, i, t, v], and the share of
    bias and virtual joints; with TRANSPOSED a[v, o]."""
    pid = tl.program_id(0)
    t0 = pid % T_BLOCKS * BLOCK_T
    nk = (pid // T_BLOCKS).to(tl.int64)
    n = nk // K
    k = (nk % K).to(tl.int32)
    W: tl.constexpr = V + Q
    dtype = x_ptr.dtype.element_ty
    v = tl.arange(0, BLOCK_V)
    o = tl.arange(0, BLOCK_V)
    c = tl.arange(0, BLOCK_C)
    i = tl.arange(0, BLOCK_I)
    a_ptr += n * a_stride_n + k * V * W
    x = _joint_rows(x_ptr + nk * C_IN * T * V, C_IN, T, t0, V, BLOCK_I, BLOCK_T, v)
    edge = v[:, None] * W + o if TRANSPOSED else o * W + v[:, None]
    a = tl.load(a_ptr + edge, mask=(v < V)[:, None] & (o < V), other=0.0)  # (v, o)
    w = tl.load(
        w_ptr + k * C_OUT * C_IN + (c[:, None] * w_row + i * w_column),
        mask=(c < C_OUT)[:, None] & (i < C_IN),
        other=0.0,
    )  # (c, i)
    g = tl.dot(x, a, input_precision=PRECISION).to(dtype)  # (i t, o)
    y = tl.dot(w, tl.reshape(g, (BLOCK_I, BLOCK_T * BLOCK_V)), input_precision=PRECISION)
    if b_ptr is not None or p_ptr is not None:
        total = tl.sum(a.to(tl.float32), 0)
        shift = tl.zeros((BLOCK_C, BLOCK_V), dtype=tl.float32)
        for q in tl.static_range(Q):
            e = tl.load(a_ptr + o * W + (V + q), mask=o < V, other=0.0).to(tl.float32)
            p = tl.load(p_ptr + (q * K + k) * C_IN + i, mask=i < C_IN, other=0.0).to(tl.float32)
            shift += tl.sum(w.to(tl.float32) * p, 1)[:, None] * e
            total += e
        if b_ptr is not None:
            b = tl.load(b_ptr + k * C_OUT + c, mask=c < C_OUT, other=0.0).to(tl.float32)
            shift += b[:, None] * total
        y = tl.reshape(y, (BLOCK_C, BLOCK_T, BLOCK_V)) + shift[:, None, :]
        y = tl.reshape(y, (BLOCK_C, BLOCK_T * BLOCK_V))
    at, inside = _channel_rows(C_OUT, T, t0, V, BLOCK_C, BLOCK_T, BLOCK_V)
    tl.store(out_ptr + nk * C_OUT * T * V + at, y.to(dtype), mask=inside)


@kernel(_tiles.VARYING)
def _hyper_grads_kernel(
    g_ptr, x_ptr, a_ptr, w_ptr, b_ptr, p_ptr, da_ptr, parts_ptr,
    N, C_IN, C_OUT, T, SPLITS, a_stride_n,
    V: tl.constexpr, Q: tl.constexpr, K: tl.constexpr, WANT_A: tl.constexpr, SHARED: tl.constexpr,
    WANT_PARTS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_I: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """For every SPLITS-th sample and one head: the gradient of its graph, or of a shared one their
    sum; and the sums parts[split, k, c, :] of the gradients of weight, of the transformed virtual
    joints and of bias."""
    pid = tl.program_id(0)
    k = pid % K
    split = pid // K
    W: tl.constexpr = V + Q
    HAS_TABLE: tl.constexpr = b_ptr is not None or p_ptr is not None
    dtype = x_ptr.dtype.element_ty
    v = tl.arange(0, BLOCK_V)
    u = tl.arange(0, BLOCK_V)
    c = tl.arange(0, BLOCK_C)
    i = tl.arange(0, BLOCK_I)
    j = tl.arange(0, BLOCK_Q)
    square = (u < V)[:, None] & (v < V)
    w = tl.load(
        w_ptr + k * C_OUT * C_IN + (c * C_IN + i[:, None]),
        mask=(c < C_OUT) & (i < C_IN)[:, None],
        other=0.0,
    )  # (i, c)
    dw = tl.zeros((BLOCK_C, BLOCK_I), dtype=tl.float32)
    dtable = tl.zeros((BLOCK_C, BLOCK_Q), dtype=tl.float32)
    da = tl.zeros((BLOCK_V, BLOCK_V), dtype=tl.float32)
    dedges = tl.zeros((BLOCK_V, BLOCK_Q), dtype=tl.float32)
    for sample in range(split, N, SPLITS):
        n = tl.cast(sample, tl.int64)
        a_n_ptr = a_ptr + n * a_stride_n + k * V * W
        x_n_ptr = x_ptr + (n * K + k) * C_IN * T * V
        g_n_ptr = g_ptr + (n * K + k) * C_OUT * T * V
        a = tl.load(a_n_ptr + u[:, None] * W + v, mask=square, other=0.0)  # (u, v)
        sums = tl.zeros((BLOCK_C, BLOCK_V), dtype=tl.float32)
        if not SHARED:
            da = tl.zeros((BLOCK_V, BLOCK_V), dtype=tl.float32)
            dedges = tl.zeros((BLOCK_V, BLOCK_Q), dtype=tl.float32)
        for t0 in range(0, T, BLOCK_T):
            at, inside = _channel_rows(C_OUT, T, t0, V, BLOCK_C, BLOCK_T, BLOCK_V)
            g = tl.load(g_n_ptr + at, mask=inside, other=0.0)  # (c, t u)
            x = _joint_rows(x_n_ptr, C_IN, T, t0, V, BLOCK_I, BLOCK_T, v)  # (i t, v)
            if HAS_TABLE:
                sums += tl.sum(tl.reshape(g.to(tl.float32), (BLOCK_C, BLOCK_T, BLOCK_V)), 1)
            if WANT_A:
                d = tl.dot(w, g, input_precision=PRECISION).to(dtype)  # (i, t u)
                d = tl.reshape(d, (BLOCK_I * BLOCK_T, BLOCK_V))
                da = tl.dot(tl.trans(d), x, da, input_precision=PRECISION)
            if WANT_PARTS:
                y = tl.dot(x, tl.trans(a), input_precision=PRECISION).to(dtype)  # (i t, u)
                y = tl.reshape(y, (BLOCK_I, BLOCK_T * BLOCK_V))
                dw = tl.dot(g, tl.trans(y), dw, input_precision=PRECISION)
        if HAS_TABLE:
            total = tl.sum(a.to(tl.float32), 1)
            for q in tl.static_range(Q):
                e = tl.load(a_n_ptr + u * W + (V + q), mask=u < V, other=0.0).to(tl.float32)
                total += e
                if WANT_PARTS:
                    dtable += tl.where(j == q, tl.sum(sums * e, 1)[:, None], 0.0)
                if WANT_A:
                    p = tl.load(p_ptr + (q * K + k) * C_IN + i, mask=i < C_IN, other=0.0)
                    h = tl.sum(w.to(tl.float32) * p.to(tl.float32)[:, None], 0)
                    dedges += tl.where(j == q, tl.sum(sums * h[:, None], 0)[:, None], 0.0)
            if WANT_PARTS:
                dtable += tl.where(j == Q, tl.sum(sums * total, 1)[:, None], 0.0)
            if WANT_A and b_ptr is not None:
                b = tl.load(b_ptr + k * C_OUT + c, mask=c < C_OUT, other=0.0).to(tl.float32)
                dedges += tl.sum(sums * b[:, None], 0)[:, None]
                da += tl.sum(sums * b[:, None], 0)[:, None]
        if WANT_A and (not SHARED):
            out = da_ptr + (n * K + k) * V * W + u[:, None] * W
            tl.store(out + v, da.to(da_ptr.dtype.element_ty), mask=square)
            tl.store(
                out + V + j, dedges.to(da_ptr.dtype.element_ty), mask=(u < V)[:, None] & (j < Q)
            )
    if WANT_A and SHARED:
        out = da_ptr + pid.to(tl.int64) * V * W + u[:, None] * W
        tl.store(out + v, da, mask=square)
        tl.store(out + V + j, dedges, mask=(u < V)[:, None] & (j < Q))
    if WANT_PARTS:
        out = parts_ptr + (pid.to(tl.int64) * C_OUT + c[:, None]) * (C_IN + Q + 1)
        tl.store(out + i, dw, mask=(c < C_OUT)[:, None] & (i < C_IN))
        tl.store(out + C_IN + j, dtable, mask=(c < C_OUT)[:, None] & (j <= Q))


@kernel()
def _hyper_finish_kernel(
    total_ptr, w_ptr, p_ptr, dw_ptr, db_ptr, dp_ptr,
    C_IN, C_OUT,
    Q: tl.constexpr, K: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The gradients of weight, bias and virtual from the summed parts of one head."""
    k = tl.program_id(0)
    c = tl.arange(0, BLOCK_C)
    i = tl.arange(0, BLOCK_I)
    inside = (c < C_OUT)[:, None] & (i < C_IN)
    at = (k * C_OUT + c)[:, None] * C_IN + i
    total_ptr += (k * C_OUT + c) * (C_IN + Q + 1)
    dw = tl.load(total_ptr[:, None] + i, mask=inside, other=0.0)
    w = tl.load(w_ptr + at, mask=inside, other=0.0).to(tl.float32)
    for q in tl.static_range(Q):
        dh = tl.load(total_ptr + (C_IN + q), mask=c < C_OUT, other=0.0)
        row = (q * K + k) * C_IN + i
        p = tl.load(p_ptr + row, mask=i < C_IN, other=0.0).to(tl.float32)
        dw += dh[:, None] * p
        tl.store(dp_ptr + row, tl.sum(dh[:, None] * w, 0).to(dp_ptr.dtype.element_ty), i < C_IN)
    tl.store(dw_ptr + at, dw.to(dw_ptr.dtype.element_ty), mask=inside)
    if db_ptr is not None:
        db = tl.load(total_ptr + (C_IN + Q), mask=c < C_OUT, other=0.0)
        tl.store(db_ptr + k * C_OUT + c, db.to(db_ptr.dtype.element_ty), mask=c < C_OUT)


def supports(x, A, weight, bias, virtual) -> str | None:
    channels = max(weight.shape[1], weight.shape[0] // A.shape[-3])
    if channels > MAX_CHANNELS:
        return f"at most {MAX_CHANNELS} channels per head, got {channels}"
    return _tiles.unsupported(x, joints=MAX_JOINTS)


def _sizes(x: Tensor, A: Tensor, weight: Tensor) -> tuple[int, int, int, int, int]:
    """K, Q, and per head C/K, C'/K; the joints' lanes."""
    K, V = A.shape[-3], x.shape[3]
    return K, A.shape[-1] - V, weight.shape[1], weight.shape[0] // K, _tiles.joints(V)


def _blocks(x: Tensor, inputs: int, outputs: int, BLOCK_V: int, values: int) -> dict[str, int]:
    """A tile of at most `values` features of the wider side."""
    BLOCK_I, BLOCK_C = _tiles.pow2(inputs, 16), _tiles.pow2(outputs, 16)
    fit = max(1, values // (max(BLOCK_I, BLOCK_C) * BLOCK_V))
    BLOCK_T = _tiles.pow2(x.shape[2], high=fit)
    return {"BLOCK_I": BLOCK_I, "BLOCK_C": BLOCK_C, "BLOCK_T": BLOCK_T, "BLOCK_V": BLOCK_V}


def _warps(x: Tensor, blocks: dict[str, int]) -> int:
    """Without matrix units a product's operands fill the registers of twice as many threads."""
    wide = max(blocks["BLOCK_I"], blocks["BLOCK_C"]) > 16
    return 4 if x.dtype in _tiles.HALF or not wide else 8


def _aggregate(x, A, weight, bias, virtual, transposed: bool) -> Tensor:
    K, Q, inputs, outputs, BLOCK_V = _sizes(x, A, weight)
    strides = weight.stride()
    if transposed:
        inputs, outputs, strides = outputs, inputs, strides[::-1]
    N, _, T, V = x.shape
    out = x.new_empty(N, K * outputs, T, V)
    if out.numel() == 0:
        return out
    blocks = _blocks(x, inputs, outputs, BLOCK_V, 8192 if x.dtype in _tiles.HALF else 2048)
    T_BLOCKS = _tiles.cdiv(T, blocks["BLOCK_T"])
    _hyper_aggregate_kernel[N * K * T_BLOCKS,](
        x, A, weight, bias, virtual, out,
        inputs, outputs, T, T_BLOCKS, A.stride(0) if A.dim() == 4 else 0, *strides,
        V=V, Q=Q, K=K, TRANSPOSED=transposed, PRECISION=_tiles.precision(x),
        **blocks, num_warps=_warps(x, blocks), num_stages=1,
    )  # fmt: skip
    return out


@_tiles.on_device
def forward(x, A, weight, bias, virtual):
    return _aggregate(*_tiles.contiguous(x, A, weight, bias, virtual), transposed=False)


@_tiles.on_device
def backward(grad, x, A, weight, bias, virtual, needs):
    grad, x, A, weight, bias, virtual = _tiles.contiguous(grad, x, A, weight, bias, virtual)
    K, Q, inputs, outputs, BLOCK_V = _sizes(x, A, weight)
    N, _, T, V = x.shape
    wants = _tiles.wants(GRADS, needs)
    found = {name: grad.new_empty(0) for name in GRADS}
    if wants("x"):
        # Neither bias nor virtual joints depend on x: the columns of A past V are passed over.
        found["x"] = _aggregate(grad, A, weight, None, None, transposed=True)
    want_parts = wants("weight") or wants("bias") or wants("virtual")
    if not wants("A") and not want_parts:
        return tuple(found.values())

    shared = A.dim() == 3
    SPLITS = _tiles.splits(x, K, N)
    parts = x.new_empty(SPLITS, K, outputs, inputs + Q + 1, dtype=torch.float32)
    shape, dtype = ((SPLITS, *A.shape), torch.float32) if shared else (A.shape, A.dtype)
    dA = A.new_empty(shape, dtype=dtype)
    half = x.dtype in _tiles.HALF
    blocks = _blocks(x, inputs, outputs, BLOCK_V, 2048 if half else 1024)
    precision = _tiles.precision(x)
    if max(blocks["BLOCK_I"], blocks["BLOCK_C"]) * BLOCK_V > 1024 and precision == "tf32x3":
        precision = "ieee"  # three products of a wide head spill
    _hyper_grads_kernel[SPLITS * K,](
        grad, x, A, weight, bias, virtual, dA, parts,
        N, inputs, outputs, T, SPLITS, 0 if shared else A.stride(0),
        V=V, Q=Q, K=K, WANT_A=wants("A"), SHARED=shared, WANT_PARTS=want_parts,
        PRECISION=precision, BLOCK_Q=_tiles.pow2(Q + 1),
        **blocks, num_warps=4 if half else 8, num_stages=1,
    )  # fmt: skip
    if wants("A"):
        found["A"] = dA.sum(0).to(A.dtype) if shared else dA
    if want_parts:
        total = parts.sum(0)
        made = {
            "weight": torch.empty_like(weight),
            "bias": None if bias is None else torch.empty_like(bias),
            "virtual": None if virtual is None else torch.empty_like(virtual),
        }
        _hyper_finish_kernel[K,](
            total, weight, virtual, *made.values(),
            inputs, outputs,
            Q=Q, K=K, BLOCK_I=_tiles.pow2(inputs, 16), BLOCK_C=_tiles.pow2(outputs, 16),
            num_warps=4,
        )  # fmt: skip
        found |= {name: made[name] for name in made if wants(name)}
    return tuple(found.values())
