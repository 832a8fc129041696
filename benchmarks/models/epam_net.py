"""EPAM-Net as published, one PyTorch call after the other, against ``skelops.models``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.network import CLASSES, INFERENCE, NetworkCase
from skelops.models import EPAMNet, load_published
from skelops.models.epam_net import STREAMS, WIDTHS, se_width

JOINTS = 17


class ConvNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, k: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv3d(
            inputs, outputs, (1, k, k), (1, stride, stride), (0, k // 2, k // 2),
            groups=groups, bias=False,
        )  # fmt: skip
        self.bn = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Excitation(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv3d(channels, se_width(channels), 1)
        self.fc2 = nn.Conv3d(se_width(channels), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool3d(x, 1)))))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, fold_div: int, excited: bool):
        super().__init__()
        hidden = outputs * 9 // 4
        self.fold = inputs // fold_div
        self.conv1 = ConvNorm(inputs, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, hidden)
        self.conv3 = ConvNorm(hidden, outputs)
        self.se_module = Excitation(hidden) if excited else nn.Identity()
        project = stride != 1 or inputs != outputs
        self.downsample = ConvNorm(inputs, outputs, 1, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        f, y = self.fold, torch.zeros_like(x)
        y[:, :f, :-1] = x[:, :f, 1:]
        y[:, f : 2 * f, 1:] = x[:, f : 2 * f, :-1]
        y[:, 2 * f :] = x[:, 2 * f :]
        y = self.se_module(self.conv2(F.relu(self.conv1(y))))
        return F.relu(self.conv3(y * torch.sigmoid(y)) + self.downsample(x))


class Backbone(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        stream = STREAMS[name]
        self.conv1_s = ConvNorm(stream["in_channels"], WIDTHS[0], 3, stream["stem_stride"])
        inputs, self.stages = WIDTHS[0], len(stream["blocks"])
        for i, count in enumerate(stream["blocks"]):
            blocks = [
                Block(WIDTHS[i] if j else inputs, WIDTHS[i], 1 if j else 2, stream["fold_div"],
                      j % 2 == 0)
                for j in range(count)
            ]  # fmt: skip
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            inputs = WIDTHS[i]
        self.conv5 = ConvNorm(inputs, inputs * 9 // 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1_s(x))
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return F.relu(self.conv5(x))


class Head(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.fc_cls = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_cls(F.adaptive_avg_pool3d(x, 1).flatten(1))


class Spatial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 1, (1, 7, 7), padding=(0, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        found = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return torch.sigmoid(self.bn(self.conv(found)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = Spatial()
        self.conv_temporal_attention = nn.Conv1d(1, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        where = self.spatial(x)
        when = torch.sigmoid(self.conv_temporal_attention(where.mean((1, 3, 4))[:, None]))
        return where * when[..., None, None]


class Eager(nn.Module):
    """Pictures and heat-maps -> logits; parameters under their published names."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb_backbone, self.pose_backbone = Backbone("rgb"), Backbone("pose")
        self.attention_module = Attention()
        self.rgb_cls_head, self.pose_cls_head = Head(WIDTHS[3] * 9 // 4), Head(WIDTHS[2] * 9 // 4)

    def forward(self, rgb: Tensor, heatmap: Tensor) -> tuple[Tensor, Tensor]:
        R, P = self.rgb_backbone(rgb), self.pose_backbone(heatmap)
        R = R + R * self.attention_module(P[:, :, ::3])
        return self.rgb_cls_head(R), self.pose_cls_head(P)


class Both(nn.Module):
    """A network on pictures and heat-maps that lie in one tensor (N, ...) -> summed logits."""

    def __init__(self, net: nn.Module, sizes: Mapping[str, int]):
        super().__init__()
        self.net, self.T, self.S = net, sizes["T"], sizes["S"]

    def forward(self, x: Tensor) -> Tensor:
        rgb, heatmap = 3 * self.T * self.S**2, 3 * self.T * JOINTS * (self.S // 4) ** 2
        rgb, heatmap = x.split([rgb, heatmap], 1)
        rgb = rgb.view(-1, 3, self.T, self.S, self.S)
        heatmap = heatmap.view(-1, JOINTS, 3 * self.T, self.S // 4, self.S // 4)
        first, second = self.net(rgb, heatmap)
        return first + second


@dataclass(frozen=True)
class ClipCase(NetworkCase):
    """EPAM-Net on T pictures of S x S and 3 T maps of a quarter of that."""

    quick: Mapping[str, int] = field(default_factory=dict)

    def small(self) -> ClipCase:
        return self.resized(N=2, T=2, S=64)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        N, T, S = (self.sizes[name] for name in "NTS")
        values = 3 * T * S**2 + 3 * T * JOINTS * (S // 4) ** 2
        return torch.rand(N, values, generator=generator), torch.zeros(N, dtype=torch.int64)

    def equal(self, published: Both, device: str) -> nn.Module:
        ours = self.ours(self.sizes).to(device)
        load_published(ours.net, published.net.state_dict())
        return ours


def _multiplications(sizes: Mapping[str, int]) -> float:
    """7.62 G of the official module for a clip of 16 pictures of 224 x 224."""
    return 7.62e9 * sizes["N"] * sizes["T"] / 16 * (sizes["S"] / 224) ** 2


CASES = [
    ClipCase(
        "inference", INFERENCE, {"N": 1, "T": 16, "S": 224},
        published=lambda sizes: Both(Eager(), sizes),
        ours=lambda sizes: Both(EPAMNet(CLASSES), sizes),
        multiplications=_multiplications,
        targets={INFERENCE: {"eager": 1.5}},
        headline="EPAM-Net, inference of one clip",
    ),
]  # fmt: skip
