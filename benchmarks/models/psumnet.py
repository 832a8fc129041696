"""PSUMNet as published, streams made as its feeder does, against ``skelops.models``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from benchmarks import peers
from benchmarks.models.ctr_gcn import BLOCKS, Block, multiplications
from benchmarks.network import CLASSES, INFERENCE, STEP, NetworkCase
from benchmarks.ops.skeleton_streams import PARTS, plain_streams
from skelops.models import create_model

ALPHAS = {"body": 2, "hand": 1.8, "leg": 0.7}
KEPT = {"body": range(10), "hand": (0, 4, 5, 6, 7, 8), "leg": (0, 4, 5, 7)}
CHANNELS = 12


def blocks_of(part: str) -> list[tuple[int, int, int]]:
    """(in, out, stride) of the blocks of a part."""
    inputs, blocks = CHANNELS, []
    for _, outputs, stride in (BLOCKS[i] for i in KEPT[part]):
        blocks.append((inputs, outputs, stride))
        inputs = outputs
    return blocks


class EagerPart(nn.Module):
    """(N, 12, T, V, M) of a part -> logits; parameters under their published names."""

    def __init__(self, part: str, persons: int = 2):
        super().__init__()
        joints, parents = PARTS[part]
        graph = peers.skeleton_graph([joints.index(parent) for parent in parents])
        self.data_bn = nn.BatchNorm1d(persons * len(joints) * CHANNELS)
        self.layers = nn.ModuleList(
            Block(*sizes, first=i == 0, graph=graph) for i, sizes in enumerate(blocks_of(part))
        )
        self.fc = nn.Linear(256, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        N, C, T, V, M = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(N, M * V * C, T))
        x = x.view(N, M, V, C, T).permute(0, 1, 3, 4, 2).reshape(N * M, C, T, V)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.view(N, M, 256, -1).mean(3).mean(1))


class EagerPSUMNet(nn.Module):
    """(N, 3, T, 25, M) -> the weighted sum of the logits of all parts."""

    def __init__(self, persons: int = 2):
        super().__init__()
        for part in ALPHAS:
            self.add_module(part, EagerPart(part, persons))

    def forward(self, x: Tensor) -> Tensor:
        scores = [
            alpha * self.get_submodule(part)(plain_streams(part)(x))
            for part, alpha in ALPHAS.items()
        ]
        return scores[0] + scores[1] + scores[2]


def _multiplications(parts: Sequence[str]) -> Callable[[Mapping[str, int]], float]:
    return lambda sizes: sum(
        multiplications(sizes, blocks_of(part), len(PARTS[part][0])) for part in parts
    )


CASES = [
    NetworkCase(
        "training step, body", STEP, {"N": 8, "M": 2, "T": 64},
        published=lambda sizes: EagerPart("body", sizes["M"]),
        ours=lambda sizes: create_model("psumnet_body", num_classes=CLASSES),
        multiplications=_multiplications(["body"]),
        targets={STEP: {"eager": 2.2, "compile": 1.8, "saved": 0.4}},
        headline="PSUMNet, training step of the body",
        gpu={"N": 64},
        channels=CHANNELS,
    ),
    NetworkCase(
        "inference, three parts", INFERENCE, {"N": 1, "M": 2, "T": 64},
        published=lambda sizes: EagerPSUMNet(sizes["M"]),
        ours=lambda sizes: create_model("psumnet", num_classes=CLASSES),
        multiplications=_multiplications(list(PARTS)),
        targets={INFERENCE: {"eager": 2, "compile": 1.5}},
        headline="PSUMNet, inference of one clip",
    ),
]  # fmt: skip
