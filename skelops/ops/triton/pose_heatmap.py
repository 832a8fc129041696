"""Heat-maps of poses on a GPU: every pixel is written once, by the person it shows."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles
from skelops.ops.triton._launch import kernel

GRADS = ("keypoint", "score")
PARTS = 6  # gradients of a mark: x and y of both ends, and both scores


@triton.jit
def _box(a, b, REACH: tl.constexpr, SIZE: tl.constexpr):
    """Pixels from the first to behind the last, along one axis. Conversion to integers truncates
    towards zero, as published: a joint may show pixel 0 from further outside than any other."""
    low = tl.minimum(tl.maximum(tl.minimum(a, b) - REACH, 0.0), SIZE)
    high = tl.minimum(tl.maximum(tl.maximum(a, b) + REACH, -1.0), SIZE)
    return low.to(tl.int32), tl.minimum(high.to(tl.int32) + 1, SIZE)


@triton.jit
def _mark(
    keypoint_ptr, score_ptr, pair_ptr, person, turned, K, k, eps,
    H: tl.constexpr, W: tl.constexpr, REACH: tl.constexpr, MIRROR_PIXELS: tl.constexpr,
):  # fmt: skip
    """What a person leaves on map k: one end, the way to the other, peak, box, whether it is drawn,
    and whether the first end scores it. ``person`` is the index of their first joint."""
    table = pair_ptr + (turned * K + k) * 2
    a = person + tl.load(table)
    b = person + tl.load(table + 1)
    score_a = tl.load(score_ptr + a).to(tl.float32)
    score_b = tl.load(score_ptr + b).to(tl.float32)
    ax = tl.load(keypoint_ptr + 2 * a).to(tl.float32)
    ay = tl.load(keypoint_ptr + 2 * a + 1).to(tl.float32)
    bx = tl.load(keypoint_ptr + 2 * b).to(tl.float32)
    by = tl.load(keypoint_ptr + 2 * b + 1).to(tl.float32)
    # What is not finite differs from itself once it is taken off itself.
    finite = (ax - ax == 0) & (ay - ay == 0) & (bx - bx == 0) & (by - by == 0)
    drawn = (score_a >= eps) & (score_b >= eps) & finite
    ax, ay = tl.where(drawn, ax, 0.0), tl.where(drawn, ay, 0.0)
    bx, by = tl.where(drawn, bx, 0.0), tl.where(drawn, by, 0.0)
    if not MIRROR_PIXELS:
        ax = tl.where((turned != 0) & (ax != 0), W - ax, ax)
        bx = tl.where((turned != 0) & (bx != 0), W - bx, bx)
    length = (ax - bx) * (ax - bx) + (ay - by) * (ay - by)
    point = length < 1
    bx, by = tl.where(point, ax, bx), tl.where(point, ay, by)
    by_first = point | (score_a <= score_b)
    peak = tl.where(by_first, score_a, score_b)
    x0, x1 = _box(ax, bx, REACH, W)
    y0, y1 = _box(ay, by, REACH, H)
    drawn = drawn & (x0 < x1) & (y0 < y1)
    if MIRROR_PIXELS:
        x0, x1 = tl.where(turned != 0, W - x1, x0), tl.where(turned != 0, W - x0, x1)
    peak = tl.where(drawn, peak, 0.0)  # what is not drawn covers nothing
    per_length = tl.where(point, 0.0, 1.0 / tl.where(point, 1.0, length))
    return ax, ay, bx - ax, by - ay, per_length, peak, x0, x1, y0, y1, drawn, by_first


@triton.jit
def _offset(
    column, row, turned, ax, ay, dx, dy, per_length, W: tl.constexpr, MIRROR_PIXELS: tl.constexpr
):
    """Where on the segment the point nearest to a pixel is, and the way from there."""
    if MIRROR_PIXELS:
        column = tl.where(turned != 0, W - 1 - column, column)
    rx, ry = column - ax, row - ay
    along = tl.minimum(tl.maximum((rx * dx + ry * dy) * per_length, 0.0), 1.0)
    return along, rx - along * dx, ry - along * dy


@kernel((*_tiles.VARYING, "K", "M"))
def _pose_heatmap_fwd_kernel(
    keypoint_ptr, score_ptr, flip_ptr, pair_ptr, out_ptr, K, T, M, eps,
    V: tl.constexpr, H: tl.constexpr, W: tl.constexpr, REACH: tl.constexpr,
    STEEPNESS: tl.constexpr, MIRROR_PIXELS: tl.constexpr,
    BYTES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Planes are (n, k, t)."""
    plane = tl.program_id(0).to(tl.int64)
    t, k, n = plane % T, plane // T % K, plane // T // K
    first = tl.program_id(1) * BLOCK
    i = first + tl.arange(0, BLOCK)
    column, row = i % W, i // W
    turned = tl.full((), 0, tl.int32)
    if flip_ptr is not None:
        turned = tl.load(flip_ptr + n).to(tl.int32)
    shown = tl.zeros((BLOCK,), dtype=tl.float32)
    for m in range(M):
        person = ((n * M + m) * T + t) * V
        ax, ay, dx, dy, per_length, peak, x0, x1, y0, y1, drawn, _by_first = _mark(
            keypoint_ptr, score_ptr, pair_ptr, person, turned, K, k, eps, H, W, REACH,
            MIRROR_PIXELS,
        )  # fmt: skip
        if drawn & (y0 * W < first + BLOCK) & (y1 * W > first):
            _along, ex, ey = _offset(
                column, row, turned, ax, ay, dx, dy, per_length, W, MIRROR_PIXELS
            )
            value = peak * tl.exp(-STEEPNESS * (ex * ex + ey * ey))
            inside = (column >= x0) & (column < x1) & (row >= y0) & (row < y1)
            shown = tl.maximum(shown, tl.where(inside, value, 0.0))
    if BYTES:
        shown = tl.minimum(255 * shown + 0.5, 255.0)
    tl.store(out_ptr + plane * H * W + i, shown.to(out_ptr.dtype.element_ty), mask=i < H * W)


