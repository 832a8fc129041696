"""CTR-GCN as published, one PyTorch call after the other, against ``skelops.models``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.network import CLASSES, INFERENCE, STEP, NetworkCase, V
from skelops.models import create_model

# (in, out, stride) of the ten blocks
BLOCKS = [(3, 64, 1), *[(64, 64, 1)] * 3, (64, 128, 2), *[(128, 128, 1)] * 2]
BLOCKS += [(128, 256, 2), *[(256, 256, 1)] * 2]


class Refinement(nn.Module):
    """One subset of the channel-wise topology refinement."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        relations = 8 if inputs in (3, 9) else inputs // 8
        self.conv1, self.conv2 = (nn.Conv2d(inputs, relations, 1) for _ in range(2))
        self.conv3 = nn.Conv2d(inputs, outputs, 1)
        self.conv4 = nn.Conv2d(relations, outputs, 1)

    def forward(self, x: Tensor, A: Tensor, alpha: Tensor) -> Tensor:
        p, q, f = self.conv1(x).mean(-2), self.conv2(x).mean(-2), self.conv3(x)
        graph = self.conv4(torch.tanh(p.unsqueeze(-1) - q.unsqueeze(-2))) * alpha + A
        return torch.einsum("ncuv,nctv->nctu", graph, f)


class GraphUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, graph: Tensor | None = None):
        super().__init__()
        self.PA = nn.Parameter(peers.skeleton_graph() if graph is None else graph.clone())
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.convs = nn.ModuleList(Refinement(inputs, outputs) for _ in self.PA)
        self.bn = nn.BatchNorm2d(outputs)
        self.down = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
            if inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        z = None
        for A, conv in zip(self.PA, self.convs, strict=True):
            y = conv(x, A, self.alpha)
            z = y if z is None else z + y
        return F.relu(self.bn(z) + self.down(x))


class TemporalConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, (kernel, 1), (stride, 1), (dilation * (kernel // 2), 0), (dilation, 1)
        )
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class MultiScaleTemporal(nn.Module):
    def __init__(self, channels: int, stride: int):
        super().__init__()
        width = channels // 4

        def entry(stride: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 1, (stride, 1)), nn.BatchNorm2d(width)]

        dilated = (
            nn.Sequential(*entry(), nn.ReLU(), TemporalConv(width, width, 5, d, stride))
            for d in (1, 2)
        )
        pool = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
        pooled = nn.Sequential(*entry(), nn.ReLU(), pool, nn.BatchNorm2d(width))
        self.branches = nn.ModuleList([*dilated, pooled, nn.Sequential(*entry(stride))])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Block(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, stride: int, first: bool, graph: Tensor | None = None
    ):
        super().__init__()
        self.gcn1 = GraphUnit(inputs, outputs, graph)
        self.tcn1 = MultiScaleTemporal(outputs, stride)
        self.first = first
        same = first or (inputs == outputs and stride == 1)
        self.residual = nn.Identity() if same else TemporalConv(inputs, outputs, 1, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn1(self.gcn1(x))
        return F.relu(y if self.first else y + self.residual(x))


class EagerCTRGCN(nn.Module):
    """(N, C, T, V, M) -> logits; parameters under their published names."""

    def __init__(self, persons: int = 2):
        super().__init__()
        self.data_bn = nn.BatchNorm1d(persons * V * 3)
        for i, (inputs, outputs, stride) in enumerate(BLOCKS):
            setattr(self, f"l{i + 1}", Block(inputs, outputs, stride, first=i == 0))
        self.fc = nn.Linear(256, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        N, C, T, _, M = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(N, M * V * C, T))
        x = x.view(N, M, V, C, T).permute(0, 1, 3, 4, 2).reshape(N * M, C, T, V)
        for i in range(len(BLOCKS)):
            x = getattr(self, f"l{i + 1}")(x)
        return self.fc(x.view(N, M, 256, -1).mean(3).mean(1))


def multiplications(
    sizes: Mapping[str, int], blocks: Sequence[tuple[int, int, int]] = BLOCKS, joints: int = V
) -> float:
    """Of the published equations, the temporal mean taken before W1 and W2."""
    B, T, total = sizes["N"] * sizes["M"], sizes["T"], 0.0
    for i, (inputs, outputs, stride) in enumerate(blocks):
        changes = inputs != outputs
        graph = 3 * outputs * (inputs + joints) + (inputs * outputs if changes else 0)
        after = outputs**2 // 4 + 2 * 5 * (outputs // 4) ** 2
        after += inputs * outputs if i and (changes or stride > 1) else 0
        relations = 8 if inputs == 3 else inputs // 8
        topology = 3 * relations * (outputs * joints**2 + 2 * inputs * joints)
        frames = T * (graph + outputs**2 * 3 // 4) + T // stride * after
        total += B * (frames * joints + topology)
        T //= stride
    return total


NETWORK = {
    "published": lambda sizes: EagerCTRGCN(sizes["M"]),
    "ours": lambda sizes: create_model("ctr_gcn", num_classes=CLASSES),
    "multiplications": multiplications,
}
CASES = [
    NetworkCase(
        "training step", STEP, {"N": 8, "M": 2, "T": 64}, **NETWORK,
        targets={STEP: {"eager": 2.2, "compile": 1.8, "saved": 0.4}},
        headline="CTR-GCN, training step",
        gpu={"N": 64},
    ),
    NetworkCase(
        "inference", INFERENCE, {"N": 1, "M": 2, "T": 64}, **NETWORK,
        targets={INFERENCE: {"eager": 2, "compile": 1.5}},
        headline="CTR-GCN, inference of one clip",
    ),
]  # fmt: skip
