"""MS-CLR: its graphs, the encoder of several skeletons, attention drop, loss and training step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from skelops import ops
from skelops.graph import get_layout
from skelops.models.ms_clr import CONVENTIONS, MSCLR, UnifiedSTGCN, adjacency
from skelops.nn.simam import simam_drop
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options

REPOSITORY = "3Dwe-ai/ms-clr"
LAYOUTS = {published: name for name, published in CONVENTIONS.items()}


@replays(REPOSITORY, "Graph")
def graphs(case: Case) -> Replay:
    Options(case.kwargs).expect(max_hop=(1,), strategy=("spatial",))
    names = [name.removeprefix("A_") for name in case.meta["output_names"]]
    return Replay(lambda: [adjacency(get_layout(LAYOUTS[name])) for name in names])


@replays(REPOSITORY, "Simam_Drop")
def drop(case: Case) -> Replay:
    options = Options(case.kwargs)
    keep, strength = options.take("keep_prob", 0.7), options.take("e_lambda", 1e-4)
    options.expect(num_point=())
    return Replay(lambda x: simam_drop(x, keep, strength))


def encoder(options: Options, head: str) -> UnifiedSTGCN:
    model = UnifiedSTGCN(
        options.take("num_class", 60),
        [LAYOUTS[name] for name in options.take("skeletons")],
        in_channels=options.take("in_channels", 3),
        base_channels=options.take("hidden_channels", 16),
        head=head,
        dropout=options.take("dropout", 0.5),
    )
    width = options.take("hidden_dim", 256)
    if width != model.blocks[-1].gcn.out_channels:
        raise NotUnderstood(f"argument hidden_dim={width}")
    return model


def own_joints(x: Tensor, layout: str) -> Tensor:
    return x[:, :, :, : get_layout(layout).num_joints]


@replays(REPOSITORY, "FlexModel")
def flexible(case: Case) -> Replay:
    options = Options(case.kwargs)
    layout = LAYOUTS[options.take("skeleton")]
    model = encoder(options, "linear" if "fc.weight" in case.shapes else "mlp")
    dropped = options.take("drop", False)
    options.expect(graph_args=({},), edge_importance_weighting=(True,))

    def call(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = own_joints(x, layout)
        return model.with_drop(x, layout) if dropped else model(x, layout)

    return Replay(call, model, model.published_keys)


@replays(REPOSITORY, "AimCLR loss")
def loss(case: Case) -> Replay:
    options = Options(case.kwargs)
    temperature, mine = options.take("T", 0.07), options.take("topk", 1)
    mine = mine if options.take("nnm", False) else 0
    options.expect(K=())

    def losses(q: Tensor, k: Tensor, qe: Tensor, qed: Tensor, queue: Tensor) -> list[Tensor]:
        parts = ops.directional_clustering_loss(
            torch.stack([q, qe, qed]),
            k,
            queue.T.contiguous(),
            temperature=temperature,
            targets=(None, 0, 0),
            mine=mine,
        )
        return [(parts[0] + parts[1:].sum() / 2).view(1), *parts.view(3, 1)]

    def gradients(*inputs: Tensor) -> dict[str, Tensor]:
        named = dict(zip(case.meta["input_names"], inputs, strict=True))
        wanted = {name: named[name].requires_grad_() for name in case.group("gradin")}
        found = torch.autograd.grad(losses(*inputs)[0].sum(), list(wanted.values()))
        return dict(zip(wanted, found, strict=True))

    return Replay(losses, gradients=gradients)


@replays(REPOSITORY, "AimCLR")
def network(case: Case) -> Replay:
    options = Options(case.kwargs)
    if options.take("ensemble", False):
        return ensemble(case, options)
    layout, key_layout = (LAYOUTS[options.take(name)] for name in ("q_skeleton", "k_skeleton"))
    names = options.take("skeletons")
    first, *others = (LAYOUTS[name] for name in names)
    model = MSCLR(
        first,
        others,
        in_channels=options.take("in_channels", 3),
        base_channels=options.take("hidden_channels", 16),
        dropout=options.take("dropout", 0.5),
        width=options.take("feature_dim", 128),
        mlp=options.take("mlp", True),
        queue_size=options.take("queue_size", 32768),
        momentum=options.take("momentum", 0.999),
        temperature=options.take("Temperature", 0.07),
        mine=options.take("topk", 1),
    )
    model.mining = bool(options.take("nnm", False))
    options.expect(
        base_encoder=("net.st_gcn_flex.FlexModel",), pretrain=(True,), num_class=(),
        hidden_dim=(16 * model.encoder_q.blocks[0].gcn.out_channels,),
        edge_importance_weighting=(True,),
    )  # fmt: skip

    def call(strong: Tensor, basic: Tensor, key: Tensor, queue: Tensor) -> list[Tensor]:
        before = copy.deepcopy(model.encoder_k.state_dict())
        model.queue.copy_(queue)
        views = (own_joints(strong, layout), own_joints(basic, layout), own_joints(key, key_layout))
        step = model(*views, layout, key_layout)
        *_, bias = model.encoder_k.fc.parameters()
        ema = bias.detach().clone()
        model.encoder_k.load_state_dict(before)
        bank = model.bank.clone()
        ops.queue_push_(bank, model.queue_ptr.clone(), step.keys)
        # Gradients are those of the loss alone.
        terms = [term.detach().view(1) for term in step.terms.values()]
        return [step.loss.view(1), *terms, bank[: len(key)].T, ema]

    return Replay(call, model, model.published_keys)


def ensemble(case: Case, options: Options) -> Replay:
    layouts = [LAYOUTS[name] for name in case.kwargs["skeletons"]]
    model = encoder(options, "ensemble")
    options.expect()

    def call(*clips: Tensor) -> Tensor:
        named = zip(layouts, clips, strict=True)
        return model.ensemble({name: own_joints(x, name) for name, x in named})

    return Replay(call, model, (*model.published_keys, (r"^", "encoder_q.")))
