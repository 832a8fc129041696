"""ST-GCN (Yan et al., AAAI 2018, https://arxiv.org/abs/1801.07455) and ST-GCN++ as its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from skelops import _check
from skelops.graph import Layout
from skelops.models._published import UNIT_KEYS, KeyPairs
from skelops.models._registry import graph_of, register_model
from skelops.nn import (
    GraphConv,
    GraphUnit,
    MultiScaleTemporalConv,
    SkeletonNet,
    STBlock,
    TemporalConv,
)

# Branches of the temporal module of ST-GCN++ and DG-STGCN.
BRANCHES = ((3, 1), (3, 2), (3, 3), (3, 4), "max", "1x1")
# As in PYSKL, where ST-GCN++, AAGCN and DG-STGCN share the names.
PUBLISHED_KEYS: KeyPairs = (
    *UNIT_KEYS,
    (r"^blocks\.", "gcn."),
    (r"^fc\.", "cls_head.fc_cls."),
    (r"^(A|data_bn|gcn)\b", r"backbone.\1"),
)


def make_block(
    unit: Callable[[int, int], nn.Module],
    temporal: str = "single",
    branches: Sequence = BRANCHES,
    tcn_dropout: float = 0.0,
    mean_joint: int | None = None,
) -> Callable[[int, int, int, bool], nn.Module]:
    """Maker of blocks for ``SkeletonNet`` from ``unit(in_channels, out_channels)``.

    Args:
        unit: makes the graph convolution unit of a block.
        temporal: "single", a kernel of nine frames, or "multi", several scales.
        branches, mean_joint: of the latter, see ``skelops.nn.MultiScaleTemporalConv``.
        tcn_dropout: behind the temporal modules but the first.

    The first block, which makes features of coordinates, has neither residual nor dropout; of an
    input as wide as its result it is one like the others.
    """
    if temporal not in ("single", "multi"):
        raise _check.fail("make_block", 'temporal "single" or "multi"', repr(temporal))

    def block(C: int, out: int, stride: int, first: bool) -> nn.Module:
        if temporal == "single":
            tcn: nn.Module = TemporalConv(out, out, 9, stride)
        else:
            scales = {"transform": True, "mean_joint": mean_joint}
            tcn = MultiScaleTemporalConv(out, out, branches, stride, **scales)
        first = first and out != C
        dropout = 0.0 if first else tcn_dropout
        return STBlock(unit(C, out), tcn, C, out, stride, residual=not first, dropout=dropout)

    return block


@register_model("st_gcn")
class STGCN(SkeletonNet):
    """Spatio-temporal graph convolution network, (N, C, T, V, M) -> logits (N, num_classes).

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        graph: kind of adjacency, or one (K, V, V).
        topology: see ``skelops.nn.Topology``.
        aggregate_first: see ``skelops.nn.GraphConv``.
        unit_residual: a residual around every graph convolution.
        temporal, branches, tcn_dropout: see ``make_block``.
        net: further arguments of ``skelops.nn.SkeletonNet``: ``in_channels``, ``num_persons``,
            ``base_channels``, ``stages``, ``dropout``.

    Published (PYSKL): NTU RGB+D 60 X-Sub 87.8 % (joint), 3.08 M parameters.
    """

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        graph: str | Tensor = "stgcn_spatial",
        topology: str = "importance",
        aggregate_first: bool = False,
        unit_residual: bool = False,
        temporal: str = "single",
        branches: Sequence = BRANCHES,
        tcn_dropout: float = 0.0,
        input_norm: str | None = "VC",
        **net,
    ) -> None:
        A = graph_of(graph, layout)

        def unit(C: int, out: int) -> nn.Module:
            conv = GraphConv(C, out, A, topology, aggregate_first=aggregate_first)
            return GraphUnit(conv, C, out, residual=unit_residual)

        block = make_block(unit, temporal, branches, tcn_dropout)
        super().__init__(block, num_classes, layout, input_norm=input_norm, head_std=0.01, **net)
        self.published_keys = PUBLISHED_KEYS
