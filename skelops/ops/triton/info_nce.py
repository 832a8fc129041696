"""InfoNCE on a GPU: every block of queries and part of the bank keeps a running softmax and its
mean key; the parts and the own key of a row are then merged."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("q", "key", "bank", "scale")
VARYING = ("ROWS", "N", "K", "SPLITS", "KEYS")
MAX_WIDTH = {torch.float32: 128, torch.float16: 256, torch.bfloat16: 256}  # of the bank


@triton.jit
def _rows(ptr, row, inside, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows (BLOCK, BLOCK_D) of a dense matrix of width D, zero outside."""
    d = tl.arange(0, BLOCK_D)
    at = row.to(tl.int64)[:, None] * D + d
    return tl.load(ptr + at, mask=inside[:, None] & (d < D), other=0.0)


@kernel(VARYING)
def _softmax_kernel(
    q_ptr, bank_ptr, scale_ptr, largest_ptr, total_ptr, mean_ptr, best_ptr, at_ptr,
    ROWS, N, K, KEYS, TOP: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The running softmax of BLOCK_R rows over KEYS keys; the largest of it in base 2."""
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    split = tl.program_id(1)
    inside = row < ROWS
    q = _rows(q_ptr, row, inside, D, BLOCK_D).to(bank_ptr.dtype.element_ty)
    factor = (
        tl.load(scale_ptr + row % N, mask=inside, other=0.0).to(tl.float32) * 1.4426950408889634
    )
    largest = tl.full((BLOCK_R,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_R,), tl.float32)
    mean = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    best = tl.full((BLOCK_R,), float("-inf"), tl.float32)
    best_at = tl.zeros((BLOCK_R,), tl.int64)
    begin = split * KEYS
    end = tl.minimum(begin + KEYS, K)
    for k0 in range(begin, end, BLOCK_K):
        key = k0 + tl.arange(0, BLOCK_K)
        keys = _rows(bank_ptr, key, key < end, D, BLOCK_D)
        product = tl.dot(q, tl.trans(keys), input_precision=PRECISION)
        product = tl.where((key < end)[None, :], product, float("-inf"))
        if TOP:
            value, place = tl.max(product, 1, return_indices=True)
            better = value > best
            best = tl.where(better, value, best)
            best_at = tl.where(better, k0 + place.to(tl.int64), best_at)
        similarity = product * factor[:, None]
        now = tl.maximum(largest, tl.max(similarity, 1))
        p = tl.exp2(similarity - now[:, None])
        shrink = tl.exp2(largest - now)
        total = total * shrink + tl.sum(p, 1)
        mean = mean * shrink[:, None]
        share = p.to(keys.dtype)
        mean = tl.dot(share, keys, mean, input_precision=PRECISION)
        if keys.dtype != tl.float32:  # what rounding p to half took away
            rest = (p - share.to(tl.float32)).to(keys.dtype)
            mean = tl.dot(rest, keys, mean, input_precision=PRECISION)
        largest = now
    at = split.to(tl.int64) * ROWS + row
    tl.store(largest_ptr + at, largest, mask=inside)
    tl.store(total_ptr + at, total, mask=inside)
    d = tl.arange(0, BLOCK_D)
    tl.store(mean_ptr + at[:, None] * D + d, mean, mask=inside[:, None] & (d < D))
    if TOP:
        tl.store(best_ptr + at, best, mask=inside)
        tl.store(at_ptr + at, best_at, mask=inside)


@kernel(VARYING)
def _merge_kernel(
    q_ptr, key_ptr, scale_ptr, largest_ptr, total_ptr, mean_ptr, best_ptr, at_ptr,
    loss_ptr, out_ptr, top_ptr, ROWS, N, SPLITS, D: tl.constexpr, TOP: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    inside = d < D
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    mean = tl.zeros((BLOCK_D,), tl.float32)
    best = tl.full((), float("-inf"), tl.float32)
    best_at = tl.zeros((), tl.int64)
    own = tl.zeros((), tl.float32)
    if key_ptr is not None:
        q = tl.load(q_ptr + row * D + d, mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(key_ptr + row % N * D + d, mask=inside, other=0.0).to(tl.float32)
        factor = tl.load(scale_ptr + row % N).to(tl.float32) * 1.4426950408889634
        own = tl.sum(q * mean, 0) * factor
        largest = own
        total = tl.full((), 1.0, tl.float32)
    at = row
    for _ in range(SPLITS):
        part = tl.load(largest_ptr + at)
        now = tl.maximum(largest, part)
        before, grown = tl.exp2(largest - now), tl.exp2(part - now)
        total = total * before + tl.load(total_ptr + at) * grown
        mean = mean * before + tl.load(mean_ptr + at * D + d, mask=inside, other=0.0) * grown
        largest = now
        if TOP:
            value = tl.load(best_ptr + at)
            best_at = tl.where(value > best, tl.load(at_ptr + at), best_at)
            best = tl.maximum(value, best)
        at += ROWS
    tl.store(loss_ptr + row, ((largest - own) + tl.log2(total)) * 0.6931471805599453)
    tl.store(out_ptr + row * D + d, mean / total, mask=inside)
    if TOP:
        tl.store(top_ptr + row, best_at)


@kernel(VARYING)
def _query_grad_kernel(
    grad_ptr, q_ptr, key_ptr, scale_ptr, loss_ptr, mean_ptr, dq_ptr, dkey_ptr, dscale_ptr,
    N, R: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """All branches of a query: gradients of the queries, of their key and of their scale."""
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    inside = d < D
    scale = tl.load(scale_ptr + n).to(tl.float32)
    dkey = tl.zeros((BLOCK_D,), tl.float32)
    dscale = tl.zeros((), tl.float32)
    for r in range(R):
        row = r * N + n
        grad = tl.load(grad_ptr + row).to(tl.float32)
        pull = tl.load(mean_ptr + row * D + d, mask=inside, other=0.0)
        if key_ptr is not None:
            pull -= tl.load(key_ptr + n * D + d, mask=inside, other=0.0).to(tl.float32)
        if dq_ptr is not None:
            dq = (grad * scale * pull).to(dq_ptr.dtype.element_ty)
            tl.store(dq_ptr + row * D + d, dq, mask=inside)
        q = tl.load(q_ptr + row * D + d, mask=inside, other=0.0).to(tl.float32)
        dscale += grad * tl.sum(q * pull, 0)
        if dkey_ptr is not None:
            dkey += grad * scale * (tl.exp(-tl.load(loss_ptr + row)) - 1.0) * q
    if dkey_ptr is not None:
        tl.store(dkey_ptr + n * D + d, dkey.to(dkey_ptr.dtype.element_ty), mask=inside)
    if dscale_ptr is not None:
        tl.store(dscale_ptr + n, dscale.to(dscale_ptr.dtype.element_ty))


@kernel(VARYING)
def _bank_grad_kernel(
    grad_ptr, q_ptr, key_ptr, bank_ptr, scale_ptr, loss_ptr, dbank_ptr, ROWS, N, K,
    D: tl.constexpr, PRECISION: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    key = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    keys = _rows(bank_ptr, key, key < K, D, BLOCK_D)
    total = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
    for r0 in range(0, ROWS, BLOCK_R):
        row = r0 + tl.arange(0, BLOCK_R)
        inside = row < ROWS
        q = _rows(q_ptr, row, inside, D, BLOCK_D)
        scale = tl.load(scale_ptr + row % N, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row, mask=inside, other=0.0).to(tl.float32)
        lse = tl.load(loss_ptr + row, mask=inside, other=0.0)
        if key_ptr is not None:
            own = _rows(key_ptr, row % N, inside, D, BLOCK_D).to(tl.float32)
            lse += scale * tl.sum(own * q.to(tl.float32), 1)
        q = q.to(keys.dtype)
        product = tl.dot(keys, tl.trans(q), input_precision=PRECISION)
        p = tl.exp(product * scale[None, :] - lse[None, :]) * (grad * scale)[None, :]
        total = tl.dot(p.to(keys.dtype), q, total, input_precision=PRECISION)
    d = tl.arange(0, BLOCK_D)
    at = key.to(tl.int64)[:, None] * D + d
    tl.store(dbank_ptr + at, total.to(dbank_ptr.dtype.element_ty),
             mask=(key < K)[:, None] & (d < D))  # fmt: skip


def supports(q, key, bank, scale, top) -> str | None:
    for x in (q, bank):
        if x.dtype not in _tiles.DTYPES[1:]:
            return f"no {str(x.dtype).removeprefix('torch.')} kernel"
    if q.shape[2] > MAX_WIDTH[bank.dtype]:
        return f"at most {MAX_WIDTH[bank.dtype]} channels, got {q.shape[2]}"
    if top > 1:
        return f"at most one nearest key, got {top}"
    if max(q.shape[0] * q.shape[1], len(bank)) >= 2**30:
        return f"less than {2**30} queries and keys"
    return None


def _blocks(q, bank) -> dict:
    """Options of the kernels that multiply."""
    # A temperature of 0.07 multiplies the errors of a product by 14.
    precision = "tf32x3" if _tiles.precision(q) == "tf32" else "ieee"
    BLOCK_D, half = _tiles.pow2(q.shape[2], 16), bank.dtype in _tiles.HALF
    BLOCK_R = (128 if half else 64) // (1 if BLOCK_D <= 128 else 2)
    return dict(
        D=q.shape[2], PRECISION=precision, BLOCK_R=BLOCK_R, BLOCK_K=64 if half else 32,
        BLOCK_D=BLOCK_D, num_warps=8, num_stages=2 if half else 1,
    )  # fmt: skip


@_tiles.on_device
def forward(q, key, bank, scale, top):
    q, key, bank, scale = _tiles.contiguous(q, key, bank, scale)
    R, N, D = q.shape
    rows, K = R * N, len(bank)
    loss = q.new_empty(R, N, dtype=torch.float32)
    mean = q.new_empty(R, N, D, dtype=torch.float32)
    best = q.new_empty(R, N, top, dtype=torch.int64)
    if rows == 0:
        return loss, mean, best
    blocks = _blocks(q, bank)
    row_blocks = _tiles.cdiv(rows, blocks["BLOCK_R"])
    splits = _tiles.splits(q, row_blocks, _tiles.cdiv(K, 4 * blocks["BLOCK_K"]), 2)
    keys = _tiles.cdiv(_tiles.cdiv(K, splits), blocks["BLOCK_K"]) * blocks["BLOCK_K"]
    splits = _tiles.cdiv(K, keys)
    largest, total, value = (q.new_empty(splits, rows, dtype=torch.float32) for _ in range(3))
    means = q.new_empty(splits, rows, D, dtype=torch.float32)
    at = q.new_empty(splits, rows if top else 0, dtype=torch.int64)
    _softmax_kernel[row_blocks, splits](
        q, bank, scale, largest, total, means, value, at, rows, N, K, keys,
        TOP=top, **blocks,
    )  # fmt: skip
    _merge_kernel[rows,](
        q, key, scale, largest, total, means, value, at, loss, mean, best, rows, N, splits,
        D=D, TOP=top, BLOCK_D=blocks["BLOCK_D"],
    )  # fmt: skip
    return loss, mean, best


@_tiles.on_device
def backward(grad, q, key, bank, scale, top, loss, mean, best, needs):
    grad, q, key, bank, scale = _tiles.contiguous(grad, q, key, bank, scale)
    R, N, D = q.shape
    wants = _tiles.wants(GRADS, needs)
    given = dict(zip(GRADS, (q, key, bank, scale), strict=True))
    found = {name: torch.empty_like(t) if wants(name) else None for name, t in given.items()}
    blocks = _blocks(q, bank)
    if N and (wants("q") or wants("key") or wants("scale")):
        _query_grad_kernel[N,](
            grad, q, key, scale, loss, mean, found["q"], found["key"], found["scale"], N,
            R=R, D=D, BLOCK_D=blocks["BLOCK_D"],
        )  # fmt: skip
    if wants("bank"):
        # Keys are the rows here.
        blocks |= {"BLOCK_R": blocks["BLOCK_K"] // 2, "BLOCK_K": blocks["BLOCK_R"]}
        _bank_grad_kernel[_tiles.cdiv(len(bank), blocks["BLOCK_K"]),](
            grad, q, key, bank, scale, loss, found["bank"], R * N, N, len(bank),
            **blocks,
        )  # fmt: skip
    return tuple(grad.new_empty(0) if g is None else g for g in found.values())
