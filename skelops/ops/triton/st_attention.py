"""Attention on a GPU: online softmax over the tiles that the structure leaves, in base 2.

A segment is a run of evenly spaced rows of qkv: a sequence, one frame of it, or one joint of it in
all frames. With graph or joint restrictions on a full grid, segments are joints: a program takes a
block of frames of one joint and visits only the joints that it may attend to; with a window, only
the frames of the band. Rows are computed by their program alone: dq by blocks of queries, dk and dv
by blocks of keys, bias gradients as one partial sum per program.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("qkv", "joint_bias", "lag_bias")
MAX_WIDTH = 128
LOG2E = tl.constexpr(1.4426950408889634)
VARYING = ("L", "SEQUENCES", "BLOCKS", "ROWS", "SPLITS", "WINDOW")


@triton.jit
def _segment(cu_ptr, limit_ptr, s, v, L, V: tl.constexpr, BY_JOINT: tl.constexpr):
    """(first row, tokens) of joint v of sequence s, or of all of it; none from ``limit`` on."""
    if cu_ptr is not None:
        begin = tl.load(cu_ptr + s).to(tl.int64)
        length = (tl.load(cu_ptr + s + 1) - begin).to(tl.int32)
    else:
        begin = s.to(tl.int64) * L
        length = L
    if limit_ptr is not None:
        length = tl.where(begin < tl.load(limit_ptr), length, 0)
    if BY_JOINT:
        begin += v
        length = (length - v + V - 1) // V
    return begin, length


@triton.jit
def _band(i0, length, WINDOW, V: tl.constexpr, BY_JOINT: tl.constexpr, BLOCK: tl.constexpr):
    """Range of tokens within the window of a block of tokens that starts at i0."""
    PER_FRAME: tl.constexpr = 1 if BY_JOINT else V
    low = tl.maximum((i0 // PER_FRAME - WINDOW) * PER_FRAME, 0)
    high = tl.minimum(((i0 + BLOCK - 1) // PER_FRAME + WINDOW + 1) * PER_FRAME, length)
    return low, high


@triton.jit
def _place(tokens_ptr, base, i, length, v, V: tl.constexpr, BY_JOINT: tl.constexpr):
    """(frame, joint) of the tokens i of a segment."""
    if tokens_ptr is not None:
        token = tl.maximum(tl.load(tokens_ptr + base + i, mask=i < length, other=0), 0)
        return token // V, token % V
    elif BY_JOINT:
        return i, tl.zeros_like(i) + v
    else:
        return i // V, i % V


@triton.jit
def _rows(
    ptr, base, i, length, d, stride, STEP: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr
):
    """(i, d) tile of a head of the tokens i of a segment."""
    at = ptr + base * stride + ((i * STEP)[:, None] * stride + d)
    if MASKED:
        return tl.load(at, mask=(i < length)[:, None] & (d < D), other=0.0)
    elif d.shape[0] > D:
        return tl.load(at, mask=(d < D)[None, :], other=0.0)
    else:
        return tl.load(at)


@triton.jit
def _store_rows(ptr, base, i, length, d, stride, x, STEP: tl.constexpr, D: tl.constexpr):
    at = ptr + base * stride + ((i * STEP)[:, None] * stride + d)
    tl.store(at, x.to(ptr.dtype.element_ty), mask=(i < length)[:, None] & (d < D))


@triton.jit
def _scores(
    dot, scale, jb_ptr, lb_ptr, h, qf, kf, qj, kj, v, u,
    V: tl.constexpr, LAGS: tl.constexpr, BY_JOINT: tl.constexpr,
):  # fmt: skip
    """Biased scores in units of log 2; frames and joints of queries and keys broadcast."""
    s = dot * (scale * LOG2E)
    if jb_ptr is not None:
        if BY_JOINT:
            s += tl.load(jb_ptr + (h * V + v) * V + u).to(tl.float32) * LOG2E
        else:
            s += tl.load(jb_ptr + (h * V * V + (qj * V + kj))).to(tl.float32) * LOG2E
    if lb_ptr is not None:
        W: tl.constexpr = LAGS // 2
        lag = tl.minimum(tl.maximum(qf - kf, -W), W) + W
        s += tl.load(lb_ptr + (h * LAGS + lag)).to(tl.float32) * LOG2E
    return s


@triton.jit
def _kept(
    inside, key_kept, pairs_ptr, qf, kf, qj, kj, WINDOW,
    V: tl.constexpr, BANDED: tl.constexpr, SAME_JOINT: tl.constexpr, BY_JOINT: tl.constexpr,
):  # fmt: skip
    """Which of a tile attend: ``inside`` and ``key_kept`` of the keys, and what the tokens say."""
    kept = inside & key_kept
    if BANDED:
        kept = kept & (tl.abs(qf - kf) <= WINDOW)
    if not BY_JOINT:
        if SAME_JOINT:
            kept = kept & (qj == kj)
        if pairs_ptr is not None:
            kept = kept & (tl.load(pairs_ptr + (qj * V + kj)) != 0)
    return kept


@triton.jit
def _key_kept(mask_ptr, base, i, length, STEP: tl.constexpr):
    if mask_ptr is None:
        return i < length
    else:
        return tl.load(mask_ptr + base + i * STEP, mask=i < length, other=0) != 0


@triton.jit
def _attend_range(
    acc, most, total, q, qf, qj, k_ptr, v_ptr, jb_ptr, lb_ptr, pairs_ptr, tokens_ptr, mask_ptr,
    base, length, low, high, h, v, u, stride, scale, WINDOW,
    V: tl.constexpr, D: tl.constexpr, LAGS: tl.constexpr, BANDED: tl.constexpr,
    SAME_JOINT: tl.constexpr, BY_JOINT: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax per tile of keys."""
    STEP: tl.constexpr = V if BY_JOINT else 1
    d = tl.arange(0, BLOCK_D)
    for n in range(low, high, BLOCK_N):
        j = n + tl.arange(0, BLOCK_N)
        k = _rows(k_ptr, base, j, length, d, stride, STEP, D, MASKED)
        x = _rows(v_ptr, base, j, length, d, stride, STEP, D, MASKED)
        kf, kj = _place(tokens_ptr, base, j, length, u, V, BY_JOINT)
        kf, kj = kf[None, :], kj[None, :]
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if jb_ptr is None and lb_ptr is None and not MASKED:
            # A scale that is not negative may be applied after the maximum, and fused.
            factor = scale * LOG2E
            new = tl.maximum(most, tl.max(s, 1) * factor)
            p = tl.math.exp2(s * factor - new[:, None])
            shrink = tl.math.exp2(most - new)
        else:
            s = _scores(s, scale, jb_ptr, lb_ptr, h, qf, kf, qj, kj, v, u, V, LAGS, BY_JOINT)
            if MASKED:
                key_kept = _key_kept(mask_ptr, base, j, length, STEP)
                kept = _kept(
                    (j < length)[None, :], key_kept[None, :], pairs_ptr, qf, kf, qj, kj, WINDOW,
                    V, BANDED, SAME_JOINT, BY_JOINT,
                )  # fmt: skip
                s = tl.where(kept, s, float("-inf"))
            new = tl.maximum(most, tl.max(s, 1))
            finite = tl.where(new == float("-inf"), 0.0, new)
            p = tl.math.exp2(s - finite[:, None])
            shrink = tl.math.exp2(most - finite)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None]
        acc = tl.dot(p.to(x.dtype), x, acc, input_precision=PRECISION)
        most = new
    return acc, most, total


