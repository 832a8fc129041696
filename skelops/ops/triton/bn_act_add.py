"""Normalisation, residual and ReLU on a GPU: one pass of statistics, one pass over everything."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.bn_act_add import statistics_dtype
from skelops.ops.triton import _dropout, _tiles
from skelops.ops.triton._dropout import kept
from skelops.ops.triton._launch import kernel

GRADS = ("x", "weight", "bias", "residual", "res_weight", "res_bias")


@kernel(_tiles.VARYING)
def _statistics_kernel(
    x_ptr, part_ptr, N, C, S, SPLITS,
    ACC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """part[0..2, c, split] = count, mean and squared deviations of a channel in some samples,
    computed relative to the mean of the first tile, so that nothing cancels."""
    c = tl.program_id(0) % C
    split = tl.program_id(0) // C
    x_ptr += c.to(tl.int64) * S
    stride = tl.cast(C, tl.int64) * S
    rows = tl.arange(0, BLOCK_N)
    s = tl.arange(0, BLOCK_S)
    n = split * BLOCK_N + rows
    inside = (n < N)[:, None] & (s < S)
    first = tl.load(x_ptr + (n * stride)[:, None] + s, mask=inside, other=0.0).to(ACC)
    origin = tl.sum(first) / tl.sum(inside.to(ACC))
    count = tl.zeros((BLOCK_N, BLOCK_S), dtype=ACC)
    total = tl.zeros((BLOCK_N, BLOCK_S), dtype=ACC)
    squares = tl.zeros((BLOCK_N, BLOCK_S), dtype=ACC)
    for n0 in range(split * BLOCK_N, N, SPLITS * BLOCK_N):
        n = n0 + rows
        for s0 in range(0, S, BLOCK_S):
            inside = (n < N)[:, None] & (s0 + s < S)
            x = tl.load(x_ptr + (n * stride)[:, None] + (s0 + s), mask=inside, other=0.0)
            d = tl.where(inside, x.to(ACC) - origin, 0.0)
            count += inside.to(ACC)
            total += d
            squares += d * d
    counted = tl.sum(count)
    mean = tl.sum(total) / counted
    part_ptr += c * SPLITS + split
    tl.store(part_ptr, counted)
    tl.store(part_ptr + C * SPLITS, origin + mean)
    tl.store(part_ptr + 2 * C * SPLITS, tl.sum(squares) - counted * mean * mean)


@kernel(_tiles.VARYING)
def _merge_statistics_kernel(
    part_ptr, mean_ptr, var_ptr, C, SPLITS, ACC: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Mean and variance of a channel from the parts of all splits."""
    c = tl.program_id(0)
    size = tl.cast(C, tl.int64) * SPLITS
    part_ptr += c.to(tl.int64) * SPLITS
    p = tl.arange(0, BLOCK)
    count = tl.zeros((BLOCK,), dtype=ACC)
    total = tl.zeros((BLOCK,), dtype=ACC)
    for p0 in range(0, SPLITS, BLOCK):
        k = tl.load(part_ptr + p0 + p, mask=p0 + p < SPLITS, other=0.0)
        count += k
        total += k * tl.load(part_ptr + size + p0 + p, mask=p0 + p < SPLITS, other=0.0)
    counted = tl.sum(count)
    mean = tl.sum(total) / counted
    squares = tl.zeros((BLOCK,), dtype=ACC)
    for p0 in range(0, SPLITS, BLOCK):
        k = tl.load(part_ptr + p0 + p, mask=p0 + p < SPLITS, other=0.0)
        d = tl.load(part_ptr + size + p0 + p, mask=p0 + p < SPLITS, other=0.0) - mean
        squares += tl.load(part_ptr + 2 * size + p0 + p, mask=p0 + p < SPLITS, other=0.0)
        squares += k * d * d
    tl.store(mean_ptr + c, mean)
    tl.store(var_ptr + c, tl.sum(squares) / counted)


