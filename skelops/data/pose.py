"""Key-points of a clip on their way to heat-maps: box, crop, resize, flip. Each step is the
published one on (..., M, T, V, 2) pixels, where a coordinate of zero is missing and stays so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops import _check

COMPACT_PADDING, COMPACT_LEAST = 0.25, 10


def pose_box(
    keypoint: Tensor,
    image: tuple[int, int],
    *,
    padding: float = COMPACT_PADDING,
    ratio: float | None = 1.0,
    outside: bool = False,
) -> Tensor:
    """The box around a clip: of all key-points, x and y apart, wider by a share of either side.

    Args:
        keypoint: (M, T, V, 2); NaN counts as missing.
        image: H and W of the picture.
        padding: share of the box's sides.
        ratio: least height over width, and width over height; None for any.
        outside: the box may pass the border of the picture, else it is cut there.

    Returns:
        (4,) int64, x0, y0, x1, y1: the whole picture where either side is less than 10 pixels.

    Raises:
        ValueError: ``keypoint`` of another shape, or an empty picture.

    Source: PoseCompact of Duan et al., *PYSKL*, ACM MM 2022; MMCompact of EPAM-Net.
    """
    if keypoint.dim() < 2 or keypoint.shape[-1] != 2:
        got = _check.shape_text(keypoint.shape)
        raise _check.fail("pose_box", "keypoint of shape (..., 2)", got)
    H, W = image
    if H <= 0 or W <= 0:
        raise _check.fail("pose_box", "a picture with pixels", f"{H} x {W}")
    point = torch.nan_to_num(keypoint).reshape(-1, 2)
    there = point != 0
    low = torch.where(there, point, torch.inf).amin(0).tolist()
    high = torch.where(there, point, -torch.inf).amax(0).tolist()
    if not all(b - a >= COMPACT_LEAST for a, b in zip(low, high, strict=True)):
        return torch.tensor([0, 0, W, H])
    center = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    half = [(b - a) / 2 * (1 + padding) for a, b in zip(low, high, strict=True)]
    if ratio is not None:
        half[1] = max(ratio * half[0], half[1])
        half[0] = max(half[1] / ratio, half[0])
    corners = [c - h for c, h in zip(center, half, strict=True)]
    ends = [c + h for c, h in zip(center, half, strict=True)]
    if not outside:
        corners = [max(0, a) for a in corners]
        ends = [min(size, b) for size, b in zip((W, H), ends, strict=True)]
    return torch.tensor([int(v) for v in (*corners, *ends)])


def crop_pose(keypoint: Tensor, box: Tensor) -> Tensor:
    """Key-points in the pixels of a box (4,); those of zero stay."""
    point = torch.nan_to_num(keypoint)
    return torch.where(point != 0, point - box[:2].to(point), point)


def resize_pose(keypoint: Tensor, image: Sequence[int], size: Sequence[int]) -> Tensor:
    """Key-points of a picture of H x W in one of another size."""
    (H, W), (height, width) = image, size
    if H <= 0 or W <= 0:
        raise _check.fail("resize_pose", "a picture with pixels", f"{H} x {W}")
    return keypoint * keypoint.new_tensor([width / W, height / H])


def flip_pose(keypoint: Tensor, width: int, mirror: Sequence[int]) -> Tensor:
    """Key-points of the mirrored picture: x to width - x unless it is zero, partners exchanged."""
    x, y = keypoint[..., list(mirror), :].unbind(-1)
    return torch.stack([torch.where(x != 0, width - x, x), y], dim=-1)
