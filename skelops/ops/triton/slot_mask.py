"""Masking of slots on a GPU: a program selects and copies one clip."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._select import MAX_ROW, least, ordered


@kernel(("S", "masked"))
def _slot_mask_fwd_kernel(
    x_ptr, noise_ptr, out_ptr, mask_ptr, S, masked,
    C: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    s = tl.arange(0, BLOCK_S)
    inside = s < S
    number = tl.load(noise_ptr + n * S + s, mask=inside, other=0.0).to(tl.float32)
    kept = (least(ordered(number, inside), masked) == 0) & inside
    tl.store(mask_ptr + n * S + s, kept, mask=inside)
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        at = n * S * C + (s[:, None] * C + c)
        here = (c < C)[None, :]
        x = tl.load(x_ptr + at, mask=kept[:, None] & here, other=0.0)
        tl.store(out_ptr + at, x, mask=inside[:, None] & here)


@kernel(("SIZE",))
def _slot_mask_bwd_kernel(
    grad_ptr, mask_ptr, out_ptr, SIZE: tl.int64, C: tl.constexpr, BLOCK: tl.constexpr
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < SIZE
    kept = tl.load(mask_ptr + i // C, mask=inside, other=0) != 0
    g = tl.load(grad_ptr + i, mask=inside & kept, other=0.0)
    tl.store(out_ptr + i, g, mask=inside)


def supports(x, noise, masked) -> str | None:
    if noise.dtype == torch.float64:
        return "no float64 kernel"
    if noise.shape[1] > MAX_ROW:
        return f"at most {MAX_ROW} slots, got {noise.shape[1]}"
    return _tiles.unsupported(x, joints=None)


@_tiles.on_device
def forward(x, noise, masked):
    x, noise = _tiles.contiguous(x, noise)
    N, S = noise.shape
    out, mask = torch.empty_like(x), x.new_empty(x.shape[:3], dtype=torch.bool)
    if mask.numel():
        BLOCK_S = _tiles.pow2(S)
        _slot_mask_fwd_kernel[N,](
            x, noise, out, mask, S, masked,
            C=x.shape[3], BLOCK_S=BLOCK_S, BLOCK_C=_tiles.pow2(x.shape[3], high=4),
            num_warps=4 if BLOCK_S <= 1024 else 8,
        )  # fmt: skip
    return out, mask


@_tiles.on_device
def backward(grad, x, noise, masked, mask, needs):
    if not needs:
        return grad.new_empty(0)
    grad, mask = _tiles.contiguous(grad, mask)
    out = torch.empty_like(grad)
    if out.numel():
        BLOCK = 1024
        _slot_mask_bwd_kernel[_tiles.cdiv(out.numel(), BLOCK),](
            grad, mask, out, out.numel(), C=grad.shape[3], BLOCK=BLOCK
        )
    return out
