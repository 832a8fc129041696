"""Anchor-to-joint regression on a GPU: an online softmax over tiles of anchors, one read of all."""

from __future__ import annotations

import torch
import triton.language as tl

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("logits", "offset", "anchors", "extra")
MAX_JOINTS = 128
LOG2E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-3.4028234663852886e38)
VARYING = ("A", "SPLITS", "PER_SPLIT", "anchor_stride")


@kernel(VARYING)
def _anchor_regression_fwd_kernel(
    logits_ptr, offset_ptr, anchors_ptr, extra_ptr, parts_ptr, A, SPLITS, PER_SPLIT, anchor_stride,
    V: tl.constexpr, D: tl.constexpr, W: tl.constexpr, BLOCK_A: tl.constexpr,
    BLOCK_V: tl.constexpr,
):  # fmt: skip
    """parts (N, SPLITS, W + 2, V): maximum, sum of weights and W weighted sums of every joint."""
    program = tl.program_id(0).to(tl.int64)
    n = program // SPLITS
    begin = (program % SPLITS).to(tl.int32) * PER_SPLIT
    end = tl.minimum(begin + PER_SPLIT, A)
    v = tl.arange(0, BLOCK_V)
    logits_ptr += n * A * V
    offset_ptr += n * A * V * D
    anchors_ptr += n * anchor_stride
    top = tl.full((BLOCK_V,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_V,), dtype=tl.float32)
    extra = tl.zeros((BLOCK_V,), dtype=tl.float32)
    x0 = tl.zeros((BLOCK_V,), dtype=tl.float32)
    x1 = tl.zeros((BLOCK_V,), dtype=tl.float32)
    x2 = tl.zeros((BLOCK_V,), dtype=tl.float32)
    m0 = tl.zeros((BLOCK_V,), dtype=tl.float32)
    m1 = tl.zeros((BLOCK_V,), dtype=tl.float32)
    m2 = tl.zeros((BLOCK_V,), dtype=tl.float32)
    for a0 in range(begin, end, BLOCK_A):
        a = a0 + tl.arange(0, BLOCK_A)
        here = (a < end)[:, None] & (v < V)
        at = a[:, None] * V + v
        l = tl.load(logits_ptr + at, mask=here, other=float("-inf")).to(tl.float32)
        above = tl.maximum(top, tl.max(l, 0))
        factor = tl.exp2((top - above) * LOG2E)
        w = tl.exp2((l - above) * LOG2E)
        top = above
        total = total * factor + tl.sum(w, 0)
        if extra_ptr is not None:
            e = tl.load(extra_ptr + n * A * V + at, mask=here, other=0.0).to(tl.float32)
            extra = extra * factor + tl.sum(w * e, 0)
        for d in tl.static_range(D):
            place = tl.load(anchors_ptr + a * D + d, mask=a < end, other=0.0).to(tl.float32)
            o = tl.load(offset_ptr + at * D + d, mask=here, other=0.0).to(tl.float32)
            joint = tl.sum(w * (o + place[:, None]), 0)
            mean = tl.sum(w * place[:, None], 0)
            if d == 0:
                x0 = x0 * factor + joint
                m0 = m0 * factor + mean
            elif d == 1:
                x1 = x1 * factor + joint
                m1 = m1 * factor + mean
            else:
                x2 = x2 * factor + joint
                m2 = m2 * factor + mean
    parts_ptr += program * (W + 2) * V + v
    tl.store(parts_ptr, top, mask=v < V)
    tl.store(parts_ptr + V, total, mask=v < V)
    parts_ptr += 2 * V
    tl.store(parts_ptr, x0, mask=v < V)
    tl.store(parts_ptr + V, x1, mask=v < V)
    if D == 3:
        tl.store(parts_ptr + 2 * V, x2, mask=v < V)
    if extra_ptr is not None:
        tl.store(parts_ptr + D * V, extra, mask=v < V)
    parts_ptr += (W - D) * V
    tl.store(parts_ptr, m0, mask=v < V)
    tl.store(parts_ptr + V, m1, mask=v < V)
    if D == 3:
        tl.store(parts_ptr + 2 * V, m2, mask=v < V)


