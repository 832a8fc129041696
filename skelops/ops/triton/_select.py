"""The k least numbers of a row on a GPU, without sorting it."""

from __future__ import annotations

import triton
import triton.language as tl

MAX_ROW = 8192  # numbers that one program holds


@triton.jit
def ordered(number, inside):
    """float32 -> int32 in the same order; NaN and what is outside the row are largest."""
    bits = (number + 0.0).to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(inside & (number == number), bits, 0x7FFFFFFF)


@triton.jit
def least(key, k):
    """True for the k least keys, of equal ones for the first: one count per bit, from the top."""
    last = tl.full((), -(2**31), tl.int64)
    bit = tl.full((), 2**31, tl.int64)
    for _ in range(32):
        candidate = last + bit
        below = tl.sum((key < candidate.to(tl.int32)).to(tl.int32), 0)
        last = tl.where(below < k, candidate, last)
        bit = bit >> 1
    last = last.to(tl.int32)
    below = tl.sum((key < last).to(tl.int32), 0)
    tied = tl.cumsum((key == last).to(tl.int32), 0)
    return (key < last) | ((key == last) & (tied <= k - below))
