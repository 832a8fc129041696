"""Mean over time on a GPU: one read of x."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel


@kernel(_tiles.VARYING)
def _temporal_mean_fwd_kernel(
    x_ptr, out_ptr, PLANES, T, V: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Planes are (n, c)."""
    p0 = tl.program_id(0).to(tl.int64) * BLOCK_P
    p = tl.arange(0, BLOCK_P)
    v = tl.arange(0, BLOCK_V)
    row_inside = p0 + p < PLANES
    total = tl.zeros((BLOCK_P, BLOCK_V), dtype=ACC)
    for t0 in range(0, T, BLOCK_T):
        t = t0 + tl.arange(0, BLOCK_T)
        x = tl.load(
            x_ptr + p0 * T * V + (p[:, None, None] * (T * V) + (t[:, None] * V + v)),
            mask=row_inside[:, None, None] & (t < T)[:, None] & (v < V),
            other=0.0,
        )
        total += tl.sum(x.to(ACC), axis=1)
    tl.store(
        out_ptr + p0 * V + (p[:, None] * V + v),
        (total / T).to(out_ptr.dtype.element_ty),
        mask=row_inside[:, None] & (v < V),
    )


def supports(x) -> str | None:
    return _tiles.unsupported(x, _tiles.DTYPES, joints=4096)


@_tiles.on_device
def forward(x: Tensor) -> Tensor:
    x = x.contiguous()
    N, C, T, V = x.shape
    out = x.new_empty(N, C, V)
    if out.numel():
        BLOCK_V = _tiles.pow2(V)
        BLOCK_T = _tiles.pow2(T, high=max(1, 2048 // BLOCK_V))
        BLOCK_P = _tiles.pow2(N * C, high=max(1, 2048 // BLOCK_V // BLOCK_T))
        _temporal_mean_fwd_kernel[_tiles.cdiv(N * C, BLOCK_P),](
            x, out, N * C, T, V=V, ACC=_tiles.accumulator(x),
            BLOCK_P=BLOCK_P, BLOCK_T=BLOCK_T, BLOCK_V=BLOCK_V,
        )  # fmt: skip
    return out
