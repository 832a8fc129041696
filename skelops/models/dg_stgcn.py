"""DG-STGCN (Duan et al., 2022, https://arxiv.org/abs/2210.05895)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skelops.graph import Layout, get_layout
from skelops.models._registry import graph_of, register_model
from skelops.models.st_gcn import BRANCHES, PUBLISHED_KEYS, make_block
from skelops.nn import DynamicGraphConv, GraphUnit, SkeletonNet


@register_model("dg_stgcn")
class DGSTGCN(SkeletonNet):
    """Dynamic group spatio-temporal GCN, (N, C, T, V, M) -> logits (N, num_classes).

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        graph: "random" for normal entries around 0.04, a kind of adjacency, or one (K, V, V).
        groups: K, of the random graph.
        ratio: channels of a group relative to the unit's; 1 / K if None.
        channel_wise, joint_wise, per_subset, per_frame, channel_act, joint_act: see
            ``skelops.nn.DynamicGraphConv``.
        temporal, branches, tcn_dropout: see ``make_block``.
        mean_joint: the mean over joints takes part in the temporal modules as a further joint, with
            weights for the joints of the layout or, if a number, for so many: the
            published default is 25 whatever the layout.
        net: further arguments of ``skelops.nn.SkeletonNet``.

    Published: NTU RGB+D 60 X-Sub 91.2 % (joint), 100 frames.
    """

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        graph: str | Tensor = "random",
        groups: int = 8,
        ratio: float | None = 0.125,
        channel_wise: bool = True,
        joint_wise: bool = True,
        per_subset: bool = False,
        per_frame: bool = False,
        channel_act: str = "tanh",
        joint_act: str = "softmax",
        temporal: str = "multi",
        branches: Sequence = BRANCHES,
        mean_joint: bool | int = True,
        tcn_dropout: float = 0.0,
        input_norm: str | None = "VC",
        **net,
    ) -> None:
        V = get_layout(layout).num_joints
        if isinstance(graph, str) and graph == "random":
            graph = 0.04 + 0.02 * torch.randn(groups, V, V)
        A = graph_of(graph, layout)
        ratio = 1 / len(A) if ratio is None else ratio
        terms: dict[str, Any] = {"channel_wise": channel_wise, "joint_wise": joint_wise}
        terms |= {"per_subset": per_subset, "per_frame": per_frame}
        terms |= {"channel_act": channel_act, "joint_act": joint_act}

        def unit(C: int, out: int) -> nn.Module:
            conv = DynamicGraphConv(C, out, A, int(ratio * out), **terms)
            return GraphUnit(conv, C, out)

        weights = V if mean_joint is True else mean_joint or None
        block = make_block(unit, temporal, branches, tcn_dropout, weights)
        super().__init__(block, num_classes, layout, input_norm=input_norm, head_std=0.01, **net)
        self.published_keys = PUBLISHED_KEYS
