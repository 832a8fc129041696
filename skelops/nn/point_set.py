"""Point clouds: grouping, set abstraction and feature propagation of PointNet++.

Qi et al., PointNet++: Deep Hierarchical Feature Learning on Point Sets, NeurIPS 2017. Clouds are
(N, L, 3), features (N, C, L).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from skelops.ops import ball_query, farthest_point_sample, knn

EPS = 1e-8


def take(points: Tensor, index: Tensor) -> Tensor:
    """Rows of (N, L, C) by index (N, ...) -> (N, ..., C)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, points.shape[2])
    return points.gather(1, flat).unflatten(1, index.shape[1:])


def interpolate(
    points: Tensor, centers: Tensor, features: Tensor, k: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    """Features at points, as means over their nearest centers weighted by inverse distance.

    Args:
        points: (N, L, 3) where the features are wanted.
        centers: (N, Q, 3) where they are.
        features: (N, C, Q).
        k: neighbours of a point.

    Returns:
        features (N, C, L), indices (N, L, k) and weights (N, L, k) of the centers.
    """
    nearest, distance = knn(points, centers, k)
    weight = (distance.sqrt() + EPS).reciprocal()
    weight = (weight / weight.sum(2, keepdim=True)).to(features.dtype)
    near = take(features.mT, nearest)
    return torch.einsum("nlkc,nlk->ncl", near, weight), nearest, weight


def shared_mlp(channels: Sequence[int], dims: int) -> nn.Sequential:
    """1x1 convolutions with normalisation and rectifier over ``dims`` axes of points."""
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv2d, nn.BatchNorm2d)
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [conv(before, after, 1, bias=False), norm(after), nn.ReLU()]
    return nn.Sequential(*layers)


class SetAbstraction(nn.Module):
    """Features of groups of points: a shared network, and the maximum over each group.

    Args:
        in_channels: C of the features, 0 if there are none.
        widths: of the shared network.
        count: centers, chosen by farthest point sampling; None makes one group of all points.
        radius, k: of a group, see ``ball_query``.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        count: int | None = None,
        radius: float = 0.0,
        k: int = 0,
    ) -> None:
        super().__init__()
        self.count, self.radius, self.k = count, radius, k
        self.mlp = shared_mlp((3 + in_channels, *widths), 2)

    def forward(self, points: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, L, 3), (N, C, L) -> centers (N, Q, 3), features (N, C', Q)."""
        if self.count is None:
            centers = points.new_zeros(points.shape[0], 1, 3)
            near = points[:, None]
            group = None if features is None else features.mT[:, None]
        else:
            centers = take(points, farthest_point_sample(points, self.count))
            index, _ = ball_query(centers, points, self.radius, self.k)
            near = take(points, index) - centers[:, :, None]
            group = None if features is None else take(features.mT, index)
        x = near if group is None else torch.cat([near, group], -1)
        return centers, self.mlp(x.permute(0, 3, 1, 2)).amax(3)


class FeaturePropagation(nn.Module):
    """Features of centers brought to points, beside those the points have."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.mlp = shared_mlp((in_channels, *widths), 1)

    def forward(
        self, points: Tensor, features: Tensor, centers: Tensor, center_features: Tensor
    ) -> Tensor:
        """Points (N, L, 3) with features (N, C, L), centers (N, Q, 3) with (N, C', Q)."""
        if centers.shape[1] == 1:
            found = center_features.expand(-1, -1, points.shape[1])
        else:
            found, _, _ = interpolate(points, centers, center_features)
        return self.mlp(torch.cat([found, features], 1))
