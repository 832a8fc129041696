"""Hyper-graphs on a GPU: a program owns one sample and head, and keeps all its matrices on chip.

The backward rebuilds the hyper-graph and adds the sums over samples in a second launch, in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

MAX_VERTICES = 64  # beyond, the operands of a product no longer fit into registers
GRADS = ("embedding", "edge_weight", "adjacency", "alpha")


@triton.jit
def _product(a, b):
    """Of two float32 matrices on the matrix units, to nearly full precision."""
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def _difference(f_ptr, d, W: tl.constexpr, BLOCK: tl.constexpr):
    """f[d, i] - f[d, e] at (i, e)."""
    v = tl.arange(0, BLOCK)
    own = tl.load(f_ptr + d * W + v[:, None], mask=(v < W)[:, None], other=0.0)
    other = tl.load(f_ptr + d * W + v[None, :], mask=(v < W)[None, :], other=0.0)
    return own.to(tl.float32) - other.to(tl.float32)


@triton.jit
def _hyper_graph(f_ptr, w_ptr, D, TOPK, W: tl.constexpr, BLOCK: tl.constexpr):
    """Distances and H at (i, e); w and c as rows over e, r as a column over i."""
    v = tl.arange(0, BLOCK)
    square = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for d in range(D):
        difference = _difference(f_ptr, d, W, BLOCK)
        square += difference * difference

    left = tl.where((v < W)[None, :], square, float("inf"))
    nearest = tl.zeros((BLOCK, BLOCK), dtype=tl.int1)
    for _ in range(TOPK):  # of equal ones that of the lowest index
        found = v[None, :] == tl.argmin(left, axis=1)[:, None]
        nearest |= found
        left = tl.where(found, float("inf"), left)

    distance = tl.sqrt(square)
    member = tl.where(nearest & (v < W)[:, None], tl.exp(-distance), 0.0)
    total = tl.sum(member, axis=1)
    member /= tl.where(v < W, total, 1.0)[:, None]
    w = tl.load(w_ptr + v, mask=v < W, other=0.0).to(tl.float32)[None, :]
    c = tl.sum(member, axis=0)[None, :] + 1e-8
    r = tl.sum(member * tl.abs(w), axis=1)[:, None] + 1e-8
    return distance, member, w, c, r


@kernel()
def _hyper_adjacency_fwd_kernel(
    f_ptr, w_ptr, a_ptr, alpha_ptr, out_ptr, K, D, TOPK, ROWS,
    W: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)  # of (n, k)
    k = tl.program_id(0) % K
    _, member, w, c, r = _hyper_graph(f_ptr + part * D * W, w_ptr + part * W, D, TOPK, W, BLOCK)
    strength = tl.maximum(tl.load(alpha_ptr).to(tl.float32), 0.0)
    graph = _product(member * (strength * w * w / c) / r, tl.trans(member))
    v = tl.arange(0, BLOCK)
    at = v[:, None] * W + v[None, :]
    inside = (v < ROWS)[:, None] & (v < W)[None, :]
    a = tl.load(a_ptr + k * W * W + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + part * ROWS * W + at, (a + graph).to(out_ptr.dtype.element_ty), mask=inside)


@kernel()
def _hyper_adjacency_bwd_kernel(
    grad_ptr, f_ptr, w_ptr, alpha_ptr, df_ptr, dw_ptr, dstrength_ptr, D, TOPK, ROWS,
    W: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)
    f_ptr += part * D * W
    distance, member, w, c, r = _hyper_graph(f_ptr, w_ptr + part * W, D, TOPK, W, BLOCK)
    strength = tl.maximum(tl.load(alpha_ptr).to(tl.float32), 0.0)
    edge = w * w / c
    v = tl.arange(0, BLOCK)
    at = v[:, None] * W + v[None, :]
    inside = (v < ROWS)[:, None] & (v < W)[None, :]
    grad = tl.load(grad_ptr + part * ROWS * W + at, mask=inside, other=0.0).to(tl.float32) / r

    joint = _product(grad, member)
    along = tl.sum(member * edge * joint, axis=1)  # sum_j grad[i, j] G[i, j]
    tl.store(dstrength_ptr + part, tl.sum(along))
    joint += _product(tl.trans(grad), member)
    ddegree = -strength * along[:, None] / r
    dedge = 0.5 * strength * tl.sum(member * joint, axis=0)[None, :]
    if dw_ptr is not None:
        sign = tl.where(w > 0, 1.0, tl.where(w < 0, -1.0, 0.0))
        dw = dedge * 2 * w / c + sign * tl.sum(member * ddegree, axis=0)[None, :]
        tl.store(
            dw_ptr + part * W + v[None, :],
            dw.to(dw_ptr.dtype.element_ty),
            mask=(v < W)[None, :],
        )
    if df_ptr is not None:
        dmember = strength * edge * joint + ddegree * tl.abs(w) - dedge * edge / c
        mean = tl.sum(member * dmember, axis=1)[:, None]
        apart = distance != 0
        pull = member * (mean - dmember) / tl.where(apart, distance, 1.0)
        pull = tl.where(apart, pull, 0.0)
        pull += tl.trans(pull)
        for d in range(D):
            df = tl.sum(pull * _difference(f_ptr, d, W, BLOCK), axis=1)
            tl.store(df_ptr + part * D * W + d * W + v, df.to(df_ptr.dtype.element_ty), mask=v < W)


@kernel(_tiles.VARYING)
def _hyper_adjacency_sums_kernel(
    grad_ptr, dstrength_ptr, alpha_ptr, da_ptr, dalpha_ptr, N, K, ROWS,
    W: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Over the samples: of grad for one block of the adjacency, or of all parts of alpha's."""
    block = tl.program_id(0)
    if block == 0:
        if dalpha_ptr is not None:
            parts = tl.zeros((BLOCK_N * BLOCK,), dtype=tl.float32)
            for p0 in range(0, N * K, BLOCK_N * BLOCK):
                p = p0 + tl.arange(0, BLOCK_N * BLOCK)
                parts += tl.load(dstrength_ptr + p, mask=p < N * K, other=0.0)
            dalpha = tl.where(tl.load(alpha_ptr) > 0, tl.sum(parts), 0.0)
            tl.store(dalpha_ptr, dalpha.to(dalpha_ptr.dtype.element_ty))
    else:
        if da_ptr is not None:
            BLOCKS: tl.constexpr = (W * W + BLOCK - 1) // BLOCK
            k = (block - 1) // BLOCKS
            x = (block - 1) % BLOCKS * BLOCK + tl.arange(0, BLOCK)
            total = tl.zeros((BLOCK,), dtype=tl.float32)
            for n0 in range(0, N, BLOCK_N):
                n = n0 + tl.arange(0, BLOCK_N)
                at = (n.to(tl.int64) * K + k)[:, None] * (ROWS * W) + x[None, :]
                inside = (n < N)[:, None] & (x < ROWS * W)[None, :]
                total += tl.sum(tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32), 0)
            tl.store(da_ptr + k * W * W + x, total.to(da_ptr.dtype.element_ty), mask=x < W * W)


