"""The augmentation of the CTR-GCN line of work, on whole batches and with explicit noise.

Source: Chen, Zhang, Yuan, Li, Deng, Hu, *Channel-wise Topology Refinement Graph Convolution for
Skeleton-Based Action Recognition*, ICCV 2021. Functions take and return tensors of any device;
random numbers come in as arguments, so that every result replays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MODALITIES = ("joint", "bone", "joint_motion", "bone_motion")


def center(xyz: np.ndarray, length: np.ndarray, joint: int) -> np.ndarray:
    """Subtract from each clip one joint of person 0 in its first frame that is not empty.

    Args:
        xyz: (F, M, V, C) frames of all clips, end to end.
        length: (N,) frames per clip.
        joint: the joint that becomes the origin.

    Returns:
        (F, M, V, C) copy; persons who are all zero in a frame stay zero.
    """
    present = (xyz != 0).any(axis=(2, 3))
    stop = np.cumsum(length)
    frame = np.where(present[:, 0], np.arange(len(xyz)), len(xyz) - 1)
    first = np.minimum(np.minimum.reduceat(frame, stop - length), stop - 1)
    origin = np.repeat(xyz[first, 0, joint], length, axis=0)
    return np.where(present[..., None, None], xyz - origin[:, None, None], 0)


def train_crop(
    length: Tensor, noise: Tensor, p: tuple[float, float] = (0.5, 1.0), shortest: int = 64
) -> tuple[Tensor, Tensor]:
    """Random crop: a share p ~ U(p[0], p[1]) of the clip, at least ``shortest`` frames, anywhere.

    Args:
        length: (N,) int64, frames per clip.
        noise: (N, 2) floating, uniform in [0, 1): the share and the place.
        p: bounds of the share.
        shortest: crops are not shorter than this, unless the clip is.

    Returns:
        start, size: (N,) int64 frames, ``size = min(max(floor(p L), shortest), L)``.
    """
    share = p[0] + (p[1] - p[0]) * noise[:, 0].double()
    size = torch.minimum((share * length).floor().long().clamp(min=shortest), length)
    start = (noise[:, 1].double() * (length - size + 1)).long()
    return start, size


def test_crop(length: Tensor, p: float = 0.95) -> tuple[Tensor, Tensor]:
    """Central crop that drops ``floor((1 - p) L / 2)`` frames on both sides.

    Args:
        length: (N,) int64, frames per clip.
        p: share of the clip to keep.

    Returns:
        start, size: (N,) int64 frames.
    """
    start = ((1 - p) * length.double() / 2).long()
    return start, length - 2 * start


def resize(xyz: Tensor, start: Tensor, size: Tensor, window: int) -> Tensor:
    """Cut each clip out of the frame store and resample it linearly to ``window`` frames.

    Frame i is read at ``max((i + 0.5) size / window - 0.5, 0)``: half-pixel centres, edges clamped.

    Args:
        xyz: (F, ...) floating, frames of all clips.
        start: (N,) int64, first frame of each crop in ``xyz``.
        size: (N,) int64, frames of each crop, at least 1.
        window: frames to return.

    Returns:
        (N, window, ...) in the dtype of ``xyz``.
    """
    frame = torch.arange(window, dtype=torch.float64, device=xyz.device) + 0.5
    position = (frame * size[:, None] / window - 0.5).clamp(min=0)
    low = position.long()
    high = torch.minimum(low + 1, size[:, None] - 1)
    weight = (position - low).to(xyz.dtype).view(*low.shape, *[1] * (xyz.dim() - 1))
    return torch.lerp(xyz[start[:, None] + low], xyz[start[:, None] + high], weight)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate each clip: x' = Rz Ry Rx x, with the published (transposed) axis rotations.

    Args:
        x: (N, T, M, V, 3) floating.
        angles: (N, 3) floating, radians about x, y and z.

    Returns:
        (N, T, M, V, 3).
    """
    c, s = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    rotation = torch.eye(3, dtype=x.dtype, device=x.device).expand(len(x), 3, 3)
    for axis, i, j, sign in ((0, 1, 2, 1), (1, 0, 2, -1), (2, 0, 1, 1)):
        turn = torch.zeros_like(rotation)
        turn[:, axis, axis] = 1
        turn[:, i, i] = turn[:, j, j] = c[:, axis]
        turn[:, i, j], turn[:, j, i] = sign * s[:, axis], -sign * s[:, axis]
        rotation = turn @ rotation
    return (x.flatten(1, 3) @ rotation.mT).view(x.shape)


def unit_box(x: Tensor) -> Tensor:
    """Shift and scale each axis of each clip so that its joints span [-1, 1] (NW-UCLA).

    Args:
        x: (N, T, M, V, C) floating; persons who are all zero in a frame stay zero.

    Returns:
        (N, T, M, V, C).
    """
    absent = (x == 0).all(-1, keepdim=True).all(-2, keepdim=True)
    low = x.masked_fill(absent, torch.inf).amin((1, 2, 3), keepdim=True)
    high = x.masked_fill(absent, -torch.inf).amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp(min=torch.finfo(x.dtype).eps)
    return (2 * (x - low) / span - 1).masked_fill(absent, 0)


def modality(x: Tensor, kind: str, parents: Sequence[int]) -> Tensor:
    """One of the four streams: joints, bones (joint minus parent) or their motion.

    Args:
        x: (N, T, M, V, C) joints.
        kind: "joint", "bone", "joint_motion" or "bone_motion". Motion is the difference to the
            next frame, zero in the last.
        parents: V parent indices; the root is its own parent.

    Returns:
        (N, T, M, V, C).

    Raises:
        ValueError: unknown ``kind``, or ``parents`` is not of length V.
    """
    if kind not in MODALITIES:
        raise ValueError(f"modality: expected kind in {MODALITIES}, got {kind!r}")
    if len(parents) != x.shape[3]:
        raise ValueError(
            f"modality: expected parents of the {x.shape[3]} joints, got {len(parents)}"
        )
    if "bone" in kind:
        x = x - x[:, :, :, list(parents)]
    if "motion" in kind:
        x = torch.cat([x[:, 1:] - x[:, :-1], torch.zeros_like(x[:, :1])], dim=1)
    return x
