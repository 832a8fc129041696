"""A pinhole camera: x to the right, y down, z away from it, in metres; pixels as (column, row)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from skelops import _check

NEAR = 1e-3  # metres: nothing nearer is in front of a camera


class Camera(NamedTuple):
    """Focal lengths and principal point in pixels; numbers, or tensors (N,) of a batch."""

    fx: float | Tensor
    fy: float | Tensor
    cx: float | Tensor
    cy: float | Tensor

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Focal lengths and principal points that broadcast against (N, ..., 2)."""
        pairs = (self.fx, self.fy), (self.cx, self.cy)
        values = [torch.stack([torch.as_tensor(v).to(x) for v in pair], -1) for pair in pairs]
        f, c = (v if v.dim() == 1 else v.view(-1, *[1] * (x.dim() - 2), 2) for v in values)
        return f, c

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N, ..., 3) -> pixels (N, ..., 2) and whether a point is in front of the camera.

        The pixels of others are finite, and mean nothing.
        """
        f, c = self._like(points)
        front = points[..., 2] > NEAR
        z = torch.where(front, points[..., 2], torch.ones_like(points[..., 2]))
        return points[..., :2] / z[..., None] * f + c, front

    def rays(self, pixels: Tensor) -> Tensor:
        """(N, ..., 2) -> viewing directions (N, ..., 3) of length one."""
        f, c = self._like(pixels)
        direction = torch.cat([(pixels - c) / f, torch.ones_like(pixels[..., :1])], -1)
        return direction / direction.norm(dim=-1, keepdim=True)

    def unproject(self, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (N, H, W) -> points (N, H, W, 3), and where there is a depth.

        A depth that is zero, negative or not finite is none; its point is zero.
        """
        _check.shape("Camera.unproject", "depth", depth, "N H W")
        valid = (depth > 0) & depth.isfinite()
        z = torch.where(valid, depth, torch.zeros_like(depth))[..., None]
        f, c = self._like(z.expand(*z.shape[:-1], 2))
        plane = (pixel_grid(*depth.shape[1:]).to(depth) - c) / f
        return torch.cat([plane * z, z.expand_as(depth[..., None])], -1), valid


def pixel_grid(height: int, width: int) -> Tensor:
    """(H, W, 2): column and row of every pixel."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([column, row], -1).float()
