"""Products of the rows of two dense matrices on a GPU, whatever their width."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles


@triton.jit
def rows(ptr, row, inside, d0, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Columns from d0 of the rows of a matrix of width D, zero outside."""
    d = d0 + tl.arange(0, BLOCK_D)
    at = row.to(tl.int64)[:, None] * D + d
    return tl.load(ptr + at, mask=inside[:, None] & (d < D), other=0.0)


@triton.jit
def similarities(
    a_ptr, a_row, a_inside, b_ptr, b_row, b_inside, D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(BLOCK_A, BLOCK_B) products in float32."""
    product = tl.zeros((BLOCK_A, BLOCK_B), tl.float32)
    for d0 in range(0, D, BLOCK_D):
        a = rows(a_ptr, a_row, a_inside, d0, D, BLOCK_D)
        b = rows(b_ptr, b_row, b_inside, d0, D, BLOCK_D)
        product = tl.dot(a, tl.trans(b), product, input_precision=PRECISION)
    return product


def precision(x: Tensor) -> str:
    """Of products whose errors a temperature of 0.07 multiplies by 14."""
    return "tf32x3" if _tiles.precision(x) == "tf32" else "ieee"


def unsupported(x: Tensor, *sizes: int) -> str | None:
    if x.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(x.dtype).removeprefix('torch.')} kernel"
    if max(sizes) >= 2**30:
        return f"less than {2**30} rows"
    return None
