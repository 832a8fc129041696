"""Nearest entries of a queue on a GPU: a running maximum per block of queries and part of the
queue; of the parts the best is taken."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _similarity, _tiles
from skelops.ops.triton._launch import kernel
from skelops.ops.triton._similarity import similarities


@kernel(("N", "K", "KEYS"))
def _nearest_kernel(
    z_ptr, queue_ptr, queue_id_ptr, ids_ptr, most_ptr, at_ptr, N, K, KEYS,
    D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    ids = tl.load(ids_ptr + n, mask=n < N, other=0)
    most = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    at = tl.zeros((BLOCK_N,), tl.int64)
    begin = split * KEYS
    end = tl.minimum(begin + KEYS, K)
    for k0 in range(begin, end, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        s = similarities(
            z_ptr, n, n < N, queue_ptr, k, k < end, D, PRECISION, BLOCK_N, BLOCK_K, BLOCK_D
        )
        owner = tl.load(queue_id_ptr + k, mask=k < end, other=0)
        s = tl.where(owner[None, :] == ids[:, None], -1.0, s)
        s = tl.where((k < end)[None, :] & (s == s), s, float("-inf"))
        value, place = tl.max(s, 1, return_indices=True)
        better = value > most
        most = tl.where(better, value, most)
        at = tl.where(better, k0 + place.to(tl.int64), at)
    to = split.to(tl.int64) * N + n
    tl.store(most_ptr + to, most, mask=n < N)
    tl.store(at_ptr + to, at, mask=n < N)


def supports(z, queue, queue_id, ids) -> str | None:
    return _similarity.unsupported(z, len(z), len(queue))


@_tiles.on_device
def forward(z, queue, queue_id, ids):
    z, queue, queue_id, ids = _tiles.contiguous(z, queue, queue_id, ids)
    (N, D), K = z.shape, len(queue)
    if N == 0:
        return ids.new_empty(0)
    BLOCK_N, BLOCK_K = _tiles.pow2(N, 16, 64), 128 if z.dtype in _tiles.HALF else 32
    n_blocks = _tiles.cdiv(N, BLOCK_N)
    splits = _tiles.splits(z, n_blocks, _tiles.cdiv(K, 2 * BLOCK_K), 2)
    keys = _tiles.cdiv(_tiles.cdiv(K, splits), BLOCK_K) * BLOCK_K
    splits = _tiles.cdiv(K, keys)
    most = z.new_empty(splits, N, dtype=torch.float32)
    at = z.new_empty(splits, N, dtype=torch.int64)
    _nearest_kernel[n_blocks, splits](
        z, queue, queue_id, ids, most, at, N, K, keys, D=D, PRECISION=_similarity.precision(z),
        BLOCK_N=BLOCK_N, BLOCK_K=BLOCK_K, BLOCK_D=_tiles.pow2(D, 16, 64), num_warps=8,
    )  # fmt: skip
    return at.gather(0, most.argmax(0, keepdim=True))[0]
