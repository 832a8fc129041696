"""HiCLR: encoders and their blocks, edge noise, losses, and whole steps of pre-training."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from skelops import ops
from skelops.graph import Layout
from skelops.models.hiclr import (
    BLOCK_KEYS,
    ENCODERS,
    GCN_KEYS,
    HiCLR,
    HiCLRDSTA,
    HiCLRGCN,
    JointAttentionBlock,
    add_edges,
    drop_edges,
    swap_statistics,
)
from skelops.nn import GraphConv, GraphUnit, STBlock, TemporalConv
from skelops.nn.simam import simam_drop
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options, Shapes, below
from skelops.testing.replays.halp import by_name

REPOSITORY = "JHang2020/HiCLR"
# Rates of what the published forward leaves out unless it is asked to, and of dropout.
OFF = {"dropout_graph": (), "add_graph": (), "attentiondrop": (), "dropout": ()}


def layout(V: int) -> Layout:
    return Layout("hiclr", tuple(range(V)))


def stages(shapes: Shapes) -> list[tuple[int, int]]:
    """(channels, stride) of every block; the stride of the widths' second and fourth steps."""
    widths = []
    while f"st_gcn_networks.{len(widths)}.tcn.2.weight" in shapes:
        widths.append(shapes[f"st_gcn_networks.{len(widths)}.tcn.2.weight"][0])
    return [(width, 2 if i in (4, 7) else 1) for i, width in enumerate(widths)]


@replays(REPOSITORY, "Model", "st_gcn.py")
@replays("Levigty/AimCLR", "Model", "st_gcn.py")
def gcn(case: Case) -> Replay:
    options, shapes = Options(case.kwargs), case.shapes
    for name in ("graph_args", "hidden_channels", "hidden_dim"):
        options.take(name)
    graph = torch.zeros(shapes["A"])
    model = HiCLRGCN(
        options.take("num_class", 60),
        layout(graph.shape[-1]),
        graph=graph,
        stages=stages(shapes),
        in_channels=options.take("in_channels", 3),
        mlp="fc.2.weight" in shapes,
    )
    # AimCLR has a list of importances, where HiCLR numbers them from 1, or none: they are ones.
    aim = case.repository != REPOSITORY
    weighted = options.take("edge_importance_weighting", True) or not aim
    own = () if weighted else [f"edge_importance.{i}" for i in range(len(model.blocks))]
    dropped = aim and options.take("drop", False)
    options.expect(**OFF)

    def call(x: Tensor) -> Tensor | list[Tensor]:
        if not dropped:
            return model(x)
        y = model.features(x)
        return [model.fc(model.mean(z, x.shape[-1])) for z in (y, simam_drop(y))]

    return Replay(call, model, GCN_KEYS[:-1] if aim else GCN_KEYS, own=own)


@replays(REPOSITORY, "st_gcn")
@replays("Levigty/AimCLR", "st_gcn")
def gcn_block(case: Case) -> Replay:
    options = Options(case.kwargs)
    C, out = options.take("in_channels"), options.take("out_channels")
    size, K = options.take("kernel_size")
    stride, residual = options.take("stride", 1), options.take("residual", True)
    unit = GraphUnit(GraphConv(C, out, K), C, out, residual=False)
    block = STBlock(unit, TemporalConv(out, out, size, stride), C, out, stride, residual=residual)
    options.expect(dropout=())
    return Replay(block, block, BLOCK_KEYS)


@replays(REPOSITORY, "randadd")
def added_edges(case: Case) -> Replay:
    def call(A: Tensor, drawn: Tensor) -> Tensor:
        # Edges of the transformer weigh as much as its attention on average.
        return add_edges(A, drawn, A.detach().mean() if "net/dsta.py" in words else 1.0)

    words = case.meta["source"].split()
    return Replay(call, data=("drawn",))


@replays(REPOSITORY, "drop_graph")
def dropped_edges(case: Case) -> Replay:
    """The case has the edges that are kept and the rate that was drawn."""

    def call(A: Tensor, kept: Tensor, rate: Tensor) -> Tensor:
        return drop_edges(A, kept, rate.reshape(()))

    return Replay(call, data=tuple(case.meta["input_names"][1:]))


@replays(REPOSITORY, "AdaIN")
def swapped_statistics(case: Case) -> Replay:
    options = Options(case.kwargs)
    per_frame = {"TV": False, "V": True}[options.take("dim", "TV")]
    options.expect()
    return Replay(lambda x, style: swap_statistics(x, style, per_frame))


def attention_block(options: Options, shapes: Shapes) -> JointAttentionBlock:
    for name in ("num_node", "num_subset"):
        options.take(name)
    heads, V = shapes["attention0s"][1:3]
    return JointAttentionBlock(
        options.take("in_channels"),
        options.take("out_channels"),
        options.take("inter_channels"),
        options.take("stride", 1),
        num_joints=V,
        num_frames=options.take("num_frame"),
        heads=heads,
    )


SPATIAL_ONLY = {
    "glo_reg_s": (True,), "att_s": (True,), "glo_reg_t": (), "att_t": (), "dropout2d": (),
    "use_spatial_att": (True,), "use_temporal_att": (False,), "use_pet": (), "use_pes": (True,),
    "fix_conv1": (), "t_kernel": (7,), **OFF,
}  # fmt: skip


