"""Gradients of tables and vectors on a GPU: partial sums in, every parameter's gradient out."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel


@kernel(("SPLITS", "ROWS", "A", "B", "C", "D"))
def _merge_kernel(
    parts_ptr, a_ptr, b_ptr, c_ptr, d_ptr, SPLITS, ROWS, WIDTH, A, B, C, D,
    BLOCK_S: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Row r of the sum over splits of parts (SPLITS, ROWS, WIDTH) goes to the first, second, ...
    result, which have A, B, C and D rows; the first is written transposed."""
    r = tl.program_id(0)
    w = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    inside = w < WIDTH
    total = tl.zeros((BLOCK_W,), dtype=tl.float32)
    for s0 in range(0, SPLITS, BLOCK_S):
        s = s0 + tl.arange(0, BLOCK_S)
        at = (s.to(tl.int64) * ROWS + r) * WIDTH
        part = tl.load(parts_ptr + at[:, None] + w, mask=(s < SPLITS)[:, None] & inside, other=0.0)
        total += tl.sum(part, 0)
    if a_ptr is not None:
        tl.store(a_ptr + w * A + r, total.to(a_ptr.dtype.element_ty), mask=inside & (r < A))
    r -= A
    if b_ptr is not None:
        here = inside & (r >= 0) & (r < B)
        tl.store(b_ptr + r * WIDTH + w, total.to(b_ptr.dtype.element_ty), mask=here)
    r -= B
    if c_ptr is not None:
        here = inside & (r >= 0) & (r < C)
        tl.store(c_ptr + r * WIDTH + w, total.to(c_ptr.dtype.element_ty), mask=here)
    r -= C
    if d_ptr is not None:
        here = inside & (r >= 0) & (r < D)
        tl.store(d_ptr + r * WIDTH + w, total.to(d_ptr.dtype.element_ty), mask=here)


def merge(parts: Tensor, *outputs: tuple[Tensor | None, int]) -> None:
    """Sum parts (splits, rows, width) over the splits.

    Args:
        parts: float32; may hold no split, the sums are zero then.
        outputs: up to four pairs of a result and its rows, in the order of the rows of ``parts``;
            the first result is (width, rows), the others (rows, width).
    """
    splits, rows, width = parts.shape
    results = [out for out, _ in outputs] + [None] * (4 - len(outputs))
    counts = [count for _, count in outputs] + [0] * (4 - len(outputs))
    if rows == 0 or width == 0:
        return
    BLOCK_W = _tiles.pow2(width, high=256)
    _merge_kernel[rows, _tiles.cdiv(width, BLOCK_W)](
        parts, *results, splits, rows, width, *counts,
        BLOCK_S=_tiles.pow2(splits, high=16), BLOCK_W=BLOCK_W,
    )  # fmt: skip
