"""The frame that all skeleton classifiers share: input normalisation, blocks, pooling, head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout, get_layout

Stage = tuple[int, int]


def make_stages(
    base_channels: int = 64,
    num_stages: int = 10,
    inflate: Sequence[int] = (5, 8),
    down: Sequence[int] = (5, 8),
    ratio: float = 2.0,
) -> list[Stage]:
    """(channels, stride) of every block; numbered from 1, those in ``inflate`` widen by ``ratio``
    and those in ``down`` halve the number of frames."""
    stages, width = [], float(base_channels)
    for i in range(1, num_stages + 1):
        width *= ratio if i in inflate else 1
        stages.append((int(width + 1e-4), 2 if i in down else 1))
    return stages


class SkeletonNet(nn.Module):
    """Blocks over a normalised sequence, mean over frames, joints and persons, linear head.

    Persons are further samples to the blocks. An absent person is a zero one, as in the published
    implementations: it takes part in the statistics and in the mean.

    Args:
        block: (in_channels, out_channels, stride, first) -> module.
        num_classes: of the head.
        layout: name of a registered layout, or a ``Layout``.
        in_channels: C of the input.
        embed_channels: C' of what ``embed`` makes of it; C if None.
        num_persons: M of the input.
        base_channels: width of the first of the ten published blocks.
        stages: other blocks, (channels, stride) each, see ``make_stages``.
        input_norm: features of the input's BN: "MVC" all, or "VC" shared by the persons; None for
            no BN.
        dropout: in front of the head.
        head_std: standard deviation of the head's initial weight, sqrt(2 / classes) if None.

    Shape: (N, C, T, V, M) -> (N, num_classes).

    Source: Yan et al., ST-GCN, AAAI 2018, section 3.4.
    """

    def __init__(
        self,
        block: Callable[[int, int, int, bool], nn.Module],
        num_classes: int,
        layout: str | Layout = "ntu25",
        *,
        in_channels: int = 3,
        embed_channels: int | None = None,
        num_persons: int = 2,
        base_channels: int = 64,
        stages: Sequence[Stage] | None = None,
        input_norm: str | None = "MVC",
        dropout: float = 0.0,
        head_std: float | None = None,
    ) -> None:
        super().__init__()
        if input_norm not in ("MVC", "VC", None):
            where = type(self).__name__
            raise _check.fail(where, 'input_norm "MVC" or "VC", or None', repr(input_norm))
        stages = make_stages(base_channels) if stages is None else stages
        self.layout = get_layout(layout)
        self.in_channels, self.num_persons = in_channels, num_persons
        self.input_norm = input_norm
        V, M = self.layout.num_joints, num_persons
        C = embed_channels or in_channels
        features = V * C * (M if input_norm == "MVC" else 1)
        self.data_bn = nn.Identity() if input_norm is None else nn.BatchNorm1d(features)
        widths = [C, *(width for width, _ in stages)]
        self.blocks = nn.ModuleList(
            block(widths[i], width, stride, i == 0) for i, (width, stride) in enumerate(stages)
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], num_classes)
        nn.init.normal_(self.fc.weight, 0, head_std or math.sqrt(2 / num_classes))
        if head_std is not None:
            nn.init.zeros_(self.fc.bias)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N * M, C', T', V), persons of a sample side by side."""
        return self.trunk(self.normalised(x))

    def normalised(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N * M, C', T, V), what the blocks see."""
        sizes = {"C": self.in_channels, "V": self.layout.num_joints}
        if self.input_norm == "MVC":
            sizes["M"] = self.num_persons
        _check.shape(type(self).__name__, "x", x, "N C T V M", **sizes)
        N, _, T, V, M = x.shape
        x = self.embed(x)
        x = x.flatten(1, 3) if self.input_norm == "MVC" else x.flatten(0, 1).flatten(1, 2)
        return self.data_bn(x).view(N * M, V, -1, T).permute(0, 2, 3, 1).contiguous()

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, M, V, C', T), what the input's BN sees: the input itself."""
        return x.permute(0, 4, 3, 1, 2)

    def trunk(self, x: Tensor) -> Tensor:
        """(N * M, C', T, V) -> (N * M, C", T', V), one block after the other."""
        for block in self.blocks:
            x = block(x)
        return x

    def shards(self) -> Sequence[nn.Module]:
        """Parts whose parameters are used in their own forward only (FSDP gathers them there)."""
        return list(self.blocks)

    def mean(self, y: Tensor, num_persons: int) -> Tensor:
        """Features (N * M, C', T', V) -> (N, C'), over frames, joints and persons."""
        return ops.temporal_mean(y).unflatten(0, (-1, num_persons)).mean((1, 3))

    def pooled(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, C'), what the head looks at."""
        return self.mean(self.features(x), x.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> logits (N, num_classes)."""
        return self.fc(self.dropout(self.pooled(x)))
