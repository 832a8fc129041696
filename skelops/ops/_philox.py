"""Philox4x32-10, the counter-based generator behind every random number of the input pipeline.

Source: Salmon, Moraes, Dror, Shaw, *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
TILE = 16  # consecutive blocks whose first words are neighbours in memory, then their second words


def _product(a: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of the 64-bit product, without leaving int64."""
    low, high = a * (multiplier & 0xFFFF), a * (multiplier >> 16)
    return (high + (low >> 16)) >> 16, (a * multiplier) & _MASK


def words(draw: Tensor, seed: int | Tensor, epoch: int, stream: int, count: int) -> Tensor:
    """(N, count) int64 in [0, 2^32): words of the blocks with counter (block, stream, draw, epoch).

    Word i is word ``(i // 16) % 4`` of block ``16 (i // 64) + i % 16``.

    Args:
        draw: (N,) int64; the low 32 bits count.
        seed: 64-bit key.
        epoch, stream: 32-bit counters.
        count: words per draw.
    """
    blocks = (count + 4 * TILE - 1) // (4 * TILE) * TILE
    block = torch.arange(blocks, device=draw.device).expand(len(draw), blocks)
    zero = torch.zeros_like(block)
    c0, c1, c2, c3 = block, zero + (stream & _MASK), zero + (draw[:, None] & _MASK), zero + epoch
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    tiles = torch.stack([c0, c1, c2, c3], dim=1).unflatten(2, (-1, TILE))
    return tiles.transpose(1, 2).flatten(1)[:, :count]


def uniform(draw: Tensor, seed: int | Tensor, epoch: int, stream: int, count: int) -> Tensor:
    """(N, count) float32 in [0, 1), multiples of 2^-24."""
    return (words(draw, seed, epoch, stream, count) >> 8).float() * 2.0**-24


def normal(draw: Tensor, seed: int | Tensor, epoch: int, stream: int, count: int) -> Tensor:
    """(N, count) float64, standard normal: Box-Muller on words (0, 1) and (2, 3) of each block."""
    tiles = -(-count // (4 * TILE))
    drawn = words(draw, seed, epoch, stream, 4 * TILE * tiles)
    u = (drawn >> 8).view(len(draw), tiles, 2, 2, TILE).double()
    radius = (-2 * ((u[:, :, :, 0] + 1) * 2.0**-24).log()).sqrt()
    angle = 2 * torch.pi * 2.0**-24 * u[:, :, :, 1]
    pair = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=3)
    return pair.view(len(draw), 4 * TILE * tiles)[:, :count]
