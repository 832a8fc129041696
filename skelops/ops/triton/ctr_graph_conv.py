"""CTR-GC on a GPU: the refined graph of a few joints is rebuilt on chip, channel block by block.

A program owns BLOCK_O output joints of one sample. It computes their relations S once (S is the
dear part: redone for every channel block, tanh alone would cost more than all traffic), walks over
the channels, turns S into G by a product with weight4, and contracts G with every frame.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _pointwise, _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("x", "A", "p", "q", "alpha", "weight4", "bias4", "weight", "bias")


@triton.jit
def _tanh(x):
    # (1 - e) / (1 + e) cancels near zero; there a polynomial is exact to float32.
    z = x * x
    near = -0.00627641 * z + 0.02111623
    near = near * z - 0.05387514
    near = near * z + 0.13332924
    near = near * z - 0.33333330
    e = tl.exp(-2 * tl.abs(x))
    far = (1 - e) / (1 + e)
    return tl.where(tl.abs(x) < 0.6, x + x * z * near, tl.where(x < 0, -far, far))


@triton.jit
def _relations(p_ptr, q_ptr, r, u, v, R, V: tl.constexpr):
    """S[r, u, v] = tanh(p[r, u] - q[r, v]), float32."""
    p = tl.load(p_ptr + (r[:, None] * V + u), mask=(r < R)[:, None] & (u < V), other=0.0)
    q = tl.load(q_ptr + (r[:, None] * V + v), mask=(r < R)[:, None] & (v < V), other=0.0)
    return _tanh(p.to(tl.float32)[:, :, None] - q.to(tl.float32)[:, None, :])


@triton.jit
def _inward_relations(p_ptr, q_ptr, r, i, o, R, V: tl.constexpr, TRANSPOSED: tl.constexpr):
    """S[r, i, o] between input joints i and output joints o."""
    if TRANSPOSED:
        return _relations(p_ptr, q_ptr, r, i, o, R, V)
    else:
        return tl.permute(_relations(p_ptr, q_ptr, r, o, i, R, V), (0, 2, 1))


@triton.jit
def _matrix(ptr, row, column, ROWS, COLUMNS):
    """Tile of a row-major matrix, zero outside."""
    mask = (row < ROWS)[:, None] & (column < COLUMNS)
    return tl.load(ptr + (row[:, None] * COLUMNS + column), mask=mask, other=0.0)


@triton.jit
def _store_matrix(ptr, row, column, ROWS, COLUMNS, x):
    mask = (row < ROWS)[:, None] & (column < COLUMNS)
    tl.store(ptr + (row[:, None] * COLUMNS + column), x, mask=mask)


@kernel(_tiles.VARYING)
def _ctr_aggregate_kernel(
    x_ptr, a_ptr, p_ptr, q_ptr, alpha_ptr, w4_ptr, b4_ptr, w_ptr, b_ptr, out_ptr,
    C_IN, C, T, R, SPLITS, x_stride_n, x_stride_k, a_stride_n,
    V: tl.constexpr, K: tl.constexpr, SUM: tl.constexpr, TRANSPOSED: tl.constexpr,
    KEEP: tl.constexpr, PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """out[n, m, c, t, o] = sum_k sum_i G[n, k, c, o, i] f[n, k, c, t, i], over all k if SUM = K,
    for k = m if SUM = 1; f is x, or x transformed by w. KEEP: S is held for all channel blocks."""
    CHUNKS: tl.constexpr = (V + BLOCK_O - 1) // BLOCK_O
    pid = tl.program_id(0)
    o = pid % CHUNKS * BLOCK_O + tl.arange(0, BLOCK_O)
    split = pid // CHUNKS % SPLITS
    nm = (pid // CHUNKS // SPLITS).to(tl.int64)
    n = nm // (K // SUM)
    m = (nm % (K // SUM)).to(tl.int32)
    dtype = x_ptr.dtype.element_ty
    TV = T * V
    i = tl.arange(0, BLOCK_I)
    rows = tl.arange(0, BLOCK_C)[:, None, None] * TV
    alpha = tl.load(alpha_ptr).to(tl.float32)
    x_ptr += n * x_stride_n
    a_ptr += n * a_stride_n
    p_ptr += n * K * R * V
    q_ptr += n * K * R * V
    out_ptr += nm * C * TV

    kept = ()
    if KEEP:
        r = tl.arange(0, BLOCK_R)
        for j in tl.static_range(SUM):
            at = (m + j) * R * V
            s = _inward_relations(p_ptr + at, q_ptr + at, r, i, o, R, V, TRANSPOSED)
            kept = kept + (tl.reshape(s.to(dtype), (BLOCK_R, BLOCK_I * BLOCK_O)),)

    for c0 in range(split * BLOCK_C, C, SPLITS * BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        first = tl.cast(c0, tl.int64) * TV
        graphs = ()
        for j in tl.static_range(SUM):
            k = m + j
            at = k * R * V
            if w4_ptr is None:
                g = _inward_relations(p_ptr + at, q_ptr + at, c, i, o, C, V, TRANSPOSED)
            elif KEEP:
                w4 = _matrix(w4_ptr + k * C * R, c, tl.arange(0, BLOCK_R), C, R)
                g = tl.dot(w4, kept[j], input_precision=PRECISION)
                g = tl.reshape(g, (BLOCK_C, BLOCK_I, BLOCK_O))
            else:
                g = tl.zeros((BLOCK_C, BLOCK_I, BLOCK_O), dtype=tl.float32)
                for r0 in range(R):
                    one = r0 + tl.arange(0, 1)
                    w4 = _matrix(w4_ptr + k * C * R, c, one, C, R).to(tl.float32)
                    relation = _inward_relations(
                        p_ptr + at, q_ptr + at, one, i, o, R, V, TRANSPOSED
                    )
                    g += w4[:, :, None] * relation
            if b4_ptr is not None:
                b4 = tl.load(b4_ptr + k * C + c, mask=c < C, other=0.0)
                g += b4.to(tl.float32)[:, None, None]
            if TRANSPOSED:
                a = _matrix(a_ptr + k * V * V, i, o, V, V)
            else:
                a = tl.trans(_matrix(a_ptr + k * V * V, o, i, V, V))
            graphs = graphs + ((alpha * g + a.to(tl.float32)).to(dtype),)  # (c, i, o)

        for t0 in range(0, T, BLOCK_T):
            t = t0 + tl.arange(0, BLOCK_T)
            inside = (t < T)[:, None] & (i < V)
            plane = t[:, None] * V + i  # (t, i)
            if w_ptr is not None:
                h = tl.arange(0, BLOCK_X)
                x = tl.load(
                    x_ptr + (h[:, None, None] * TV + plane),
                    mask=(h < C_IN)[:, None, None] & inside,
                    other=0.0,
                )
                x = tl.reshape(x, (BLOCK_X, BLOCK_T * BLOCK_I))
            z = tl.zeros((BLOCK_C, BLOCK_T, BLOCK_O), dtype=tl.float32)
            for j in tl.static_range(SUM):
                k = m + j
                if w_ptr is None:
                    f = tl.load(
                        x_ptr + (tl.cast(k, tl.int64) * x_stride_k + first) + (rows + plane),
                        mask=(c < C)[:, None, None] & inside,
                        other=0.0,
                    )
                else:
                    w = _matrix(w_ptr + k * C * C_IN, c, h, C, C_IN)
                    f = tl.dot(w, x, input_precision=PRECISION)
                    f = tl.reshape(f, (BLOCK_C, BLOCK_T, BLOCK_I))
                if b_ptr is not None:
                    b = tl.load(b_ptr + k * C + c, mask=c < C, other=0.0)
                    f = tl.where(inside, f + b[:, None, None], 0.0)
                z = tl.dot(f.to(dtype), graphs[j], z, input_precision=PRECISION)
            tl.store(
                out_ptr + first + (rows + (t[:, None] * V + o)),
                z.to(dtype),
                mask=(c < C)[:, None, None] & (t < T)[:, None] & (o < V),
            )


@triton.jit
def _features(
    ptr, b_ptr, c0, t0, v, C, T, V: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr
):
    """(c, t, v) tile of (C, T, V), with a bias per channel."""
    c = tl.arange(0, BLOCK_C)
    t = t0 + tl.arange(0, BLOCK_T)
    inside = (c < C - c0)[:, None, None] & (t < T)[:, None] & (v < V)
    tile = c[:, None, None] * (T * V) + (t[:, None] * V + v)
    x = tl.load(ptr + tl.cast(c0, tl.int64) * (T * V) + tile, mask=inside, other=0.0)
    if b_ptr is not None:
        b = tl.load(b_ptr + c0 + c, mask=c < C - c0, other=0.0)
        x = tl.where(inside, x + b[:, None, None], 0.0).to(ptr.dtype.element_ty)
    return x


@kernel(_tiles.VARYING)
def _ctr_grad_graph_kernel(
    l_ptr, lb_ptr, r_ptr, rb_ptr, p_ptr, q_ptr, alpha_ptr, w4_ptr,
    da_ptr, dp_ptr, dq_ptr, dalpha_ptr, dw4_ptr, db4_ptr,
    C, T, R, l_stride_n, l_stride_k, r_stride_n, r_stride_k,
    V: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """dG[c, u, v] = sum_t l[c, t, u] r[c, t, v] for some joints u and v, and what follows from it:
    sums over channels of dA, over v of dp, over u of dq, over both of the parameters' gradients."""
    U_CHUNKS: tl.constexpr = (V + BLOCK_U - 1) // BLOCK_U
    V_CHUNKS: tl.constexpr = (V + BLOCK_V - 1) // BLOCK_V
    part = tl.program_id(0).to(tl.int64)  # of (n, k, u chunk, v chunk)
    v_chunk = tl.program_id(0) % V_CHUNKS
    u_chunk = tl.program_id(0) // V_CHUNKS % U_CHUNKS
    k = tl.program_id(0) // V_CHUNKS // U_CHUNKS % K
    nk = part // V_CHUNKS // U_CHUNKS
    n = nk // K
    u = u_chunk * BLOCK_U + tl.arange(0, BLOCK_U)
    v = v_chunk * BLOCK_V + tl.arange(0, BLOCK_V)
    r = tl.arange(0, BLOCK_R)
    dtype = l_ptr.dtype.element_ty
    alpha = tl.load(alpha_ptr).to(tl.float32)
    l_ptr += n * l_stride_n + k.to(tl.int64) * l_stride_k
    r_ptr += n * r_stride_n + k.to(tl.int64) * r_stride_k
    if lb_ptr is not None:
        lb_ptr += k * C
    if rb_ptr is not None:
        rb_ptr += k * C
    p_ptr += nk * R * V
    q_ptr += nk * R * V
    dp_ptr += (nk * V_CHUNKS + v_chunk) * R * V
    dq_ptr += (nk * U_CHUNKS + u_chunk) * R * V

    da = tl.zeros((BLOCK_U, BLOCK_V), dtype=tl.float32)
    dalpha = tl.zeros((BLOCK_U, BLOCK_V), dtype=tl.float32)
    if w4_ptr is not None:
        s = _relations(p_ptr, q_ptr, r, u, v, R, V)
        s = tl.permute(s.to(dtype), (1, 2, 0))  # (u, v, r)
        ds = tl.zeros((BLOCK_R, BLOCK_U * BLOCK_V), dtype=tl.float32)

    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        dg = tl.zeros((BLOCK_C, BLOCK_U, BLOCK_V), dtype=tl.float32)
        for t0 in range(0, T, BLOCK_T):
            left = _features(l_ptr, lb_ptr, c0, t0, u, C, T, V, BLOCK_C, BLOCK_T)
            right = _features(r_ptr, rb_ptr, c0, t0, v, C, T, V, BLOCK_C, BLOCK_T)
            dg = tl.dot(tl.permute(left, (0, 2, 1)), right, dg, input_precision=PRECISION)
        da += tl.sum(dg, axis=0)
        if w4_ptr is None:
            relation = _relations(p_ptr, q_ptr, c, u, v, C, V)
            dalpha += tl.sum(dg * relation, axis=0)
            inner = alpha * dg * (1 - relation * relation)
            _store_matrix(dp_ptr, c, u, C, V, tl.sum(inner, axis=2))
            _store_matrix(dq_ptr, c, v, C, V, -tl.sum(inner, axis=1))
        else:
            if db4_ptr is not None:
                tl.store(db4_ptr + part * C + c, tl.sum(tl.sum(dg, axis=2), axis=1), mask=c < C)
            dw4 = tl.dot(tl.permute(dg.to(dtype), (1, 0, 2)), s, input_precision=PRECISION)
            _store_matrix(dw4_ptr + part * C * R, c, r, C, R, alpha * tl.sum(dw4, axis=0))
            w4 = tl.trans(_matrix(w4_ptr + k * C * R, c, r, C, R))
            flat = tl.reshape(dg, (BLOCK_C, BLOCK_U * BLOCK_V))
            high = flat.to(dtype)
            ds = tl.dot(w4, high, ds, input_precision=PRECISION)
            if dtype != tl.float32:  # what rounding took from dG: sums over c and (u, v) cancel
                low = (flat - high.to(tl.float32)).to(dtype)
                ds = tl.dot(w4, low, ds, input_precision=PRECISION)

    if w4_ptr is not None:
        relation = _relations(p_ptr, q_ptr, r, u, v, R, V)
        ds = tl.reshape(ds, (BLOCK_R, BLOCK_U, BLOCK_V))
        dalpha += tl.sum(ds * relation, axis=0)
        inner = alpha * ds * (1 - relation * relation)
        _store_matrix(dp_ptr, r, u, R, V, tl.sum(inner, axis=2))
        _store_matrix(dq_ptr, r, v, R, V, -tl.sum(inner, axis=1))
    _store_matrix(da_ptr + nk * V * V, u, v, V, V, da)
    tl.store(dalpha_ptr + part, tl.sum(dalpha))


