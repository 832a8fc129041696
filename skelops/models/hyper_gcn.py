"""Hyper-GCN (Zhou et al., ICCV 2025, https://arxiv.org/abs/2411.14796)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skelops import _check
from skelops.graph import Layout
from skelops.models._published import OFFICIAL_BLOCKS, UNIT_KEYS, KeyPairs
from skelops.models._registry import graph_of, register_model
from skelops.nn import (
    AdaptiveHypergraphConv,
    GraphUnit,
    MultiScaleTemporalConv,
    SkeletonNet,
    STBlock,
    divergence_loss,
    kaiming_,
    make_stages,
    static_adjacency,
)

PUBLISHED_KEYS: KeyPairs = ((r"\blinks$", "PA"), *UNIT_KEYS, *OFFICIAL_BLOCKS)
# Blocks that widen, counted from one.
SIZES = {"base": (4,), "large": (4, 7)}


@register_model("hyper_gcn")
class HyperGCN(SkeletonNet):
    """GCN on adaptive hyper-graphs with virtual joints, (N, C, T, V, M) -> logits (N, num_classes).

    Trained with label-smoothed cross-entropy plus ``auxiliary_loss``.

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        size: "base", or "large" whose last three blocks are twice as wide.
        base_channels: of the embedded joints and the first three of the nine published blocks.
        stages: other blocks; every third also takes the output of the last but one, where the
            shapes agree.
        num_virtual, heads, topk: see ``skelops.nn.AdaptiveHypergraphConv``.
        graph: kind of adjacency, or links (K, V, V).
        divergence_weight: of the auxiliary loss.
        net: further arguments of ``skelops.nn.SkeletonNet``.

    Raises:
        ValueError: another size; channels, ``num_virtual`` or ``topk`` that do not fit.

    Published: NTU RGB+D 120 X-Sub / X-Set 90.5 / 91.7 % (4 streams), 1.1 M parameters (base) and
    2.3 M (large), 64 frames.
    """

    reads = ("to_joint_embedding",)  # whose weight is taken, not called

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        size: str = "base",
        base_channels: int = 128,
        stages: Sequence[tuple[int, int]] | None = None,
        num_virtual: int = 3,
        heads: int = 8,
        topk: int | None = None,
        graph: str | Tensor = "binary",
        divergence_weight: float = 1.0,
        **net,
    ) -> None:
        if size not in SIZES:
            raise _check.fail("hyper_gcn", f"size one of {', '.join(SIZES)}", repr(size))
        if stages is None:
            stages = make_stages(base_channels, 9, inflate=SIZES[size], down=(4, 7))
        embed = stages[0][0]
        A = graph_of(graph, layout)

        def block(C: int, out: int, stride: int, first: bool) -> nn.Module:
            conv = AdaptiveHypergraphConv(C, out, A, num_virtual, heads=heads, topk=topk)
            gcn = GraphUnit(conv, C, out, norm_weight=1e-6)
            temporal = MultiScaleTemporalConv(out, out, stride=stride, padding_mode="replicate")
            return STBlock(gcn, temporal, C, out, stride)

        super().__init__(block, num_classes, layout, stages=stages, embed_channels=embed, **net)
        self.divergence_weight = divergence_weight
        self.dense = {
            i
            for i in range(2, len(stages), 3)
            if stages[i - 1][1] == 1 and stages[i - 1][0] == stages[i - 2][0]
        }
        self.to_joint_embedding = nn.Linear(self.in_channels, embed)
        self.pos_embedding = nn.Parameter(torch.randn(1, self.layout.num_joints, embed))
        self.published_keys = PUBLISHED_KEYS
        kaiming_(self)

    def embed(self, x: Tensor) -> Tensor:
        N, C, T, V, M = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(N * M * V, C, T)
        place = (self.pos_embedding + self.to_joint_embedding.bias).repeat(N * M, 1, 1)
        weight = self.to_joint_embedding.weight.expand(len(x), -1, -1)
        y = torch.baddbmm(place.flatten(0, 1).unsqueeze(-1), weight, x)
        return y.tanh_().view(N, M, V, -1, T)

    def trunk(self, x: Tensor) -> Tensor:
        units = [block.gcn.graph for block in self.blocks]
        # Of all blocks at once: nine times fewer small kernels.
        static = static_adjacency(
            torch.stack([unit.links for unit in units]),
            torch.stack([unit.edge_importance for unit in units]),
        )
        before = None
        for i, (block, A) in enumerate(zip(self.blocks, static, strict=True)):
            entering = x + before if i in self.dense else x
            before, x = entering, block(entering, A)
        return x

    def shards(self) -> Sequence[nn.Module]:
        return ()  # trunk and auxiliary_loss take parameters of all blocks together

    def auxiliary_loss(self) -> Tensor:
        """Divergence of the virtual joints, a further term of the training loss."""
        tables = [block.gcn.graph.hyper_joint for block in self.blocks]
        return self.divergence_weight * divergence_loss(tables)
