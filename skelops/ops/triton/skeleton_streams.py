"""Streams of clips on a GPU: neighbours of a value come out of the cache, one launch each way."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton.language as tl
from torch import Tensor

from skelops.ops.sample_clips import MOTION
from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

BLOCK = 1024


@kernel((*_tiles.VARYING, "C"))
def _skeleton_streams_fwd_kernel(
    x_ptr, parent_ptr, part_ptr, out_ptr, C, T, V: tl.constexpr, W: tl.constexpr, M: tl.constexpr,
    S: tl.constexpr, MOVING: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Planes are (n, c); bit s of MOVING tells that stream s is motion."""
    plane = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    w, m, t = i // M % W, i % M, i // (W * M)
    inside = i < T * W * M
    last = t == T - 1
    here = x_ptr + plane * T * V * M + (t * V * M + m)
    at = here + tl.load(part_ptr + w) * M
    to = out_ptr + (plane // C * S * C + plane % C) * T * W * M + i
    now = tl.load(at, mask=inside, other=0.0).to(ACC)
    if MOVING:
        following = tl.load(at + V * M, mask=inside & ~last, other=0.0).to(ACC)
    for s in tl.static_range(S):
        parent = tl.load(parent_ptr + s * W + w)
        linked = inside & (parent >= 0)
        y = now - tl.load(here + parent * M, mask=linked, other=0.0).to(ACC)
        if (MOVING >> s) & 1:
            there = here + parent * M + V * M
            y = following - tl.load(there, mask=linked & ~last, other=0.0).to(ACC) - y
            y = tl.where(last, 0.0, y)
        tl.store(to, y.to(out_ptr.dtype.element_ty), mask=inside)
        to += C.to(tl.int64) * T * W * M


@kernel((*_tiles.VARYING, "C"))
def _skeleton_streams_bwd_kernel(
    grad_ptr, entry_ptr, dx_ptr, C, T, V: tl.constexpr, W: tl.constexpr, M: tl.constexpr,
    S: tl.constexpr, MOVING: tl.constexpr, DEGREE, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Every joint collects the values that it is in; see ``_tables``."""
    plane = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    v, m, t = i // M % V, i % M, i // (V * M)
    inside = i < T * V * M
    first = grad_ptr + (plane // C * S * C + plane % C) * T * W * M + (t * W * M + m)
    total = tl.zeros((BLOCK,), dtype=ACC)
    for k in range(DEGREE):
        entry = tl.load(entry_ptr + k * V + v)
        used = inside & (entry >= 0)
        s, w = entry // 2 // W, entry // 2 % W
        moving = ((MOVING >> s) & 1) == 1
        at = first + s.to(tl.int64) * C * T * W * M + w * M
        here = tl.load(at, mask=used & ~(moving & (t == T - 1)), other=0.0).to(ACC)
        before = tl.load(at - W * M, mask=used & moving & (t > 0), other=0.0).to(ACC)
        term = tl.where(moving, before - here, here)
        total += tl.where(entry % 2 == 1, -term, term)
    tl.store(dx_ptr + plane * T * V * M + i, total.to(dx_ptr.dtype.element_ty), mask=inside)


@lru_cache(maxsize=64)
def _tables(
    parent: tuple[int, ...], part: tuple[int, ...], V: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Parents, part, and (degree, V) the values of streams that each joint is in: twice the value
    s * W + w, plus one where the joint is subtracted; -1 behind the last."""
    W = len(part)
    found: list[list[int]] = [[] for _ in range(V)]
    for i, p in enumerate(parent):
        if p != part[i % W]:
            found[part[i % W]].append(2 * i)
            if p >= 0:
                found[p].append(2 * i + 1)
    degree = max(map(len, found))
    rows = [[e[k] if k < len(e) else -1 for e in found] for k in range(degree)]
    lists = (parent, part, rows)
    return tuple(torch.tensor(t, dtype=torch.int32, device=device) for t in lists)


def _moving(kinds: list[int]) -> int:
    return sum((kind & MOTION) << s for s, kind in enumerate(kinds))


def supports(x, parent, part, kinds, dtype) -> str | None:
    if x.dtype not in _tiles.DTYPES:
        return f"no {str(x.dtype).removeprefix('torch.')} kernel"
    if x.shape[2] * max(x.shape[3], len(part)) * x.shape[4] >= _tiles.MAX_PLANE:
        return f"less than {_tiles.MAX_PLANE} values per channel and sample"
    return "at most 31 streams" if len(kinds) > 31 else None


@_tiles.on_device
def forward(x: Tensor, parent, part, kinds, dtype) -> Tensor:
    x = x.contiguous()
    N, C, T, V, M = x.shape
    W, S = len(part), len(kinds)
    out = x.new_empty(N, S * C, T, W, M, dtype=dtype)
    if out.numel():
        parents, joints, _ = _tables(tuple(parent), tuple(part), V, x.device)
        _skeleton_streams_fwd_kernel[N * C, _tiles.cdiv(T * W * M, BLOCK)](
            x, parents, joints, out, C, T, V=V, W=W, M=M, S=S, MOVING=_moving(kinds),
            ACC=_tiles.accumulator(x), BLOCK=BLOCK,
        )  # fmt: skip
    return out


@_tiles.on_device
def backward(grad_out: Tensor, x: Tensor, parent, part, kinds, dtype, needs: int) -> Tensor:
    if not needs:
        return x.new_empty(0)
    grad_out = grad_out.contiguous()
    N, C, T, V, M = x.shape
    W, S = len(part), len(kinds)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    if dx.numel():
        entries = _tables(tuple(parent), tuple(part), V, x.device)[2]
        _skeleton_streams_bwd_kernel[N * C, _tiles.cdiv(T * V * M, BLOCK)](
            grad_out, entries, dx, C, T, V=V, W=W, M=M, S=S, MOVING=_moving(kinds),
            DEGREE=len(entries), ACC=_tiles.accumulator(x), BLOCK=BLOCK,
        )  # fmt: skip
    return dx
