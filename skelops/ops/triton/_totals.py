"""Sums over the programs of a loss of masked rows."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def totals(parts_ptr, PROGRAMS, BLOCK: tl.constexpr):
    """Of parts (PROGRAMS, 2): sum of errors and number of masked rows."""
    loss = tl.zeros((BLOCK,), dtype=tl.float32)
    count = tl.zeros((BLOCK,), dtype=tl.float32)
    for i0 in range(0, PROGRAMS, BLOCK):
        i = i0 + tl.arange(0, BLOCK)
        loss += tl.load(parts_ptr + 2 * i, mask=i < PROGRAMS, other=0.0)
        count += tl.load(parts_ptr + 2 * i + 1, mask=i < PROGRAMS, other=0.0)
    return tl.sum(loss, 0), tl.sum(count, 0)
