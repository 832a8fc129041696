"""Generalised coordinates of recorded joints, as learned dynamics take them.

Source: Ji et al., LaDy, CVPR 2026, generalized_coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check


class Frame(NamedTuple):
    """Joints that say which way a body faces: pelvis to spine is its y, left to right hip its x."""

    pelvis: int
    spine: int
    right_hip: int
    left_hip: int


def rotation_coordinates(x: Tensor, parents: Sequence[int], frame: Frame) -> Tensor:
    """Rotation of the body, then of every bone against the bone before it.

    Args:
        x: (..., V, D) joints, D = 2 or 3.
        parents: V indices; that of a root is itself.
        frame: of the body's own directions.

    Returns:
        (..., d): in space rotation vectors, 3 for the body and 3 for each joint whose parent has a
        bone, in ascending order; in the plane signed angles, one each.

    Raises:
        ValueError: shapes do not fit.
    """
    V = len(parents)
    if x.dim() < 2 or x.shape[-2] != V or x.shape[-1] not in (2, 3):
        wanted = f"x of shape (..., V, D) with V={V}, D=2 or 3"
        raise _check.fail("rotation_coordinates", wanted, _check.shape_text(x.shape))
    bones = [j for j in range(V) if parents[j] != j]
    turning = [j for j in bones if parents[j] in bones]
    inner = [parents[j] for j in turning]
    before = F.normalize(x[..., inner, :] - x[..., [parents[p] for p in inner], :], dim=-1)
    after = F.normalize(x[..., turning, :] - x[..., inner, :], dim=-1)
    cosine = (before * after).sum(-1)
    up = x[..., frame.spine, :] - x[..., frame.pelvis, :]
    if x.shape[-1] == 2:
        sine = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
        root = torch.atan2(up[..., 1], up[..., 0])[..., None]
        return torch.cat([root, torch.atan2(sine, cosine)], -1)
    axis = F.normalize(torch.linalg.cross(before, after), dim=-1)
    turns = torch.acos(cosine.clamp(-1, 1))[..., None] * axis
    y = F.normalize(up, dim=-1)
    across = x[..., frame.right_hip, :] - x[..., frame.left_hip, :]
    z = F.normalize(torch.linalg.cross(across, y), dim=-1)
    root = rotation_vector(torch.stack([F.normalize(torch.linalg.cross(y, z), dim=-1), y, z], -1))
    return torch.cat([root, turns.flatten(-2)], -1)


def rotation_vector(R: Tensor) -> Tensor:
    """Axis times angle of rotations (..., 3, 3); zero below 1e-6, the axis up to sign at pi."""
    angle = torch.acos(((R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1))
    vee = torch.stack(
        [R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1
    )
    # R + 1 = 2 u u^T: the largest column tells u where the sine does not.
    half = (R + torch.eye(3).to(R)) / 2
    largest = half.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    flipped = F.normalize(half.take_along_dim(largest, -1).squeeze(-1), dim=-1)
    straight = (angle < 1e-6)[..., None]
    reverse = ((angle - torch.pi).abs() < 1e-5 * (1 + torch.pi))[..., None]
    sine = torch.where(straight | reverse, 1.0, angle.sin()[..., None])
    turned = torch.where(reverse, flipped, vee / (2 * sine)) * angle[..., None]
    return torch.where(straight, 0.0, turned)