@kernel(VARYING)
def _anchor_regression_merge_kernel(
    parts_ptr, out_ptr, lse_ptr, SPLITS, V: tl.constexpr, W: tl.constexpr, BLOCK_V: tl.constexpr
):
    """Splits in their order; one program per sample and column of the result, the last for lse."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1)
    v = tl.arange(0, BLOCK_V)
    parts_ptr += n * SPLITS * (W + 2) * V + v
    top = tl.full((BLOCK_V,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_V,), dtype=tl.float32)
    value = tl.zeros((BLOCK_V,), dtype=tl.float32)
    for s in range(SPLITS):
        at = parts_ptr + s * (W + 2) * V
        above = tl.maximum(top, tl.load(at, mask=v < V, other=LOWEST))
        factor = tl.exp2((top - above) * LOG2E)
        share = tl.exp2((tl.load(at, mask=v < V, other=LOWEST) - above) * LOG2E)
        total = total * factor + tl.load(at + V, mask=v < V, other=0.0) * share
        column = tl.minimum(c, W - 1) + 2
        value = value * factor + tl.load(at + column * V, mask=v < V, other=0.0) * share
        top = above
    if c < W:
        tl.store(out_ptr + (n * V + v) * W + c, value / total, mask=v < V)
    else:
        tl.store(lse_ptr + n * V + v, top + tl.log(total), mask=v < V)


@kernel(VARYING)
def _anchor_regression_bwd_kernel(
    grad_ptr, logits_ptr, offset_ptr, anchors_ptr, extra_ptr, out_ptr, lse_ptr,
    dlogits_ptr, doffset_ptr, danchors_ptr, dextra_ptr, A, SPLITS, anchor_stride,
    V: tl.constexpr, D: tl.constexpr, W: tl.constexpr, BLOCK_A: tl.constexpr,
    BLOCK_V: tl.constexpr,
):  # fmt: skip
    """A tile of anchors of a sample; danchors (N, A, D)."""
    n = (tl.program_id(0) // SPLITS).to(tl.int64)
    a = tl.program_id(0) % SPLITS * BLOCK_A + tl.arange(0, BLOCK_A)
    v = tl.arange(0, BLOCK_V)
    known = v < V
    here = (a < A)[:, None] & known
    at = n * A * V + (a[:, None] * V + v)
    row = (n * V + v) * W
    l = tl.load(logits_ptr + at, mask=here, other=float("-inf")).to(tl.float32)
    lse = tl.load(lse_ptr + n * V + v, mask=known, other=0.0)
    w = tl.exp2((l - lse) * LOG2E)
    slope = tl.zeros((BLOCK_A, BLOCK_V), dtype=tl.float32)
    for d in tl.static_range(D):
        place = tl.load(
            anchors_ptr + n * anchor_stride + a * D + d, mask=a < A, other=0.0
        ).to(tl.float32)[:, None]  # fmt: skip
        o = tl.load(offset_ptr + at * D + d, mask=here, other=0.0).to(tl.float32)
        g = tl.load(grad_ptr + row + d, mask=known, other=0.0)
        mean_g = tl.load(grad_ptr + row + (W - D + d), mask=known, other=0.0)
        joint = tl.load(out_ptr + row + d, mask=known, other=0.0)
        mean = tl.load(out_ptr + row + (W - D + d), mask=known, other=0.0)
        slope += g * (o + place - joint) + mean_g * (place - mean)
        if doffset_ptr is not None:
            tl.store(doffset_ptr + at * D + d, (w * g).to(doffset_ptr.dtype.element_ty), mask=here)
        if danchors_ptr is not None:
            total = tl.sum(tl.where(here, w * (g + mean_g), 0.0), 1)
            tl.store(danchors_ptr + (n * A + a) * D + d, total, mask=a < A)
    if extra_ptr is not None:
        e = tl.load(extra_ptr + at, mask=here, other=0.0).to(tl.float32)
        g = tl.load(grad_ptr + row + D, mask=known, other=0.0)
        slope += g * (e - tl.load(out_ptr + row + D, mask=known, other=0.0))
        if dextra_ptr is not None:
            tl.store(dextra_ptr + at, (w * g).to(dextra_ptr.dtype.element_ty), mask=here)
    if dlogits_ptr is not None:
        tl.store(dlogits_ptr + at, (w * slope).to(dlogits_ptr.dtype.element_ty), mask=here)


def supports(logits, offset, anchors, extra) -> str | None:
    if logits.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(logits.dtype).removeprefix('torch.')} kernel"
    if logits.shape[2] > MAX_JOINTS:
        return f"at most {MAX_JOINTS} joints, got {logits.shape[2]}"
    if offset[:1].numel() >= 2**31:
        return f"less than {2**31} offsets per sample"
    return None


def _options(offset, extra, values: int) -> dict:
    _, _, V, D = offset.shape
    BLOCK_V = _tiles.pow2(V)
    return dict(
        V=V, D=D, W=2 * D + (extra is not None), BLOCK_A=max(1, values // BLOCK_V), BLOCK_V=BLOCK_V
    )


def _anchor_stride(anchors) -> int:
    return 0 if anchors.dim() == 2 else anchors.shape[1] * anchors.shape[2]


@_tiles.on_device
def forward(logits, offset, anchors, extra):
    logits, offset, anchors, extra = _tiles.contiguous(logits, offset, anchors, extra)
    N, A, V = logits.shape
    options = _options(offset, extra, 2048)
    W = options["W"]
    out = logits.new_empty(N, V, W, dtype=torch.float32)
    lse = logits.new_empty(N, V, dtype=torch.float32)
    if N * V == 0:
        return out, lse
    SPLITS = _tiles.splits(logits, N, _tiles.cdiv(A, options["BLOCK_A"]))
    PER_SPLIT = _tiles.cdiv(A, SPLITS)
    SPLITS = _tiles.cdiv(A, PER_SPLIT)
    parts = logits.new_empty(N, SPLITS, W + 2, V, dtype=torch.float32)
    _anchor_regression_fwd_kernel[N * SPLITS,](
        logits, offset, anchors, extra, parts, A, SPLITS, PER_SPLIT, _anchor_stride(anchors),
        **options,
    )  # fmt: skip
    _anchor_regression_merge_kernel[N, W + 1](
        parts, out, lse, SPLITS, V=V, W=W, BLOCK_V=options["BLOCK_V"], num_warps=1
    )
    return out, lse


@_tiles.on_device
def backward(grad, logits, offset, anchors, extra, out, lse, needs):
    grad, logits, offset, places, extra = _tiles.contiguous(grad, logits, offset, anchors, extra)
    N, A, V = logits.shape
    wants = _tiles.wants(GRADS, needs)
    dlogits = torch.empty_like(logits) if wants("logits") else None
    doffset = torch.empty_like(offset) if wants("offset") else None
    dextra = torch.empty_like(extra) if extra is not None and wants("extra") else None
    parts = None
    if wants("anchors"):
        parts = logits.new_empty(N, A, offset.shape[3], dtype=torch.float32)
    if N * V and needs:
        options = _options(offset, extra, 1024)
        SPLITS = _tiles.cdiv(A, options["BLOCK_A"])
        _anchor_regression_bwd_kernel[N * SPLITS,](
            grad, logits, offset, places, extra, out, lse, dlogits, doffset, parts, dextra,
            A, SPLITS, _anchor_stride(places), **options,
        )  # fmt: skip
    danchors = None
    if parts is not None:
        danchors = (parts.sum(0) if anchors.dim() == 2 else parts).to(anchors.dtype)
    found = (dlogits, doffset, danchors, dextra)
    return tuple(grad.new_empty(0) if g is None else g for g in found)