@replays(REPOSITORY, "STAttentionBlock")
def dsta_block(case: Case) -> Replay:
    options = Options(case.kwargs)
    block = attention_block(options, case.shapes)
    options.expect(**SPATIAL_ONLY)
    return Replay(block, block)


def dsta_arguments(options: Options) -> dict:
    """Those of ``HiCLRDSTA`` from the published ones."""
    return {
        "layout": layout(options.take("num_point", 25)),
        "in_channels": options.take("num_channel", 3),
        "num_persons": options.take("num_person", 2),
        "num_frames": options.take("num_frame", 32),
        "stages": [block[1:] for block in options.take("config")],
        "heads": options.take("num_subset", 3),
    }


@replays(REPOSITORY, "DSTANet")
def dsta(case: Case) -> Replay:
    options = Options(case.kwargs)
    model = HiCLRDSTA(
        options.take("num_class", 60), mlp="fc.2.weight" in case.shapes, **dsta_arguments(options)
    )
    options.expect(**SPATIAL_ONLY)
    return Replay(model, model)


@replays(REPOSITORY, "HiCLR loss")
def loss(case: Case) -> Replay:
    options, names = Options(case.kwargs), case.meta["input_names"]
    temperature, mine = options.take("T", 0.07), options.take("topk", 1)
    mine = mine if options.take("nnm", False) else 0
    options.expect(K=())

    def losses(q, q1, q2, k, queue) -> list[Tensor]:
        bank = queue.T.contiguous()
        parts = ops.directional_clustering_loss(
            torch.stack([q, q1, q2]), k, bank, temperature=temperature, mine=mine
        )
        key = torch.nn.functional.normalize(k, dim=1)
        pointer = torch.zeros(1, dtype=torch.int64, device=k.device)
        pushed = ops.queue_push_(bank.detach().clone(), pointer, key)
        total = parts[0] + parts[1:].sum() / 2
        return [total.view(1), *parts.view(3, 1), pushed[: len(k)].T]

    return Replay(losses, gradients=by_name(names, losses, ("q", "q1", "q2")))


def case_mask(case: Case) -> float:
    """What the note says that ``mask_param`` is overridden by, else by the rule."""
    found = re.search(r"mask_param ?= ?(-?[\d.]+)", case.meta["note"] or "")
    return float(found[1].rstrip(".")) if found else float(case.value("mask_param"))


@replays(REPOSITORY, "HiCLR")
def step(case: Case) -> Replay:
    options, shapes = Options(case.kwargs), case.shapes
    encoder, harmless = str(options.take("base_encoder")).split(".")[1], OFF
    pretrain, classes = options.take("pretrain", True), options.take("num_class", 60)
    for name in ("graph_args", "hidden_channels", "hidden_dim", "transformer"):
        options.take(name)
    of_encoder = below(shapes, "encoder_q.")
    if encoder == "dsta":
        arguments, harmless = dsta_arguments(options), SPATIAL_ONLY
        sizes = {name: arguments.pop(name) for name in ("layout", "num_frames", "num_persons")}
        options.take("in_channels")  # of the other encoder
    elif encoder == "st_gcn":
        graph = torch.zeros(of_encoder["A"])
        arguments = {"graph": graph, "stages": stages(of_encoder)}
        arguments["in_channels"] = options.take("in_channels", 3)
        sizes = {"layout": layout(graph.shape[-1])}
    else:
        raise NotUnderstood(f"encoder {encoder}")
    of_training = {"edge_importance_weighting": (True,), "rep_ratio": (), "doublequeue": ()}
    if not pretrain:
        options.expect(
            mlp=(), feature_dim=(), queue_size=(), momentum=(), Temperature=(), **of_training,
            **harmless,
        )  # fmt: skip
        net = ENCODERS[encoder](classes, **sizes, **arguments)
        return Replay(net, net, (*net.published_keys, (r"^", "encoder_q.")))
    D, K = shapes["queue"]
    model = HiCLR(
        **sizes,
        encoder=encoder,
        encoder_kwargs=arguments | {"mlp": options.take("mlp", True)},
        width=options.take("feature_dim", D),
        queue_size=options.take("queue_size", K),
        momentum=options.take("momentum", 0.999),
        temperature=options.take("Temperature", 0.07),
        mine=options.take("topk", 1),
    )
    model.mining = bool(options.take("nnm", False))
    options.expect(**of_training, **harmless)
    noted = case_mask(case)
    nn.init.constant_(model.mask_param, noted)
    start = int(case.arrays["kept.queue_ptr"][0]) - len(case.arrays["in.x1"])

    def call(x1, x2, x3, x4, mask, queue) -> list[Tensor]:
        before = {k: v.clone() for k, v in model.encoder_k.state_dict().items()}
        with torch.no_grad():
            model.mask_param.fill_(noted)
        model.queue.copy_(queue.detach())
        model.queue_ptr.fill_(start % K)
        done = model([x1, x2, x3, x4], mask[0, :, 0, :, 0].detach() > 0)
        *_, bias = model.encoder_k.fc.parameters()
        probe = bias.detach().clone()
        model.encoder_k.load_state_dict(before)
        bank = model.bank.clone()
        ops.queue_push_(bank, model.queue_ptr.clone(), done.keys)
        terms = [term.detach().view(1) for term in done.terms.values()]
        slots = (start + torch.arange(len(x1))) % K
        return [done.loss.view(1), *terms, bank[slots].T, probe]

    return Replay(call, model, model.published_keys, data=("x2", "mask", "queue"))
