"""Networks of CTR-GCN and PYSKL. A case fills their graphs: any layout of V joints will do."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from skelops.graph import Layout
from skelops.models import create_model
from skelops.nn import TemporalConv, make_stages
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import (
    BRL,
    OFFICIAL,
    PLAIN,
    PSUMNET,
    PYSKL,
    TOPOLOGIES,
    Options,
    Shapes,
    below,
    blank,
    dynamic_terms,
    plain_scales,
    temporal_of,
)
from skelops.testing.replays.heatmap import slow_only


def network_replay(
    name: str, graph: Tensor, options: Options, order: Sequence[int], **kwargs
) -> Replay:
    """``order`` of the axes of the published input that makes (N, C, T, V, M)."""
    V = graph.shape[-1]
    model = create_model(name, layout=Layout(name, tuple(range(V))), graph=graph, **kwargs)
    options.expect(pretrained=(None,))

    def call(x: Tensor) -> Tensor:
        if x.dim() == 3:  # (N, T, V C), one person
            x = x.unflatten(2, (V, -1)).permute(0, 3, 1, 2).unsqueeze(-1)
            return model(x)
        return model(x.permute(*order))

    return Replay(call, model, model.published_keys)


@replays(OFFICIAL, "Model")
def official_network(case: Case) -> Replay:
    options = Options(case.kwargs)
    baseline = any(word.endswith("baseline.py") for word in case.meta["source"].split())
    for name in ("graph", "graph_args", "num_point", "num_set"):
        options.take(name)
    if not options.take("adaptive", True):
        raise NotUnderstood("argument adaptive=False")
    return network_replay(
        "ctr_gcn",
        blank(below(case.shapes, "l1.gcn1.")),
        options,
        (0, 1, 2, 3, 4),
        variant="baseline" if baseline else "official",
        num_classes=options.take("num_class", 60),
        num_persons=options.take("num_person", 2),
        in_channels=options.take("in_channels", 3),
        dropout=options.take("drop_out", 0),
    )


@replays(PSUMNET, "Model")
def psumnet_network(case: Case) -> Replay:
    options = Options(case.kwargs)
    for name in ("graph", "graph_args", "num_point"):
        options.take(name)
    if not options.take("adaptive", True):
        raise NotUnderstood("argument adaptive=False")
    return network_replay(
        f"psumnet_{options.take('stream', 'body')}",
        blank(below(case.shapes, "layers.0.gcn1.")),
        options,
        (0, 1, 2, 3, 4),
        num_classes=options.take("num_class", 120),
        num_persons=options.take("num_person", 2),
        in_channels=options.take("in_channels", 12),
        dropout=options.take("drop_out", 0),
    )


def pyskl_temporal(shapes: Shapes, options: Options) -> dict:
    """Arguments of ``make_block`` for the temporal modules of a PYSKL backbone."""
    first = temporal_of(below(shapes, "gcn.0.tcn."), options)
    for name in ("type", "num_joints"):
        options.take(name)
    dropout = {"tcn_dropout": options.take("dropout", 0.0)}
    if isinstance(first, TemporalConv):
        return dropout | {"temporal": "single"}
    kinds = ["max"] * first.pool + ["1x1"] * first.plain
    return dropout | {"temporal": "multi", "branches": [*first.convs, *kinds]}


def pyskl_frame(options: Options, base_channels: int = 64, always_first: bool = False) -> dict:
    """Arguments of ``SkeletonNet``; the first block is left out where it would not widen."""
    C, base = options.take("in_channels", 3), options.take("base_channels", base_channels)
    stages = make_stages(
        base,
        options.take("num_stages", 10),
        options.take("inflate_stages", (5, 8)),
        options.take("down_stages", (5, 8)),
        options.take("ch_ratio", 2),
    )
    return {
        "in_channels": C,
        "num_persons": options.take("num_person", 2),
        "stages": stages if always_first or base != C else stages[1:],
    }


def mean_joint(shapes: Shapes) -> int:
    """How many weights of the mean joint there are, see ``DGSTGCN``."""
    return shapes.get("gcn.0.tcn.add_coeff", (0,))[0]


# Of a head, for its training.
HEAD = {"loss_cls": (), "init_std": (), "multi_class": (), "label_smooth_eps": ()}


@replays(PYSKL, "Rec")
@replays(BRL, "Rec")
def pyskl_network(case: Case) -> Replay:
    if case.kwargs["backbone"]["type"] == "ResNet3dSlowOnly":
        return slow_only(case)
    options, head = Options(case.kwargs["backbone"]), Options(case.kwargs["cls_head"])
    shapes = below(case.shapes, "backbone.")
    kind = options.take("type")
    known = {"STGCN": "st_gcn", "AAGCN": "aagcn", "CTRGCN": "ctr_gcn", "DGSTGCN": "dg_stgcn"}
    if kind not in known:
        raise NotUnderstood(f"backbone {kind}")
    options.take("graph_cfg")
    of_gcn, of_tcn = options.below("gcn_"), options.below("tcn_")
    of_gcn.take("type")
    kwargs = pyskl_frame(options, always_first=kind == "CTRGCN")
    kwargs |= {"num_classes": head.take("num_classes"), "dropout": head.take("dropout", 0.0)}
    head.expect(type=(), in_channels=(), mode=(), **HEAD)
    if kind != "CTRGCN":
        kwargs |= pyskl_temporal(shapes, of_tcn)
        kwargs["input_norm"] = options.take("data_bn_type", "MVC" if kind == "AAGCN" else "VC")
    if kind == "STGCN":
        kwargs["topology"] = TOPOLOGIES[of_gcn.take("adaptive", "importance")]
        kwargs["aggregate_first"] = of_gcn.take("conv_pos", "pre") == "post"
        kwargs["unit_residual"] = of_gcn.take("with_res", False)
    elif kind == "AAGCN":
        kwargs["adaptive"] = of_gcn.take("adaptive", True)
        kwargs["attention"] = of_gcn.take("attention", True)
        kwargs["embed_reduction"] = of_gcn.take("coff_embedding", 4)
    elif kind == "DGSTGCN":
        kwargs["ratio"] = of_gcn.take("ratio", 0.25)
        kwargs |= dynamic_terms(of_gcn)
        kwargs["mean_joint"] = mean_joint(shapes)
    else:
        kwargs["variant"] = "pyskl"
        first = plain_scales(below(shapes, "net.0.tcn1."), options, dilations=(1, 2))
        kwargs["branches"] = [*first.convs, "max", "1x1"]
        kwargs["tcn_dropout"] = of_tcn.take("dropout", 0.0)
    for part in (of_gcn, of_tcn):
        part.expect(**PLAIN, subsets=())
    unit = "net.0.gcn1." if kind == "CTRGCN" else "gcn.0.gcn."
    graph = blank(below(shapes, unit))
    return network_replay(known[kind], graph, options, (0, 4, 2, 3, 1), **kwargs)
