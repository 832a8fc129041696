"""Masked pre-training as its papers' code does it: all tokens, full sorts, whole targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.case import Case, Draw

V, C, T, SEGMENT, WIDTH = 25, 3, 120, 4, 256
L = T // SEGMENT * V
KEPT = int(L * (1 - 0.9))
PATCH = SEGMENT * C


@dataclass(frozen=True)
class TokenCase(Case):
    """Work on tokens of B skeletons."""

    activations: tuple[str, ...] = ("x", "noise", "ids", "mask", "z", "pred")
    quick: ClassVar[dict[str, int]] = {"B": 16}

    def small(self) -> TokenCase:
        return self.resized(B=2)


def clips(draw: Draw, B: int) -> Tensor:
    """Coordinates; data, without a gradient."""
    return draw.normal(B, T, V, C).detach()


def noise(draw: Draw, B: int, count: int = L) -> Tensor:
    return torch.rand(B, count, generator=draw.generator).to(draw.device, draw.dtype)


def order(draw: Draw, B: int) -> Tensor:
    """(B, L) a permutation per clip."""
    return torch.rand(B, L, generator=draw.generator).argsort(1).to(draw.device)


def tables(draw: Draw, prefix: str = "") -> dict[str, Tensor]:
    return {
        f"{prefix}pos": draw.normal(V, WIDTH, scale=0.02),
        f"{prefix}temp": draw.normal(T // SEGMENT, WIDTH, scale=0.02),
    }


def masking(x: Tensor, noise: Tensor, tau: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
    """-> ids_keep (B, K), mask (B, L) 1 = removed, ids_restore (B, L)"""
    B = len(x)
    s = x.reshape(B, T // SEGMENT, SEGMENT, V, C).permute(0, 1, 3, 2, 4)
    motion = torch.zeros_like(s)
    motion[:, 1:] = (s[:, 1:] - s[:, :-1]).abs()
    motion[:, 0] = motion[:, 1]
    motion = motion.mean((3, 4)).flatten(1)
    share = F.softmax(motion / (motion.max(1, keepdim=True).values * tau + 1e-10), dim=-1)
    key = share.log() - (-(noise + 1e-10).log() + 1e-10).log()
    shuffle = key.argsort(1)
    restore = shuffle.argsort(1)
    mask = torch.ones_like(key)
    mask[:, :KEPT] = 0
    return shuffle[:, :KEPT], mask.gather(1, restore), restore


def embedding_of_all(x: Tensor, weight: Tensor, bias: Tensor, pos: Tensor, temp: Tensor) -> Tensor:
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride=(SEGMENT, 1)).permute(0, 2, 3, 1)
    return (y + pos[None, None] + temp[None, :, None]).flatten(1, 2)


def embedding(
    x: Tensor, weight: Tensor, bias: Tensor, pos: Tensor, temp: Tensor, ids: Tensor
) -> Tensor:
    y = embedding_of_all(x, weight, bias, pos, temp)
    return y.gather(1, ids[..., None].expand(-1, -1, WIDTH))


def restoring(z: Tensor, mask_token: Tensor, ids: Tensor, pos: Tensor, temp: Tensor) -> Tensor:
    B = len(z)
    y = torch.cat([z, mask_token.repeat(B, L - z.shape[1], 1)], dim=1)
    y = y.gather(1, ids[..., None].expand(-1, -1, WIDTH)).view(B, T // SEGMENT, V, WIDTH)
    return (y + pos[None, None] + temp[None, :, None]).flatten(1, 2)


def target(x: Tensor) -> Tensor:
    motion = torch.zeros_like(x)
    motion[:, :-1] = x[:, 1:] - x[:, :-1]
    y = motion.view(len(x), T // SEGMENT, SEGMENT, V, C).permute(0, 1, 3, 2, 4)
    y = y.reshape(len(x), L, PATCH)
    return (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 1e-6) ** 0.5


def loss(x: Tensor, pred: Tensor, removed: Tensor) -> Tensor:
    error = ((pred - target(x)) ** 2).mean(-1)
    return (error * removed).sum() / removed.sum()
