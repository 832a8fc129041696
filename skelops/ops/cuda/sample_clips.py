"""Batches of clips by the compiled kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops.ops.sample_clips import MOTION, NATIVE

MAX_STREAMS = 12
SHARED_BYTES = 48 * 1024
TRANSFORM_VALUES = 36
TAPS_BYTES = 32


def supports(
    xyz, bounds, frame, blend, affine, parent, kinds, part, person, convert, convert_weight,
    order, branch, blur, noise, noise_std, draw, seed, epoch, stream, keep_missing, unit_box,
    dtype,
) -> str | None:  # fmt: skip
    C, D = xyz.shape[3], affine.shape[2]
    if C > D + 1:
        return f"at most one channel after the {D} coordinates, got {C - D}"
    if len(kinds) > MAX_STREAMS:
        return f"at most {MAX_STREAMS} streams, got {len(kinds)}"
    V = xyz.shape[2] if convert is None else convert.shape[0]
    frames = 1 if blur is None else blur.shape[1]
    frames += any(kind & MOTION for kind in kinds)
    size = _compute(xyz).itemsize
    frame = len({kind & NATIVE for kind in kinds}) * C * V * size + TAPS_BYTES
    if frames * frame + TRANSFORM_VALUES * size > SHARED_BYTES:
        return f"{frames} frames of {V} joints do not fit into {SHARED_BYTES} bytes"
    return None


def _compute(xyz: Tensor) -> torch.dtype:
    return torch.float64 if xyz.dtype == torch.float64 else torch.float32


def prepared(xyz, *args) -> tuple:
    """What the kernel takes: contiguous tensors, all values but xyz in the type of the sums."""
    compute = _compute(xyz)

    def convert(value):
        if not isinstance(value, Tensor):
            return value
        return (value.to(compute) if value.is_floating_point() else value).contiguous()

    return (xyz.contiguous(), *map(convert, args))


def forward(*args):
    """Checking the indices would wait for the GPU: what is out of range reads as zeros instead,
    and such a parent as none."""
    return torch.ops.skelops._sample_clips_cuda(*prepared(*args))