@kernel(VARYING)
def _st_attention_fwd_kernel(
    qkv_ptr, jb_ptr, lb_ptr, pairs_ptr, tokens_ptr, mask_ptr, cu_ptr, limit_ptr, out_ptr, lse_ptr,
    L, BLOCKS, ROWS, WINDOW, H, scale,
    V: tl.constexpr, D: tl.constexpr, LAGS: tl.constexpr, BANDED: tl.constexpr,
    SAME_JOINT: tl.constexpr, BY_JOINT: tl.constexpr, PLAIN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out and lse of a block of queries of one head."""
    JOINTS: tl.constexpr = V if BY_JOINT else 1
    STEP: tl.constexpr = JOINTS
    pid = tl.program_id(0)
    m = pid % BLOCKS * BLOCK_M
    v = pid // BLOCKS % JOINTS
    h = pid // BLOCKS // JOINTS % H
    s = pid // BLOCKS // JOINTS // H
    base, length = _segment(cu_ptr, limit_ptr, s, v, L, V, BY_JOINT)
    if m >= length:
        return
    stride = 3 * H * D
    q_ptr = qkv_ptr + h * D
    d = tl.arange(0, BLOCK_D)
    i = m + tl.arange(0, BLOCK_M)
    q = _rows(q_ptr, base, i, length, d, stride, STEP, D, True)
    qf, qj = _place(tokens_ptr, base, i, length, v, V, BY_JOINT)
    qf, qj = qf[:, None], qj[:, None]

    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    most = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    first = v if SAME_JOINT and BY_JOINT else 0
    last = first + 1 if SAME_JOINT or not BY_JOINT else V
    for u in range(first, last):
        key_base, keys = _segment(cu_ptr, limit_ptr, s, u, L, V, BY_JOINT)
        low, high = 0, keys
        if BANDED and tokens_ptr is None:
            low, high = _band(m, keys, WINDOW, V, BY_JOINT, BLOCK_M)
        if BY_JOINT and pairs_ptr is not None:
            high = tl.where(tl.load(pairs_ptr + v * V + u) != 0, high, low)
        if PLAIN:
            whole = low + (high - low) // BLOCK_N * BLOCK_N
            acc, most, total = _attend_range(
                acc, most, total, q, qf, qj, q_ptr + H * D, q_ptr + 2 * H * D, jb_ptr, lb_ptr,
                pairs_ptr, tokens_ptr, mask_ptr, key_base, keys, low, whole, h, v, u, stride, scale,
                WINDOW, V, D, LAGS, BANDED, SAME_JOINT, BY_JOINT, False, PRECISION, BLOCK_N,
                BLOCK_D,
            )  # fmt: skip
            low = whole
        acc, most, total = _attend_range(
            acc, most, total, q, qf, qj, q_ptr + H * D, q_ptr + 2 * H * D, jb_ptr, lb_ptr,
            pairs_ptr, tokens_ptr, mask_ptr, key_base, keys, low, high, h, v, u, stride, scale,
            WINDOW, V, D, LAGS, BANDED, SAME_JOINT, BY_JOINT, True, PRECISION, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    none = total == 0.0
    acc = acc / tl.where(none, 1.0, total)[:, None]
    _store_rows(out_ptr + h * D, base, i, length, d, H * D, acc, STEP, D)
    lse = tl.where(none, float("inf"), most + tl.math.log2(tl.where(none, 1.0, total)))
    tl.store(lse_ptr + h.to(tl.int64) * ROWS + base + i * STEP, lse, mask=i < length)


@triton.jit
def _grad_q_range(
    dq, q, g, lse, delta, qf, qj, k_ptr, v_ptr, jb_ptr, lb_ptr, pairs_ptr, tokens_ptr, mask_ptr,
    base, length, low, high, h, v, u, stride, scale, WINDOW,
    V: tl.constexpr, D: tl.constexpr, LAGS: tl.constexpr, BANDED: tl.constexpr,
    SAME_JOINT: tl.constexpr, BY_JOINT: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    STEP: tl.constexpr = V if BY_JOINT else 1
    d = tl.arange(0, BLOCK_D)
    for n in range(low, high, BLOCK_N):
        j = n + tl.arange(0, BLOCK_N)
        k = _rows(k_ptr, base, j, length, d, stride, STEP, D, MASKED)
        x = _rows(v_ptr, base, j, length, d, stride, STEP, D, MASKED)
        kf, kj = _place(tokens_ptr, base, j, length, u, V, BY_JOINT)
        kf, kj = kf[None, :], kj[None, :]
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        s = _scores(s, scale, jb_ptr, lb_ptr, h, qf, kf, qj, kj, v, u, V, LAGS, BY_JOINT)
        p = tl.math.exp2(s - lse[:, None])
        if MASKED:
            key_kept = _key_kept(mask_ptr, base, j, length, STEP)
            kept = _kept(
                (j < length)[None, :], key_kept[None, :], pairs_ptr, qf, kf, qj, kj, WINDOW,
                V, BANDED, SAME_JOINT, BY_JOINT,
            )  # fmt: skip
            p = tl.where(kept, p, 0.0)
        dp = tl.dot(g, tl.trans(x), input_precision=PRECISION)
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq


@kernel(VARYING)
def _st_attention_grad_q_kernel(
    g_ptr, qkv_ptr, jb_ptr, lb_ptr, pairs_ptr, tokens_ptr, mask_ptr, cu_ptr, limit_ptr, out_ptr,
    lse_ptr, delta_ptr, dqkv_ptr, L, BLOCKS, ROWS, WINDOW, H, scale,
    V: tl.constexpr, D: tl.constexpr, LAGS: tl.constexpr, BANDED: tl.constexpr,
    SAME_JOINT: tl.constexpr, BY_JOINT: tl.constexpr, PLAIN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries of one head, and their delta = sum(g out) for the other kernels."""
    JOINTS: tl.constexpr = V if BY_JOINT else 1
    STEP: tl.constexpr = JOINTS
    pid = tl.program_id(0)
    m = pid % BLOCKS * BLOCK_M
    v = pid // BLOCKS % JOINTS
    h = pid // BLOCKS // JOINTS % H
    s = pid // BLOCKS // JOINTS // H
    base, length = _segment(cu_ptr, limit_ptr, s, v, L, V, BY_JOINT)
    if m >= length:
        return
    stride = 3 * H * D
    q_ptr = qkv_ptr + h * D
    d = tl.arange(0, BLOCK_D)
    i = m + tl.arange(0, BLOCK_M)
    row = h.to(tl.int64) * ROWS + base + i * STEP
    q = _rows(q_ptr, base, i, length, d, stride, STEP, D, True)
    g = _rows(g_ptr + h * D, base, i, length, d, H * D, STEP, D, True)
    out = _rows(out_ptr + h * D, base, i, length, d, H * D, STEP, D, True)
    lse = tl.load(lse_ptr + row, mask=i < length, other=float("inf"))
    delta = tl.sum(g.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(delta_ptr + row, delta, mask=i < length)
    qf, qj = _place(tokens_ptr, base, i, length, v, V, BY_JOINT)
    qf, qj = qf[:, None], qj[:, None]

    dq = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    first = v if SAME_JOINT and BY_JOINT else 0
    last = first + 1 if SAME_JOINT or not BY_JOINT else V
    for u in range(first, last):
        key_base, keys = _segment(cu_ptr, limit_ptr, s, u, L, V, BY_JOINT)
        low, high = 0, keys
        if BANDED and tokens_ptr is None:
            low, high = _band(m, keys, WINDOW, V, BY_JOINT, BLOCK_M)
        if BY_JOINT and pairs_ptr is not None:
            high = tl.where(tl.load(pairs_ptr + v * V + u) != 0, high, low)
        if PLAIN:
            whole = low + (high - low) // BLOCK_N * BLOCK_N
            dq = _grad_q_range(
                dq, q, g, lse, delta, qf, qj, q_ptr + H * D, q_ptr + 2 * H * D, jb_ptr, lb_ptr,
                pairs_ptr, tokens_ptr, mask_ptr, key_base, keys, low, whole, h, v, u, stride, scale,
                WINDOW, V, D, LAGS, BANDED, SAME_JOINT, BY_JOINT, False, PRECISION, BLOCK_N,
                BLOCK_D,
            )  # fmt: skip
            low = whole
        dq = _grad_q_range(
            dq, q, g, lse, delta, qf, qj, q_ptr + H * D, q_ptr + 2 * H * D, jb_ptr, lb_ptr,
            pairs_ptr, tokens_ptr, mask_ptr, key_base, keys, low, high, h, v, u, stride, scale,
            WINDOW, V, D, LAGS, BANDED, SAME_JOINT, BY_JOINT, True, PRECISION, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    _store_rows(dqkv_ptr + h * D, base, i, length, d, stride, dq * scale, STEP, D)


@kernel(VARYING)
def _st_attention_grad_kv_kernel(
    g_ptr, qkv_ptr, jb_ptr, lb_ptr, pairs_ptr, tokens_ptr, mask_ptr, cu_ptr, limit_ptr,
    lse_ptr, delta_ptr, dqkv_ptr, L, BLOCKS, ROWS, WINDOW, H, scale,
    V: tl.constexpr, D: tl.constexpr, LAGS: tl.constexpr, BANDED: tl.constexpr,
    SAME_JOINT: tl.constexpr, BY_JOINT: tl.constexpr, PLAIN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of BLOCK_N keys of one head; tiles are (keys, queries)."""
    JOINTS: tl.constexpr = V if BY_JOINT else 1
    STEP: tl.constexpr = JOINTS
    pid = tl.program_id(0)
    n = pid % BLOCKS * BLOCK_N
    u = pid // BLOCKS % JOINTS
    h = pid // BLOCKS // JOINTS % H
    s = pid // BLOCKS // JOINTS // H
    base, length = _segment(cu_ptr, limit_ptr, s, u, L, V, BY_JOINT)
    if n >= length:
        return
    stride = 3 * H * D
    q_ptr = qkv_ptr + h * D
    d = tl.arange(0, BLOCK_D)
    j = n + tl.arange(0, BLOCK_N)
    k = _rows(q_ptr + H * D, base, j, length, d, stride, STEP, D, True)
    x = _rows(q_ptr + 2 * H * D, base, j, length, d, stride, STEP, D, True)
    kf, kj = _place(tokens_ptr, base, j, length, u, V, BY_JOINT)
    kf, kj = kf[:, None], kj[:, None]
    key_kept = _key_kept(mask_ptr, base, j, length, STEP)[:, None]
    lse_ptr += h.to(tl.int64) * ROWS
    delta_ptr += h.to(tl.int64) * ROWS

    dk = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    dv = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    first = u if SAME_JOINT and BY_JOINT else 0
    last = first + 1 if SAME_JOINT or not BY_JOINT else V
    for v in range(first, last):
        query_base, queries = _segment(cu_ptr, limit_ptr, s, v, L, V, BY_JOINT)
        low, high = 0, queries
        if BANDED and tokens_ptr is None:
            low, high = _band(n, queries, WINDOW, V, BY_JOINT, BLOCK_N)
        if BY_JOINT and pairs_ptr is not None:
            high = tl.where(tl.load(pairs_ptr + v * V + u) != 0, high, low)
        for m in range(low, high, BLOCK_M):
            i = m + tl.arange(0, BLOCK_M)
            q = _rows(q_ptr, query_base, i, queries, d, stride, STEP, D, True)
            g = _rows(g_ptr + h * D, query_base, i, queries, d, H * D, STEP, D, True)
            # Infinite beyond the last query: its probabilities are then 0.
            row = query_base + i * STEP
            lse = tl.load(lse_ptr + row, mask=i < queries, other=float("inf"))
            delta = tl.load(delta_ptr + row, mask=i < queries, other=0.0)
            qf, qj = _place(tokens_ptr, query_base, i, queries, v, V, BY_JOINT)
            qf, qj = qf[None, :], qj[None, :]
            score = tl.dot(k, tl.trans(q), input_precision=PRECISION)
            score = _scores(
                score, scale, jb_ptr, lb_ptr, h, qf, kf, qj, kj, v, u, V, LAGS, BY_JOINT
            )
            p = tl.math.exp2(score - lse[None, :])
            if not PLAIN:
                # Keys beyond the last are not stored: only the structure has to be observed.
                kept = _kept(
                    key_kept, key_kept, pairs_ptr, qf, kf, qj, kj, WINDOW,
                    V, BANDED, SAME_JOINT, BY_JOINT,
                )  # fmt: skip
                p = tl.where(kept, p, 0.0)
            dv = tl.dot(p.to(g.dtype), g, dv, input_precision=PRECISION)
            dp = tl.dot(x, tl.trans(g), input_precision=PRECISION)
            ds = p * (dp - delta[None, :])
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    to_ptr = dqkv_ptr + (H + h) * D
    _store_rows(to_ptr, base, j, length, d, stride, dk * scale, STEP, D)
    _store_rows(to_ptr + H * D, base, j, length, d, stride, dv, STEP, D)


@kernel(VARYING)
def _st_attention_grad_bias_kernel(
    g_ptr, qkv_ptr, jb_ptr, lb_ptr, pairs_ptr, tokens_ptr, mask_ptr, cu_ptr, limit_ptr,
    lse_ptr, delta_ptr, djb_ptr, dlb_ptr, L, SEQUENCES, BLOCKS, ROWS, SPLITS, WINDOW, H, scale,
    V: tl.constexpr, D: tl.constexpr, LAGS: tl.constexpr, BANDED: tl.constexpr,
    SAME_JOINT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr, BLOCK_LAGS: tl.constexpr,
):  # fmt: skip
    """Bias gradients of one head over every SPLITS-th block of queries: pairs of joints by products
    with the tokens' joints, one-hot; lags one after the other, a tile having only a few."""
    W: tl.constexpr = LAGS // 2
    pid = tl.program_id(0)
    split = pid % SPLITS
    h = pid // SPLITS
    stride = 3 * H * D
    q_ptr = qkv_ptr + h * D
    lse_ptr += h.to(tl.int64) * ROWS
    delta_ptr += h.to(tl.int64) * ROWS
    d = tl.arange(0, BLOCK_D)
    joint = tl.arange(0, BLOCK_V)
    bins = tl.arange(0, BLOCK_LAGS)
    djb = tl.zeros((BLOCK_V, BLOCK_V), dtype=tl.float32)
    dlb = tl.zeros((BLOCK_LAGS,), dtype=tl.float32)
    for block in range(split, SEQUENCES * BLOCKS, SPLITS):
        m = block % BLOCKS * BLOCK
        base, length = _segment(cu_ptr, limit_ptr, block // BLOCKS, 0, L, V, False)
        i = m + tl.arange(0, BLOCK)
        q = _rows(q_ptr, base, i, length, d, stride, 1, D, True)
        g = _rows(g_ptr + h * D, base, i, length, d, H * D, 1, D, True)
        lse = tl.load(lse_ptr + base + i, mask=i < length, other=float("inf"))
        delta = tl.load(delta_ptr + base + i, mask=i < length, other=0.0)
        frame_i, joint_i = _place(tokens_ptr, base, i, length, 0, V, False)
        qf, qj = frame_i[:, None], joint_i[:, None]
        low, high = 0, length
        if BANDED and tokens_ptr is None:
            low, high = _band(m, length, WINDOW, V, False, BLOCK)
        high = tl.where(m < length, high, low)
        for n in range(low, high, BLOCK):
            j = n + tl.arange(0, BLOCK)
            k = _rows(q_ptr + H * D, base, j, length, d, stride, 1, D, True)
            x = _rows(q_ptr + 2 * H * D, base, j, length, d, stride, 1, D, True)
            frame_j, joint_j = _place(tokens_ptr, base, j, length, 0, V, False)
            kf, kj = frame_j[None, :], joint_j[None, :]
            s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            s = _scores(s, scale, jb_ptr, lb_ptr, h, qf, kf, qj, kj, 0, 0, V, LAGS, False)
            key_kept = _key_kept(mask_ptr, base, j, length, 1)
            kept = _kept(
                (j < length)[None, :], key_kept[None, :], pairs_ptr, qf, kf, qj, kj, WINDOW,
                V, BANDED, SAME_JOINT, False,
            )  # fmt: skip
            p = tl.where(kept, tl.math.exp2(s - lse[:, None]), 0.0)
            dp = tl.dot(g, tl.trans(x), input_precision=PRECISION)
            ds = p * (dp - delta[:, None])
            if djb_ptr is not None:
                of_query = (joint[:, None] == joint_i[None, :]).to(q.dtype)
                of_key = (joint_j[:, None] == joint[None, :]).to(q.dtype)
                rows = tl.dot(of_query, ds.to(q.dtype), input_precision=PRECISION)
                djb = tl.dot(rows.to(q.dtype), of_key, djb, input_precision=PRECISION)
            if dlb_ptr is not None:
                lag = tl.minimum(tl.maximum(qf - kf, -W), W) + W
                least = tl.min(frame_i, 0) - tl.max(frame_j, 0)
                most = tl.max(frame_i, 0) - tl.min(frame_j, 0)
                least = tl.minimum(tl.maximum(least, -W), W) + W
                most = tl.minimum(tl.maximum(most, -W), W) + W
                for at in range(least, most + 1):
                    found = tl.sum(tl.sum(tl.where(lag == at, ds, 0.0), 1), 0)
                    dlb += tl.where(bins == at, found, 0.0)
    part = pid.to(tl.int64)
    if djb_ptr is not None:
        tl.store(
            djb_ptr + part * V * V + (joint[:, None] * V + joint),
            djb,
            mask=(joint < V)[:, None] & (joint < V),
        )
    if dlb_ptr is not None:
        tl.store(dlb_ptr + part * LAGS + bins, dlb, mask=bins < LAGS)


@dataclass(frozen=True)
class _Layout:
    """The sequences a launch runs over, and what all kernels are told about them."""

    sequences: int
    longest: int  # tokens of a segment
    by_joint: bool
    banded: bool
    plain: bool
    cu_seqlens: Tensor | None
    limit: Tensor | None
    window: int

    @classmethod
    def of(
        cls,
        qkv,
        joint_bias,
        pairs,
        tokens,
        key_mask,
        cu_seqlens,
        joints,
        window,
        same_joint,
        max_len,
    ) -> _Layout:
        """Frames that attend to themselves only are sequences of their own."""
        ragged, rows = cu_seqlens is not None, qkv.shape[:-1].numel()
        count, length = (cu_seqlens.shape[0] - 1, max_len) if ragged else qkv.shape[:2]
        limit = None
        whole = rows % joints == 0 if ragged else length % joints == 0
        if window == 0 and tokens is None and not same_joint and joints > 1 and whole:
            limit = cu_seqlens[-1:] if ragged else None
            count, length, window, cu_seqlens = rows // joints, joints, -1, None
            by_joint = False
        else:
            structured = same_joint or pairs is not None or joint_bias is not None
            by_joint = structured and tokens is None
        by_token = not by_joint and (same_joint or pairs is not None)
        plain = window < 0 and key_mask is None and not by_token
        if by_joint:
            length = _tiles.cdiv(length, joints)
        return cls(count, length, by_joint, window >= 0, plain, cu_seqlens, limit, window)

    def launch(self, joints: int, heads: int, block: int) -> tuple[int, int]:
        """(programs, blocks per segment)."""
        blocks = _tiles.cdiv(self.longest, block)
        return self.sequences * heads * blocks * (joints if self.by_joint else 1), blocks


def _blocks(x: Tensor, width: int, longest: int, owned: int, walked: int) -> dict[str, int]:
    """Tiles of (owned, walked) tokens: of half types, for matrix units; a short segment whole."""
    if x.dtype not in _tiles.HALF:
        owned, walked = 32, 32 if width <= 64 else 16
    elif width > 64:
        owned, walked = 64, 32
    fits = _tiles.pow2(longest, 16)
    if 64 < longest <= 96:  # in thirds, with less beyond the end
        fits = 32
    owned, walked = min(owned, fits), min(walked, fits)
    warps = 8 if owned == 128 else 4
    return {"owned": owned, "walked": walked, "warps": warps, "stages": 2 if width > 64 else 3}


def supports(
    qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens, heads, joints, window,
    same_joint, max_len, scale,
) -> str | None:  # fmt: skip
    width = qkv.shape[-1] // (3 * heads)
    longest = qkv.shape[-2] if cu_seqlens is None else max_len
    if qkv.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(qkv.dtype).removeprefix('torch.')} kernel"
    if width > MAX_WIDTH:
        return f"heads of at most {MAX_WIDTH} channels, got {width}"
    if joint_bias is not None and joints > _tiles.MAX_JOINTS:
        return f"a bias of at most {_tiles.MAX_JOINTS} joints, got {joints}"
    if scale < 0:
        return f"a scale >= 0, got {scale}"
    if longest * qkv.shape[-1] >= 2**31:
        return f"less than {2**31} values per sequence"
    return None


def _common(qkv, lag_bias, layout, heads, joints, same_joint) -> dict:
    width = qkv.shape[-1] // (3 * heads)
    return dict(
        V=joints, D=width, LAGS=1 if lag_bias is None else lag_bias.shape[1], BANDED=layout.banded,
        SAME_JOINT=same_joint, PRECISION=_tiles.precision(qkv), BLOCK_D=_tiles.pow2(width, 16),
    )  # fmt: skip


@_tiles.on_device
def forward(
    qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens, heads, joints, window,
    same_joint, max_len, scale,
):  # fmt: skip
    tensors = _tiles.contiguous(qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens)
    qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens = tensors
    # Rows that no sequence owns are zero; the others are all written.
    new = torch.empty if cu_seqlens is None else torch.zeros
    *rows, channels = qkv.shape
    out = new(*rows, channels // 3, dtype=qkv.dtype, device=qkv.device)
    lse = new(heads, *rows, dtype=torch.float32, device=qkv.device)
    layout = _Layout.of(
        qkv, joint_bias, pairs, tokens, key_mask, cu_seqlens, joints, window, same_joint, max_len
    )
    tile = _blocks(qkv, channels // (3 * heads), layout.longest, owned=128, walked=64)
    programs, blocks = layout.launch(joints, heads, tile["owned"])
    if programs:
        _st_attention_fwd_kernel[programs,](
            qkv, joint_bias, lag_bias, pairs, tokens, key_mask, layout.cu_seqlens, layout.limit,
            out, lse, layout.longest if not layout.by_joint else qkv.shape[-2], blocks,
            qkv.shape[:-1].numel(), layout.window, heads, scale,
            BY_JOINT=layout.by_joint, PLAIN=layout.plain, BLOCK_M=tile["owned"],
            BLOCK_N=tile["walked"], num_warps=tile["warps"], num_stages=tile["stages"],
            **_common(qkv, lag_bias, layout, heads, joints, same_joint),
        )  # fmt: skip
    return out, lse


@_tiles.on_device
def backward(
    grad, qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens, heads, joints, window,
    same_joint, max_len, scale, out, lse, needs,
):  # fmt: skip
    tensors = (grad, qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens, out, lse)
    grad, qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens, out, lse = (
        _tiles.contiguous(*tensors)
    )
    wants = _tiles.wants(GRADS, needs)
    rows, width = qkv.shape[:-1].numel(), qkv.shape[-1] // (3 * heads)
    layout = _Layout.of(
        qkv, joint_bias, pairs, tokens, key_mask, cu_seqlens, joints, window, same_joint, max_len
    )
    common = _common(qkv, lag_bias, layout, heads, joints, same_joint)
    length = layout.longest if not layout.by_joint else qkv.shape[-2]
    structure = (joint_bias, lag_bias, pairs, tokens, key_mask, layout.cu_seqlens, layout.limit)
    dqkv = torch.empty_like(qkv) if cu_seqlens is None else torch.zeros_like(qkv)
    delta = torch.empty_like(lse)
    shape = dict(BY_JOINT=layout.by_joint, PLAIN=layout.plain)
    tile = _blocks(qkv, width, layout.longest, owned=128, walked=64)
    launch = dict(num_warps=tile["warps"], num_stages=tile["stages"])
    programs, blocks = layout.launch(joints, heads, tile["owned"])
    if programs:
        _st_attention_grad_q_kernel[programs,](
            grad, qkv, *structure, out, lse, delta, dqkv, length, blocks, rows, layout.window,
            heads, scale, **shape, BLOCK_M=tile["owned"], BLOCK_N=tile["walked"], **launch,
            **common,
        )  # fmt: skip
    if programs and wants("qkv"):
        _st_attention_grad_kv_kernel[programs,](
            grad, qkv, *structure, lse, delta, dqkv, length, blocks, rows, layout.window,
            heads, scale, **shape, BLOCK_N=tile["owned"], BLOCK_M=tile["walked"], **launch,
            **common,
        )  # fmt: skip
    found = {name: grad.new_empty(0) for name in GRADS}
    if wants("qkv"):
        found["qkv"] = dqkv
    if wants("joint_bias") or wants("lag_bias"):
        found |= _grad_bias(
            grad, qkv, structure, lse, delta, layout, heads, joints, scale, common, wants
        )
    return tuple(found.values())


def _grad_bias(
    grad, qkv, structure, lse, delta, layout, heads, joints, scale, common, wants
) -> dict[str, Tensor]:
    joint_bias, lag_bias = structure[:2]
    BLOCK = 32
    length = layout.longest * (joints if layout.by_joint else 1)
    blocks = _tiles.cdiv(length, BLOCK)
    SPLITS = _tiles.splits(qkv, heads, layout.sequences * blocks)
    parts = {
        name: torch.empty(heads, SPLITS, *bias.shape[1:], dtype=torch.float32, device=qkv.device)
        for name, bias in (("joint_bias", joint_bias), ("lag_bias", lag_bias))
        if wants(name)
    }
    _st_attention_grad_bias_kernel[heads * SPLITS,](
        grad, qkv, *structure, lse, delta, parts.get("joint_bias"), parts.get("lag_bias"),
        qkv.shape[-2] if layout.by_joint else layout.longest, layout.sequences, blocks,
        qkv.shape[:-1].numel(), SPLITS, layout.window, heads, scale, **common, BLOCK=BLOCK,
        BLOCK_V=_tiles.pow2(joints, 16) if wants("joint_bias") else 16,
        BLOCK_LAGS=_tiles.pow2(common["LAGS"]), num_warps=4 if joints <= 64 else 8, num_stages=1,
    )  # fmt: skip
    return {name: part.sum(1).to(qkv.dtype) for name, part in parts.items()}
