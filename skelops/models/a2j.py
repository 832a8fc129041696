"""A2J: joints in a depth image as weighted votes of anchors, and the loss of its 3-D successor.

Xiong et al., A2J: Anchor-to-Joint Regression Network, ICCV 2019; Jiang et al., A2J-Transformer,
CVPR 2023. Coordinates are in the published order: (row, column, depth) in images, (x, y, z) in
space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check
from skelops.ops import anchor_regression

STRIDE = 16
CELL = (2, 6, 10, 14)  # rows and columns of the anchors in a cell
DEPTHS = (63.5, 127.5, 191.5)


def image_anchors(
    height: int,
    width: int,
    stride: int = STRIDE,
    rows: Sequence[float] = CELL,
    columns: Sequence[float] = CELL,
) -> Tensor:
    """Anchors (A, 2) of an image of so many cells, as (row, column).

    Cells are ordered by column, then row, as the published heads are flattened; the anchors of a
    cell, at ``rows`` and ``columns`` in it, by row, then column.
    """
    inside = (torch.tensor(places, dtype=torch.float32) for places in (rows, columns))
    column, row = (torch.arange(n, dtype=torch.float32) * stride for n in (width, height))
    grid = torch.meshgrid(column, row, *inside, indexing="ij")
    return torch.stack([grid[1] + grid[2], grid[0] + grid[3]], -1).flatten(0, -2)


def space_anchors(
    size: int = 16, stride: float = STRIDE, depths: tuple[float, ...] = DEPTHS
) -> Tensor:
    """Anchors (A, 3) of a crop as (x, y, z): y slowest, then x, then z."""
    place = torch.arange(size) * stride + (stride - 1) / 2
    y, x, z = torch.meshgrid(place, place, torch.tensor(depths), indexing="ij")
    return torch.stack([x, y, z], -1).flatten(0, -2)


class Votes(NamedTuple):
    """What the anchors say: logits (N, A, V), offset (N, A, V, 2), depth (N, A, V) or None."""

    logits: Tensor
    offset: Tensor
    depth: Tensor | None = None


def a2j_loss(
    votes: Votes, anchors: Tensor, target: Tensor, spatial_factor: float = 0.5
) -> tuple[Tensor, Tensor]:
    r"""The two terms of A2J's loss; it is trained on anchor + 3 regression.

    .. math::
        anchor = H_1(\bar a - y_{rc}), \qquad
        regression = s H_1(x_{rc} - y_{rc}) + \mathrm{mean}\,|x_d - y_d|

    with H_1 the mean Huber function of knee 1. The publication has a Huber function of knee 3 for
    depth; its code does not use it.

    Args:
        votes: of the network; those without a depth leave x_d out.
        anchors: (A, 2).
        target: (N, V, 3) joints as (row, column, depth).
        spatial_factor: s.

    Returns:
        (anchor, regression), scalars.
    """
    joints, mean = anchor_regression(votes.logits, votes.offset, anchors, votes.depth)
    target = target.to(joints.dtype)
    regression = spatial_factor * F.smooth_l1_loss(joints[..., :2], target[..., :2])
    if votes.depth is not None:
        regression = regression + F.l1_loss(joints[..., 2], target[..., 2])
    return F.smooth_l1_loss(mean, target[..., :2]), regression


def space_joints(logits: Tensor, offset: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Joints in space and the means of their anchors, see ``skelops.ops.anchor_regression``.

    Args:
        logits: (N, A, V) or, of several decoder layers, (layers, N, A, V).
        offset: (..., N, A, V, 3).
        anchors: (A, 3), or one set per sample, or per layer and sample, shaped like ``logits``.

    Returns:
        Both (..., N, V, 3).
    """
    layers = logits.shape[:-3]
    if anchors.dim() > 3:
        anchors = anchors.flatten(0, -3)
    elif anchors.dim() == 3 and layers:
        anchors = anchors.expand(*layers, -1, -1, -1).flatten(0, -3)
    found = anchor_regression(logits.flatten(0, -3), offset.flatten(0, -4), anchors)
    joints, mean = (t.unflatten(0, logits.shape[:-2]) for t in found)
    return joints, mean


