"""Cross-entropy of label pairs on a GPU: a launch forward (two for many logits), one backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("logits", "mix")
MAX_CLASSES = 16384
TILE = 4096  # logits at a time
ONE_PROGRAM = 2**16  # logits up to which a second launch costs more than it saves


@triton.jit
def _weights(w_ptr, k, K, ACC: tl.constexpr):
    if w_ptr is not None:
        return tl.load(w_ptr + k, mask=k < K, other=0.0).to(ACC)
    return (k < K).to(ACC)


@triton.jit
def _label(label_ptr, w_ptr, n, N, K, ACC: tl.constexpr):
    """A side's labels, whether they count, and the weights of their classes."""
    label = tl.load(label_ptr + n, mask=n < N, other=-1)
    valid = (label >= 0) & (label < K)
    if w_ptr is not None:
        w = tl.load(w_ptr + label, mask=valid, other=0.0).to(ACC)
    else:
        w = valid.to(ACC)
    return label, valid, w


@triton.jit
def _row_loss(
    z_ptr, label, valid, w, n, lse, smoothed, K, SHARP: tl.constexpr, ACC: tl.constexpr
):  # fmt: skip
    z = tl.load(z_ptr + n.to(tl.int64) * K + label, mask=valid, other=0.0).to(ACC)
    return tl.where(valid, SHARP * w * (lse - z) + smoothed, 0.0)


@triton.jit
def _mean(loss, weight):
    return tl.where(weight > 0, loss / tl.where(weight > 0, weight, 1.0), 0.0)