@kernel((*_tiles.VARYING, "K", "M"))
def _pose_heatmap_bwd_kernel(
    grad_ptr, keypoint_ptr, score_ptr, flip_ptr, pair_ptr, part_ptr, K, T, M, eps,
    V: tl.constexpr, H: tl.constexpr, W: tl.constexpr, REACH: tl.constexpr,
    STEEPNESS: tl.constexpr, MIRROR_PIXELS: tl.constexpr,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of the mark that person m leaves on plane (n, k, t), within its box."""
    plane = tl.program_id(0).to(tl.int64)
    own = tl.program_id(1)
    t, k, n = plane % T, plane // T % K, plane // T // K
    turned = tl.full((), 0, tl.int32)
    if flip_ptr is not None:
        turned = tl.load(flip_ptr + n).to(tl.int32)
    person = ((n * M + own) * T + t) * V
    ax, ay, dx, dy, per_length, peak, x0, x1, y0, y1, drawn, by_first = _mark(
        keypoint_ptr, score_ptr, pair_ptr, person, turned, K, k, eps, H, W, REACH,
        MIRROR_PIXELS,
    )  # fmt: skip
    of_ax = tl.zeros((BLOCK,), dtype=tl.float32)
    of_ay, of_bx, of_by, of_peak = of_ax, of_ax, of_ax, of_ax
    width = tl.maximum(x1 - x0, 1)
    pixels = tl.where(drawn, width * (y1 - y0), 0)
    for start in range(0, pixels, BLOCK):
        i = start + tl.arange(0, BLOCK)
        column, row = x0 + i % width, y0 + i // width
        along, ex, ey = _offset(column, row, turned, ax, ay, dx, dy, per_length, W, MIRROR_PIXELS)
        weight = tl.exp(-STEEPNESS * (ex * ex + ey * ey))
        mine = i < pixels
        for m in range(M):
            other = ((n * M + m) * T + t) * V
            qx, qy, rx, ry, per, top, u0, u1, v0, v1, _drawn, _first = _mark(
                keypoint_ptr, score_ptr, pair_ptr, other, turned, K, k, eps, H, W, REACH,
                MIRROR_PIXELS,
            )  # fmt: skip
            _nearest, fx, fy = _offset(column, row, turned, qx, qy, rx, ry, per, W, MIRROR_PIXELS)
            value = top * tl.exp(-STEEPNESS * (fx * fx + fy * fy))
            over = (column >= u0) & (column < u1) & (row >= v0) & (row < v1)
            wins = (value > peak * weight) | ((value == peak * weight) & (m < own))
            mine = mine & ((m == own) | ~(over & wins))
        at = grad_ptr + plane * H * W + row * W + column
        g = tl.load(at, mask=mine, other=0.0).to(tl.float32) * weight
        of_peak += g
        g *= 2 * STEEPNESS * peak
        of_ax += g * (1 - along) * ex
        of_ay += g * (1 - along) * ey
        of_bx += g * along * ex
        of_by += g * along * ey
    sign = 1.0
    if not MIRROR_PIXELS:
        sign = tl.where(turned != 0, -1.0, 1.0)
    to = part_ptr + (plane * M + own) * PARTS
    tl.store(to, sign * tl.sum(of_ax))
    tl.store(to + 1, tl.sum(of_ay))
    tl.store(to + 2, sign * tl.sum(of_bx))
    tl.store(to + 3, tl.sum(of_by))
    total = tl.sum(of_peak)
    tl.store(to + 4, tl.where(by_first, total, 0.0))
    tl.store(to + 5, tl.where(by_first, 0.0, total))


@kernel((*_tiles.VARYING, "K", "M"))
def _pose_heatmap_collect_kernel(
    part_ptr, flip_ptr, pair_ptr, dkeypoint_ptr, dscore_ptr, K, T, M,
    V: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Joints (n, m, t, v) sum up the marks that they are an end of."""
    body = tl.program_id(0).to(tl.int64)
    v = tl.arange(0, BLOCK)
    t, m, n = body % T, body // T % M, body // T // M
    turned = tl.full((), 0, tl.int32)
    if flip_ptr is not None:
        turned = tl.load(flip_ptr + n).to(tl.int32)
    of_x = tl.zeros((BLOCK,), dtype=tl.float32)
    of_y, of_score = of_x, of_x
    for k in range(K):
        at = part_ptr + (((n * K + k) * T + t) * M + m) * PARTS
        table = pair_ptr + (turned * K + k) * 2
        is_a, is_b = v == tl.load(table), v == tl.load(table + 1)
        of_x += tl.where(is_a, tl.load(at), 0.0) + tl.where(is_b, tl.load(at + 2), 0.0)
        of_y += tl.where(is_a, tl.load(at + 1), 0.0) + tl.where(is_b, tl.load(at + 3), 0.0)
        of_score += tl.where(is_a, tl.load(at + 4), 0.0) + tl.where(is_b, tl.load(at + 5), 0.0)
    to = body * V + v
    tl.store(dkeypoint_ptr + 2 * to, of_x.to(dkeypoint_ptr.dtype.element_ty), mask=v < V)
    tl.store(dkeypoint_ptr + 2 * to + 1, of_y.to(dkeypoint_ptr.dtype.element_ty), mask=v < V)
    tl.store(dscore_ptr + to, of_score.to(dscore_ptr.dtype.element_ty), mask=v < V)


@lru_cache(maxsize=64)
def _table(pairs: tuple[int, ...], flipped: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor([pairs, flipped], dtype=torch.int32, device=device)


def supports(
    keypoint, score, flip, pairs, flipped, height, width, sigma, eps, mirror_pixels, dtype
) -> str | None:
    if keypoint.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(keypoint.dtype).removeprefix('torch.')} kernel"
    if height * width >= _tiles.MAX_PLANE:
        return f"less than {_tiles.MAX_PLANE} pixels per map"
    return None


def _gaussian(sigma: float) -> dict[str, float]:
    return {"REACH": 3 * sigma, "STEEPNESS": 1 / (2 * sigma**2)}


def _arguments(keypoint, score, flip, pairs, flipped):
    keypoint, score, flip = _tiles.contiguous(keypoint, score, flip)
    return keypoint, score, flip, _table(tuple(pairs), tuple(flipped), keypoint.device)


@_tiles.on_device
def forward(
    keypoint, score, flip, pairs, flipped, height, width, sigma, eps, mirror_pixels, dtype
) -> Tensor:
    given = _arguments(keypoint, score, flip, pairs, flipped)
    N, M, T, V, _ = keypoint.shape
    K = len(pairs) // 2
    out = keypoint.new_empty(N, K, T, height, width, dtype=dtype)
    if out.numel():
        BLOCK = _tiles.pow2(height * width, 128, 2048)
        _pose_heatmap_fwd_kernel[N * K * T, _tiles.cdiv(height * width, BLOCK)](
            *given, out, K, T, M, eps, V=V, H=height, W=width, **_gaussian(sigma),
            MIRROR_PIXELS=mirror_pixels, BYTES=dtype == torch.uint8, BLOCK=BLOCK,
        )  # fmt: skip
    return out


@_tiles.on_device
def backward(
    grad, keypoint, score, flip, pairs, flipped, height, width, sigma, eps, mirror_pixels, dtype,
    needs,
):  # fmt: skip
    given = _arguments(keypoint, score, flip, pairs, flipped)
    N, M, T, V, _ = keypoint.shape
    K = len(pairs) // 2
    dkeypoint, dscore = (torch.empty_like(x) for x in given[:2])
    if dscore.numel():
        parts = keypoint.new_empty(N * K * T, M, PARTS, dtype=torch.float32)
        _pose_heatmap_bwd_kernel[N * K * T, M](
            grad.contiguous(), *given, parts, K, T, M, eps, V=V, H=height, W=width,
            **_gaussian(sigma), MIRROR_PIXELS=mirror_pixels, PARTS=PARTS, BLOCK=64, num_warps=2,
        )  # fmt: skip
        _pose_heatmap_collect_kernel[N * M * T,](
            parts, *given[2:], dkeypoint, dscore, K, T, M, V=V, PARTS=PARTS,
            BLOCK=_tiles.pow2(V), num_warps=1,
        )  # fmt: skip
    wants = _tiles.wants(GRADS, needs)
    empty = keypoint.new_empty(0)
    return dkeypoint if wants("keypoint") else empty, dscore if wants("score") else empty