def a2j_space_loss(
    logits: Tensor,
    offset: Tensor,
    anchors: Tensor,
    target: Tensor,
    valid: Tensor,
    spatial_factor: float = 0.5,
    depth_knee: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """The two terms of A2J-Transformer's loss, of joints in space that are valid.

    Args:
        logits, offset, anchors: see ``space_joints``.
        target: (N, V, 3) joints as (x, y, z).
        valid: (N, V) True = counts. A sample without any has no loss.
        spatial_factor: weight of x and y in the regression.
        depth_knee: of the Huber function on z; that of x and y is 1.

    Returns:
        (anchor, regression), means over samples and layers of means over 3 x valid joints.
    """
    joints, mean = space_joints(logits, offset, anchors)
    target = target.to(joints.dtype).expand_as(joints)
    valid = valid.to(joints.dtype)
    weight = valid / (3 * valid.sum(-1, keepdim=True)).clamp(min=1)

    def total(error: Tensor) -> Tensor:
        return (error.sum(-1) * weight).sum(-1).mean()

    place = F.smooth_l1_loss(joints[..., :2], target[..., :2], reduction="none")
    depth = F.smooth_l1_loss(joints[..., 2:], target[..., 2:], reduction="none", beta=depth_knee)
    anchor = F.smooth_l1_loss(mean, target, reduction="none")
    return total(anchor), total(torch.cat([spatial_factor * place, depth], -1))


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if channels != out or stride != 1:
            conv = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """A bottleneck ResNet whose last stage is dilated instead of strided.

    Args:
        blocks: of the four stages; (3, 4, 6, 3) is ResNet-50.
        width: of the first stage; the last stage has 32 times as many channels.
        fc: hold the unused classifier of published checkpoints.
    """

    def __init__(self, blocks=(3, 4, 6, 3), width: int = 64, fc: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for i, (count, stride) in enumerate(zip(blocks, (1, 2, 2, 1), strict=True)):
            stage = []
            for j in range(count):
                dilation = 2 if i == 3 and j else 1
                stage.append(_Bottleneck(channels, width << i, 1 if j else stride, dilation))
                channels = 4 * width << i
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(channels, 1000).requires_grad_(False) if fc else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> features of the last two stages, both at stride 16."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer3(self.layer2(self.layer1(x)))
        return x, self.layer4(x)


class Tower(nn.Module):
    """Four 3x3 convolutions with normalisation, and one more to the outputs."""

    def __init__(self, channels: int, out: int, width: int = 256) -> None:
        super().__init__()
        for i in range(1, 5):
            self.add_module(f"conv{i}", nn.Conv2d(channels, width, 3, padding=1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            channels = width
        self.output = nn.Conv2d(width, out, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 5):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return self.output(x)


def by_anchor(x: Tensor, *sizes: int) -> Tensor:
    """Maps (N, C, H, W) -> (N, A, *sizes), cells by column, then row."""
    return x.permute(0, 3, 2, 1).reshape(x.shape[0], -1, *sizes)


class A2J(nn.Module):
    """Anchor-to-joint regression in a depth image.

    Args:
        num_joints: V.
        blocks, width: of the backbone, see ``ResNet``; published is ResNet-50.
        tower_width: channels of the heads.
        with_depth: find the depth of the joints, too.

    Example:
        >>> model = A2J(num_joints=15)
        >>> model.joints(model(torch.randn(2, 1, 288, 288)), 288, 288).shape
        torch.Size([2, 15, 3])
    """

    published_keys = (
        (r"^backbone\.", "Backbone.model."),
        (r"^weight\.", "classificationModel."),
        (r"^offset\.", "regressionModel."),
        (r"^depth\.", "DepthRegressionModel."),
    )

    def __init__(
        self,
        num_joints: int = 15,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        tower_width: int = 256,
        with_depth: bool = True,
    ) -> None:
        super().__init__()
        self.num_joints = num_joints
        self.backbone = ResNet(blocks, width)
        per_cell = len(CELL) ** 2 * num_joints
        self.weight = Tower(16 * width, per_cell, tower_width)
        self.offset = Tower(32 * width, 2 * per_cell, tower_width)
        self.depth = Tower(32 * width, per_cell, tower_width) if with_depth else None

    def forward(self, depth: Tensor) -> Votes:
        """Depth (N, 1, H, W), normalised; H and W multiples of 16."""
        _check.shape("A2J", "depth", depth, "N 1 H W", **{"1": 1})
        if depth.shape[2] % STRIDE or depth.shape[3] % STRIDE:
            expected = f"H and W to be multiples of {STRIDE}"
            raise _check.fail("A2J", expected, _check.shape_text(depth.shape))
        common, deep = self.backbone(depth.expand(-1, 3, -1, -1))
        V = self.num_joints
        return Votes(
            by_anchor(self.weight(common), V),
            by_anchor(self.offset(deep), V, 2),
            None if self.depth is None else by_anchor(self.depth(deep), V),
        )

    @staticmethod
    def joints(votes: Votes, height: int, width: int) -> Tensor:
        """(N, V, 3) as (row, column, depth), or (N, V, 2), of an image of so many pixels."""
        anchors = image_anchors(height // STRIDE, width // STRIDE).to(votes.logits)
        return anchor_regression(votes.logits, votes.offset, anchors, votes.depth)[0]
