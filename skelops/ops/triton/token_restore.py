"""Return of the encoded tokens on a GPU: one write of the result, one read of its gradient."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._merge import merge

GRADS = ("z", "mask_token", "pos", "temp")


@kernel(("K", "L", "L_BLOCKS"))
def _token_restore_fwd_kernel(
    z_ptr, token_ptr, ids_ptr, pos_ptr, temp_ptr, out_ptr, K, L, L_BLOCKS, D,
    V: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // L_BLOCKS).to(tl.int64)
    l = tl.program_id(0) % L_BLOCKS * BLOCK_L + tl.arange(0, BLOCK_L)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    wide = (d < D)[None, :]
    place = tl.load(ids_ptr + n * L + l, mask=l < L, other=-1)
    kept = ((place >= 0) & (place < K))[:, None]
    inside = (l < L)[:, None] & wide
    token = tl.load(token_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + n * K * D + place[:, None] * D + d, mask=kept & wide, other=0.0)
    y = tl.where(kept, z.to(tl.float32), token[None, :])
    joint = tl.load(pos_ptr + (l % V)[:, None] * D + d, mask=inside, other=0.0).to(tl.float32)
    time = tl.load(temp_ptr + (l // V)[:, None] * D + d, mask=inside, other=0.0).to(tl.float32)
    y = y + (joint + time)
    at = n * L * D + (l[:, None] * D + d)
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=inside)


@kernel(("N", "K", "T", "SPLITS"))
def _token_restore_bwd_kernel(
    grad_ptr, ids_ptr, dz_ptr, parts_ptr, N, K, T, D, SPLITS,
    V: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """parts[split] = rows of mask_token, pos and temp."""
    split = tl.program_id(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    v = tl.arange(0, BLOCK_V)
    inside = (v < V)[:, None] & (d < D)
    ROWS = 1 + V + T
    parts_ptr += split.to(tl.int64) * ROWS * D
    pos = tl.zeros((BLOCK_V, BLOCK_D), dtype=tl.float32)
    masked = tl.zeros((BLOCK_V, BLOCK_D), dtype=tl.float32)
    for t in range(T):
        time = tl.zeros((BLOCK_V, BLOCK_D), dtype=tl.float32)
        for i in range(split, N, SPLITS):
            n = tl.cast(i, tl.int64)
            row = n * T * V + (t * V + v)
            place = tl.load(ids_ptr + row, mask=v < V, other=-1)
            kept = ((place >= 0) & (place < K))[:, None]
            g = tl.load(grad_ptr + row[:, None] * D + d, mask=inside, other=0.0)
            if dz_ptr is not None:
                tl.store(dz_ptr + (n * K + place)[:, None] * D + d, g, mask=kept & inside)
            g = g.to(tl.float32)
            time += g
            masked += tl.where(kept, 0.0, g)
        pos += time
        tl.store(parts_ptr + (1 + V + t) * D + d, tl.sum(time, 0), mask=d < D)
    tl.store(parts_ptr + d, tl.sum(masked, 0), mask=d < D)
    tl.store(parts_ptr + (1 + v)[:, None] * D + d, pos, mask=inside)


def supports(z, mask_token, ids_restore, pos, temp) -> str | None:
    if z.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(z.dtype).removeprefix('torch.')} kernel"
    if pos.shape[0] > _tiles.MAX_JOINTS:
        return f"at most {_tiles.MAX_JOINTS} joints, got {pos.shape[0]}"
    if ids_restore.shape[1] * z.shape[2] >= 2**31:
        return f"less than {2**31} values per clip"
    return None


@_tiles.on_device
def forward(z, mask_token, ids_restore, pos, temp):
    z, mask_token, ids, pos, temp = _tiles.contiguous(z, mask_token, ids_restore, pos, temp)
    (N, K, D), L = z.shape, ids.shape[1]
    out = z.new_empty(N, L, D)
    if out.numel():
        BLOCK_D = _tiles.pow2(D, high=256)
        BLOCK_L = _tiles.pow2(L, high=4096 // BLOCK_D)
        L_BLOCKS = _tiles.cdiv(L, BLOCK_L)
        _token_restore_fwd_kernel[N * L_BLOCKS, _tiles.cdiv(D, BLOCK_D)](
            z, mask_token, ids, pos, temp, out, K, L, L_BLOCKS, D,
            V=pos.shape[0], BLOCK_L=BLOCK_L, BLOCK_D=BLOCK_D,
        )  # fmt: skip
    return out


@_tiles.on_device
def backward(grad, z, mask_token, ids_restore, pos, temp, needs):
    grad, ids = _tiles.contiguous(grad, ids_restore)
    (N, K, D), V, T = z.shape, pos.shape[0], temp.shape[0]
    wants = _tiles.wants(GRADS, needs)
    # Places that no token took have no gradient.
    dz = grad.new_zeros(N, K, D) if wants("z") else grad.new_empty(0)
    shapes = {"mask_token": (D,), "pos": (V, D), "temp": (T, D)}
    tables = {k: grad.new_empty(shape if wants(k) else 0) for k, shape in shapes.items()}
    BLOCK_V = _tiles.pow2(V)
    BLOCK_D = _tiles.pow2(D, high=max(16, 2048 // BLOCK_V))
    columns = _tiles.cdiv(D, BLOCK_D)
    SPLITS = _tiles.splits(grad, columns, N) if grad.numel() else 0
    parts = grad.new_empty(SPLITS, 1 + V + T, D, dtype=torch.float32)
    if SPLITS:
        _token_restore_bwd_kernel[SPLITS, columns](
            grad, ids, dz if wants("z") else None, parts, N, K, T, D, SPLITS,
            V=V, BLOCK_V=BLOCK_V, BLOCK_D=BLOCK_D,
        )  # fmt: skip
    if any(wants(name) for name in shapes):
        rows = {"mask_token": 1, "pos": V, "temp": T}
        results = [(t if wants(name) else None, rows[name]) for name, t in tables.items()]
        merge(parts, (None, 0), *results)
    return dz, *tables.values()
