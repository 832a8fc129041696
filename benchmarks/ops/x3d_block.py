"""Blocks of EPAM-Net at inference, against their layers with the normalisations folded in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, Arguments, Case, Draw
from benchmarks.ops.temporal_shift import _peer as _shift
from skelops.models.epam_net import se_width


def _draw(squeezes: bool):
    def draw(draw: Draw, B: int, C: int, T: int, S: int) -> Arguments:
        H = C * 9 // 4
        R = se_width(H)

        def fixed(*shape: int, fan: int = 1) -> Tensor:
            return draw.weight(*shape, fan=fan).detach()

        squeeze = (fixed(R, H, fan=H), fixed(R), fixed(H, R, fan=R), fixed(H))
        return {
            "x": draw.normal(B, C, T, S, S).detach(),
            "expand": fixed(H, C, fan=C), "expand_bias": fixed(H),
            "depthwise": fixed(H, 3, 3, fan=9), "depthwise_bias": fixed(H),
            "project": fixed(C, H, fan=H), "bias": fixed(C),
            "squeeze": squeeze if squeezes else None,
        }  # fmt: skip

    return draw


def _ours(squeeze: tuple[Tensor, ...] | None, **tensors: Tensor) -> Tensor:
    return skelops.x3d_block(**tensors, squeeze=squeeze, fold_div=4)


def _peer(
    x: Tensor, expand: Tensor, expand_bias: Tensor, depthwise: Tensor, depthwise_bias: Tensor,
    project: Tensor, bias: Tensor, squeeze: tuple[Tensor, ...] | None,
) -> Tensor:  # fmt: skip
    def pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv3d(x, weight[:, :, None, None, None], bias)

    y = torch.relu(pointwise(_shift(x), expand, expand_bias))
    taps = depthwise[:, None, None]
    y = F.conv3d(y, taps, depthwise_bias, padding=(0, 1, 1), groups=len(taps))
    if squeeze is not None:
        w1, b1, w2, b2 = squeeze
        small = torch.relu(pointwise(y.mean((2, 3, 4), keepdim=True), w1, b1))
        y = y * torch.sigmoid(pointwise(small, w2, b2))
    return torch.relu(pointwise(F.silu(y), project, bias) + x)


def _flops(B: int, C: int, T: int, S: int) -> dict[str, float]:
    return {FORWARD: 2 * B * T * S**2 * (C * 9 // 4) * (2 * C + 9)}


CASES = [
    Case(
        f"{stream} stream, C={C}, {S} x {S}{', excited' if squeezes else ''}",
        {"B": 1, "C": C, "T": T, "S": S}, _draw(squeezes), _ours, _peer, _flops,
        directions=(FORWARD,), saving=(), targets={FORWARD: {"eager": 1.5}},
        headline="block of EPAM-Net (forward)" if stream == "pose" and squeezes else "",
    )
    for stream, C, T, S, squeezes in (
        ("pose", 48, 48, 14, True), ("pose", 48, 48, 14, False), ("RGB", 24, 16, 56, False),
        ("RGB", 192, 16, 7, True),
    )
]  # fmt: skip
