"""RGB-D images and point clouds of a body made of capsules, one per bone.

A capsule is a cylinder and a sphere at each of its ends; a pixel sees the nearest surface that its
ray meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skelops import _check
from skelops.camera import NEAR, Camera, pixel_grid


class Image(NamedTuple):
    """What a camera sees: depth (N, H, W), 0 where nothing is; bone (N, H, W), -1 there;
    brightness (N, H, W) in [0, 1] under a light at the camera."""

    depth: Tensor
    bone: Tensor
    shade: Tensor


def _nearest(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The lesser root of a t^2 + 2 b t + c; infinite if there is none in front of the camera."""
    h = b * b - a * c
    t = (-b - h.clamp(min=0).sqrt()) / a
    return torch.where((h > 0) & (t > NEAR), t, torch.inf)


def render(
    joints: Tensor,
    bones: Sequence[tuple[int, int]],
    radii: Sequence[float],
    camera: Camera,
    size: tuple[int, int],
) -> Image:
    """See bodies through a camera.

    Args:
        joints: (N, V, 3) in the camera's coordinates.
        bones: pairs of joints.
        radii: of the bones, metres.
        camera: of all bodies.
        size: (H, W).

    Raises:
        ValueError: a radius that is not positive, or not as many as bones; a joint that is none.
    """
    _check.shape("render", "joints", joints, "N V 3", **{"3": 3})
    if len(radii) != len(bones) or not all(r > 0 for r in radii):
        raise _check.fail("render", f"{len(bones)} radii above zero", list(radii))
    V = joints.shape[1]
    if not all(0 <= end < V for bone in bones for end in bone):
        raise _check.fail("render", f"bones between {V} joints", list(bones))
    one, other = (joints[:, [bone[i] for bone in bones], None] for i in (0, 1))
    r = torch.tensor(radii).to(joints)[:, None]
    # A ray's parameter is its depth: directions have z = 1.
    ray = camera.rays(pixel_grid(*size).to(joints).flatten(0, 1))
    ray = ray / ray[:, 2:]
    axis = other - one
    rr, ra = ray.square().sum(-1), (ray * axis).sum(-1)
    ro, rp = -(ray * one).sum(-1), -(ray * other).sum(-1)
    aa, ao = axis.square().sum(-1), -(axis * one).sum(-1)
    oo, pp = one.square().sum(-1), other.square().sum(-1)
    along = (aa * rr - ra * ra).clamp(min=1e-12)
    side = _nearest(along, aa * ro - ao * ra, aa * oo - ao * ao - r * r * aa)
    place = torch.where(side.isfinite(), ao + side * ra, -1.0)
    side = torch.where((place > 0) & (place < aa), side, torch.inf)
    ends = torch.minimum(_nearest(rr, ro, oo - r * r), _nearest(rr, rp, pp - r * r))
    depth, bone = torch.minimum(side, ends).min(1)
    hit = depth.isfinite()
    depth = torch.where(hit, depth, 0.0)
    point = ray * depth[..., None]
    chosen = bone[..., None].expand(-1, -1, 3)
    start, along = one[:, :, 0].gather(1, chosen), axis[:, :, 0].gather(1, chosen)
    share = ((point - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)
    normal = (point - start - along * share.clamp(0, 1)[..., None]) / r[bone]
    shade = -(normal * ray).sum(-1) / rr.sqrt()
    shapes = (joints.shape[0], *size)
    return Image(
        depth.view(shapes),
        torch.where(hit, bone, -1).view(shapes),
        torch.where(hit, shade.clamp(0, 1), 0.0).view(shapes),
    )


def colour(image: Image, palette: Tensor, background: float = 0.1) -> Tensor:
    """RGB (N, 3, H, W) of an image, one colour (B, 3) per bone."""
    rgb = palette[image.bone.clamp(min=0)] * image.shade[..., None]
    return torch.where(image.bone[..., None] >= 0, rgb, background).permute(0, 3, 1, 2)


def sample_cloud(depth: Tensor, camera: Camera, count: int, noise: Tensor) -> Tensor:
    """So many points (N, count, 3) of every depth map.

    Args:
        depth: (N, H, W), 0 where nothing is.
        camera: of the maps.
        count: points. A map of fewer pixels with a depth repeats them.
        noise: (N, H, W) uniform in [0, 1): the least are taken.

    Raises:
        ValueError: a map without any depth.
    """
    points, valid = camera.unproject(depth)
    found = valid.flatten(1).sum(1)
    if (found == 0).any():
        raise _check.fail("sample_cloud", "a depth in every map", "one without")
    order = torch.where(valid, noise, 2.0).flatten(1).argsort(1)
    place = torch.arange(count, device=depth.device) % found[:, None]
    index = order.gather(1, place)[..., None].expand(-1, -1, 3)
    return points.flatten(1, 2).gather(1, index)
