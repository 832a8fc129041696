"""Temporal shift on a GPU: one copy, each channel from its own frame."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

BLOCK = 2048


@kernel((*_tiles.VARYING, "C", "FRAME", "FOLD"))
def _temporal_shift_kernel(
    x_ptr, out_ptr, C, T, FRAME, FOLD, REVERSE: tl.constexpr, BLOCK: tl.constexpr
):
    """Planes (n, c) of T * FRAME values."""
    plane = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    c = plane % C
    step = tl.where(c < FOLD, FRAME, tl.where(c < 2 * FOLD, -FRAME, 0))
    if REVERSE:
        step = -step
    source = i + step
    inside = i < T * FRAME
    at = plane * T * FRAME
    x = tl.load(x_ptr + at + source, mask=inside & (source >= 0) & (source < T * FRAME), other=0.0)
    tl.store(out_ptr + at + i, x, mask=inside)


def supports(x, fold, reverse) -> str | None:
    if x.dtype not in _tiles.DTYPES:
        return f"no {str(x.dtype).removeprefix('torch.')} kernel"
    if x.shape[2:].numel() >= 2**30:
        return f"less than {2**30} values per channel and sample"
    return None


@_tiles.on_device
def forward(x: Tensor, fold: int, reverse: bool) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    if out.numel():
        N, C, T = x.shape[:3]
        frame = x.shape[3:].numel()
        _temporal_shift_kernel[N * C, _tiles.cdiv(T * frame, BLOCK)](
            x, out, C, T, frame, fold, REVERSE=reverse, BLOCK=BLOCK
        )
    return out
