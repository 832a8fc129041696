"""Units, network and loss of Hyper-GCN. A case fills the links: any layout of V joints will do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelops import ops
from skelops.graph import Layout
from skelops.models import create_model
from skelops.models.hyper_gcn import PUBLISHED_KEYS
from skelops.nn import AdaptiveHypergraphConv, GraphUnit, bn_act_add, divergence_loss
from skelops.ops.hyper_adjacency import incidence
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import (
    HYPER,
    OFFICIAL_KEYS,
    Options,
    Shapes,
    below,
    block_replay,
    plain_scales,
)

UNIT_KEYS = (PUBLISHED_KEYS[0], *OFFICIAL_KEYS)


def hyper_unit(shapes: Shapes) -> GraphUnit:
    Q, C = shapes["hyper_joint"]
    K, W, _ = shapes["PA"]
    out = shapes["conv_d.weight"][0]
    embed = shapes["to_V.weight"][0] // K
    links = torch.zeros(1, W - Q, W - Q)
    conv = AdaptiveHypergraphConv(C, out, links, Q, heads=K, reduction=C // K // embed)
    return GraphUnit(conv, C, out)


class WithAdjacency(nn.Module):
    """A unit that also returns the adjacency of all vertices, virtual ones included."""

    def __init__(self, unit: GraphUnit) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        conv, unit = self.unit.graph, self.unit
        A = conv.adjacency(x)
        return bn_act_add(conv.gather(x, A[:, :, : x.shape[-1]]), unit.bn, *unit.down(x)), A


@replays(HYPER, "HYPERGC")
def hyper_graph_unit(case: Case) -> Replay:
    options = Options(case.kwargs)
    options.expect(
        in_channels=(), out_channels=(), vertex_nums=(), virtual_num=(), num_subset=(),
        rel_reduction=(), hyper=(True,),
    )  # fmt: skip
    unit = hyper_unit(case.shapes)
    module = unit if len(case.meta["output_names"]) == 1 else WithAdjacency(unit)
    return Replay(module, module, (*UNIT_KEYS, (r"^unit\.", "")))


@replays(HYPER, "HYPERGC.hyper_norm")
def hyper_graph(case: Case) -> Replay:
    topk = case.kwargs["k"]

    def call(feature: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        f = feature.transpose(-1, -2)
        none = f.new_zeros(f.shape[1], f.shape[-1], f.shape[-1])
        G = ops.hyper_adjacency(f, weight, none, f.new_ones(1), topk=topk)
        return incidence(f, topk), G

    return Replay(call)


@replays(HYPER, "DivergenceLoss")
def divergence(case: Case) -> Replay:
    return Replay(lambda *tables: divergence_loss(tables).view(1))


@replays(HYPER, "TCN_GCN_unit")
def block(case: Case) -> Replay:
    options = Options(case.kwargs)
    for name in ("num_point", "hyper_joints"):
        options.take(name)
    if not options.take("hyper", True):
        raise NotUnderstood("argument hyper=False, of which the published unit fails")
    dilations = options.take("dilations", (1, 2))
    tcn = plain_scales(below(case.shapes, "tcn1."), options, dilations, padding_mode="replicate")
    return block_replay(hyper_unit(below(case.shapes, "gcn1.")), tcn, options, UNIT_KEYS)


@replays(HYPER, "Model")
def network(case: Case) -> Replay:
    options, shapes = Options(case.kwargs), case.shapes
    for name in ("graph", "graph_args", "num_point"):
        options.take(name)
    Q, C = shapes["l1.gcn1.hyper_joint"]
    K, W, _ = shapes["l1.gcn1.PA"]
    large = shapes["l9.gcn1.conv_d.weight"][0] > shapes["l6.gcn1.conv_d.weight"][0]
    model = create_model(
        "hyper_gcn",
        layout=Layout("case", tuple(range(W - Q))),
        size="large" if large else "base",
        base_channels=C,
        heads=K,
        num_virtual=options.take("hyper_joints", 0),
        num_classes=options.take("num_class", 60),
        num_persons=options.take("num_person", 2),
        in_channels=options.take("in_channels", 3),
        dropout=options.take("drop_out", 0),
    )
    options.expect()

    def call(x: Tensor) -> list[Tensor]:
        """As many of these as the case has outputs."""
        return [model(x), model.auxiliary_loss().view(1)][: len(case.meta["output_names"])]

    return Replay(call, model, model.published_keys)
