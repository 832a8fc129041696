"""MAMP as published, one PyTorch call after the other, against ``skelops.models``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.network import STEP, ModuleVariant, NetworkCase, V
from skelops.models import MAMP

SEGMENT, WIDTH, HEADS, DEPTH, DECODER_DEPTH, MASKED, TAU = 4, 256, 8, 8, 3, 0.9, 0.8
PATCH = 3 * SEGMENT


def _noise(sizes: Mapping[str, int]) -> Tensor:
    """Uniform numbers per skeleton and token, the same for all sides."""
    generator = torch.Generator().manual_seed(1)
    tokens = sizes["T"] // SEGMENT * V
    return torch.rand(sizes["N"] * sizes["M"], tokens, generator=generator)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        B, L, C = x.shape
        q, k, v = self.qkv(x).reshape(B, L, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) * (C // HEADS) ** -0.5).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(B, L, C))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class EagerEncoder(nn.Module):
    """Parameters under their published names."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.joints_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, WIDTH, (SEGMENT, 1), stride=(SEGMENT, 1))}
        )
        self.add_places("", sizes)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)

    def add_places(self, side: str, sizes: Mapping[str, int]) -> None:
        segments = sizes["T"] // SEGMENT
        for name, shape in (("temp", (1, segments, 1, WIDTH)), ("pos", (1, 1, V, WIDTH))):
            table = nn.Parameter(0.02 * torch.randn(shape))
            self.register_parameter(f"{side}{name}_embed", table)

    @staticmethod
    def fold(x: Tensor) -> Tensor:
        """Clips (N, 3, T, 25, M) -> skeletons (N M, T, 25, 3)."""
        N, C, T, _, M = x.shape
        return x.permute(0, 4, 2, 3, 1).contiguous().view(N * M, T, V, C)

    def embed(self, x: Tensor) -> Tensor:
        """Skeletons -> all their tokens."""
        z = self.joints_embed["proj"](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (z + self.pos_embed + self.temp_embed).flatten(1, 2)

    def encode(self, z: Tensor) -> Tensor:
        for block in self.blocks:
            z = block(z)
        return self.norm(z)


class EagerMAMP(EagerEncoder):
    """(N, 3, T, 25, M) -> loss of pre-training."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(sizes)
        self.add_places("decoder_", sizes)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.decoder_blocks = nn.ModuleList(Block() for _ in range(DECODER_DEPTH))
        self.decoder_norm = nn.LayerNorm(WIDTH)
        self.decoder_embed = nn.Linear(WIDTH, WIDTH)
        self.decoder_pred = nn.Linear(WIDTH, PATCH)
        self.register_buffer("noise", _noise(sizes), persistent=False)

    def _segments(self, x: Tensor) -> Tensor:
        """(B, T, V, 3) -> (B, T', V, u, 3)"""
        B, T = x.shape[:2]
        return x.reshape(B, T // SEGMENT, SEGMENT, V, 3).permute(0, 1, 3, 2, 4)

    def _mask(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> ids_keep, mask (1 = removed), ids_restore"""
        s = self._segments(x)
        motion = torch.zeros_like(s)
        motion[:, 1:] = (s[:, 1:] - s[:, :-1]).abs()
        motion[:, 0] = motion[:, 1]
        motion = motion.mean((3, 4)).flatten(1)
        share = F.softmax(motion / (motion.max(1, keepdim=True).values * TAU + 1e-10), dim=-1)
        key = share.log() - (-(self.noise + 1e-10).log() + 1e-10).log()
        shuffle = key.argsort(1)
        restore = shuffle.argsort(1)
        keep = int(key.shape[1] * (1 - MASKED))
        mask = torch.ones_like(key)
        mask[:, :keep] = 0
        return shuffle[:, :keep], mask.gather(1, restore), restore

    def _loss(self, x: Tensor, pred: Tensor, removed: Tensor) -> Tensor:
        motion = torch.zeros_like(x)
        motion[:, :-1] = x[:, 1:] - x[:, :-1]
        y = self._segments(motion).reshape(pred.shape)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 1e-6) ** 0.5
        error = ((pred - y) ** 2).mean(-1)
        return (error * removed).sum() / removed.sum()

    def forward(self, x: Tensor) -> Tensor:
        x = self.fold(x)
        keep, removed, restore = self._mask(x)
        z = self.embed(x).gather(1, keep[..., None].expand(-1, -1, WIDTH))
        z = self.decoder_embed(self.encode(z))
        B, L = restore.shape
        z = torch.cat([z, self.mask_token.repeat(B, L - z.shape[1], 1)], dim=1)
        z = z.gather(1, restore[..., None].expand(-1, -1, WIDTH)).view(B, -1, V, WIDTH)
        z = (z + self.decoder_pos_embed + self.decoder_temp_embed).flatten(1, 2)
        for block in self.decoder_blocks:
            z = block(z)
        return self._loss(x, self.decoder_pred(self.decoder_norm(z)), removed)


class OurMAMP(MAMP):
    """(N, 3, T, 25, M) -> loss of pre-training."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(num_frames=sizes["T"], decoder_depth=DECODER_DEPTH)
        self.register_buffer("noise", _noise(sizes), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(x, x.new_zeros(0), self.noise)


class PretrainingVariant(ModuleVariant):
    """A step of pre-training with AdamW."""

    def __init__(self, module: nn.Module, direction: str, x: Tensor, y: Tensor, compiled: Any):
        super().__init__(module, direction, x, y, compiled)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05
        )

    def loss(self, output: Tensor) -> Tensor:
        return output

    def run(self) -> Any:
        self.graph().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradients(self) -> dict[str, Tensor]:
        named = {name.removeprefix("encoder."): p for name, p in self.module.named_parameters()}
        return {"gradient of the embedding": named["joints_embed.proj.weight"].grad}


class PretrainingCase(NetworkCase):
    variant = PretrainingVariant


def _multiplications(sizes: Mapping[str, int]) -> float:
    """Of the loss: kept tokens in the encoder, masked rows only in the last block."""
    L = sizes["T"] // SEGMENT * V
    K = int(L * (1 - MASKED))
    linear = 12 * WIDTH**2
    encoder = DEPTH * K * (linear + 2 * K * WIDTH)
    decoder = DECODER_DEPTH * L * (linear + 2 * L * WIDTH)
    shared = (L - K) * 3 * WIDTH**2 + K * (9 * WIDTH**2 + 2 * L * WIDTH)
    return float(sizes["N"] * sizes["M"] * (encoder + decoder - shared))


CASES = [
    PretrainingCase(
        "pre-training step", STEP, {"N": 4, "M": 2, "T": 120},
        published=EagerMAMP, ours=OurMAMP, multiplications=_multiplications,
        targets={STEP: {"eager": 2.0, "saved": 0.3}},
        headline="MAMP, pre-training step",
        gpu={"N": 32},
    ),
]  # fmt: skip
