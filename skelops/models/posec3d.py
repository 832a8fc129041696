"""PoseC3D (Duan et al., CVPR 2022, https://arxiv.org/abs/2104.13586): SlowOnly on heat-maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from skelops import _check
from skelops.graph import Layout
from skelops.models._published import KeyPairs
from skelops.models._registry import register_model
from skelops.nn import ConvNorm3d, HeatmapNet

# As in kennymckormick/pyskl.
PUBLISHED_KEYS: KeyPairs = (
    (r"^layers\.(\d+)\.", lambda match: f"layer{int(match[1]) + 1}."),
    (r"^stem\.", "conv1."),
    (r"^fc\.", "cls_head.fc_cls."),
    (r"^(conv1|layer\d+)\.", r"backbone.\g<0>"),
)
EXPANSION = 4


class Bottleneck(nn.Module):
    """Residual block: 1x1 (three frames if it looks at time), 3x3 pixels with the stride, 1x1.

    (N, C, T, H, W) -> (N, 4 * planes, T', H', W').
    """

    def __init__(
        self, in_channels: int, planes: int, stride: Sequence[int], temporal: bool, project: bool
    ) -> None:
        super().__init__()
        out = EXPANSION * planes
        self.conv1 = ConvNorm3d(in_channels, planes, (3 if temporal else 1, 1, 1))
        self.conv2 = ConvNorm3d(planes, planes, (1, 3, 3), stride)
        self.conv3 = ConvNorm3d(planes, out)
        self.downsample = ConvNorm3d(in_channels, out, stride=stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)), x, self.downsample)


class SlowOnly(nn.Module):
    """3-D ResNet without a loss of frames at its start, (N, K, T, H, W) -> (N, num_classes).

    Args:
        num_classes: of the head.
        in_channels: K, maps.
        base_channels: width of the stem.
        blocks: of each stage.
        inflate: for each stage, whether its blocks look at three frames.
        spatial_strides, temporal_strides: of the first block of each stage.
        stem_stride, pool_stride: of pixels in the stem, and in its pooling.
        dropout: in front of the head.

    Raises:
        ValueError: stages that disagree in number.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 17,
        *,
        base_channels: int = 32,
        blocks: Sequence[int] = (4, 6, 3),
        inflate: Sequence[bool] = (False, True, True),
        spatial_strides: Sequence[int] = (2, 2, 2),
        temporal_strides: Sequence[int] = (1, 1, 2),
        stem_stride: int = 1,
        pool_stride: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        stages = (inflate, spatial_strides, temporal_strides)
        if any(len(part) != len(blocks) for part in stages):
            got = [len(part) for part in stages]
            raise _check.fail("SlowOnly", f"settings of {len(blocks)} stages", got)
        self.stem = ConvNorm3d(in_channels, base_channels, (1, 7, 7), (1, stem_stride, stem_stride))
        self.pool = nn.MaxPool3d((1, 3, 3), (1, pool_stride, pool_stride), (0, 1, 1))
        self.layers, C = nn.ModuleList(), base_channels
        for i, (count, temporal, s, t) in enumerate(
            zip(blocks, inflate, spatial_strides, temporal_strides, strict=True)
        ):
            planes = base_channels * 2**i
            stage = nn.Sequential()
            for j in range(count):
                stride = (t, s, s) if j == 0 else (1, 1, 1)
                project = j == 0 and (stride != (1, 1, 1) or EXPANSION * planes != C)
                stage.append(Bottleneck(C, planes, stride, bool(temporal), project))
                C = EXPANSION * planes
            self.layers.append(stage)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(C, num_classes)
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)
        self.published_keys = PUBLISHED_KEYS

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        for stage in self.layers:
            x = stage(x)
        return self.fc(self.dropout(x.mean((2, 3, 4))))


@register_model("posec3d")
class PoseC3D(HeatmapNet):
    """SlowOnly on the heat-maps of a skeleton sequence, (N, C, T, V, M) -> (N, num_classes).

    Args:
        num_classes, layout: see ``skelops.nn.HeatmapNet``.
        options: further ones of ``skelops.nn.HeatmapNet`` and of ``SlowOnly``.

    Published: NTU RGB+D 60 X-Sub 93.7 % (joint), 93.4 % (limb), 94.1 % (both), 2.0 M parameters,
    48 frames of 56 x 56 pixels.
    """

    def __init__(self, num_classes: int = 60, layout: str | Layout = "coco17", **options) -> None:
        super().__init__(SlowOnly, num_classes, layout, **options)