@kernel(("SPLITS",))
def _sum_parts_kernel(
    part_ptr, sum_ptr, b_ptr, w_ptr, rb_ptr, rw_ptr, C, SPLITS, ROWS: tl.constexpr,
    ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sum[row, c] of all splits; rows: gradients of bias and weight, both of the residual."""
    c = tl.program_id(0)
    p = tl.arange(0, BLOCK)
    for row in tl.static_range(ROWS):
        at = (tl.cast(row, tl.int64) * C + c) * SPLITS
        total = tl.zeros((BLOCK,), dtype=ACC)
        for p0 in range(0, SPLITS, BLOCK):
            total += tl.load(part_ptr + at + p0 + p, mask=p0 + p < SPLITS, other=0.0)
        value = tl.sum(total)
        tl.store(sum_ptr + row * C + c, value)
        if row == 0 and b_ptr is not None:
            tl.store(b_ptr + c, value.to(b_ptr.dtype.element_ty))
        if row == 1 and w_ptr is not None:
            tl.store(w_ptr + c, value.to(w_ptr.dtype.element_ty))
        if row == 2 and rb_ptr is not None:
            tl.store(rb_ptr + c, value.to(rb_ptr.dtype.element_ty))
        if row == 3 and rw_ptr is not None:
            tl.store(rw_ptr + c, value.to(rw_ptr.dtype.element_ty))


@triton.jit
def _channel(ptr, c, inside, ACC: tl.constexpr):
    return tl.load(ptr + c, mask=inside, other=0.0).to(ACC)[:, None]


@triton.jit
def _deviation(x, mean_ptr, var_ptr, c, inside, EPS: tl.constexpr, ACC: tl.constexpr):
    """(x - mean) / std and 1 / std, by channel of the row."""
    rstd = tl.rsqrt(_channel(var_ptr, c, inside, ACC) + EPS)
    return (x.to(ACC) - _channel(mean_ptr, c, inside, ACC)) * rstd, rstd


@triton.jit
def _drop(
    y, seed_ptr, planes, s0, DROPPED, factor,
    ROWS: tl.constexpr, BLOCK_S: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Values (plane, s) from s0 on without those that dropout takes, if there is a seed."""
    if seed_ptr is not None:
        tl.static_assert(BLOCK_S == 8 * TILE)
        y = tl.where(kept(seed_ptr, planes, s0, DROPPED, ROWS, TILE), y * factor, 0.0)
    return y


@triton.jit
def _before_relu(
    x, r, w_ptr, b_ptr, mean_ptr, var_ptr, rw_ptr, rb_ptr, rmean_ptr, rvar_ptr, seed_ptr, c,
    inside, planes, s0, DROPPED, factor, EPS: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_S: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """What the rectifier gets of x and the residual r, if there is one."""
    y, _ = _deviation(x, mean_ptr, var_ptr, c, inside, EPS, ACC)
    y = y * _channel(w_ptr, c, inside, ACC) + _channel(b_ptr, c, inside, ACC)
    y = _drop(y, seed_ptr, planes, s0, DROPPED, factor, ROWS, BLOCK_S, TILE)
    if r is not None:
        if rw_ptr is not None:
            r, _ = _deviation(r, rmean_ptr, rvar_ptr, c, inside, EPS, ACC)
            r = r * _channel(rw_ptr, c, inside, ACC) + _channel(rb_ptr, c, inside, ACC)
        y += r.to(ACC)
    return y


@triton.jit
def _load(ptr, at, inside):
    """The values, or None without a pointer."""
    return None if ptr is None else tl.load(ptr + at, mask=inside, other=0.0)


@kernel((*_tiles.VARYING, "DROPPED"))
def _bn_act_add_fwd_kernel(
    x_ptr, w_ptr, b_ptr, mean_ptr, var_ptr, r_ptr, rw_ptr, rb_ptr, rmean_ptr, rvar_ptr, seed_ptr,
    out_ptr, PLANES, C, S, DROPPED, factor, RELU: tl.constexpr, EPS: tl.constexpr,
    ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Planes are (n, c), of S = T * V values."""
    blocks = tl.cdiv(S, BLOCK_S)
    p0 = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_P
    rows = tl.arange(0, BLOCK_P)
    s0 = tl.program_id(0) % blocks * BLOCK_S
    s = s0 + tl.arange(0, BLOCK_S)
    row_inside = p0 + rows < PLANES
    c = ((p0 + rows) % C).to(tl.int32)
    inside = row_inside[:, None] & (s < S)
    at = p0 * S + (rows[:, None] * S + s)
    y = _before_relu(
        _load(x_ptr, at, inside), _load(r_ptr, at, inside), w_ptr, b_ptr, mean_ptr, var_ptr,
        rw_ptr, rb_ptr, rmean_ptr, rvar_ptr, seed_ptr, c, row_inside, p0 + rows, s0, DROPPED,
        factor, EPS, ACC, BLOCK_P, BLOCK_S, TILE,
    )  # fmt: skip
    if RELU:
        y = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=inside)


@kernel((*_tiles.VARYING, "DROPPED"))
def _bn_act_add_grad_sums_kernel(
    g_ptr, x_ptr, w_ptr, b_ptr, mean_ptr, var_ptr, r_ptr, rw_ptr, rb_ptr, rmean_ptr, rvar_ptr,
    seed_ptr, part_ptr, N, C, S, SPLITS, DROPPED, factor, RELU: tl.constexpr,
    EPS: tl.constexpr, ACC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """part[0..3, c, split] = sum of dz, of dz (x - mean) / std, of both for the residual."""
    c = tl.program_id(0) % C
    split = tl.program_id(0) // C
    stride = tl.cast(C, tl.int64) * S
    rows = tl.arange(0, BLOCK_N)
    s = tl.arange(0, BLOCK_S)
    channel = c + tl.zeros((1,), dtype=tl.int32)
    dz = tl.zeros((BLOCK_N, BLOCK_S), dtype=ACC)
    dzx = tl.zeros((BLOCK_N, BLOCK_S), dtype=ACC)
    dr = tl.zeros((BLOCK_N, BLOCK_S), dtype=ACC)
    drr = tl.zeros((BLOCK_N, BLOCK_S), dtype=ACC)
    for n0 in range(split * BLOCK_N, N, SPLITS * BLOCK_N):
        n = n0 + rows
        for s0 in range(0, S, BLOCK_S):
            inside = (n < N)[:, None] & (s0 + s < S)
            at = (c.to(tl.int64) * S + n * stride)[:, None] + (s0 + s)
            g = tl.load(g_ptr + at, mask=inside, other=0.0).to(ACC)
            x, r = _load(x_ptr, at, inside), _load(r_ptr, at, inside)
            planes = n.to(tl.int64) * C + c
            if RELU:
                y = _before_relu(
                    x, r, w_ptr, b_ptr, mean_ptr, var_ptr, rw_ptr, rb_ptr, rmean_ptr, rvar_ptr,
                    seed_ptr, channel, channel < C, planes, s0, DROPPED, factor, EPS, ACC,
                    BLOCK_N, BLOCK_S, TILE,
                )  # fmt: skip
                g = tl.where(y <= 0, 0.0, g)
            d, _ = _deviation(x, mean_ptr, var_ptr, channel, channel < C, EPS, ACC)
            gx = _drop(g, seed_ptr, planes, s0, DROPPED, factor, BLOCK_N, BLOCK_S, TILE)
            dz += gx
            dzx += gx * d
            if rw_ptr is not None:
                d, _ = _deviation(r, rmean_ptr, rvar_ptr, channel, channel < C, EPS, ACC)
                dr += g
                drr += g * d
    part_ptr += c * SPLITS + split
    tl.store(part_ptr, tl.sum(dz))
    tl.store(part_ptr + C * SPLITS, tl.sum(dzx))
    tl.store(part_ptr + 2 * C * SPLITS, tl.sum(dr))
    tl.store(part_ptr + 3 * C * SPLITS, tl.sum(drr))


@triton.jit
def _norm_grad(
    g, x, w_ptr, mean_ptr, var_ptr, sums_ptr, c, C, inside, count,
    ROW: tl.constexpr, TRAINING: tl.constexpr, EPS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient in front of a normalisation; through its statistics too where it made them."""
    d, rstd = _deviation(x, mean_ptr, var_ptr, c, inside, EPS, ACC)
    if TRAINING:
        dz = _channel(sums_ptr + ROW * C, c, inside, ACC)
        g -= (dz + d * _channel(sums_ptr + (ROW + 1) * C, c, inside, ACC)) / count
    return g * _channel(w_ptr, c, inside, ACC) * rstd


@kernel((*_tiles.VARYING, "DROPPED"))
def _bn_act_add_bwd_kernel(
    g_ptr, x_ptr, w_ptr, b_ptr, mean_ptr, var_ptr, r_ptr, rw_ptr, rb_ptr, rmean_ptr, rvar_ptr,
    seed_ptr, sums_ptr, dx_ptr, dr_ptr, PLANES, C, S, DROPPED, factor, TRAINING: tl.constexpr,
    RELU: tl.constexpr, EPS: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Planes are (n, c), of S = T * V values."""
    blocks = tl.cdiv(S, BLOCK_S)
    p0 = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_P
    rows = tl.arange(0, BLOCK_P)
    s0 = tl.program_id(0) % blocks * BLOCK_S
    s = s0 + tl.arange(0, BLOCK_S)
    row_inside = p0 + rows < PLANES
    c = ((p0 + rows) % C).to(tl.int32)
    inside = row_inside[:, None] & (s < S)
    at = p0 * S + (rows[:, None] * S + s)
    count = (tl.cast(PLANES, tl.int64) // C * S).to(ACC)
    g = tl.load(g_ptr + at, mask=inside, other=0.0).to(ACC)
    x, r = _load(x_ptr, at, inside), _load(r_ptr, at, inside)
    if RELU:
        y = _before_relu(
            x, r, w_ptr, b_ptr, mean_ptr, var_ptr, rw_ptr, rb_ptr, rmean_ptr, rvar_ptr, seed_ptr,
            c, row_inside, p0 + rows, s0, DROPPED, factor, EPS, ACC, BLOCK_P, BLOCK_S, TILE,
        )  # fmt: skip
        g = tl.where(y <= 0, 0.0, g)
    if dx_ptr is not None:
        gx = _drop(g, seed_ptr, p0 + rows, s0, DROPPED, factor, BLOCK_P, BLOCK_S, TILE)
        dx = _norm_grad(
            gx, x, w_ptr, mean_ptr, var_ptr, sums_ptr, c, C, row_inside, count,
            0, TRAINING, EPS, ACC,
        )  # fmt: skip
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
    if dr_ptr is not None:
        if rw_ptr is not None:
            g = _norm_grad(
                g, r, rw_ptr, rmean_ptr, rvar_ptr, sums_ptr, c, C, row_inside, count,
                2, TRAINING, EPS, ACC,
            )  # fmt: skip
        tl.store(dr_ptr + at, g.to(dr_ptr.dtype.element_ty), mask=inside)


def supports(x, *_) -> str | None:
    return _tiles.unsupported(x, _tiles.DTYPES, joints=None)


def merge_statistics(parts: Tensor) -> tuple[Tensor, Tensor]:
    """(3, C, P) counts, means and squared deviations -> mean and biased variance by channel."""
    _, C, P = parts.shape
    mean, var = parts.new_empty(C), parts.new_empty(C)
    if C:
        _merge_statistics_kernel[C,](
            parts, mean, var, C, P, ACC=_tiles.accumulator(parts), BLOCK=_tiles.pow2(P, high=2048)
        )
    return mean, var


def sum_parts(
    parts: Tensor,
    bias: Tensor | None = None,
    weight: Tensor | None = None,
    res_bias: Tensor | None = None,
    res_weight: Tensor | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """(rows, C, P) sums of the rows dz, dz (x - mean) / std and both of the residual -> (rows, C)
    and, like each parameter that is given, its gradient."""
    rows, C, P = parts.shape
    sums = parts.new_empty(rows, C)
    grads = [
        None if t is None else torch.empty_like(t) for t in (bias, weight, res_bias, res_weight)
    ]
    if C:
        _sum_parts_kernel[C,](
            parts, sums, grads[0], grads[1], grads[2], grads[3], C, P, ROWS=rows,
            ACC=_tiles.accumulator(parts), BLOCK=_tiles.pow2(P, high=2048),
        )  # fmt: skip
    return sums, grads


def _columns(x: Tensor, seed: Tensor | None) -> int:
    """BLOCK_S: with dropout the values of a tile of random words."""
    return _tiles.pow2(x.shape[2] * x.shape[3], high=256) if seed is None else _dropout.UNITS


def _reduction(x: Tensor, seed: Tensor | None = None) -> tuple[int, int, int]:
    """(SPLITS, BLOCK_N, BLOCK_S) of a reduction to channels."""
    N, C = x.shape[:2]
    BLOCK_S = _columns(x, seed)
    BLOCK_N = _tiles.pow2(N, high=2048 // BLOCK_S)
    return _tiles.splits(x, C, _tiles.cdiv(N, BLOCK_N), 8), BLOCK_N, BLOCK_S


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of (N, C, T, V)."""
    N, C, T, V = x.shape
    if x.numel() == 0:
        return tuple(x.new_zeros(C, dtype=statistics_dtype(x)) for _ in range(2))
    SPLITS, BLOCK_N, BLOCK_S = _reduction(x)
    parts = x.new_empty(3, C, SPLITS, dtype=statistics_dtype(x))
    _statistics_kernel[C * SPLITS,](
        x, parts, N, C, T * V, SPLITS, ACC=_tiles.accumulator(x), BLOCK_N=BLOCK_N, BLOCK_S=BLOCK_S
    )
    return merge_statistics(parts)


def _planes(x: Tensor, seed: Tensor | None) -> tuple[int, dict]:
    """Grid and tile of an elementwise pass over (N, C, T, V)."""
    planes, S = x.shape[0] * x.shape[1], x.shape[2] * x.shape[3]
    BLOCK_S = _columns(x, seed)
    BLOCK_P = _tiles.pow2(planes, high=min(2048, 8192 // x.element_size()) // BLOCK_S)
    grid = _tiles.cdiv(planes, BLOCK_P) * _tiles.cdiv(S, BLOCK_S)
    tile = {"BLOCK_P": BLOCK_P, "BLOCK_S": BLOCK_S, "TILE": _dropout.TILE}
    return grid, tile | {"ACC": _tiles.accumulator(x)}


@_tiles.on_device
def forward(
    x, weight, bias, running_mean, running_var, residual, res_weight, res_bias, res_running_mean,
    res_running_var, seed, dropped, training, relu, eps,
):  # fmt: skip
    (
        x, weight, bias, mean, var, residual, res_weight, res_bias, res_mean, res_var
    ) = _tiles.contiguous(
        x, weight, bias, running_mean, running_var, residual, res_weight, res_bias,
        res_running_mean, res_running_var,
    )  # fmt: skip
    if training:
        mean, var = _statistics(x)
        if res_weight is not None:
            res_mean, res_var = _statistics(residual)
    out = torch.empty_like(x)
    if out.numel():
        grid, tile = _planes(x, seed)
        _bn_act_add_fwd_kernel[grid,](
            x, weight, bias, mean, var, residual, res_weight, res_bias, res_mean, res_var, seed,
            out, x.shape[0] * x.shape[1], x.shape[1], x.shape[2] * x.shape[3],
            *_dropout.arguments(dropped), RELU=relu, EPS=eps, **tile,
        )  # fmt: skip

    def noted(t: Tensor | None, present: bool) -> Tensor:
        return t if present else x.new_empty(0, dtype=statistics_dtype(x))

    second = training and res_weight is not None
    return (
        out,
        noted(mean, training),
        noted(var, training),
        noted(res_mean, second),
        noted(res_var, second),
    )


@_tiles.on_device
def backward(
    grad, x, weight, bias, running_mean, running_var, residual, res_weight, res_bias,
    res_running_mean, res_running_var, seed, dropped, training, relu, eps, mean, var, res_mean,
    res_var, needs,
):  # fmt: skip
    if not training:
        mean, var, res_mean, res_var = running_mean, running_var, res_running_mean, res_running_var
    if res_weight is None:
        res_mean = res_var = None
    tensors = (
        x, weight, bias, mean, var, residual, res_weight, res_bias, res_mean, res_var
    ) = _tiles.contiguous(
        x, weight, bias, mean, var, residual, res_weight, res_bias, res_mean, res_var
    )  # fmt: skip
    grad = grad.contiguous()
    N, C, T, V = x.shape
    wants = _tiles.wants(GRADS, needs)
    found = {name: grad.new_empty(0) for name in GRADS}
    parameters = [name for name in ("weight", "bias", "res_weight", "res_bias") if wants(name)]
    through = training and (wants("x") or (wants("residual") and res_weight is not None))
    SPLITS, BLOCK_N, BLOCK_S = _reduction(x, seed)
    sums = None
    if parameters or through:
        make = x.new_empty if x.numel() else x.new_zeros
        parts = make(4, C, SPLITS, dtype=statistics_dtype(x))
        if x.numel():
            _bn_act_add_grad_sums_kernel[C * SPLITS,](
                grad, *tensors, seed, parts, N, C, T * V, SPLITS, *_dropout.arguments(dropped),
                RELU=relu, EPS=eps, ACC=_tiles.accumulator(x), BLOCK_N=BLOCK_N, BLOCK_S=BLOCK_S,
                TILE=_dropout.TILE,
            )  # fmt: skip
        like = {"bias": bias, "weight": weight, "res_bias": res_bias, "res_weight": res_weight}
        sums, grads = sum_parts(parts, *[t if wants(n) else None for n, t in like.items()])
        found |= {name: g for name, g in zip(like, grads, strict=True) if g is not None}
    for name in ("x", "residual"):
        if wants(name):
            found[name] = torch.empty_like(x)
    if x.numel() and (wants("x") or wants("residual")):
        grid, tile = _planes(x, seed)
        _bn_act_add_bwd_kernel[grid,](
            grad, *tensors, seed, sums, found["x"] if wants("x") else None,
            found["residual"] if wants("residual") else None, N * C, C, T * V,
            *_dropout.arguments(dropped), TRAINING=training, RELU=relu, EPS=eps, **tile,
        )  # fmt: skip
    return tuple(found.values())
