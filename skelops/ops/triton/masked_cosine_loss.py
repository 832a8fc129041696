"""Scaled cosine error on a GPU: norms and product of a row in one read, both directions."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._joints import kept_rows
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._totals import totals

GRADS = ("x", "y")
VARYING = ("ROWS", "TV", "PROGRAMS", "beta")


@triton.jit
def _power(base, exponent):
    return tl.where(base > 0, tl.exp2(exponent * tl.log2(tl.maximum(base, 1e-38))), 0.0)


@triton.jit
def _angles(x_ptr, y_ptr, mask_ptr, ROWS, TV, V, C: tl.constexpr, PER_CLIP: tl.constexpr,
            BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """Rows of this program, which of them are masked, their norms and 1 - cosine."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    masked = (row < ROWS) & (kept_rows(mask_ptr, row, row < ROWS, TV, V, PER_CLIP) == 0)
    xx = tl.zeros((BLOCK_R,), dtype=tl.float32)
    yy = tl.zeros((BLOCK_R,), dtype=tl.float32)
    xy = tl.zeros((BLOCK_R,), dtype=tl.float32)
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        at = row[:, None] * C + c
        here = masked[:, None] & (c < C)
        x = tl.load(x_ptr + at, mask=here, other=0.0).to(tl.float32)
        y = tl.load(y_ptr + at, mask=here, other=0.0).to(tl.float32)
        xx += tl.sum(x * x, 1)
        yy += tl.sum(y * y, 1)
        xy += tl.sum(x * y, 1)
    x_norm = tl.maximum(tl.sqrt(xx), 1e-12)
    y_norm = tl.maximum(tl.sqrt(yy), 1e-12)
    return row, masked, x_norm, y_norm, 1.0 - xy / x_norm / y_norm


@kernel(VARYING)
def _cosine_loss_fwd_kernel(
    x_ptr, y_ptr, mask_ptr, parts_ptr, ROWS, TV, V, beta, C: tl.constexpr, PER_CLIP: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """parts[program] = (sum of errors, masked rows)."""
    _, masked, _, _, distance = _angles(
        x_ptr, y_ptr, mask_ptr, ROWS, TV, V, C, PER_CLIP, BLOCK_R, BLOCK_C
    )
    # A NaN has to stay one.
    error = tl.where(distance == distance, _power(distance, beta), distance)
    parts_ptr += 2 * tl.program_id(0)
    tl.store(parts_ptr, tl.sum(tl.where(masked, error, 0.0), 0))
    tl.store(parts_ptr + 1, tl.sum(masked.to(tl.float32), 0))


@kernel(VARYING)
def _cosine_loss_merge_kernel(
    parts_ptr, loss_ptr, count_ptr, PROGRAMS, beta, LITERAL: tl.constexpr, BLOCK: tl.constexpr
):
    loss, count = totals(parts_ptr, PROGRAMS, BLOCK)
    rows = tl.maximum(count, 1.0)
    if LITERAL:
        rows = _power(rows, beta)
    tl.store(loss_ptr, loss / rows)
    tl.store(count_ptr, count)


@triton.jit
def _store_side(to_ptr, a_ptr, b_ptr, row, masked, inside, a_norm, b_norm, cosine, factor,
                C: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """factor times the gradient of the cosine by a."""
    along = tl.where(a_norm > 1e-12, factor * cosine / a_norm / a_norm, 0.0)[:, None]
    across = (factor / a_norm / b_norm)[:, None]
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        at = row[:, None] * C + c
        here = masked[:, None] & (c < C)
        a = tl.load(a_ptr + at, mask=here, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + at, mask=here, other=0.0).to(tl.float32)
        g = tl.where(here, across * b - along * a, 0.0)
        tl.store(to_ptr + at, g.to(to_ptr.dtype.element_ty), mask=inside[:, None] & (c < C))


@kernel(VARYING)
def _cosine_loss_bwd_kernel(
    grad_ptr, count_ptr, x_ptr, y_ptr, mask_ptr, dx_ptr, dy_ptr, ROWS, TV, V, beta,
    C: tl.constexpr, PER_CLIP: tl.constexpr, LITERAL: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    row, masked, x_norm, y_norm, distance = _angles(
        x_ptr, y_ptr, mask_ptr, ROWS, TV, V, C, PER_CLIP, BLOCK_R, BLOCK_C
    )
    rows = tl.maximum(tl.load(count_ptr), 1.0)
    if LITERAL:
        rows = _power(rows, beta)
    slope = tl.where(beta == 1.0, tl.where(distance >= 0, 1.0, 0.0), _power(distance, beta - 1.0))
    slope = tl.where(distance == distance, slope, distance)
    factor = -beta * tl.load(grad_ptr) / rows * slope
    cosine = 1.0 - distance
    inside = row < ROWS
    if dx_ptr is not None:
        _store_side(
            dx_ptr, x_ptr, y_ptr, row, masked, inside, x_norm, y_norm, cosine, factor, C, BLOCK_C
        )
    if dy_ptr is not None:
        _store_side(
            dy_ptr, y_ptr, x_ptr, row, masked, inside, y_norm, x_norm, cosine, factor, C, BLOCK_C
        )


def supports(x, y, mask, beta, literal) -> str | None:
    if x.numel() // max(x.shape[3], 1) >= 2**31:
        return f"less than {2**31} rows"
    return _tiles.unsupported(x, joints=None)


def _blocks(x) -> tuple[int, dict]:
    """(programs, options)"""
    BLOCK_C = _tiles.pow2(x.shape[3], high=128)
    BLOCK_R = min(128, max(1, 2048 // BLOCK_C))
    programs = _tiles.cdiv(x.numel() // x.shape[3], BLOCK_R) if x.numel() else 0
    return programs, dict(C=x.shape[3], BLOCK_R=BLOCK_R, BLOCK_C=BLOCK_C)


@_tiles.on_device
def forward(x, y, mask, beta, literal):
    x, y, mask = _tiles.contiguous(x, y, mask)
    N, T, V, _ = x.shape
    programs, blocks = _blocks(x)
    parts = x.new_empty(programs, 2, dtype=torch.float32)
    loss, count = (x.new_empty((), dtype=torch.float32) for _ in range(2))
    if programs:
        _cosine_loss_fwd_kernel[programs,](
            x, y, mask, parts, N * T * V, T * V, V, beta, PER_CLIP=mask.dim() == 2, **blocks
        )
    _cosine_loss_merge_kernel[1,](parts, loss, count, programs, beta, LITERAL=literal, BLOCK=1024)
    return loss, count


@_tiles.on_device
def backward(grad, x, y, mask, beta, literal, count, needs):
    x, y, mask = _tiles.contiguous(x, y, mask)
    N, T, V, _ = x.shape
    wants = _tiles.wants(GRADS, needs)
    dx, dy = (torch.empty_like(x) if wants(name) else None for name in GRADS)
    programs, blocks = _blocks(x)
    if programs and needs:
        _cosine_loss_bwd_kernel[programs,](
            grad, count, x, y, mask, dx, dy, N * T * V, T * V, V, beta,
            PER_CLIP=mask.dim() == 2, LITERAL=literal, **blocks,
        )  # fmt: skip
    return tuple(grad.new_empty(0) if g is None else g for g in (dx, dy))
