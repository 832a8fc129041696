"""ACLNet: its units and blocks, the backbone, and both contrastive losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from skelops.graph import Layout
from skelops.models._published import UNIT_KEYS
from skelops.models.aclnet import ACLNet, InterClassLoss, IntraClassLoss
from skelops.nn import STBlock
from skelops.testing.replay import Case, Replay, replays
from skelops.testing.replays.gcn import (
    PLAIN,
    Options,
    below,
    blank,
    dynamic_terms,
    dynamic_unit,
    temporal_replay,
    transformed_scales,
)
from skelops.testing.replays.gcn_networks import mean_joint, pyskl_frame, pyskl_temporal
from skelops.testing.rule import rule_value

REPOSITORY = "firework8/ACLNet"


@replays(REPOSITORY, "unit_gcn")
def unit(case: Case) -> Replay:
    options = Options(case.kwargs)
    options.take("K")
    module = dynamic_unit(case.shapes, options)
    options.expect(in_channels=(), out_channels=(), **PLAIN)
    return Replay(lambda x: (module(x), module.graph.mean_graph(x)), module, UNIT_KEYS)


@replays(REPOSITORY, "mstcn")
def scales(case: Case) -> Replay:
    options = Options(case.kwargs)
    options.take("channels")
    return temporal_replay(transformed_scales(case.shapes, options), options)


@replays(REPOSITORY, "GCN_Block")
def block(case: Case) -> Replay:
    options = Options(case.kwargs)
    of_gcn, of_tcn = options.below("gcn_"), options.below("tcn_")
    of_tcn.left["stride"] = options.take("stride", 1)
    gcn = dynamic_unit(below(case.shapes, "gcn."), of_gcn)
    tcn = transformed_scales(below(case.shapes, "tcn."), of_tcn)
    residual = bool(options.take("residual", True))
    module = STBlock(gcn, tcn, gcn.in_channels, gcn.out_channels, tcn.stride, residual=residual)
    for part, harmless in ((options, ("cin", "cout")), (of_gcn, ()), (of_tcn, ("dropout",))):
        part.expect(**dict.fromkeys(harmless, ()))
    return Replay(module, module, UNIT_KEYS)


@replays(REPOSITORY, "GCN_Module")
def backbone(case: Case) -> Replay:
    options = Options(case.kwargs)
    of_gcn, of_tcn = options.below("gcn_"), options.below("tcn_")
    A = blank(below(case.shapes, "gcn.0.gcn."))
    layout = Layout("aclnet", tuple(range(A.shape[-1])))
    model = ACLNet(
        1,
        layout,
        graph=A,
        **pyskl_frame(options, base_channels=96),
        input_norm=options.take("data_bn_type", "VC"),
        ratio=of_gcn.take("ratio", 0.25),
        **dynamic_terms(of_gcn),
        mean_joint=mean_joint(case.shapes),
        weights=(0, 0),
        **pyskl_temporal(case.shapes, of_tcn),
    )
    options.expect(graph_cfg=(), pretrained=(None,))
    for part in (of_gcn, of_tcn):
        part.expect(**PLAIN)

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        y, graph = model.features_and_graph(x.permute(0, 4, 2, 3, 1))
        return y.mean((2, 3)).unflatten(0, x.shape[:2]), graph

    keys = (*model.published_keys, (r"^backbone\.", ""))
    return Replay(call, model, keys, own=("cls_head.fc_cls.weight", "cls_head.fc_cls.bias"))


def fill(projection: nn.Linear, like: Tensor) -> None:
    for name, parameter in projection.named_parameters():
        value = torch.from_numpy(rule_value(f"cl_fc.{name}", parameter.shape))
        parameter.data = value.to(like)


def gradients(loss: Tensor, projection: nn.Linear) -> tuple[Tensor, Tensor]:
    """The norm of the weight's and the gradient of the bias."""
    weight, bias = torch.autograd.grad(loss, (projection.weight, projection.bias))
    return weight.norm().view(1), bias


def graph_gradient(loss: Callable[..., Tensor]) -> Callable[..., dict[str, Tensor]]:
    def found(graph: Tensor, *rest: Tensor) -> dict[str, Tensor]:
        graph = graph.requires_grad_()
        return {"graph": torch.autograd.grad(loss(graph, *rest), graph)[0]}

    return found


@replays(REPOSITORY, "inter")
def inter_loss(case: Case) -> Replay:
    options = Options(case.kwargs)
    graph, mean = (case.arrays[f"in.{name}"].shape for name in ("graph", "avg_f"))
    module = InterClassLoss(
        options.take("n_class"),
        graph[1],
        mean[0],
        start=0,
        momentum=options.take("mom", 0.9),
        top=options.take("top", 10),
        overlap=options.take("coincidence", 4),
        temperatures=options.take("temps", (0.1, 0.5, 1.0)),
    )
    options.expect()

    def loss(graph: Tensor, label: Tensor, logits: Tensor, bank: Tensor, mean: Tensor) -> Tensor:
        module.to(graph)
        fill(module.project, graph)
        module.start_epoch(1)
        module.confusion.copy_(bank)
        module.mean.copy_(mean.T)
        return module(graph, label, logits)

    @torch.enable_grad()
    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        value = loss(*inputs)
        state = (module.confusion, module.superclass.long(), module.mean.T)
        return value.detach().view(1), *state, *gradients(value, module.project)

    return Replay(call, gradients=graph_gradient(loss))


@replays(REPOSITORY, "intra")
def intra_loss(case: Case) -> Replay:
    options = Options(case.kwargs)
    module = IntraClassLoss(
        options.take("n_channel"),
        options.take("h_channel", 256),
        memory=options.take("mem"),
        temperature=options.take("temperature", 0.1),
        margin=options.take("epsilon", 0.1),
    )
    options.expect(n_class=())

    def loss(graph: Tensor, label: Tensor, bank: Tensor, bank_label: Tensor) -> Tensor:
        module.to(graph)
        fill(module.project, graph)
        N = len(label)
        module.memory[N:] = bank
        module.memory_label[N:] = bank_label
        return module(graph, label)

    @torch.enable_grad()
    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        value = loss(*inputs)
        return value.detach().view(1), *gradients(value, module.project)

    return Replay(call, gradients=graph_gradient(loss))
