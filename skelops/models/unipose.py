"""UniPose: 3-D poses from point clouds, depth and RGB, learned from unlabelled RGB-D sequences.

UniPose: Weakly Supervised RGB-D 3-D Pose Estimation, PRCV 2025 (arXiv 2509.23376). The abstract
gives the stages and the kinds of losses; layers, equations and weights are those of the published
work it stands on: PointNet++ for clouds, A2J and A2J-Transformer for anchors. Points are in metres
in the camera's coordinates, pixels are (column, row).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check
from skelops.camera import Camera
from skelops.graph import Layout
from skelops.models.a2j import DEPTHS, STRIDE, ResNet, Tower, space_anchors
from skelops.nn.point_set import FeaturePropagation, SetAbstraction
from skelops.ops import anchor_regression

SKIN = 0.2  # a joint is at most this far behind the surface, metres
KNEE = 0.05  # of the losses' Huber functions, metres
ITOP15 = Layout(
    "itop15",
    parents=(1, 8, 1, 1, 2, 3, 4, 5, 8, 8, 8, 9, 10, 11, 12),
    joint_names=(
        "head", "neck", "right_shoulder", "left_shoulder", "right_elbow", "left_elbow",
        "right_hand", "left_hand", "torso", "right_hip", "left_hip", "right_knee", "left_knee",
        "right_foot", "left_foot",
    ),
)  # fmt: skip


def sample_pixels(maps: Tensor, pixels: Tensor) -> Tensor:
    """Maps (N, C, H, W) at pixels (N, Q, 2) of an image of their size -> (N, C, Q), bilinear."""
    size = pixels.new_tensor([maps.shape[3], maps.shape[2]])
    grid = (2 * pixels + 1) / size - 1
    return F.grid_sample(maps, grid[:, None], align_corners=False).squeeze(2)


class PointPose(nn.Module):
    """Joints in a point cloud: PointNet++ features, whose centers vote as anchors.

    Args:
        num_joints: V.
        centers: of the two set abstractions, of more and of fewer points.
        radii: of their balls, metres.
        k: points in a ball.
        width: channels of the first layer; the rest are multiples of it.
        image_channels: C of feature maps of another modality, sampled at the centers' pixels.
    """

    def __init__(
        self,
        num_joints: int = 15,
        centers: tuple[int, int] = (512, 128),
        radii: tuple[float, float] = (0.2, 0.4),
        k: int = 32,
        width: int = 64,
        image_channels: int = 0,
    ) -> None:
        super().__init__()
        self.num_joints, w = num_joints, width
        self.near = SetAbstraction(0, (w, w, 2 * w), centers[0], radii[0], k)
        self.far = SetAbstraction(2 * w, (2 * w, 2 * w, 4 * w), centers[1], radii[1], k)
        self.whole = SetAbstraction(4 * w, (4 * w, 8 * w, 16 * w))
        self.to_far = FeaturePropagation(20 * w, (4 * w, 4 * w))
        self.to_near = FeaturePropagation(6 * w, (4 * w, 4 * w))
        self.vote = nn.Conv1d(4 * w + image_channels, 4 * num_joints, 1)

    def forward(
        self,
        points: Tensor,
        camera: Camera | None = None,
        maps: Tensor | None = None,
    ) -> Tensor:
        """(N, L, 3) -> joints (N, V, 3).

        ``maps`` (N, image_channels, H, W) are feature maps of an image of their size that
        ``camera`` takes of the points.
        """
        origin = points.median(1, keepdim=True).values
        near, a = self.near(points - origin, None)
        far, b = self.far(near, a)
        center, c = self.whole(far, b)
        features = self.to_near(near, a, far, self.to_far(far, b, center, c))
        if maps is not None:
            pixels, _ = camera.project(near + origin)
            features = torch.cat([features, sample_pixels(maps, pixels)], 1)
        votes = self.vote(features).mT
        logits, offset = votes.split([self.num_joints, 3 * self.num_joints], 2)
        joints, _ = anchor_regression(logits, offset.unflatten(2, (-1, 3)), near)
        return joints + origin


class Lifted(NamedTuple):
    """Votes: logits (N, A, V), offset (N, A, V, 3), anchors (A, 3) or (N, A, 3)."""

    logits: Tensor
    offset: Tensor
    anchors: Tensor

    def joints(self) -> Tensor:
        return anchor_regression(*self)[0]


class LiftPose(nn.Module):
    """Joints in a depth or RGB image: each cell votes from three anchors in space.

    Coordinates are (column, row, depth) in pixels of the crop; ``LiftPose`` knows no metres, see
    ``to_space`` and ``to_crop``.

    Args:
        num_joints: V.
        channels: of the image.
        anchors: "grid" of cells, one "joint" anchor per detected joint in the plane of the middle
            depth, or "both".
        blocks, width: of the backbone, see ``ResNet``.
        tower_width: channels of the heads.
    """

    def __init__(
        self,
        num_joints: int = 15,
        channels: int = 1,
        anchors: str = "grid",
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        tower_width: int = 256,
    ) -> None:
        super().__init__()
        if anchors not in ("grid", "joint", "both"):
            raise _check.fail("LiftPose", "anchors 'grid', 'joint' or 'both'", repr(anchors))
        self.num_joints, self.channels = num_joints, channels
        self.backbone = ResNet(blocks, width, fc=False)
        self.on_grid, self.on_joints = anchors != "joint", anchors != "grid"
        V, Z = num_joints, len(DEPTHS)
        if self.on_grid:
            self.weight = Tower(16 * width, Z * V, tower_width)
            self.offset = Tower(32 * width, 3 * Z * V, tower_width)
        if self.on_joints:
            self.local = nn.Sequential(
                nn.Conv1d(32 * width, tower_width, 1), nn.ReLU(), nn.Conv1d(tower_width, 4 * V, 1)
            )

    def forward(self, image: Tensor, pixels: Tensor | None = None) -> Lifted:
        """(N, channels, H, H), H a multiple of 16; detected joints (N, V, 2) for joint anchors."""
        N, C, H, W = image.shape
        if self.channels != C or H != W or H % STRIDE:
            expected = f"an image (N, {self.channels}, H, H), H a multiple of {STRIDE}"
            raise _check.fail("LiftPose", expected, _check.shape_text(image.shape))
        if self.on_joints and pixels is None:
            raise _check.fail("LiftPose", "pixels of detected joints", None)
        common, deep = self.backbone(image.expand(-1, 3, -1, -1))
        V, parts, middle = self.num_joints, [], H / 2
        if self.on_grid:
            cells = H // STRIDE
            depths = tuple(z * H / 256 for z in DEPTHS)
            anchors = space_anchors(cells, STRIDE, depths).to(deep)
            logits, offset = (
                tower(x).permute(0, 2, 3, 1).reshape(N, len(anchors), V, -1)
                for tower, x in ((self.weight, common), (self.offset, deep))
            )
            parts.append((logits[..., 0], H * offset, anchors.expand(N, -1, -1)))
        if self.on_joints:
            at = (pixels + 0.5) / STRIDE - 0.5
            votes = self.local(sample_pixels(deep, at)).mT.unflatten(2, (V, 4))
            anchors = torch.cat([pixels, torch.full_like(pixels[..., :1], middle)], 2)
            parts.append((votes[..., 0], H * votes[..., 1:], anchors.to(deep)))
        return Lifted(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


def to_space(crop: Tensor, camera: Camera, origin: Tensor, scale: float, middle: float) -> Tensor:
    """Joints (N, V, 3) of a crop in metres: depth is origin (N,) + (z - middle) / scale."""
    z = origin[:, None] + (crop[..., 2] - middle) / scale
    ray = camera.rays(crop[..., :2])
    return ray / ray[..., 2:] * z[..., None]


def to_crop(points: Tensor, camera: Camera, origin: Tensor, scale: float, middle: float) -> Tensor:
    """The inverse of ``to_space``, for points in front of the camera."""
    pixels, _ = camera.project(points)
    z = (points[..., 2] - origin[:, None]) * scale + middle
    return torch.cat([pixels, z[..., None]], -1)


def _huber(x: Tensor) -> Tensor:
    return F.smooth_l1_loss(x, torch.zeros_like(x), beta=KNEE, reduction="none")


def ray_distance(joints: Tensor, pixels: Tensor, camera: Camera) -> Tensor:
    """Distance (N, V) of joints (N, V, 3) from the viewing rays of pixels (N, V, 2)."""
    ray = camera.rays(pixels)
    across = joints - (joints * ray).sum(-1, keepdim=True) * ray
    # The gradient of a norm has no limit at zero.
    return (across.square().sum(-1) + 1e-12).sqrt()


def ray_loss(joints: Tensor, pixels: Tensor, confidence: Tensor, camera: Camera) -> Tensor:
    """Back-projection: joints lie on the viewing rays of their detections.

    mean of confidence (N, V) x Huber of the distance in metres: it needs no label in space.
    """
    return (confidence * _huber(ray_distance(joints, pixels, camera))).mean()


def surface_loss(joints: Tensor, observed: Tensor) -> Tensor:
    """Joints lie up to 0.2 m behind the surface seen at their pixels.

    ``observed`` (N, V) is its depth; where it is zero or not finite, nothing is asked.
    """
    z = joints[..., 2]
    seen = (observed > 0) & observed.isfinite()
    observed = torch.where(seen, observed, z.detach())
    error = _huber((observed - z).clamp(min=0)) + _huber((z - observed - SKIN).clamp(min=0))
    return torch.where(seen, error, 0.0).mean()


def bone_lengths(joints: Tensor, layout: Layout) -> tuple[Tensor, list[int]]:
    """Lengths (..., B) of the bones, and the joints that they lead to."""
    ends = [v for v, parent in enumerate(layout.parents) if parent != v]
    bones = joints[..., ends, :] - joints[..., [layout.parents[v] for v in ends], :]
    return (bones.square().sum(-1) + 1e-12).sqrt(), ends


def symmetry_loss(joints: Tensor, layout: Layout) -> Tensor:
    """Mean difference of the lengths of left and right bones."""
    lengths, ends = bone_lengths(joints, layout)
    left, right = zip(*[[ends.index(v) for v in pair] for pair in layout.left_right], strict=True)
    return (lengths[..., list(left)] - lengths[..., list(right)]).abs().mean()


def motion_loss(joints: Tensor, layout: Layout) -> Tensor:
    """Of sequences (N, T, V, 3), T >= 3: mean acceleration, and variance of bone lengths."""
    if joints.shape[1] < 3:
        raise _check.fail("motion_loss", "at least 3 frames", joints.shape[1])
    acceleration = joints[:, 2:] - 2 * joints[:, 1:-1] + joints[:, :-2]
    lengths, _ = bone_lengths(joints, layout)
    return acceleration.norm(dim=-1).mean() + lengths.var(1, correction=0).mean()


def weak_loss(
    joints: Tensor,
    pixels: Tensor,
    confidence: Tensor,
    observed: Tensor,
    camera: Camera,
    layout: Layout = ITOP15,
    weights: Sequence[float] = (1.0, 0.5, 0.1, 0.1),
) -> Tensor:
    """Loss of the first stage, of sequences without labels in space.

    Args:
        joints: (N, T, V, 3) predicted.
        pixels: (N, T, V, 2) detected in the image, with confidence (N, T, V).
        observed: (N, T, V) depth of the image there, 0 if there is none.
        camera: of all frames.
        layout: of the joints.
        weights: of back-projection, surface, symmetry and motion.
    """
    flat = [t.flatten(0, 1) for t in (joints, pixels, confidence, observed)]
    terms = (
        ray_loss(*flat[:3], camera),
        surface_loss(flat[0], flat[3]),
        symmetry_loss(flat[0], layout),
        motion_loss(joints, layout),
    )
    return sum(w * term for w, term in zip(weights, terms, strict=True))


def trusted(joints: Tensor, pixels: Tensor, camera: Camera, limit: float = 0.1) -> Tensor:
    """Pseudo labels (N, V) for the second stage: those near the viewing rays, in metres."""
    return ray_distance(joints, pixels, camera) <= limit
