"""The recurrence of M-Mixer's units for two modalities of 512 channels, against a loop of layers.

Everything that does not depend on the state is given to both. Per row, frame and modality are left
3 D^2 multiply-adds (0.79 M), six more of them in the backward; the weights are 3 MB, read once per
frame for all clips of a task.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw


def _draw(draw: Draw, B: int, T: int, C: int, S: int = 2) -> Arguments:
    return {
        "pre": draw.normal(S, B, T, 3 * C),
        "weight": draw.weight(S, 3 * C, C, fan=C),
        "ln_weight": draw.normal(S, 3, C, scale=0.1, shift=1.0),
        "ln_bias": draw.normal(S, 3, C, scale=0.1),
    }


def _peer(pre: Tensor, weight: Tensor, ln_weight: Tensor, ln_bias: Tensor) -> Tensor:
    C = weight.shape[-1]
    found = []
    for p, U, w, b in zip(pre, weight, ln_weight, ln_bias, strict=True):
        U_r, U_z, U_n = U.chunk(3)
        h, states = p.new_zeros(p.shape[0], C), []
        for p_t in p.unbind(1):
            p_r, p_z, p_n = p_t.chunk(3, -1)
            r = torch.sigmoid(F.layer_norm(p_r + F.linear(h, U_r), (C,), w[0], b[0]))
            z = torch.sigmoid(F.layer_norm(p_z + F.linear(h, U_z), (C,), w[1], b[1]))
            n = torch.tanh(F.layer_norm(p_n + F.linear(r * h, U_n), (C,), w[2], b[2]))
            h = (1 - z) * h + z * n
            states.append(h)
        found.append(torch.stack(states, 1))
    return torch.stack(found)


def _flops(B: int, T: int, C: int, S: int = 2) -> dict[str, float]:
    product = 2 * 3 * C * C * S * B * T
    return {FORWARD: product, TRAINING: 3 * product}


CASES = [
    Case(
        f"T={T}", {"B": B, "T": T, "C": 512}, _draw, skelops.mcu_scan, _peer, _flops,
        targets={TRAINING: {"eager": 3}} if T == 32 else {}, activations=("pre",),
        headline="contextualisation unit, 32 frames" if T == 32 else "", gpu={"B": 64},
    )
    for T, B in ((32, 8), (16, 32))
]  # fmt: skip
