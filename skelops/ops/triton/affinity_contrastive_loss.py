"""Contrast with chosen negatives on a GPU: products by the library, and one program per sample.

A program reads the row of scores twice: for the sum over the negatives, and for the positives.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("feature", "memory")
VARYING = ("N", "K", "CLASSES")
BLOCK_K = 1024


@triton.jit
def _roles(label_ptr, memory_label_ptr, affinity_ptr, n, k, N, K, CLASSES, OWN: tl.constexpr):
    """Of rows k of the memory: whether they count at all, are positives, are negatives."""
    label = tl.load(label_ptr + n)
    other = tl.load(memory_label_ptr + k, mask=k < K, other=-1)
    present = (other >= 0) & (label >= 0)
    positive = present & (other == label)
    if affinity_ptr is None:
        negative = present & (other != label)
    else:
        known = present & (label < CLASSES) & (other < CLASSES)
        near = tl.load(affinity_ptr + label * CLASSES + other, mask=known, other=0)
        negative = known & (near != 0)
    if OWN:
        self = k == K - N + n
        positive = positive & ~self
        negative = negative & ~self
    return present, positive, negative


@kernel(VARYING)
def _affinity_loss_fwd_kernel(
    s_ptr, label_ptr, memory_label_ptr, affinity_ptr, tau_ptr, loss_ptr, notes_ptr,
    N, K, CLASSES, margin, log_eps,
    OWN: tl.constexpr, EPS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Loss and notes of a sample; s becomes the scores at its temperature."""
    n = tl.program_id(0).to(tl.int64)
    s_ptr += n * K
    tau = tl.load(tau_ptr + n).to(tl.float32)
    low = float("-inf")
    most = tl.full((BLOCK_K,), low, dtype=tl.float32)
    top = tl.full((BLOCK_K,), low, dtype=tl.float32)
    total = tl.zeros((BLOCK_K,), dtype=tl.float32)
    for k0 in range(0, K, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        s = tl.load(s_ptr + k, mask=k < K, other=0.0) / tau
        present, _, negative = _roles(
            label_ptr, memory_label_ptr, affinity_ptr, n, k, N, K, CLASSES, OWN
        )
        most = tl.maximum(most, tl.where(present, s, low))
        new = tl.maximum(top, tl.where(negative, s, low))
        finite = tl.where(new == low, 0.0, new)
        total = total * tl.exp(top - finite) + tl.where(negative, tl.exp(s - finite), 0.0)
        top = new
    highest = tl.max(top, 0)
    if EPS:
        extra = tl.max(most, 0) + log_eps
        highest = tl.maximum(highest, extra)
    finite = tl.where(highest == low, 0.0, highest)
    sum = tl.sum(total * tl.exp(top - finite), 0)
    if EPS:
        sum += tl.exp(extra - finite)
    lse = tl.where(sum == 0.0, low, finite + tl.log(tl.where(sum == 0.0, 1.0, sum)))

    loss = tl.zeros((BLOCK_K,), dtype=tl.float32)
    pull = tl.zeros((BLOCK_K,), dtype=tl.float32)
    count = tl.zeros((BLOCK_K,), dtype=tl.float32)
    for k0 in range(0, K, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        s = tl.load(s_ptr + k, mask=k < K, other=0.0) / tau
        tl.store(s_ptr + k, s, mask=k < K)
        _, positive, _ = _roles(label_ptr, memory_label_ptr, affinity_ptr, n, k, N, K, CLASSES, OWN)
        z = lse - s + margin
        e = tl.exp(-tl.abs(z))  # 0 for an infinite z, either way
        excess = tl.maximum(z, 0.0) + tl.log(1.0 + e) - margin
        loss += tl.where(positive, excess, 0.0)
        pull += tl.where(positive, tl.where(z >= 0, 1.0, e) / (1.0 + e), 0.0)
        count += positive.to(tl.float32)
    positives = tl.sum(count, 0)
    share = tl.where(positives > 0, 1.0 / tl.maximum(positives, 1.0), 0.0)
    tl.store(loss_ptr + n, share * tl.sum(loss, 0))
    tl.store(notes_ptr + n, lse)
    tl.store(notes_ptr + N + n, share * tl.sum(pull, 0))
    tl.store(notes_ptr + 2 * N + n, share)


@kernel(VARYING)
def _affinity_loss_bwd_kernel(
    g_ptr, s_ptr, label_ptr, memory_label_ptr, affinity_ptr, tau_ptr, notes_ptr, ds_ptr,
    N, K, CLASSES, margin,
    OWN: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Gradient of the products behind the scores of a sample."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    s = tl.load(s_ptr + n * K + k, mask=k < K, other=0.0)
    lse = tl.load(notes_ptr + n)
    scale = tl.load(g_ptr + n).to(tl.float32) / tl.load(tau_ptr + n).to(tl.float32)
    push = scale * tl.load(notes_ptr + N + n)
    pull = scale * tl.load(notes_ptr + 2 * N + n)
    _, positive, negative = _roles(
        label_ptr, memory_label_ptr, affinity_ptr, n, k, N, K, CLASSES, OWN
    )
    d = tl.where(negative, push * tl.exp(tl.where(negative, s - lse, 0.0)), 0.0)
    z = lse - s + margin
    e = tl.exp(-tl.abs(z))
    d -= tl.where(positive, pull * tl.where(z >= 0, 1.0, e) / (1.0 + e), 0.0)
    tl.store(ds_ptr + n * K + k, d, mask=k < K)


def supports(feature, memory, label, memory_label, affinity, temperature, margin, eps, own):
    if feature.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(feature.dtype).removeprefix('torch.')} kernel"
    return None


def _full(x: Tensor) -> Tensor:
    """In the precision that scores need, which differ by hundredths."""
    return x.float()


def _common(affinity, own, K) -> tuple[int, dict]:
    """(classes, constants)"""
    return 0 if affinity is None else affinity.shape[0], {
        "OWN": own,
        "BLOCK_K": _tiles.pow2(K, high=BLOCK_K),
    }


@_tiles.on_device
def forward(feature, memory, label, memory_label, affinity, temperature, margin, eps, own):
    roles = _tiles.contiguous(label, memory_label, affinity, temperature)
    N, K = feature.shape[0], memory.shape[0]
    # Into a given tensor: autocast leaves such products alone.
    scores = feature.new_empty(N, K, dtype=torch.float32)
    torch.mm(_full(feature), _full(memory).T, out=scores)
    loss, notes = scores.new_empty(N), scores.new_empty(3, N)
    classes, constants = _common(affinity, own, K)
    if N:
        log_eps = math.log(eps) if eps > 0 else 0.0
        _affinity_loss_fwd_kernel[N,](
            scores, *roles, loss, notes, N, K, classes, margin, log_eps, EPS=eps > 0, **constants
        )
    return loss, scores, notes


@_tiles.on_device
def backward(
    grad, feature, memory, label, memory_label, affinity, temperature, margin, eps, own, scores,
    notes, needs,
):  # fmt: skip
    grad, scores, notes = _tiles.contiguous(grad, scores, notes)
    roles = _tiles.contiguous(label, memory_label, affinity, temperature)
    N, K = scores.shape
    wants = _tiles.wants(GRADS, needs)
    ds = torch.empty_like(scores)
    classes, constants = _common(affinity, own, K)
    if ds.numel():
        _affinity_loss_bwd_kernel[N, _tiles.cdiv(K, constants["BLOCK_K"])](
            grad, scores, *roles, notes, ds, N, K, classes, margin, **constants
        )
    none = grad.new_empty(0)
    return (
        (ds @ _full(memory)).to(feature.dtype) if wants("feature") else none,
        (ds.T @ _full(feature)).to(memory.dtype) if wants("memory") else none,
    )
