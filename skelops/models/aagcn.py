"""AAGCN (Shi et al., MS-AAGCN, TIP 2020, https://arxiv.org/abs/1912.06971), after 2s-AGCN."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from skelops.graph import Layout
from skelops.models._registry import graph_of, register_model
from skelops.models.st_gcn import BRANCHES, PUBLISHED_KEYS, make_block
from skelops.nn import AdaptiveGraphConv, Gates, GraphUnit, SkeletonNet, kaiming_


@register_model("aagcn")
class AAGCN(SkeletonNet):
    """Adaptive graph convolution with attention, (N, C, T, V, M) -> logits (N, num_classes).

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        graph: kind of adjacency, or one (K, V, V).
        adaptive: a learnable graph and one per sample; else the graph is fixed.
        attention: gates over joints, frames and channels behind every graph convolution.
        embed_reduction: C' over the channels of the embeddings.
        temporal, branches, tcn_dropout: see ``make_block``.
        net: further arguments of ``skelops.nn.SkeletonNet``.

    Published (PYSKL): NTU RGB+D 60 X-Sub 89.0 % (joint), 3.77 M parameters.
    """

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        graph: str | Tensor = "spatial",
        adaptive: bool = True,
        attention: bool = True,
        embed_reduction: int = 4,
        temporal: str = "single",
        branches: Sequence = BRANCHES,
        tcn_dropout: float = 0.0,
        **net,
    ) -> None:
        A = graph_of(graph, layout)
        topology = "learnable" if adaptive else "fixed"

        def unit(C: int, out: int) -> nn.Module:
            embed = out // embed_reduction if adaptive else None
            conv = AdaptiveGraphConv(C, out, A, embed, topology)
            gates = Gates(out, A.shape[-1]) if attention else None
            return GraphUnit(conv, C, out, gates=gates, norm_weight=1e-6)

        block = make_block(unit, temporal, branches, tcn_dropout)
        super().__init__(block, num_classes, layout, head_std=0.01, **net)
        self.register_buffer("A", A)
        self.published_keys = PUBLISHED_KEYS
        kaiming_(self)
