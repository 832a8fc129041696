"""Neighbours against predictions on a GPU: a running softmax per block of neighbours; the backward
computes the logits of a block of predictions again."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _similarity, _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._similarity import rows, similarities

LOG2E = 1.4426950408889634


@kernel(("N", "P", "offset", "scale"))
def _contrast_fwd_kernel(
    pred_ptr, neighbour_ptr, loss_ptr, lse_ptr, N, P, offset, scale,
    D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Loss and log-sum-exp of BLOCK_N neighbours; ``scale`` includes log2(e)."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    most = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    own = tl.zeros((BLOCK_N,), tl.float32)
    for p0 in range(0, P, BLOCK_P):
        p = p0 + tl.arange(0, BLOCK_P)
        s = similarities(
            neighbour_ptr, n, n < N, pred_ptr, p, p < P, D, PRECISION, BLOCK_N, BLOCK_P, BLOCK_D
        )
        own += tl.sum(tl.where(p[None, :] == (n + offset)[:, None], s, 0.0), 1)
        s = tl.where((p < P)[None, :], s, float("-inf"))
        now = tl.maximum(most, tl.max(s, 1))
        p_sum = tl.sum(tl.exp2(scale * (s - now[:, None])), 1)
        total = total * tl.exp2(scale * (most - now)) + p_sum
        most = now
    log = tl.log2(total)
    tl.store(loss_ptr + n, (scale * (most - own) + log) * 0.6931471805599453, mask=n < N)
    tl.store(lse_ptr + n, (scale * most + log) * 0.6931471805599453, mask=n < N)


@kernel(("N", "P", "offset", "scale"))
def _contrast_bwd_kernel(
    grad_ptr, pred_ptr, neighbour_ptr, lse_ptr, d_pred_ptr, N, P, offset, scale, weight,
    D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_D columns of the gradients of BLOCK_P predictions."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    d0 = tl.program_id(1) * BLOCK_D
    grad = tl.load(grad_ptr).to(tl.float32) * weight
    total = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        n = n0 + tl.arange(0, BLOCK_N)
        lse = tl.load(lse_ptr + n, mask=n < N, other=float("inf")) * 1.4426950408889634
        s = scale * similarities(
            pred_ptr, p, p < P, neighbour_ptr, n, n < N, D, PRECISION, BLOCK_P, BLOCK_N, BLOCK_D
        )
        g = tl.exp2(s - lse[None, :]) - (p[:, None] == (n + offset)[None, :]).to(tl.float32)
        q = rows(neighbour_ptr, n, n < N, d0, D, BLOCK_D)
        total = tl.dot(g.to(q.dtype), q, total, input_precision=PRECISION)
    d = d0 + tl.arange(0, BLOCK_D)
    at = p.to(tl.int64)[:, None] * D + d
    total = (total * grad).to(d_pred_ptr.dtype.element_ty)
    tl.store(d_pred_ptr + at, total, mask=(p < P)[:, None] & (d < D))


def supports(pred, neighbour, scale, offset) -> str | None:
    return _similarity.unsupported(pred, len(pred), len(neighbour))


def _blocks(pred) -> dict:
    return dict(
        D=pred.shape[1], PRECISION=_similarity.precision(pred), BLOCK_N=32, BLOCK_P=32,
        BLOCK_D=_tiles.pow2(pred.shape[1], 16, 64), num_warps=4 if pred.dtype in _tiles.HALF else 8,
    )  # fmt: skip


@_tiles.on_device
def forward(pred, neighbour, scale, offset):
    pred, neighbour = _tiles.contiguous(pred, neighbour)
    N = neighbour.shape[0]
    loss, lse = (pred.new_empty(N, dtype=torch.float32) for _ in range(2))
    blocks = _blocks(pred)
    if N:
        _contrast_fwd_kernel[_tiles.cdiv(N, blocks["BLOCK_N"]),](
            pred, neighbour, loss, lse, N, len(pred), offset, scale * LOG2E, **blocks
        )
    return loss.mean(), lse


@_tiles.on_device
def backward(grad, pred, neighbour, scale, offset, lse, needs):
    grad, pred, neighbour, lse = _tiles.contiguous(grad, pred, neighbour, lse)
    (P, D), N = pred.shape, len(neighbour)
    blocks, found = _blocks(pred), torch.empty_like(pred)
    if P:
        grid = _tiles.cdiv(P, blocks["BLOCK_P"]), _tiles.cdiv(D, blocks["BLOCK_D"])
        _contrast_bwd_kernel[grid](
            grad, pred, neighbour, lse, found, N, P, offset, scale * LOG2E, scale / max(N, 1),
            **blocks,
        )  # fmt: skip
    return found
