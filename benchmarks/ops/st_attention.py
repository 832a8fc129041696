"""Attention of MAMP and CascadeFormer, against the papers' formula with its (L, L) tensors and
against torch's own fused attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, SDPA, TRAINING, Arguments, Case, Draw

V = 25


def _eager(qkv: Tensor, heads: int, kept: Tensor | None = None) -> Tensor:
    N, L, width = qkv.shape
    q, k, v = qkv.reshape(N, L, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    if kept is not None:
        scores = scores.masked_fill(~kept, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(N, L, width // 3)


def _sdpa(qkv: Tensor, heads: int, kept: Tensor | None = None) -> Tensor:
    N, L, width = qkv.shape
    q, k, v = qkv.reshape(N, L, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=kept)
    return y.transpose(1, 2).reshape(N, L, width // 3)


@dataclass(frozen=True)
class AttentionCase(Case):
    """With a further peer, torch's fused attention."""

    fused: Callable[..., Tensor] = _sdpa
    peers: ClassVar[tuple[str, ...]] = ("eager", "compile", SDPA)

    def form(self, name: str) -> Callable[..., Tensor]:
        return self.fused if name == SDPA else self.peer


def _case(
    name: str, B: int, L: int, H: int, D: int, share: float = 1.0, **options
) -> AttentionCase:
    """``share``: of the pairs of tokens that attend."""

    def draw(draw: Draw, B: int, C: int, T: int) -> Arguments:
        return {"qkv": draw.normal(B, T, 3 * C)}

    def ours(qkv: Tensor) -> Tensor:
        return skelops.st_attention(qkv, H, joints=V, **options)

    def kept(qkv: Tensor) -> Tensor | None:
        frame = torch.arange(qkv.shape[1], device=qkv.device) // V
        lag = (frame[:, None] - frame).abs()
        return lag <= options["window"] if "window" in options else None

    def peer(qkv: Tensor) -> Tensor:
        return _eager(qkv, H, kept(qkv))

    def fused(qkv: Tensor) -> Tensor:
        return _sdpa(qkv, H, kept(qkv))

    def flops(B: int, C: int, T: int) -> dict[str, float]:
        product = 2 * B * C * T * T * share
        return {FORWARD: 2 * product, TRAINING: 7 * product}

    return AttentionCase(
        name, {"B": B, "C": H * D, "T": L}, draw, ours, peer, flops,
        targets={TRAINING: {"eager": 2, SDPA: 1.5}} if L >= 750 else {}, activations=("qkv",),
        headline="attention of 750 tokens, 8 heads of 32" if name == "mamp decoder" else "",
        fused=fused,
    )  # fmt: skip


CASES = [
    _case("mamp decoder", 16, 750, 8, 32),
    _case("mamp encoder", 16, 75, 8, 32),
    _case("window of 2 frames", 16, 750, 8, 32, share=5 / 30, window=2),
    _case("cascadeformer frames", 32, 64, 16, 50),
]
