"""The units that dropout keeps, computed in the kernel that needs them."""

from __future__ import annotations

import triton
import triton.language as tl

from skelops.ops import _dropout, _philox

TILE = _philox.TILE
UNITS = 2 * _dropout.HALF  # of one tile of random words


@triton.jit
def kept(seed_ptr, row, u0, DROPPED, ROWS: tl.constexpr, TILE: tl.constexpr):
    """(row, unit) of the 8 TILE units from u0 on: False where dropped."""
    block = u0 // (8 * TILE) * TILE + tl.arange(0, TILE)
    zero = tl.zeros((ROWS, TILE), dtype=tl.int32)
    w0, w1, w2, w3 = tl.philox(
        tl.load(seed_ptr), zero + block[None, :], zero, zero + row.to(tl.int32)[:, None], zero
    )
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).to(tl.uint32, bitcast=True)
    halves = tl.join(words & 0xFFFF, words >> 16)  # (row, block, word // 2, word % 2, half)
    ordered = tl.permute(halves, (0, 4, 2, 3, 1))
    return tl.reshape(ordered, (ROWS, 8 * TILE)).to(tl.int32) >= DROPPED


def arguments(dropped: int) -> tuple[int, float]:
    """DROPPED and the factor of what is kept."""
    return dropped, _dropout.LEVELS / (_dropout.LEVELS - dropped)
