"""Philox4x32-10 on a GPU: a lane runs one block and writes its four words."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops import _philox
from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel


@kernel(("seed", "epoch", "stream", "count", "PROGRAMS"))
def _random_uniform_fwd_kernel(
    draw_ptr, out_ptr, seed: tl.int64, epoch, stream, count, PROGRAMS,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """PROGRAMS per draw, BLOCK blocks each."""
    n = (tl.program_id(0) // PROGRAMS).to(tl.int64)
    block = tl.program_id(0) % PROGRAMS * BLOCK + tl.arange(0, BLOCK)
    draw = tl.load(draw_ptr + n).to(tl.uint32)
    words = tl.philox(seed, block, stream + block * 0, draw + block * 0, epoch + block * 0)
    first = block.to(tl.int64) // TILE * (4 * TILE) + block % TILE
    for j in tl.static_range(4):
        i = first + j * TILE
        uniform = (words[j] >> 8).to(tl.float32) * 2.0**-24
        tl.store(out_ptr + n * count + i, uniform, mask=i < count)


def supports(draw, seed, epoch, stream, count) -> str | None:
    limit = 2**31 // max(len(draw), 1)
    return f"less than {limit} numbers for each of {len(draw)} draws" if count >= limit else None


@_tiles.on_device
def forward(draw, seed, epoch, stream, count):
    draw = draw.contiguous()
    out = draw.new_empty(len(draw), count, dtype=torch.float32)
    if out.numel():
        blocks = _tiles.cdiv(count, 4 * _philox.TILE) * _philox.TILE
        BLOCK = _tiles.pow2(blocks, high=256)
        programs = _tiles.cdiv(blocks, BLOCK)
        _random_uniform_fwd_kernel[len(draw) * programs,](
            draw, out, seed, epoch, stream, count, programs, TILE=_philox.TILE, BLOCK=BLOCK
        )
    return out
