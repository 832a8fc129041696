"""Tokens of a skeleton: token t' V + v is joint v in the frames t' u ... t' u + u - 1 of a clip."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check

EPS = 1e-10  # of the keys of motion-guided masking


def count_tokens(op: str, x: Tensor, segment: int) -> int:
    """Tokens of clips x (N, T, V, C), whose frames have to fill whole segments."""
    if segment < 1:
        raise _check.fail(op, "a segment of at least one frame", segment)
    _, T, V, C = x.shape
    if T == 0 or T % segment:
        raise _check.fail(
            op, f"x whose frames fill segments of {segment}", _check.shape_text(x.shape)
        )
    if V == 0 or C == 0:
        raise _check.fail(op, "x with joints and channels", _check.shape_text(x.shape))
    return T // segment * V


def patches(x: Tensor, segment: int) -> Tensor:
    """Clips (N, T, V, C) -> the values of every token, (N, L, segment, C)."""
    return x.unflatten(1, (-1, segment)).transpose(2, 3).flatten(1, 2)


def scaled_motion(x: Tensor, segment: int, tau: float) -> Tensor:
    """Mean absolute motion of every token over tau times the largest of its clip, (N, L)."""
    s = x.unflatten(1, (-1, segment))
    motion = (s[:, 1:] - s[:, :-1]).abs().mean((2, 4))
    first = motion[:, :1] if s.shape[1] > 1 else s.new_zeros(s.shape[0], 1, s.shape[3])
    motion = torch.cat([first, motion], dim=1).flatten(1)
    motion = motion.where(motion.isfinite(), 0)
    return motion / (motion.amax(1, keepdim=True) * tau + EPS)


def check_ratio(op: str, mask_ratio: float) -> None:
    if not 0 <= mask_ratio <= 1:
        raise _check.fail(op, "mask_ratio in [0, 1]", mask_ratio)


def check_noise(op: str, noise: Tensor, x: Tensor, tokens: int) -> None:
    """A number per token of x (N, ...), of any floating dtype."""
    if not isinstance(noise, Tensor) or not noise.is_floating_point():
        got = noise.dtype if isinstance(noise, Tensor) else type(noise).__name__
        raise TypeError(f"{op}: expected noise of a floating dtype, got {got}")
    if noise.device != x.device:
        raise _check.fail(op, f"noise on x's device {x.device}", noise.device)
    _check.shape(op, "noise", noise, "N L", N=x.shape[0], L=tokens)


def check_integers(op: str, name: str, ids: Tensor, x: Tensor, dtype: torch.dtype) -> None:
    """A tensor of exactly this dtype on x's device."""
    if not isinstance(ids, Tensor) or ids.dtype != dtype:
        got = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"{op}: expected {name} of dtype {dtype}, got {got}")
    if ids.device != x.device:
        raise _check.fail(op, f"{name} on x's device {x.device}", ids.device)


def ranked(noise: Tensor, count: int) -> Tensor:
    """True for the ``count`` least numbers of each row; of equal ones the first, NaN last."""
    first = noise.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(noise, dtype=torch.bool).scatter(1, first, True)
