"""siMLPe: linear maps over frames or coordinates with a residual around a normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-5


class MixerBlock(nn.Module):
    """x + LN(W x): the normalisation is over the coordinates, whichever axis W mixes.

    Args:
        dim: D, coordinates.
        frames: T.
        spatial: W mixes coordinates instead of frames.

    Shape: (N, D, T) -> (N, D, T).

    Source: Guo et al., Back to MLP (siMLPe), WACV 2023.
    """

    def __init__(self, dim: int, frames: int, spatial: bool = False) -> None:
        super().__init__()
        self.spatial = spatial
        width = dim if spatial else frames
        self.fc = nn.Linear(width, width)
        self.alpha = nn.Parameter(torch.ones(1, dim, 1))
        self.beta = nn.Parameter(torch.zeros(1, dim, 1))
        nn.init.xavier_uniform_(self.fc.weight, gain=1e-8)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x.mT).mT if self.spatial else self.fc(x)
        variance, mean = torch.var_mean(y, dim=1, correction=0, keepdim=True)
        return x + (y - mean) * torch.rsqrt(variance + EPS) * self.alpha + self.beta


class Mixer(nn.Sequential):
    """Blocks that mix frames, (N, T, D) -> (N, T, D)."""

    def __init__(self, dim: int, frames: int, layers: int) -> None:
        super().__init__(*(MixerBlock(dim, frames) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT
