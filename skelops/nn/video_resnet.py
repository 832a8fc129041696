"""ResNets of basic blocks over the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def _conv(C: int, out: int, size: int, taps: int, stride: int = 1) -> nn.Conv3d:
    padding = (taps // 2, size // 2, size // 2)
    return nn.Conv3d(C, out, (taps, size, size), (1, stride, stride), padding, bias=False)


class _BasicBlock(nn.Module):
    def __init__(self, C: int, out: int, taps: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(C, out, 3, taps, stride), nn.BatchNorm3d(out)
        self.conv2, self.bn2 = _conv(out, out, 3, taps), nn.BatchNorm3d(out)
        self.downsample = nn.Identity()
        if stride != 1 or out != C:
            self.downsample = nn.Sequential(_conv(C, out, 1, 1, stride), nn.BatchNorm3d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class VideoResNet(nn.Module):
    """ResNet of basic blocks that keeps the frames; names are those of torchvision's ResNet-18.

    With one temporal tap everywhere it is ResNet-18 on single frames; with three in the stem and
    the first stage, and no pooling, the mixed convolutions of MC3.

    Args:
        in_channels: C of the video.
        widths: channels of the stages; all but the first halve height and width.
        depth: blocks per stage.
        mixed: three temporal taps in the stem and the first stage.
        pool: the 3 x 3 maximum of stride 2 behind the stem.

    Shape: (N, C, T, H, W) -> the stages' outputs, (N, widths[s], T, H', W') each.

    Source: He et al., CVPR 2016; MC3: Tran et al., CVPR 2018.
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512),
        *,
        depth: int = 2,
        mixed: bool = False,
        pool: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, widths[0], 7, 3 if mixed else 1, 2)
        self.bn1 = nn.BatchNorm3d(widths[0])
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)) if pool else nn.Identity()
        self.stages = len(widths)
        C = widths[0]
        for s, width in enumerate(widths):
            taps = 3 if mixed and s == 0 else 1
            blocks = [_BasicBlock(C, width, taps, 1 if s == 0 else 2)]
            blocks += [_BasicBlock(width, width, taps, 1) for _ in range(depth - 1)]
            self.add_module(f"layer{s + 1}", nn.Sequential(*blocks))
            C = width
        for m in self.modules():
            if isinstance(m, nn.Conv3d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        found = []
        for s in range(self.stages):
            x = self.get_submodule(f"layer{s + 1}")(x)
            found.append(x)
        return found
