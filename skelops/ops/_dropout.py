"""Dropout inside an op: what it takes depends on a seed, a row's number and a unit alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skelops import _check
from skelops.ops import _philox

LEVELS = 2**16  # a rate is a multiple of 1 / LEVELS
HALF = 4 * _philox.TILE  # units in a row that share no word


def checked(op: str, x: Tensor, rate: float, seed: Tensor | None) -> tuple[Tensor | None, int]:
    """Seed, drawn by torch where none is given, and the levels that ``rate`` takes; None and 0
    where it takes nothing."""
    if not 0 <= rate < 1:
        raise _check.fail(op, "dropout in [0, 1)", rate)
    if seed is not None:
        if not isinstance(seed, Tensor):
            raise TypeError(f"{op}: expected seed to be a tensor, got {type(seed).__name__}")
        if seed.dtype != torch.int64:
            raise TypeError(f"{op}: expected seed of dtype torch.int64, got {seed.dtype}")
        _check.shape(op, "seed", seed, "1", **{"1": 1})
        if seed.device != x.device:
            raise _check.fail(op, f"seed on x's device {x.device}", seed.device)
    dropped = min(round(rate * LEVELS), LEVELS - 1)
    if not dropped:
        return None, 0
    return torch.randint(2**62, (1,), device=x.device) if seed is None else seed, dropped


def kept(seed: Tensor, rows: int, count: int, dropped: int) -> Tensor:
    """(rows, count) bool: units whose 16 random bits are not less than ``dropped``.

    Of every 64 words that Philox gives for a row, the low halves are those of 64 units and the high
    halves those of the next 64.
    """
    draw = torch.arange(rows, device=seed.device)
    pairs = -(-count // (2 * HALF))
    words = _philox.words(draw, seed, 0, 0, pairs * HALF).view(rows, pairs, 1, HALF)
    halves = torch.cat([words & 0xFFFF, words >> 16], 2)
    return halves.flatten(1)[:, :count] >= dropped


def drop(x: Tensor, seed: Tensor | None, dropped: int) -> Tensor:
    """Rows of x (..., count) without the dropped units, the others scaled to keep the mean."""
    if seed is None:
        return x
    taken = ~kept(seed, math.prod(x.shape[:-1]), x.shape[-1], dropped).view(x.shape)
    return (x * (LEVELS / (LEVELS - dropped))).masked_fill(taken, 0)
