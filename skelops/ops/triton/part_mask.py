"""Masking of body parts on a GPU: rows of x or of the token, and their gradients in one read."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._joints import kept_rows
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._merge import merge

GRADS = ("x", "token")


@kernel(("ROWS", "TV"))
def _part_mask_fwd_kernel(
    x_ptr, token_ptr, mask_ptr, out_ptr, ROWS, TV, V, C,
    PER_CLIP: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = row < ROWS
    kept = kept_rows(mask_ptr, row, inside, TV, V, PER_CLIP)
    for c0 in range(0, C, BLOCK_C):
        c = c0 + tl.arange(0, BLOCK_C)
        here = (c < C)[None, :]
        at = row[:, None] * C + c
        token = tl.load(token_ptr + c, mask=c < C, other=0.0)
        x = tl.load(x_ptr + at, mask=kept[:, None] & here, other=0.0)
        tl.store(
            out_ptr + at, tl.where(kept[:, None], x, token[None, :]), mask=inside[:, None] & here
        )


@kernel(("ROWS", "TV", "SPLITS"))
def _part_mask_bwd_kernel(
    grad_ptr, mask_ptr, dx_ptr, parts_ptr, ROWS, TV, V, C, SPLITS,
    PER_CLIP: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    split = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    here = (c < C)[None, :]
    total = tl.zeros((BLOCK_C,), dtype=tl.float32)
    for r0 in range(split * BLOCK_R, ROWS, SPLITS * BLOCK_R):
        row = tl.cast(r0, tl.int64) + tl.arange(0, BLOCK_R)
        inside = row < ROWS
        kept = kept_rows(mask_ptr, row, inside, TV, V, PER_CLIP)[:, None]
        at = row[:, None] * C + c
        g = tl.load(grad_ptr + at, mask=inside[:, None] & here, other=0.0)
        if dx_ptr is not None:
            tl.store(dx_ptr + at, tl.where(kept, g, 0.0), mask=inside[:, None] & here)
        total += tl.sum(tl.where(kept, 0.0, g.to(tl.float32)), 0)
    if parts_ptr is not None:
        tl.store(parts_ptr + split * C + c, total, mask=c < C)


def supports(x, token, mask) -> str | None:
    if x.numel() // max(x.shape[3], 1) >= 2**31:
        return f"less than {2**31} rows"
    return _tiles.unsupported(x, joints=None)


def _blocks(x) -> dict[str, int]:
    BLOCK_C = _tiles.pow2(x.shape[3], high=128)
    return {"BLOCK_C": BLOCK_C, "BLOCK_R": 4096 // BLOCK_C}


@_tiles.on_device
def forward(x, token, mask):
    x, token, mask = _tiles.contiguous(x, token, mask)
    N, T, V, C = x.shape
    out = torch.empty_like(x)
    if out.numel():
        blocks = _blocks(x)
        _part_mask_fwd_kernel[_tiles.cdiv(N * T * V, blocks["BLOCK_R"]),](
            x, token, mask, out, N * T * V, T * V, V, C, PER_CLIP=mask.dim() == 2, **blocks
        )
    return out


@_tiles.on_device
def backward(grad, x, token, mask, needs):
    grad, mask = _tiles.contiguous(grad, mask)
    N, T, V, C = grad.shape
    wants = _tiles.wants(GRADS, needs)
    dx = torch.empty_like(grad) if wants("x") else grad.new_empty(0)
    dtoken = grad.new_empty(C if wants("token") else 0)
    blocks = _blocks(grad)
    steps, columns = _tiles.cdiv(N * T * V, blocks["BLOCK_R"]), _tiles.cdiv(C, blocks["BLOCK_C"])
    splits = _tiles.splits(grad, columns, steps, 8) if grad.numel() else 0
    parts = None
    if wants("token"):
        parts = grad.new_empty(splits, 1, C, dtype=torch.float32)
    if splits and needs:
        _part_mask_bwd_kernel[splits, columns](
            grad, mask, dx if wants("x") else None, parts, N * T * V, T * V, V, C, splits,
            PER_CLIP=mask.dim() == 2, **blocks,
        )  # fmt: skip
    if parts is not None:
        merge(parts, (None, 0), (dtoken, 1))
    return dx, dtoken
