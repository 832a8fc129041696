"""Target and loss of MAMP; and all of a pre-training step but its transformer and prediction."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks import masked
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw
from benchmarks.masked import KEPT, PATCH, SEGMENT, WIDTH, C, L, TokenCase


def _draw(draw: Draw, B: int) -> Arguments:
    return {
        "x": masked.clips(draw, B),
        "pred": draw.normal(B, L, PATCH),
        "mask": masked.order(draw, B) < KEPT,
    }


def _peer(x: Tensor, pred: Tensor, mask: Tensor) -> Tensor:
    return masked.loss(x, pred, (~mask).to(x.dtype))


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: 9 * B * L * PATCH, TRAINING: 20 * B * L * PATCH}


def _draw_step(draw: Draw, B: int) -> Arguments:
    return {
        "x": masked.clips(draw, B),
        "noise": masked.noise(draw, B),
        "weight": draw.weight(WIDTH, C, SEGMENT, 1, fan=PATCH),
        "bias": draw.normal(WIDTH),
        **masked.tables(draw),
        "mask_token": draw.normal(WIDTH, scale=0.02),
        **masked.tables(draw, "decoder_"),
        "pred": draw.normal(B, L, PATCH),
    }


def _step(
    x, noise, weight, bias, pos, temp, mask_token, decoder_pos, decoder_temp, pred
) -> tuple[Tensor, Tensor]:
    ids, mask, restore = skelops.motion_mask(x, noise)
    z = skelops.masked_patch_embed(x, weight, bias, pos, temp, ids)
    tokens = skelops.token_restore(z, mask_token, restore, decoder_pos, decoder_temp)
    return tokens, skelops.masked_motion_loss(x, pred, mask)


def _step_peer(
    x, noise, weight, bias, pos, temp, mask_token, decoder_pos, decoder_temp, pred
) -> tuple[Tensor, Tensor]:
    ids, removed, restore = masked.masking(x, noise)
    z = masked.embedding(x, weight, bias, pos, temp, ids)
    tokens = masked.restoring(z, mask_token, restore, decoder_pos, decoder_temp)
    return tokens, masked.loss(x, pred, removed)


def _flops_step(B: int) -> dict[str, float]:
    embed, restore = B * KEPT * WIDTH * (2 * PATCH + 3), 2 * B * L * WIDTH
    loss = _flops(B)
    return {
        FORWARD: embed + restore + loss[FORWARD] + 3 * B * L * PATCH,
        TRAINING: 2 * embed + 2.5 * restore + loss[TRAINING] + 3 * B * L * PATCH,
    }


CASES = [
    TokenCase(
        "MAMP", {"B": 128}, _draw, skelops.masked_motion_loss, _peer, _flops,
        targets={TRAINING: {"eager": 6}}, headline="motion target and loss",
    ),
    TokenCase(
        "MAMP, masking to loss", {"B": 64}, _draw_step, _step, _step_peer, _flops_step,
        targets={TRAINING: {"eager": 6}}, headline="MAMP step without its transformer",
    ),
]  # fmt: skip
