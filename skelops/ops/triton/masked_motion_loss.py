"""Loss of masked prediction on a GPU: target and error of a token in registers, both directions."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _targets, _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._targets import store_grad, target
from skelops.ops.triton._totals import totals

GRADS = ("x", "pred")
VARYING = ("L", "T", "stride", "L_BLOCKS", "PROGRAMS")


@kernel(VARYING)
def _motion_loss_fwd_kernel(
    x_ptr, pred_ptr, mask_ptr, parts_ptr, L, T, stride, L_BLOCKS,
    V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr, MOTION: tl.constexpr,
    NORMALISE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """parts[program] = (sum of squared errors, masked tokens)."""
    P: tl.constexpr = SEGMENT * C
    n = (tl.program_id(0) // L_BLOCKS).to(tl.int64)
    l = tl.program_id(0) % L_BLOCKS * BLOCK_L + tl.arange(0, BLOCK_L)
    p = tl.arange(0, BLOCK_P)
    masked = tl.load(mask_ptr + n * L + l, mask=l < L, other=1) == 0
    clip = n * L * P
    y, _ = target(x_ptr + clip, l, masked, T, stride, V, C, SEGMENT, MOTION, NORMALISE, BLOCK_P)
    here = masked[:, None] & (p < P)
    pred = tl.load(pred_ptr + clip + (l[:, None] * P + p), mask=here, other=0.0)
    error = pred.to(tl.float32) - y
    parts_ptr += 2 * tl.program_id(0)
    tl.store(parts_ptr, tl.sum(tl.sum(error * error, 1), 0))
    tl.store(parts_ptr + 1, tl.sum(masked.to(tl.float32), 0))


@kernel(VARYING)
def _motion_loss_merge_kernel(
    parts_ptr, loss_ptr, count_ptr, PROGRAMS, P: tl.constexpr, BLOCK: tl.constexpr
):
    loss, count = totals(parts_ptr, PROGRAMS, BLOCK)
    tl.store(loss_ptr, loss / (P * tl.maximum(count, 1.0)))
    tl.store(count_ptr, count)


@kernel(VARYING)
def _motion_loss_bwd_kernel(
    grad_ptr, count_ptr, x_ptr, pred_ptr, mask_ptr, dy_ptr, dpred_ptr, L, T, stride, L_BLOCKS,
    V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr, MOTION: tl.constexpr,
    NORMALISE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    P: tl.constexpr = SEGMENT * C
    n = (tl.program_id(0) // L_BLOCKS).to(tl.int64)
    l = tl.program_id(0) % L_BLOCKS * BLOCK_L + tl.arange(0, BLOCK_L)
    p = tl.arange(0, BLOCK_P)
    masked = tl.load(mask_ptr + n * L + l, mask=l < L, other=1) == 0
    clip = n * L * P
    y, scale = target(x_ptr + clip, l, masked, T, stride, V, C, SEGMENT, MOTION, NORMALISE, BLOCK_P)
    at = clip + (l[:, None] * P + p)
    pred = tl.load(pred_ptr + at, mask=masked[:, None] & (p < P), other=0.0).to(tl.float32)
    factor = 2.0 * tl.load(grad_ptr) / (P * tl.maximum(tl.load(count_ptr), 1.0))
    g = tl.where(masked[:, None], (pred - y) * factor, 0.0)
    if dpred_ptr is not None:
        tl.store(dpred_ptr + at, g.to(dpred_ptr.dtype.element_ty), mask=(l < L)[:, None] & (p < P))
    if dy_ptr is not None:
        store_grad(
            dy_ptr + clip, -g, y, scale, l, l < L, T, stride,
            V, C, SEGMENT, MOTION, NORMALISE, BLOCK_P,
        )  # fmt: skip


def supports(x, pred, mask, segment, stride, normalise) -> str | None:
    if pred.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(pred.dtype).removeprefix('torch.')} kernel"
    return _targets.unsupported(x, segment)


def _grid(x, pred, segment: int) -> tuple[int, int]:
    """(tokens per program, programs per clip)"""
    BLOCK_L = _targets.block(pred.shape[1], x, segment)
    return BLOCK_L, _tiles.cdiv(pred.shape[1], BLOCK_L)


@_tiles.on_device
def forward(x, pred, mask, segment, stride, normalise):
    x, pred, mask = _tiles.contiguous(x, pred, mask)
    (N, L, P), T = pred.shape, x.shape[1]
    BLOCK_L, L_BLOCKS = _grid(x, pred, segment)
    programs = N * L_BLOCKS
    parts = pred.new_empty(programs, 2, dtype=torch.float32)
    loss, count = (pred.new_empty((), dtype=torch.float32) for _ in range(2))
    if programs:
        _motion_loss_fwd_kernel[programs,](
            x, pred, mask, parts, L, T, min(stride, T), L_BLOCKS,
            BLOCK_L=BLOCK_L, **_targets.options(x, segment, stride, normalise),
        )  # fmt: skip
    _motion_loss_merge_kernel[1,](parts, loss, count, programs, P=P, BLOCK=1024)
    return loss, count


@_tiles.on_device
def backward(grad, x, pred, mask, segment, stride, normalise, count, needs):
    x, pred, mask = _tiles.contiguous(x, pred, mask)
    (N, L, _), T = pred.shape, x.shape[1]
    wants = _tiles.wants(GRADS, needs)
    dpred = torch.empty_like(pred) if wants("pred") else None
    dy = torch.empty_like(x, dtype=torch.float32) if wants("x") else None
    BLOCK_L, L_BLOCKS = _grid(x, pred, segment)
    if N and needs:
        _motion_loss_bwd_kernel[N * L_BLOCKS,](
            grad, count, x, pred, mask, dy, dpred, L, T, min(stride, T), L_BLOCKS,
            BLOCK_L=BLOCK_L, **_targets.options(x, segment, stride, normalise),
        )  # fmt: skip
    dx = grad.new_empty(0) if dy is None else _targets.grad_of_clip(dy, stride).to(x.dtype)
    return dx, grad.new_empty(0) if dpred is None else dpred
