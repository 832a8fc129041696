"""HiCLR: encoders and their blocks, edge noise, losses, and whole steps of pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelops import ops
from skelops.graph import Layout
from skelops.models.hiclr import (
    BLOCK_KEYS,
    HiCLR,
    HiCLRDSTA,
    HiCLRGCN,
    JointAttentionBlock,
    add_edges,
)
from skelops.nn import GraphConv, GraphUnit, STBlock, TemporalConv
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options, Shapes, below
from skelops.testing.replays.halp import by_name

REPOSITORY = "JHang2020/HiCLR"
OFF = {"dropout_graph": (0, 0.0), "add_graph": (0, 0.0), "attentiondrop": (0, 0.0)}


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
    for name in ("graph_args", "hidden_channels", "hidden_dim", "dropout"):
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
    options.expect(edge_importance_weighting=(True,), **OFF)
    return Replay(model, model, model.published_keys)


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
def edges(case: Case) -> Replay:
    return Replay(add_edges)


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
    "glo_reg_s": (True,), "att_s": (True,), "glo_reg_t": (), "att_t": (), "dropout": (),
    "dropout2d": (), "use_spatial_att": (True,), "use_temporal_att": (False,), "use_pet": (),
    "use_pes": (True,), "fix_conv1": (), "t_kernel": (7,), **OFF,
}  # fmt: skip


@replays(REPOSITORY, "STAttentionBlock")
def dsta_block(case: Case) -> Replay:
    options = Options(case.kwargs)
    block = attention_block(options, case.shapes)
    options.expect(**SPATIAL_ONLY)
    return Replay(block, block)


@replays(REPOSITORY, "DSTANet")
def dsta(case: Case) -> Replay:
    options = Options(case.kwargs)
    config = options.take("config")
    model = HiCLRDSTA(
        options.take("num_class", 60),
        layout(options.take("num_point", 25)),
        in_channels=options.take("num_channel", 3),
        num_persons=options.take("num_person", 2),
        num_frames=options.take("num_frame", 50),
        stages=[(out, width, stride) for _, out, width, stride in config],
        heads=options.take("num_subset", 3),
        mlp="fc.2.weight" in case.shapes,
    )
    options.expect(**SPATIAL_ONLY)
    return Replay(model, model)


@replays(REPOSITORY, "HiCLR loss")
def loss(case: Case) -> Replay:
    options, names = case.kwargs, case.meta["input_names"]
    mine = options["topk"] if options["nnm"] else 0

    def losses(q, q1, q2, k, queue) -> list[Tensor]:
        bank = queue.T.contiguous()
        parts = ops.directional_clustering_loss(
            torch.stack([q, q1, q2]), k, bank, temperature=options["T"], mine=mine
        )
        key = torch.nn.functional.normalize(k, dim=1)
        pointer = torch.zeros(1, dtype=torch.int64, device=k.device)
        pushed = ops.queue_push_(bank.detach().clone(), pointer, key)
        total = parts[0] + parts[1:].sum() / 2
        return [total.view(1), *parts.view(3, 1), pushed[: len(k)].T]

    return Replay(losses, gradients=by_name(names, losses, ("q", "q1", "q2")))


@replays(REPOSITORY, "HiCLR")
def step(case: Case) -> Replay:
    options, shapes = Options(case.kwargs), case.shapes
    if not str(options.take("base_encoder")).startswith("net.st_gcn"):
        raise NotUnderstood("an encoder other than the graph convolutional one")
    for name in ("graph_args", "hidden_channels", "hidden_dim", "dropout", "num_class"):
        options.take(name)
    of_encoder = below(shapes, "encoder_q.")
    graph = torch.zeros(of_encoder["A"])
    D, K = shapes["queue"]
    model = HiCLR(
        layout(graph.shape[-1]),
        in_channels=options.take("in_channels", 3),
        encoder_kwargs={"graph": graph, "stages": stages(of_encoder)},
        width=options.take("feature_dim", D),
        queue_size=options.take("queue_size", K),
        momentum=options.take("momentum", 0.999),
        temperature=options.take("Temperature", 0.07),
        mine=options.take("topk", 1),
    )
    model.mining = bool(options.take("nnm", False))
    options.expect(pretrain=(True,), mlp=(True,), edge_importance_weighting=(True,), **OFF)
    noted = 0.25  # what the case overrides mask_param by
    nn.init.constant_(model.mask_param, noted)
    start = int(case.arrays["kept.queue_ptr"][0]) - len(case.arrays["in.x1"])

    def call(x1, x2, x3, x4, mask, queue) -> list[Tensor]:
        before = {k: v.clone() for k, v in model.encoder_k.state_dict().items()}
        with torch.no_grad():
            model.mask_param.fill_(noted)
        model.queue.copy_(queue.detach())
        model.queue_ptr.fill_(start % K)
        done = model([x1, x2, x3, x4], mask[0, :, 0, :, 0].detach() > 0)
        probe = model.encoder_k.fc[2].bias.clone()
        model.encoder_k.load_state_dict(before)
        bank = model.bank.clone()
        ops.queue_push_(bank, model.queue_ptr.clone(), done.keys)
        terms = [term.detach().view(1) for term in done.terms.values()]
        slots = (start + torch.arange(len(x1))) % K
        return [done.loss.view(1), *terms, bank[slots].T, probe]

    return Replay(call, model, model.published_keys, data=("x2", "mask", "queue"))