@triton.jit
def _finish(
    a, b, weight_a, weight_b, outside, mix_ptr, loss_ptr, notes_ptr,
    PER_SAMPLE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    first = _mean(a, weight_a)
    second = _mean(b, weight_b)
    if PER_SAMPLE:
        loss = first + second
    elif mix_ptr is not None:
        mix = tl.load(mix_ptr).to(ACC)
        loss = mix * first + (1.0 - mix) * second
    else:
        loss = first
    tl.store(loss_ptr, loss)
    tl.store(notes_ptr, first)
    tl.store(notes_ptr + 1, second)
    tl.store(notes_ptr + 2, weight_a)
    tl.store(notes_ptr + 3, weight_b)
    tl.store(notes_ptr + 4, outside)


@kernel(_tiles.VARYING)
def _mixup_cross_entropy_fwd_kernel(
    z_ptr, a_ptr, b_ptr, mix_ptr, w_ptr, lse_ptr, loss_ptr, notes_ptr, part_ptr, N, K, SPLITS,
    PER_SAMPLE: tl.constexpr, SHARP: tl.constexpr, SMOOTH: tl.constexpr, ACC: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A single program also finishes; else part[0..4, split] = sums over some rows."""
    split = tl.program_id(0)
    k = tl.arange(0, BLOCK_K)
    weights = _weights(w_ptr, k, K, ACC)
    total_weight = tl.sum(weights)
    loss_a = tl.zeros((BLOCK_N,), dtype=ACC)
    loss_b = tl.zeros((BLOCK_N,), dtype=ACC)
    weight_a = tl.zeros((BLOCK_N,), dtype=ACC)
    weight_b = tl.zeros((BLOCK_N,), dtype=ACC)
    outside = tl.zeros((BLOCK_N,), dtype=ACC)
    for n0 in range(split * BLOCK_N, N, SPLITS * BLOCK_N):
        n = n0 + tl.arange(0, BLOCK_N)
        tile = (n < N)[:, None] & (k < K)
        z = tl.load(z_ptr + n.to(tl.int64)[:, None] * K + k, mask=tile, other=0.0).to(ACC)
        z = tl.where(k < K, z, float("-inf"))
        top = tl.max(z, axis=1)
        log_sum = tl.log(tl.sum(tl.exp(z - top[:, None]), axis=1))
        smoothed = tl.zeros((BLOCK_N,), dtype=ACC)
        if SMOOTH > 0:
            distance = tl.sum(tl.where(k < K, weights * (top[:, None] - z), 0.0), axis=1)
            smoothed = SMOOTH * (total_weight * log_sum + distance)
        lse = top + log_sum
        tl.store(lse_ptr + n, lse, mask=n < N)
        label, valid, w = _label(a_ptr, w_ptr, n, N, K, ACC)
        loss = _row_loss(z_ptr, label, valid, w, n, lse, smoothed, K, SHARP, ACC)
        weight_a += w
        outside += (~valid & (n < N)).to(ACC)
        if mix_ptr is not None:
            label, valid, w = _label(b_ptr, w_ptr, n, N, K, ACC)
            other = _row_loss(z_ptr, label, valid, w, n, lse, smoothed, K, SHARP, ACC)
            weight_b += w
            outside += (~valid & (n < N)).to(ACC)
            if PER_SAMPLE:
                mix = tl.load(mix_ptr + n, mask=n < N, other=0.0).to(ACC)
                loss *= mix
                other *= 1.0 - mix
            loss_b += other
        loss_a += loss
    a = tl.sum(loss_a)
    b = tl.sum(loss_b)
    if part_ptr is None:
        _finish(
            a, b, tl.sum(weight_a), tl.sum(weight_b), tl.sum(outside), mix_ptr, loss_ptr,
            notes_ptr, PER_SAMPLE, ACC,
        )  # fmt: skip
    else:
        tl.store(part_ptr + split, a)
        tl.store(part_ptr + SPLITS + split, b)
        tl.store(part_ptr + 2 * SPLITS + split, tl.sum(weight_a))
        tl.store(part_ptr + 3 * SPLITS + split, tl.sum(weight_b))
        tl.store(part_ptr + 4 * SPLITS + split, tl.sum(outside))


@triton.jit
def _sum_of_parts(part_ptr, SPLITS, BLOCK: tl.constexpr):
    p = tl.arange(0, BLOCK)
    return tl.sum(tl.load(part_ptr + p, mask=p < SPLITS, other=0.0))


@kernel(_tiles.VARYING)
def _mixup_cross_entropy_merge_kernel(
    part_ptr, mix_ptr, loss_ptr, notes_ptr, SPLITS,
    PER_SAMPLE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    _finish(
        _sum_of_parts(part_ptr, SPLITS, BLOCK),
        _sum_of_parts(part_ptr + SPLITS, SPLITS, BLOCK),
        _sum_of_parts(part_ptr + 2 * SPLITS, SPLITS, BLOCK),
        _sum_of_parts(part_ptr + 3 * SPLITS, SPLITS, BLOCK),
        _sum_of_parts(part_ptr + 4 * SPLITS, SPLITS, BLOCK),
        mix_ptr, loss_ptr, notes_ptr, PER_SAMPLE, ACC,
    )  # fmt: skip


@triton.jit
def _scale(g, weight_ptr, ACC: tl.constexpr):
    weight = tl.load(weight_ptr).to(ACC)
    return _mean(g, weight)


@kernel(_tiles.VARYING)
def _mixup_cross_entropy_bwd_kernel(
    g_ptr, z_ptr, a_ptr, b_ptr, mix_ptr, w_ptr, lse_ptr, notes_ptr, dz_ptr, dmix_ptr, N, K,
    PER_SAMPLE: tl.constexpr, SHARP: tl.constexpr, SMOOTH: tl.constexpr, ACC: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    k = tl.arange(0, BLOCK_K)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    g = tl.load(g_ptr).to(ACC)
    scale_a = _scale(g, notes_ptr + 2, ACC)
    weights = _weights(w_ptr, k, K, ACC)
    at = n.to(tl.int64)[:, None] * K + k
    inside = (n < N)[:, None] & (k < K)
    z = tl.load(z_ptr + at, mask=inside, other=0.0).to(ACC)
    lse = tl.load(lse_ptr + n, mask=n < N, other=0.0)
    a, valid_a, weight_a = _label(a_ptr, w_ptr, n, N, K, ACC)
    share_a = tl.where(valid_a, scale_a, 0.0)
    share_b = tl.zeros((BLOCK_N,), dtype=ACC)
    if mix_ptr is not None:
        scale_b = _scale(g, notes_ptr + 3, ACC)
        b, valid_b, weight_b = _label(b_ptr, w_ptr, n, N, K, ACC)
        if PER_SAMPLE:
            mix = tl.load(mix_ptr + n, mask=n < N, other=0.0).to(ACC)
        else:
            mix = tl.load(mix_ptr).to(ACC)
        share_a *= mix
        share_b = tl.where(valid_b, scale_b, 0.0) * (1.0 - mix)
        if dmix_ptr is not None:
            if PER_SAMPLE:
                smoothed = tl.zeros((BLOCK_N,), dtype=ACC)
                if SMOOTH > 0:
                    distance = tl.where(inside, weights * (lse[:, None] - z), 0.0)
                    smoothed = SMOOTH * tl.sum(distance, axis=1)
                of_a = _row_loss(z_ptr, a, valid_a, weight_a, n, lse, smoothed, K, SHARP, ACC)
                of_b = _row_loss(z_ptr, b, valid_b, weight_b, n, lse, smoothed, K, SHARP, ACC)
                dmix = scale_a * of_a - scale_b * of_b
                tl.store(dmix_ptr + n, dmix.to(dmix_ptr.dtype.element_ty), mask=n < N)
            elif tl.program_id(0) == 0:
                dmix = g * (tl.load(notes_ptr) - tl.load(notes_ptr + 1))
                tl.store(dmix_ptr, dmix.to(dmix_ptr.dtype.element_ty))
    if dz_ptr is not None:
        along_a = share_a * SHARP * weight_a
        smooth = (share_a + share_b) * SMOOTH
        all = along_a + smooth * tl.sum(weights)
        d = tl.where(k == a[:, None], along_a[:, None], 0.0)
        if mix_ptr is not None:
            along_b = share_b * SHARP * weight_b
            all += along_b
            d += tl.where(k == b[:, None], along_b[:, None], 0.0)
        d = all[:, None] * tl.exp(z - lse[:, None]) - smooth[:, None] * weights - d
        tl.store(dz_ptr + at, d.to(dz_ptr.dtype.element_ty), mask=inside)


def supports(logits, label, label_b, mix, weight, smoothing) -> str | None:
    if logits.dtype not in _tiles.DTYPES:
        return f"no {str(logits.dtype).removeprefix('torch.')} kernel"
    if logits.shape[1] > MAX_CLASSES:
        return f"at most {MAX_CLASSES} classes, got {logits.shape[1]}"
    return None


def _tile(logits: Tensor, mix: Tensor | None, smoothing: float) -> dict:
    BLOCK_K = _tiles.pow2(logits.shape[1])
    return {
        "PER_SAMPLE": mix is not None and mix.dim() == 1,
        "SHARP": 1 - smoothing,
        "SMOOTH": smoothing / logits.shape[1],
        "ACC": _tiles.accumulator(logits),
        "BLOCK_N": _tiles.pow2(logits.shape[0], high=max(1, TILE // BLOCK_K)),
        "BLOCK_K": BLOCK_K,
        "num_warps": 8,
    }


@_tiles.on_device
def forward(logits, label, label_b, mix, weight, smoothing):
    tensors = _tiles.contiguous(logits, label, label_b, mix, weight)
    N, K = logits.shape
    acc = torch.float64 if logits.dtype == torch.float64 else torch.float32
    loss, notes = logits.new_empty((), dtype=acc), logits.new_empty(5, dtype=acc)
    lse = logits.new_empty(N, dtype=acc)
    tile = _tile(logits, mix, smoothing)
    SPLITS = 1
    if N * K > ONE_PROGRAM:
        SPLITS = _tiles.splits(logits, 1, _tiles.cdiv(N, tile["BLOCK_N"]))
    parts = None if SPLITS == 1 else logits.new_empty(5, SPLITS, dtype=acc)
    _mixup_cross_entropy_fwd_kernel[SPLITS,](
        *tensors, lse, loss, notes, parts, N, K, SPLITS, **tile
    )
    if parts is not None:
        _mixup_cross_entropy_merge_kernel[1,](
            parts, tensors[3], loss, notes, SPLITS, PER_SAMPLE=tile["PER_SAMPLE"],
            ACC=tile["ACC"], BLOCK=_tiles.pow2(SPLITS),
        )  # fmt: skip
    return loss, lse, notes


@_tiles.on_device
def backward(grad, logits, label, label_b, mix, weight, smoothing, lse, notes, needs):
    tensors = _tiles.contiguous(logits, label, label_b, mix, weight)
    N, K = logits.shape
    wants = _tiles.wants(GRADS, needs)
    dz = torch.empty_like(tensors[0]) if wants("logits") else None
    dmix = torch.empty_like(tensors[3]) if wants("mix") else None
    tile = _tile(logits, mix, smoothing)
    _mixup_cross_entropy_bwd_kernel[max(_tiles.cdiv(N, tile["BLOCK_N"]), 1),](
        grad, *tensors, lse, notes, dz, dmix, N, K, **tile
    )
    return tuple(grad.new_empty(0) if d is None else d for d in (dz, dmix))
