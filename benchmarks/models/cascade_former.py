"""Layers of CascadeFormer: ``nn.TransformerEncoderLayer``, as published, and the fused block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmarks.case import TRAINING
from benchmarks.network import LayerCase, V
from skelops.nn import PostNormBlock

HIDDEN = 2048


class EncoderCase(LayerCase):
    """B clips of T frames: of V joints each, or one token each."""

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        B, C, T = (self.sizes[name] for name in "BCT")
        shape = (B * T, V, C) if self.sizes["joints"] else (B, T, C)
        return tuple(torch.randn(shape, generator=generator) for _ in range(2))

    def small(self) -> EncoderCase:
        return self.resized(B=2, T=4)


def _published(sizes: Mapping[str, int]) -> nn.Module:
    return nn.TransformerEncoderLayer(sizes["C"], sizes["H"], HIDDEN, 0.0, batch_first=True)


def _ours(sizes: Mapping[str, int]) -> nn.Module:
    return PostNormBlock(sizes["C"], sizes["H"], HIDDEN, 0.0)


def _multiplications(sizes: Mapping[str, int]) -> float:
    B, C, T = (sizes[name] for name in "BCT")
    tokens, length = (B * T * V, V) if sizes["joints"] else (B * T, T)
    return float(tokens * (4 * C * C + 2 * length * C + 2 * C * HIDDEN))


CASES = [
    EncoderCase(
        name, TRAINING, {"B": 8, "C": C, "T": 64, "H": H, "joints": joints},
        published=_published, ours=_ours, multiplications=_multiplications,
        targets={TRAINING: {"eager": target}}, headline=f"CascadeFormer, {name}",
        gpu={"B": 64},
    )
    for name, C, H, joints, target in (
        ("layer over 25 joints of 24 channels", 24, 8, 1, 5),
        ("layer over 64 frames of 600 channels", 600, 8, 0, 1),
    )
]  # fmt: skip
