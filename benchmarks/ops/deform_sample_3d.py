"""Trilinear sampling of the tokens of 3D Deformable Transformer, and of deformable attention.

The peer is what stands in for it today: ``grid_sample`` on a channels-first copy of the volume, the
weights and the sum over points behind it. The floor is memory: eight corners of C values per point,
most of them from a cache, and twice that for the gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(draw: Draw, B: int, T: int, S: int, G: int, C: int, Q: int, P: int) -> Arguments:
    """S x S cells in each of T frames."""
    size = torch.tensor([T, S, S])
    places = torch.rand(B, Q, G, P, 3, generator=draw.generator) * (size - 1)
    return {
        "value": draw.normal(B, T, S, S, G, C),
        "loc": draw.constant(places).requires_grad_(),
        "weight": draw.normal(B, Q, G, P, scale=P**-0.5),
    }


def _peer(value: Tensor, loc: Tensor, weight: Tensor) -> Tensor:
    N, T, H, W, G, C = value.shape
    Q, P = loc.shape[1], loc.shape[3]
    volume = value.permute(0, 4, 5, 1, 2, 3).reshape(N * G, C, T, H, W)
    size = loc.new_tensor([T, H, W])
    place = ((2 * loc + 1) / size - 1).flip(-1)  # (x, y, t) in [-1, 1]
    grid = place.transpose(1, 2).reshape(N * G, Q, P, 1, 3)
    samples = F.grid_sample(volume, grid, padding_mode="border", align_corners=False)
    samples = samples.view(N, G, C, Q, P) * weight.transpose(1, 2).unsqueeze(2)
    return samples.sum(-1).permute(0, 3, 1, 2).contiguous()


def _flops(B: int, T: int, S: int, G: int, C: int, Q: int, P: int) -> dict[str, float]:
    once = 16 * B * Q * G * P * C
    return {FORWARD: once, TRAINING: 3 * once}


def _case(name: str, headline: str = "", **sizes: int) -> Case:
    return Case(
        name, {"B": 8, **sizes}, _draw, skelops.deform_sample_3d, _peer, _flops,
        targets={TRAINING: {"eager": 2}}, activations=("value", "loc", "weight"),
        headline=headline, gpu={"B": 64}, quick={"B": 2},
    )  # fmt: skip


CASES = [
    _case("token search", "deformable tokens, 16 x 14 x 14", T=16, S=14, G=4, C=128, Q=392, P=1),
    _case("attention of 8 points", T=8, S=14, G=8, C=32, Q=392, P=8),
]
