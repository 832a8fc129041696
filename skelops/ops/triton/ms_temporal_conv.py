"""Multi-branch temporal convolution on a GPU.

The product with all 1x1 weights leaves its statistics behind; the convolutions and the pool
normalise and rectify what they load and write into the concatenated result. Backward likewise: the
branches leave the sums that the normalisation's gradient needs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _pointwise, _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton.bn_act_add import merge_statistics, sum_parts

GRADS = ("x", "weight", "bias", "conv_weight", "conv_bias", "norm_weight", "norm_bias")
VARYING = (*_tiles.VARYING, "T_OUT", "S_BLOCKS")


@triton.jit
def _branch(b, WIDTHS: tl.constexpr, DILATIONS: tl.constexpr, KERNEL: tl.constexpr):
    """First channel, width, dilation and first tap of a convolution branch."""
    first = b * 0
    width = b * 0
    dilation = b * 0
    tap = b * 0
    channels: tl.constexpr = 0
    taps: tl.constexpr = 0
    for i in tl.static_range(len(DILATIONS)):
        first = tl.where(b == i, channels, first)
        width = tl.where(b == i, WIDTHS[i], width)
        dilation = tl.where(b == i, DILATIONS[i], dilation)
        tap = tl.where(b == i, taps, tap)
        channels = channels + WIDTHS[i]
        taps = taps + WIDTHS[i] * WIDTHS[i] * KERNEL
    return first, width, dilation, tap


@triton.jit
def _channel(ptr, c, inside):
    return tl.load(ptr + c, mask=inside, other=0.0).to(tl.float32)[:, None]


@triton.jit
def _norm(mean_ptr, var_ptr, w_ptr, b_ptr, c, inside, EPS: tl.constexpr):
    """(mean, 1 / std, weight, bias) of channels."""
    rstd = tl.rsqrt(_channel(var_ptr, c, inside) + EPS)
    mean = _channel(mean_ptr, c, inside)
    return mean, rstd, _channel(w_ptr, c, inside), _channel(b_ptr, c, inside)


@triton.jit
def _activate(h, norm):
    """Normalised and rectified, in h's dtype."""
    y = (h.to(tl.float32) - norm[0]) * (norm[1] * norm[2]) + norm[3]
    return tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL).to(h.dtype)


@triton.jit
def _source(t, T, REPLICATE: tl.constexpr):
    """The frame that a tap at t reads, and whether there is one."""
    inside = (t >= 0) & (t < T)
    if REPLICATE:
        t = tl.minimum(tl.maximum(t, 0), T - 1)
        inside = t >= 0
    return t, inside


@kernel(VARYING)
def _ms_pointwise_kernel(
    x_ptr, w_ptr, b_ptr, h_ptr, out_ptr, part_ptr,
    N, C_IN, C, NORMED, T, S, T_OUT, S_BLOCKS, V: tl.constexpr, STRIDE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """h = W x + b: the first NORMED rows into h, with count, mean and squared deviations of the
    tile in part[0..2, c, (n, block)]; the others, every STRIDE-th frame, into out."""
    c_blocks = tl.cdiv(C, BLOCK_C)
    pid = tl.program_id(0)
    part = (pid // c_blocks).to(tl.int64)
    n = part // S_BLOCKS
    s = pid // c_blocks % S_BLOCKS * BLOCK_S + tl.arange(0, BLOCK_S)
    c = pid % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    k = tl.arange(0, BLOCK_K)
    x_ptr += n * C_IN * S
    acc = tl.zeros((BLOCK_C, BLOCK_S), dtype=tl.float32)
    for k0 in range(0, C_IN, BLOCK_K):
        w = tl.load(
            w_ptr + (c[:, None] * C_IN + (k0 + k)),
            mask=(c < C)[:, None] & (k0 + k < C_IN),
            other=0.0,
        )
        x = tl.load(
            x_ptr + tl.cast(k0, tl.int64) * S + (k[:, None] * S + s),
            mask=(k0 + k < C_IN)[:, None] & (s < S),
            other=0.0,
        )
        acc = tl.dot(w, x, acc, input_precision=PRECISION)
    h = (acc + _channel(b_ptr, c, c < C)).to(x_ptr.dtype.element_ty)
    row = c.to(tl.int64)[:, None]
    inside = (c < NORMED)[:, None] & (s < S)
    tl.store(h_ptr + (n * NORMED + row) * S + s, h, mask=inside)
    if part_ptr is not None:
        count = tl.sum((s < S).to(tl.float32))
        value = tl.where(s < S, h.to(tl.float32), 0.0)
        mean = tl.sum(value, axis=1) / count
        d = tl.where(s < S, value - mean[:, None], 0.0)
        parts = tl.cast(N, tl.int64) * S_BLOCKS
        at = part_ptr + c * parts + part
        tl.store(at, count + mean * 0, mask=c < NORMED)
        tl.store(at + NORMED * parts, mean, mask=c < NORMED)
        tl.store(at + 2 * NORMED * parts, tl.sum(d * d, axis=1), mask=c < NORMED)
    t = s // V
    plain = (c >= NORMED) & (c < C)
    tl.store(
        out_ptr + (n * C + row) * T_OUT * V + (t // STRIDE * V + s % V),
        h,
        mask=plain[:, None] & (s < S) & (t % STRIDE == 0),
    )


@kernel(VARYING)
def _ms_conv_fwd_kernel(
    h_ptr, mean_ptr, var_ptr, nw_ptr, nb_ptr, k_ptr, kb_ptr, out_ptr,
    C, NORMED, T, T_OUT, S_BLOCKS, V: tl.constexpr, WIDTHS: tl.constexpr, DILATIONS: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, REPLICATE: tl.constexpr, EPS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    first, width, dilation, tap = _branch(tl.program_id(1), WIDTHS, DILATIONS, KERNEL)
    n = (tl.program_id(0) // S_BLOCKS).to(tl.int64)
    s = tl.program_id(0) % S_BLOCKS * BLOCK_S + tl.arange(0, BLOCK_S)  # (t_out, v)
    o = tl.program_id(2) * BLOCK_O + tl.arange(0, BLOCK_O)
    h_ptr += (n * NORMED + first) * T * V
    out_ptr += (n * C + first) * T_OUT * V
    acc = tl.zeros((BLOCK_O, BLOCK_S), dtype=tl.float32)
    for i0 in range(0, width, BLOCK_I):
        i = i0 + tl.arange(0, BLOCK_I)
        norm = _norm(mean_ptr, var_ptr, nw_ptr, nb_ptr, first + i, i < width, EPS)
        for j in tl.static_range(KERNEL):
            t, there = _source(s // V * STRIDE + dilation * (j - KERNEL // 2), T, REPLICATE)
            inside = (i < width)[:, None] & (there & (s < T_OUT * V))
            h = tl.load(h_ptr + (i[:, None] * (T * V) + (t * V + s % V)), mask=inside, other=0.0)
            a = tl.where(inside, _activate(h, norm), 0.0).to(h.dtype)
            k = tl.load(
                k_ptr + tap + ((o[:, None] * width + i) * KERNEL + j),
                mask=(o < width)[:, None] & (i < width),
                other=0.0,
            )
            acc = tl.dot(k, a, acc, input_precision=PRECISION)
    acc += _channel(kb_ptr, first + o, o < width)
    tl.store(
        out_ptr + (o[:, None] * (T_OUT * V) + s),
        acc.to(out_ptr.dtype.element_ty),
        mask=(o < width)[:, None] & (s < T_OUT * V),
    )


@kernel(VARYING)
def _ms_pool_fwd_kernel(
    h_ptr, mean_ptr, var_ptr, nw_ptr, nb_ptr, out_ptr,
    C, NORMED, FIRST, T, T_OUT, S_BLOCKS, C_BLOCKS, V: tl.constexpr, STRIDE: tl.constexpr,
    EPS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    s = pid % S_BLOCKS * BLOCK_S + tl.arange(0, BLOCK_S)  # (t_out, v)
    c = FIRST + pid // S_BLOCKS % C_BLOCKS * BLOCK_C + tl.arange(0, BLOCK_C)
    n = (pid // S_BLOCKS // C_BLOCKS).to(tl.int64)
    norm = _norm(mean_ptr, var_ptr, nw_ptr, nb_ptr, c, c < NORMED, EPS)
    row = c.to(tl.int64)[:, None]
    y = tl.zeros((BLOCK_C, BLOCK_S), dtype=h_ptr.dtype.element_ty)  # no activation is below zero
    for j in tl.static_range(3):
        t = s // V * STRIDE + j - 1
        inside = (c < NORMED)[:, None] & ((t >= 0) & (t < T) & (s < T_OUT * V))
        h = tl.load(h_ptr + (n * NORMED + row) * T * V + (t * V + s % V), mask=inside, other=0.0)
        a = tl.where(inside, _activate(h, norm), 0.0).to(h.dtype)
        y = tl.maximum(y, a, propagate_nan=tl.PropagateNan.ALL)
    tl.store(
        out_ptr + (n * C + row) * T_OUT * V + s,
        y,
        mask=(c < NORMED)[:, None] & (s < T_OUT * V),
    )


@triton.jit
def _store_norm_grad(
    da, h, inside, norm, dh_ptr, part_ptr, c, c_inside, part, parts, channels
):  # fmt: skip
    """Rectify a gradient and leave its sum and its product with (h - mean) / std per channel."""
    d = (h.to(tl.float32) - norm[0]) * norm[1]
    y = (h.to(tl.float32) - norm[0]) * (norm[1] * norm[2]) + norm[3]
    da = tl.where(inside & (y > 0), da, 0.0).to(dh_ptr.dtype.element_ty)
    tl.store(dh_ptr, da, mask=inside)
    da = da.to(tl.float32)
    at = part_ptr + c * parts + part
    tl.store(at, tl.sum(da, axis=1), mask=c_inside)
    tl.store(at + channels * parts, tl.sum(da * d, axis=1), mask=c_inside)


@kernel(VARYING)
def _ms_conv_grad_input_kernel(
    g_ptr, h_ptr, mean_ptr, var_ptr, nw_ptr, nb_ptr, k_ptr, dh_ptr, part_ptr,
    N, C, NORMED, T, T_OUT, S_BLOCKS, V: tl.constexpr, WIDTHS: tl.constexpr,
    DILATIONS: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, REPLICATE: tl.constexpr,
    EPS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    first, width, dilation, tap = _branch(tl.program_id(1), WIDTHS, DILATIONS, KERNEL)
    part = tl.program_id(0).to(tl.int64)
    n = part // S_BLOCKS
    s0 = tl.program_id(0) % S_BLOCKS * BLOCK_S
    s = s0 + tl.arange(0, BLOCK_S)  # (t, v)
    t = s // V
    i = tl.program_id(2) * BLOCK_I + tl.arange(0, BLOCK_I)
    g_ptr += (n * C + first) * T_OUT * V
    reach = dilation * 0
    if REPLICATE:  # the first and last frame also answer for the frames before and after them
        at_border = (s0 < V) | (s0 + BLOCK_S > (T - 1) * V)
        reach = tl.where(at_border, dilation * (KERNEL // 2), 0)
    acc = tl.zeros((BLOCK_I, BLOCK_S), dtype=tl.float32)
    for o0 in range(0, width, BLOCK_O):
        o = o0 + tl.arange(0, BLOCK_O)
        for beyond in range(-reach, reach + 1):
            meant = (beyond == 0) | ((beyond < 0) & (t == 0)) | ((beyond > 0) & (t == T - 1))
            for j in tl.static_range(KERNEL):
                q = t + beyond - dilation * (j - KERNEL // 2)
                meets = meant & (q >= 0) & (q % STRIDE == 0) & (q // STRIDE < T_OUT) & (t < T)
                g = tl.load(
                    g_ptr + (o[:, None] * (T_OUT * V) + (q // STRIDE * V + s % V)),
                    mask=(o < width)[:, None] & meets,
                    other=0.0,
                )
                k = tl.load(
                    k_ptr + tap + ((o * width + i[:, None]) * KERNEL + j),
                    mask=(i < width)[:, None] & (o < width),
                    other=0.0,
                )  # (i, o)
                acc = tl.dot(k, g, acc, input_precision=PRECISION)
    inside = (i < width)[:, None] & (t < T)
    offset = i[:, None] * (T * V) + s
    h = tl.load(h_ptr + (n * NORMED + first) * T * V + offset, mask=inside, other=0.0)
    norm = _norm(mean_ptr, var_ptr, nw_ptr, nb_ptr, first + i, i < width, EPS)
    dh_ptr += (n * C + first) * T * V
    parts = tl.cast(N, tl.int64) * S_BLOCKS
    _store_norm_grad(
        acc, h, inside, norm, dh_ptr + offset, part_ptr, first + i, i < width, part, parts, NORMED
    )


@triton.jit
def _pool_input(h_ptr, norm, rows_inside, t, s, T, V: tl.constexpr):
    """Activations at frames t, below all others where there is none."""
    inside = rows_inside & ((t >= 0) & (t < T))
    h = tl.load(h_ptr + (t * V + s % V), mask=inside, other=0.0)
    return tl.where(inside, _activate(h, norm).to(tl.float32), -1.0)


@triton.jit
def _pool_grad(g_ptr, rows_inside, q, s, T_OUT, V: tl.constexpr, STRIDE: tl.constexpr):
    """Gradient of the window centred at frame q; zero where there is none."""
    inside = rows_inside & ((q >= 0) & (q % STRIDE == 0) & (q // STRIDE < T_OUT))
    return tl.load(g_ptr + (q // STRIDE * V + s % V), mask=inside, other=0.0).to(tl.float32)


@kernel(VARYING)
def _ms_pool_grad_input_kernel(
    g_ptr, h_ptr, mean_ptr, var_ptr, nw_ptr, nb_ptr, dh_ptr, part_ptr,
    N, C, NORMED, FIRST, T, T_OUT, S_BLOCKS, C_BLOCKS, V: tl.constexpr, STRIDE: tl.constexpr,
    EPS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """The gradient of a window goes to the first of its largest values."""
    pid = tl.program_id(0)
    s = pid % S_BLOCKS * BLOCK_S + tl.arange(0, BLOCK_S)  # (t, v)
    t = s // V
    c = FIRST + pid // S_BLOCKS % C_BLOCKS * BLOCK_C + tl.arange(0, BLOCK_C)
    n = (pid // S_BLOCKS // C_BLOCKS).to(tl.int64)
    norm = _norm(mean_ptr, var_ptr, nw_ptr, nb_ptr, c, c < NORMED, EPS)
    rows = (c < NORMED)[:, None]
    row = c.to(tl.int64)[:, None]
    h_ptr += (n * NORMED + row) * T * V
    g_ptr += (n * C + row) * T_OUT * V
    here = _pool_input(h_ptr, norm, rows, t, s, T, V)
    before = _pool_input(h_ptr, norm, rows, t - 1, s, T, V)
    after = _pool_input(h_ptr, norm, rows, t + 1, s, T, V)
    over_before = here > before
    over_after = here >= after
    last = over_before & (here > _pool_input(h_ptr, norm, rows, t - 2, s, T, V))
    leading = over_after & (here >= _pool_input(h_ptr, norm, rows, t + 2, s, T, V))
    da = tl.where(last, _pool_grad(g_ptr, rows, t - 1, s, T_OUT, V, STRIDE), 0.0)
    da += tl.where(over_before & over_after, _pool_grad(g_ptr, rows, t, s, T_OUT, V, STRIDE), 0.0)
    da += tl.where(leading, _pool_grad(g_ptr, rows, t + 1, s, T_OUT, V, STRIDE), 0.0)
    inside = rows & (t < T)
    h = tl.load(h_ptr + s, mask=inside, other=0.0)
    parts = tl.cast(N, tl.int64) * S_BLOCKS
    _store_norm_grad(
        da, h, inside, norm, dh_ptr + (n * C + row) * T * V + s, part_ptr, c, c < NORMED,
        n * S_BLOCKS + pid % S_BLOCKS, parts, NORMED,
    )  # fmt: skip


@kernel(VARYING)
def _ms_norm_bwd_kernel(
    dh_ptr, g_ptr, h_ptr, mean_ptr, var_ptr, nw_ptr, sums_ptr,
    N, C, NORMED, T, T_OUT, S_BLOCKS, C_BLOCKS, V: tl.constexpr, STRIDE: tl.constexpr,
    TRAINING: tl.constexpr, EPS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """dh, which holds the gradient behind the normalisation, becomes the one in front of it; its
    last rows are the plain branch's."""
    pid = tl.program_id(0)
    s = pid % S_BLOCKS * BLOCK_S + tl.arange(0, BLOCK_S)
    t = s // V
    c = pid // S_BLOCKS % C_BLOCKS * BLOCK_C + tl.arange(0, BLOCK_C)
    n = (pid // S_BLOCKS // C_BLOCKS).to(tl.int64)
    row = c.to(tl.int64)[:, None]
    normed = (c < NORMED)[:, None] & (t < T)
    plain = ((c >= NORMED) & (c < C))[:, None] & (t < T)
    dh_ptr += (n * C + row) * T * V + s
    dh = tl.load(dh_ptr, mask=normed, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(_channel(var_ptr, c, c < NORMED) + EPS)
    if TRAINING:
        h = tl.load(h_ptr + (n * NORMED + row) * T * V + s, mask=normed, other=0.0)
        d = (h.to(tl.float32) - _channel(mean_ptr, c, c < NORMED)) * rstd
        total = _channel(sums_ptr, c, c < NORMED) + d * _channel(sums_ptr + NORMED, c, c < NORMED)
        dh -= total / (tl.cast(N, tl.int64) * T * V).to(tl.float32)
    dh *= _channel(nw_ptr, c, c < NORMED) * rstd
    g = tl.load(
        g_ptr + (n * C + row) * T_OUT * V + (t // STRIDE * V + s % V),
        mask=plain & (t % STRIDE == 0),
        other=0.0,
    )
    dh = tl.where(normed, dh, g.to(tl.float32))
    tl.store(dh_ptr, dh.to(dh_ptr.dtype.element_ty), mask=normed | plain)


@kernel(VARYING)
def _ms_conv_grad_weight_kernel(
    g_ptr, h_ptr, mean_ptr, var_ptr, nw_ptr, nb_ptr, part_ptr,
    N, C, NORMED, T, T_OUT, S_BLOCKS, SPLITS, TAPS, V: tl.constexpr, WIDTHS: tl.constexpr,
    DILATIONS: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, REPLICATE: tl.constexpr,
    EPS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """part[split, (o, i, j)] = sum_n sum_s g[n, o, s] a[n, i, frame of tap j at s]."""
    j = tl.program_id(0) % KERNEL
    split = tl.program_id(0) // KERNEL
    first, width, dilation, tap = _branch(tl.program_id(1), WIDTHS, DILATIONS, KERNEL)
    w_blocks = tl.cdiv(width, BLOCK_W)
    o = tl.program_id(2) // w_blocks * BLOCK_W + tl.arange(0, BLOCK_W)
    i = tl.program_id(2) % w_blocks * BLOCK_W + tl.arange(0, BLOCK_W)
    norm = _norm(mean_ptr, var_ptr, nw_ptr, nb_ptr, first + i, i < width, EPS)
    acc = tl.zeros((BLOCK_W, BLOCK_W), dtype=tl.float32)
    for step in range(split, N * S_BLOCKS, SPLITS):
        n = tl.cast(step // S_BLOCKS, tl.int64)
        s = step % S_BLOCKS * BLOCK_S + tl.arange(0, BLOCK_S)  # (t_out, v)
        g = tl.load(
            g_ptr + (n * C + first) * T_OUT * V + (o[:, None] * (T_OUT * V) + s),
            mask=(o < width)[:, None] & (s < T_OUT * V),
            other=0.0,
        )
        t, there = _source(s // V * STRIDE + dilation * (j - KERNEL // 2), T, REPLICATE)
        inside = (i < width)[:, None] & (there & (s < T_OUT * V))
        h = tl.load(
            h_ptr + (n * NORMED + first) * T * V + (i[:, None] * (T * V) + (t * V + s % V)),
            mask=inside,
            other=0.0,
        )
        a = tl.where(inside, _activate(h, norm), 0.0).to(h.dtype)
        acc = tl.dot(g, tl.trans(a), acc, input_precision=PRECISION)
    tl.store(
        part_ptr + split.to(tl.int64) * TAPS + tap + ((o[:, None] * width + i) * KERNEL + j),
        acc,
        mask=(o < width)[:, None] & (i < width),
    )


def supports(x, *_) -> str | None:
    return _tiles.unsupported(x, joints=None)


def _columns(x: Tensor) -> int:
    """Positions (t, v) of a tile."""
    return 128 if x.dtype in _tiles.HALF else 64


@_tiles.on_device
def forward(
    x, weight, bias, conv_weight, conv_bias, norm_weight, norm_bias, running_mean, running_var,
    widths, dilations, kernel_size, stride, replicate, training, keep, eps,
):  # fmt: skip
    (
        x, weight, bias, conv_weight, conv_bias, norm_weight, norm_bias, mean, var
    ) = _tiles.contiguous(
        x, weight, bias, conv_weight, conv_bias, norm_weight, norm_bias, running_mean, running_var
    )  # fmt: skip
    (N, C_IN, T, V), C, normed = x.shape, weight.shape[0], sum(widths)
    T_OUT = (T - 1) // stride + 1
    out, hidden = x.new_empty(N, C, T_OUT, V), x.new_empty(N, normed, T, V)
    if x.numel() == 0:
        mean, var = (x.new_zeros(normed, dtype=torch.float32) for _ in range(2))
        return _noted(out, hidden, mean, var, training, keep)
    BLOCK_S = _columns(x)
    S_BLOCKS, S_BLOCKS_OUT = _tiles.cdiv(T * V, BLOCK_S), _tiles.cdiv(T_OUT * V, BLOCK_S)
    parts = None
    if training:
        parts = x.new_empty(3, normed, N * S_BLOCKS, dtype=torch.float32)
    BLOCK_C = _tiles.pow2(C, 16, 64)
    _ms_pointwise_kernel[N * S_BLOCKS * _tiles.cdiv(C, BLOCK_C),](
        x, weight, bias, hidden, out, parts,
        N, C_IN, C, normed, T, T * V, T_OUT, S_BLOCKS, V=V, STRIDE=stride,
        PRECISION=_tiles.precision(x), BLOCK_C=BLOCK_C,
        BLOCK_K=_tiles.pow2(C_IN, 16, _tiles.contraction(x)), BLOCK_S=BLOCK_S,
    )  # fmt: skip
    if training:
        mean, var = merge_statistics(parts)
    norm = (mean, var, norm_weight, norm_bias)
    if dilations:
        tile, w_blocks = _conv_tile(x, widths, dilations, kernel_size, stride, replicate, eps)
        _ms_conv_fwd_kernel[N * S_BLOCKS_OUT, len(dilations), w_blocks](
            hidden, *norm, conv_weight, conv_bias, out,
            C, normed, T, T_OUT, S_BLOCKS_OUT, BLOCK_I=_tiles.contraction(x), **tile,
        )  # fmt: skip
    if len(widths) > len(dilations):
        C_BLOCKS, BLOCK_C = _rows(widths[-1])
        _ms_pool_fwd_kernel[N * S_BLOCKS_OUT * C_BLOCKS,](
            hidden, *norm, out, C, normed, normed - widths[-1], T, T_OUT, S_BLOCKS_OUT, C_BLOCKS,
            V=V, STRIDE=stride, EPS=eps, BLOCK_C=BLOCK_C, BLOCK_S=BLOCK_S,
        )  # fmt: skip
    return _noted(out, hidden, mean, var, training, keep)


def _noted(out, hidden, mean, var, training, keep):
    nothing = [out.new_empty(0, dtype=torch.float32) for _ in range(2)]
    mean, var = (mean, var) if training else nothing
    return out, hidden if keep else out.new_empty(0), mean, var


def _rows(channels: int) -> tuple[int, int]:
    """(C_BLOCKS, BLOCK_C) of an elementwise pass."""
    BLOCK_C = _tiles.pow2(channels, high=8)
    return _tiles.cdiv(channels, BLOCK_C), BLOCK_C


def _conv_tile(x, widths, dilations, kernel_size, stride, replicate, eps) -> tuple[dict, int]:
    """Constants of the convolution kernels, and how many blocks of channels the widest has."""
    widths = tuple(widths[: len(dilations)])
    BLOCK = _tiles.pow2(max(widths), 16, 64 if x.dtype in _tiles.HALF else 32)
    tile = {"WIDTHS": widths, "DILATIONS": tuple(dilations), "KERNEL": kernel_size}
    tile |= {"V": x.shape[3], "STRIDE": stride, "REPLICATE": replicate, "EPS": eps}
    tile |= {"PRECISION": _tiles.precision(x), "BLOCK_O": BLOCK, "BLOCK_S": _columns(x)}
    tile |= {"num_warps": 4 if BLOCK < 64 else 8, "num_stages": 1}
    return tile, _tiles.cdiv(max(widths), BLOCK)


@_tiles.on_device
def backward(
    grad, x, weight, bias, conv_weight, conv_bias, norm_weight, norm_bias, running_mean,
    running_var, widths, dilations, kernel_size, stride, replicate, training, keep, eps,
    hidden, mean, var, needs,
):  # fmt: skip
    if not training:
        mean, var = running_mean, running_var
    grad, x, weight, conv_weight, norm_weight, norm_bias, mean, var, hidden = _tiles.contiguous(
        grad, x, weight, conv_weight, norm_weight, norm_bias, mean, var, hidden
    )
    (N, C, T_OUT, V), T, normed = grad.shape, x.shape[2], sum(widths)
    wants = _tiles.wants(GRADS, needs)
    found = {name: grad.new_empty(0) for name in GRADS}
    convs = sum(widths[: len(dilations)])
    norm = (mean, var, norm_weight, norm_bias)
    if wants("conv_bias"):
        found["conv_bias"] = grad[:, :convs].sum((0, 2, 3))
    if wants("conv_weight"):
        found["conv_weight"] = _grad_conv_weight(
            grad, hidden, norm, conv_weight, widths, dilations, kernel_size, stride, replicate, eps
        )
    through = wants("x") or wants("weight") or wants("bias")
    if not (through or wants("norm_weight") or wants("norm_bias")):
        return tuple(found.values())

    BLOCK_S = _columns(x)
    S_BLOCKS = _tiles.cdiv(T * V, BLOCK_S)
    dh = x.new_empty(N, C, T, V)
    parts = x.new_empty(2, normed, N * S_BLOCKS, dtype=torch.float32)
    if dilations and x.numel():
        tile, w_blocks = _conv_tile(x, widths, dilations, kernel_size, stride, replicate, eps)
        _ms_conv_grad_input_kernel[N * S_BLOCKS, len(dilations), w_blocks](
            grad, hidden, *norm, conv_weight, dh, parts,
            N, C, normed, T, T_OUT, S_BLOCKS,
            BLOCK_I=tile.pop("BLOCK_O"), BLOCK_O=_tiles.contraction(x), **tile,
        )  # fmt: skip
    if len(widths) > len(dilations) and x.numel():
        C_BLOCKS, BLOCK_C = _rows(widths[-1])
        _ms_pool_grad_input_kernel[N * S_BLOCKS * C_BLOCKS,](
            grad, hidden, *norm, dh, parts,
            N, C, normed, convs, T, T_OUT, S_BLOCKS, C_BLOCKS,
            V=V, STRIDE=stride, EPS=eps, BLOCK_C=BLOCK_C, BLOCK_S=BLOCK_S,
        )  # fmt: skip
    like = {"norm_bias": norm_bias, "norm_weight": norm_weight}
    sums, grads = sum_parts(parts, *[t if wants(n) else None for n, t in like.items()])
    found |= {name: g for name, g in zip(like, grads, strict=False) if g is not None}
    if through:
        if x.numel():
            C_BLOCKS, BLOCK_C = _rows(C)
            _ms_norm_bwd_kernel[N * S_BLOCKS * C_BLOCKS,](
                dh, grad, hidden, mean, var, norm_weight, sums,
                N, C, normed, T, T_OUT, S_BLOCKS, C_BLOCKS,
                V=V, STRIDE=stride, TRAINING=training, EPS=eps, BLOCK_C=BLOCK_C, BLOCK_S=BLOCK_S,
            )  # fmt: skip
        if wants("x"):
            found["x"] = _pointwise.transform(weight.mT, dh)
        if wants("weight"):
            found["weight"] = _pointwise.weight_grad(dh, x).to(weight.dtype)
        if wants("bias"):
            found["bias"] = dh.sum((0, 2, 3))
    return tuple(found.values())


def _grad_conv_weight(
    grad, hidden, norm, conv_weight, widths, dilations, kernel_size, stride, replicate, eps
):  # fmt: skip
    (N, C, T_OUT, V), (_, normed, T, _) = grad.shape, hidden.shape
    if grad.numel() == 0 or not dilations:
        return torch.zeros_like(conv_weight)
    tile, w_blocks = _conv_tile(grad, widths, dilations, kernel_size, stride, replicate, eps)
    BLOCK_W = tile.pop("BLOCK_O")
    S_BLOCKS = _tiles.cdiv(T_OUT * V, tile["BLOCK_S"])
    SPLITS = _tiles.splits(grad, kernel_size * len(dilations) * w_blocks**2, N * S_BLOCKS)
    parts = grad.new_empty(SPLITS, conv_weight.numel(), dtype=torch.float32)
    _ms_conv_grad_weight_kernel[SPLITS * kernel_size, len(dilations), w_blocks**2](
        grad, hidden, *norm, parts,
        N, C, normed, T, T_OUT, S_BLOCKS, SPLITS, conv_weight.numel(), BLOCK_W=BLOCK_W, **tile,
    )  # fmt: skip
    return parts.sum(0).to(conv_weight.dtype)