def supports(embedding, edge_weight, adjacency, alpha, topk, rows) -> str | None:
    return _tiles.unsupported(embedding, joints=MAX_VERTICES)


def _blocks(W: int) -> dict[str, int]:
    """A few values of each matrix per thread."""
    BLOCK = _tiles.joints(W)
    return dict(BLOCK=BLOCK, num_warps=max(1, min(16, BLOCK * BLOCK // 256)))


@_tiles.on_device
def forward(embedding, edge_weight, adjacency, alpha, topk, rows):
    f, w, A = _tiles.contiguous(embedding, edge_weight, adjacency)
    N, K, D, W = f.shape
    out = f.new_empty(N, K, rows, W)
    if out.numel():
        _hyper_adjacency_fwd_kernel[N * K,](
            f, w, A, alpha, out, K, D, topk, rows, W=W, **_blocks(W)
        )
    return out


@_tiles.on_device
def backward(grad, embedding, edge_weight, adjacency, alpha, topk, rows, needs):
    grad, f, w = _tiles.contiguous(grad, embedding, edge_weight)
    N, K, D, W = f.shape
    wants = _tiles.wants(GRADS, needs)
    inputs = (embedding, edge_weight, adjacency, alpha)
    df, dw, dA, dalpha = (
        torch.empty_like(t, memory_format=torch.contiguous_format) if wants(name) else None
        for name, t in zip(GRADS, inputs, strict=True)
    )
    dstrength = f.new_empty(N * K, dtype=torch.float32)
    if N * K and any(t is not None for t in (df, dw, dalpha)):
        _hyper_adjacency_bwd_kernel[N * K,](
            grad, f, w, alpha, df, dw, dstrength, D, topk, rows, W=W, **_blocks(W)
        )
    if dA is not None or dalpha is not None:
        blocks = 0 if dA is None else K * _tiles.cdiv(W * W, 128)
        _hyper_adjacency_sums_kernel[1 + blocks,](
            grad, dstrength, alpha, dA, dalpha, N, K, rows, W=W, BLOCK_N=16, BLOCK=128, num_warps=4
        )
    return tuple(grad.new_empty(0) if t is None else t for t in (df, dw, dA, dalpha))
