"""Target values of tokens on a GPU: motion or coordinates, standardised or not, in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from skelops.ops.triton import _tiles

MAX_VALUES = 128


@triton.jit
def frames_of(l, T, V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr, BLOCK_P: tl.constexpr):
    """Frame and offset in its clip of every value of tokens l, (token, value)."""
    p = tl.arange(0, BLOCK_P)
    frame = (l // V * SEGMENT)[:, None] + p // C
    return frame, frame * (V * C) + ((l % V * C)[:, None] + p % C)


@triton.jit
def target(
    clip_ptr, l, inside, T, stride, V: tl.constexpr, C: tl.constexpr, SEGMENT: tl.constexpr,
    MOTION: tl.constexpr, NORMALISE: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Values of tokens l (token, value), zero outside, and 1 / sqrt(var + eps)."""
    P: tl.constexpr = SEGMENT * C
    frame, at = frames_of(l, T, V, C, SEGMENT, BLOCK_P)
    here = inside[:, None] & (tl.arange(0, BLOCK_P) < P)
    scale = tl.full((l.shape[0], 1), 1.0, tl.float32)
    if MOTION:
        moving = here & (frame + stride < T)
        y = tl.load(clip_ptr + at, mask=moving, other=0.0).to(tl.float32)
        later = tl.load(clip_ptr + (at + stride * (V * C)), mask=moving, other=0.0)
        y = later.to(tl.float32) - y
    else:
        y = tl.load(clip_ptr + at, mask=here, other=0.0).to(tl.float32)
    if NORMALISE:
        y = tl.where(here, y - tl.sum(y, 1)[:, None] / P, 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(y * y, 1) / (P - 1) + 1e-6)[:, None]
        y = y * scale
    return y, scale


@triton.jit
def store_grad(
    dy_ptr, grad, y, scale, l, inside, T, stride, V: tl.constexpr, C: tl.constexpr,
    SEGMENT: tl.constexpr, MOTION: tl.constexpr, NORMALISE: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """From the gradient of tokens to that of the motion of every frame of their clip."""
    P: tl.constexpr = SEGMENT * C
    frame, at = frames_of(l, T, V, C, SEGMENT, BLOCK_P)
    here = inside[:, None] & (tl.arange(0, BLOCK_P) < P)
    if NORMALISE:
        mean = tl.sum(grad, 1)[:, None] / P
        along = tl.sum(grad * y, 1)[:, None] / (P - 1)
        grad = (grad - mean - y * along) * scale
    if MOTION:
        grad = tl.where(frame + stride < T, grad, 0.0)
    tl.store(dy_ptr + at, grad, mask=here)


def grad_of_clip(dy: Tensor, stride: int) -> Tensor:
    """From the gradient of the motion of every frame to that of the frames, (N, T, V, C)."""
    if stride == 0:
        return dy
    T = dy.shape[1]
    lag = min(stride, T)
    later = torch.nn.functional.pad(dy, (0, 0, 0, 0, lag, 0))[:, :T]
    return later - dy


def options(x: Tensor, segment: int, stride: int, normalise: bool) -> dict:
    V, C = x.shape[2:]
    return dict(
        V=V, C=C, SEGMENT=segment, MOTION=stride > 0, NORMALISE=normalise,
        BLOCK_P=_tiles.pow2(segment * C),
    )  # fmt: skip


def unsupported(x: Tensor, segment: int) -> str | None:
    values = segment * x.shape[3]
    if values > MAX_VALUES:
        return f"at most {MAX_VALUES} values per token, got {values}"
    if x[:1].numel() >= _tiles.MAX_PLANE:
        return f"less than {_tiles.MAX_PLANE} values per clip"
    return _tiles.unsupported(x, joints=None)


def block(tokens: int, x: Tensor, segment: int) -> int:
    """Tokens per program."""
    return _tiles.pow2(tokens, high=max(1, 2048 // _tiles.pow2(segment * x.shape[3])))
