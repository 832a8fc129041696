"""Masks of joints on a GPU: (V,) for the batch or (N, V), True = kept."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def kept_rows(mask_ptr, row, inside, TV, V, PER_CLIP: tl.constexpr):
    """Whether the joints of rows (n, t, v) are kept."""
    at = row % V
    if PER_CLIP:
        at += row // TV * V
    return tl.load(mask_ptr + at, mask=inside, other=0) != 0