def supports(x, A, p, q, alpha, weight4, bias4, weight, bias, transposed) -> str | None:
    return _tiles.unsupported(x)


def _fuses(x: Tensor, p: Tensor, weight: Tensor | None) -> bool:
    """Transform on chip where one tile holds all channels of x, and the graph of all joints."""
    return (
        weight is not None
        and x.dtype in _tiles.HALF
        and x.shape[1] <= 64
        and p.shape[2] <= 16
        and p.shape[3] <= 32
        and _tiles.shared_bytes(x) >= 128 * 1024
    )


def _aggregate_blocks(x: Tensor, subsets: int, R: int, V: int, refined: bool, fused: bool):
    """(BLOCK_C, BLOCK_T, BLOCK_O, KEEP), such that S and G of all subsets stay on chip."""
    half = x.dtype in _tiles.HALF
    BLOCK_I = _tiles.joints(V)
    BLOCK_C = _tiles.pow2(64 // subsets + 1, high=32) // 2
    BLOCK_T = max(1, (8192 if half else 4096) // BLOCK_C // BLOCK_I)
    if fused:
        return BLOCK_C, BLOCK_T, BLOCK_I, False
    BLOCK_T = min(BLOCK_T, 16)
    largest = min(16, (512 if half else 256) // BLOCK_I)
    row = subsets * (_tiles.pow2(R, 16) + BLOCK_C) * BLOCK_I * x.element_size()
    fits = (160 if half else 80) * 1024 // row  # in registers for half types, else shared memory
    if refined and fits >= 2:
        return BLOCK_C, BLOCK_T, min(largest, _tiles.pow2(fits + 1) // 2), True
    return BLOCK_C, BLOCK_T, largest, False


def _aggregate(x, A, p, q, alpha, weight4, bias4, weight, bias, outputs, channels, transposed):
    """x (N, C, T, V) with weight, else (N, K, C', T, V) or (N, 1, C', T, V) -> (N, M, C', T, V)."""
    N, K, R, V = p.shape
    T, SUM = x.shape[-2], K // outputs
    out = x.new_empty(N, outputs, channels, T, V)
    if out.numel() == 0:
        return out
    BLOCK_C, BLOCK_T, BLOCK_O, KEEP = _aggregate_blocks(
        x, SUM, R, V, weight4 is not None, weight is not None
    )
    programs = N * outputs * _tiles.cdiv(V, BLOCK_O)
    SPLITS = _tiles.splits(x, programs, _tiles.cdiv(channels, BLOCK_C))
    _ctr_aggregate_kernel[programs * SPLITS,](
        x, A, p, q, alpha, weight4, bias4, weight, bias, out,
        x.shape[1], channels, T, R, SPLITS,
        x.stride(0), 0 if x.dim() == 4 or x.shape[1] == 1 else x.stride(1),
        A.stride(0) if A.dim() == 4 else 0,
        V=V, K=K, SUM=SUM, TRANSPOSED=transposed, KEEP=KEEP, PRECISION=_tiles.precision(x),
        BLOCK_C=BLOCK_C, BLOCK_T=BLOCK_T, BLOCK_I=_tiles.joints(V),
        BLOCK_O=BLOCK_O, BLOCK_R=_tiles.pow2(R, 16), BLOCK_X=_tiles.pow2(x.shape[1], 16),
        num_warps=8, num_stages=1,
    )  # fmt: skip
    return out


def _grad_graph(grad, f, A, p, q, alpha, weight4, bias4, bias, transposed) -> dict[str, Tensor]:
    """grad (N, C', T, V), f (N, K, C', T, V) without its bias -> gradients of the graph's parts."""
    N, K, R, V = p.shape
    C, T = grad.shape[1:3]
    BLOCK_V, BLOCK_R = min(_tiles.joints(V), 32), _tiles.pow2(R, 16)
    size = 512 if grad.dtype in _tiles.HALF else 256
    BLOCK_U = max(1, min(size, 2**14 // BLOCK_R) // BLOCK_V)
    u_chunks, v_chunks = _tiles.cdiv(V, BLOCK_U), _tiles.cdiv(V, BLOCK_V)
    chunks = u_chunks * v_chunks

    def parts(*shape: int) -> Tensor:
        return p.new_empty(N, K, *shape, dtype=torch.float32)

    dA, dp, dq = parts(V, V), parts(v_chunks, R, V), parts(u_chunks, R, V)
    dalpha = parts(chunks)
    dw4 = None if weight4 is None else parts(chunks, C, R)
    db4 = None if bias4 is None else parts(chunks, C)
    if N:
        sides = [(grad, None, grad.stride(0), 0), (f, bias, f.stride(0), f.stride(1))]
        (l, lb, l_n, l_k), (r, rb, r_n, r_k) = sides[::-1] if transposed else sides
        _ctr_grad_graph_kernel[N * K * chunks,](
            l, lb, r, rb, p, q, alpha, weight4, dA, dp, dq, dalpha, dw4, db4,
            C, T, R, l_n, l_k, r_n, r_k,
            V=V, K=K, PRECISION=_tiles.precision(f), BLOCK_C=16, BLOCK_T=16, BLOCK_U=BLOCK_U,
            BLOCK_V=BLOCK_V, BLOCK_R=BLOCK_R, num_warps=8, num_stages=1,
        )  # fmt: skip
    dalpha = dalpha.sum()
    found = {"A": dA if A.dim() == 4 else dA.sum(0), "p": dp.sum(2), "q": dq.sum(2)}
    if weight4 is not None:
        found["weight4"] = dw4.sum((0, 2))
    if bias4 is not None:
        db4 = db4.sum((0, 2))
        dalpha = dalpha + (db4 * bias4).sum()
        found["bias4"] = alpha * db4
    found["alpha"] = dalpha.view(alpha.shape)
    return {name: t.to(p.dtype) for name, t in found.items()}


@_tiles.on_device
def forward(x, A, p, q, alpha, weight4, bias4, weight, bias, transposed):
    x, A, p, q, weight4, bias4, weight, bias = _tiles.contiguous(
        x, A, p, q, weight4, bias4, weight, bias
    )
    K = A.shape[-3]
    channels = x.shape[1] // K if weight is None else weight.shape[1]
    if not _fuses(x, p, weight):
        f = x if weight is None else _pointwise.transform(weight.flatten(0, 1), x)
        x, weight = f.unflatten(1, (K, channels)), None
    return _aggregate(
        x, A, p, q, alpha, weight4, bias4, weight, bias, 1, channels, transposed
    ).squeeze(1)


@_tiles.on_device
def backward(grad, x, A, p, q, alpha, weight4, bias4, weight, bias, transposed, needs):
    grad, x, A, p, q, weight4, bias4, weight, bias = _tiles.contiguous(
        grad, x, A, p, q, weight4, bias4, weight, bias
    )
    K, channels = A.shape[-3], grad.shape[1]
    wants = _tiles.wants(GRADS, needs)
    found = {name: grad.new_empty(0) for name in GRADS}
    rows = None if weight is None else weight.flatten(0, 1)
    graph = [name for name in ("A", "p", "q", "alpha", "weight4", "bias4") if wants(name)]
    if graph:
        f = x if weight is None else _pointwise.transform(rows, x)
        f = f.unflatten(1, (K, channels))
        grads = _grad_graph(grad, f, A, p, q, alpha, weight4, bias4, bias, transposed)
        found |= {name: grads[name] for name in graph}
        del f
    if wants("x") or wants("weight") or wants("bias"):
        df = _aggregate(
            grad.unsqueeze(1), A, p, q, alpha, weight4, bias4, None, None, K, channels,
            not transposed,
        )  # fmt: skip
        if wants("x"):
            found["x"] = df.view(x.shape) if weight is None else _pointwise.transform(rows.mT, df)
        if wants("weight"):
            found["weight"] = _pointwise.weight_grad(df, x).view(weight.shape).to(weight.dtype)
        if wants("bias"):
            found["bias"] = df.sum((0, 3, 4))
    return tuple(found.values())
