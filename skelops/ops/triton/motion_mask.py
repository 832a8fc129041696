"""Motion-guided masking on a GPU: one program per clip, from coordinates to ids in one launch."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._select import MAX_ROW, least, ordered


@kernel(("L", "keep", "tau"))
def _motion_mask_kernel(
    x_ptr, noise_ptr, keep_ptr, mask_ptr, restore_ptr, L, keep, tau,
    SEGMENT: tl.constexpr, V: tl.constexpr, C: tl.constexpr, UNIFORM: tl.constexpr,
    EXACT: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    l = tl.arange(0, BLOCK_L)
    inside = l < L
    number = tl.load(noise_ptr + n * L + l, mask=inside, other=0.0).to(tl.float32)
    if not UNIFORM:
        # The first segment takes the motion of the second; a single one has none.
        segment = tl.maximum(l // V, 1)
        at = x_ptr + n * L * (SEGMENT * C) + (segment * (SEGMENT * V * C) + l % V * C)
        moving = inside & (L > V)
        motion = tl.zeros((BLOCK_L,), dtype=tl.float32)
        for j in range(SEGMENT):
            for c in tl.static_range(C):
                now = at + (j * (V * C) + c)
                a = tl.load(now, mask=moving, other=0.0).to(tl.float32)
                b = tl.load(now - SEGMENT * V * C, mask=moving, other=0.0).to(tl.float32)
                motion += tl.abs(a - b)
        motion = motion / (SEGMENT * C)
        motion = tl.where(motion < float("inf"), motion, 0.0)  # which NaN is not either
        scaled = motion / (tl.max(motion, 0) * tau + 1e-10)
        number = scaled - tl.log(1e-10 - tl.log(number + 1e-10))
    key = ordered(number, inside)
    keep_ptr += n * keep
    mask_ptr += n * L
    restore_ptr += n * L
    if EXACT:
        order = tl.sort((key.to(tl.int64) << 32) | l) & 0xFFFFFFFF
        tl.store(keep_ptr + l, order, mask=l < keep)
        tl.store(mask_ptr + order, l < keep, mask=inside)
        tl.store(restore_ptr + order, l.to(tl.int64), mask=inside)
    else:
        kept = least(key, keep) & inside
        rank = tl.cumsum(kept.to(tl.int32), 0)
        tl.store(keep_ptr + (rank - 1), l.to(tl.int64), mask=kept)
        tl.store(mask_ptr + l, kept, mask=inside)
        place = tl.where(kept, rank - 1, keep + l - rank)
        tl.store(restore_ptr + l, place.to(tl.int64), mask=inside)


def supports(x, noise, keep, segment, tau, exact) -> str | None:
    if noise.dtype == torch.float64:
        return "no float64 kernel"
    if noise.shape[1] > MAX_ROW:
        return f"at most {MAX_ROW} tokens, got {noise.shape[1]}"
    return _tiles.unsupported(x, joints=None)


@_tiles.on_device
def forward(x, noise, keep, segment, tau, exact):
    x, noise = _tiles.contiguous(x, noise)
    N, L = noise.shape
    ids_keep = x.new_empty(N, keep, dtype=torch.int64)
    mask = x.new_empty(N, L, dtype=torch.bool)
    ids_restore = x.new_empty(N, L, dtype=torch.int64)
    if N:
        BLOCK_L = _tiles.pow2(L)
        _motion_mask_kernel[N,](
            x, noise, ids_keep, mask, ids_restore, L, keep, tau,
            SEGMENT=segment, V=x.shape[2], C=x.shape[3], UNIFORM=tau == 0, EXACT=exact,
            BLOCK_L=BLOCK_L, num_warps=4 if BLOCK_L <= 2048 else 8,
        )  # fmt: skip
    return ids_keep, mask, ids_restore
