"""Motion targets on a GPU: one read of x, one write of the tokens."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _targets, _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._targets import store_grad, target


@kernel(("L", "T", "stride", "L_BLOCKS"))
def _motion_target_kernel(
    x_ptr, out_ptr, grad_ptr, L, T, stride, L_BLOCKS,
    V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr, MOTION: tl.constexpr,
    NORMALISE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """out = tokens of x; with grad, the gradient of the motion of x's frames instead."""
    P: tl.constexpr = SEGMENT * C
    n = (tl.program_id(0) // L_BLOCKS).to(tl.int64)
    l = tl.program_id(0) % L_BLOCKS * BLOCK_L + tl.arange(0, BLOCK_L)
    p = tl.arange(0, BLOCK_P)
    clip = n * L * P
    y, scale = target(x_ptr + clip, l, l < L, T, stride, V, C, SEGMENT, MOTION, NORMALISE, BLOCK_P)
    at = clip + (l[:, None] * P + p)
    here = (l < L)[:, None] & (p < P)
    if grad_ptr is None:
        tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=here)
    else:
        g = tl.load(grad_ptr + at, mask=here, other=0.0).to(tl.float32)
        store_grad(
            out_ptr + clip, g, y, scale, l, l < L, T, stride,
            V, C, SEGMENT, MOTION, NORMALISE, BLOCK_P,
        )  # fmt: skip


def supports(x, segment, stride, normalise) -> str | None:
    return _targets.unsupported(x, segment)


def _launch(x, out, grad, segment, stride, normalise) -> None:
    N, T, V, _ = x.shape
    L = T // segment * V
    if out.numel():
        BLOCK_L = _targets.block(L, x, segment)
        L_BLOCKS = _tiles.cdiv(L, BLOCK_L)
        _motion_target_kernel[N * L_BLOCKS,](
            x, out, grad, L, T, min(stride, T), L_BLOCKS,
            BLOCK_L=BLOCK_L, **_targets.options(x, segment, stride, normalise),
        )  # fmt: skip


@_tiles.on_device
def forward(x, segment, stride, normalise):
    x = x.contiguous()
    N, T, V, C = x.shape
    out = x.new_empty(N, T // segment * V, segment * C)
    _launch(x, out, None, segment, stride, normalise)
    return out


@_tiles.on_device
def backward(grad, x, segment, stride, normalise, needs):
    if not needs:
        return grad.new_empty(0)
    grad, x = _tiles.contiguous(grad, x)
    dy = torch.empty_like(x, dtype=torch.float32)
    _launch(x, dy, grad, segment, stride, normalise)
    return _targets.grad_of_clip(dy, stride).to(x.dtype)
