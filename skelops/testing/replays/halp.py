"""HaLP and CMD: encoder, losses, clustering, and whole steps of pre-training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops import ops
from skelops.data.streams import make_streams
from skelops.graph import Layout
from skelops.models.halp import BiGRU, HaLP
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options

REPOSITORY = "anshulbshah/HaLP"


def at_the_edge(options: dict) -> bool:
    """Whether positives are the farthest ones, which an extreme ``lambda_pos`` asks for."""
    return float(options["lambda_pos"]) == 1000


@replays(REPOSITORY, "BIGRU")
@replays("maoyunyao/CMD", "BIGRU")
def encoder(case: Case) -> Replay:
    options = Options(case.kwargs)
    width = options.take("en_input_size", 150)
    if width % 6:
        raise NotUnderstood(f"argument en_input_size={width}")
    model = BiGRU(
        options.take("num_class", 60),
        Layout("case", tuple(range(width // 6))),
        hidden_size=options.take("en_hidden_size", 1024),
        num_layers=options.take("en_num_layers", 3),
        mlp="fc.2.weight" in case.shapes,
    )
    options.expect(num_classes=())
    return Replay(lambda x: model.fc(model.frame_features(x)), model)


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1)


@replays(REPOSITORY, "CMD")
@replays("maoyunyao/CMD", "CMD")
def cmd(case: Case) -> Replay:
    options = case.kwargs
    names = case.meta["input_names"]

    def losses(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, inputs, strict=True))
        q, k, queue = (
            [given[f"{kind}_{stream}"] for stream in "jmb"] for kind in ("q", "k", "queue")
        )
        bank = [x.T.contiguous() for x in queue]
        ce = sum(
            ops.info_nce(a, b, c, temperature=options["T"]).mean()
            for a, b, c in zip(q, k, bank, strict=True)
        )
        q, k = (torch.stack([unit(x) for x in xs]) for xs in (q, k))
        distilled = ops.cmd_loss(
            q, k, torch.stack(bank), top=options["topk"],
            teacher_temperature=options["teacher_T"], student_temperature=options["student_T"],
        )  # fmt: skip
        return tuple(t.view(1) for t in (ce + distilled, ce, distilled))

    return Replay(losses, gradients=by_name(names, losses, ("q_j", "q_m", "q_b")))


def by_name(names, losses, wanted):
    """Gradients of the first output by some inputs."""

    def gradients(*inputs: Tensor) -> dict[str, Tensor]:
        given = dict(zip(names, inputs, strict=True))
        leaves = {name: given[name].detach().requires_grad_() for name in wanted}
        loss = losses(*(given | leaves).values())[0]
        return dict(zip(wanted, torch.autograd.grad(loss.sum(), leaves.values()), strict=True))

    return gradients


@replays(REPOSITORY, "pos_generator")
def positives(case: Case) -> Replay:
    options = case.kwargs
    farthest = at_the_edge(options)
    ignored = options.get("num_closest_to_ignore_positives", 20)
    ignored += options.get("skip_closest_positives", 1)

    def outputs(k, q, prototypes, pick, u):
        # Picked among the closest prototypes, the very closest left out.
        pick = pick + max(len(prototypes) - ignored, 0)
        found = ops.hallucinate_positives(q, k, prototypes, pick, u, farthest=farthest)
        total = (found.similarity * found.kept).sum() / (found.kept.sum() + 1e-8)
        loss = -options["mu"] * total / options["T"]
        z = found.vectors(k, prototypes)[:, :8]
        return {"z": z, "l_pos": found.similarity, "good": found.kept.long(), "loss": loss.view(1)}

    names = case.meta["output_names"]

    def gradients(k, q, *others: Tensor) -> dict[str, Tensor]:
        q = q.detach().requires_grad_()
        return {"q": torch.autograd.grad(outputs(k, q, *others)["loss"].sum(), q)[0]}

    return Replay(lambda *x: [outputs(*x)[name] for name in names], gradients=gradients)


@replays(REPOSITORY, "RiemannianKMeans")
def kmeans(case: Case) -> Replay:
    rounds = case.kwargs["max_iter"]
    return Replay(lambda x, start: ops.sphere_kmeans(x, start, max_iter=rounds))


@replays(REPOSITORY, "knn")
@replays("maoyunyao/CMD", "knn")
def neighbours(case: Case) -> Replay:
    if case.kwargs["metric"] != "cosine":
        raise NotUnderstood(f"metric {case.kwargs['metric']!r}")

    def call(train, label, test, _) -> list[Tensor]:
        return [ops.knn_classify(test, train, label, k) for k in case.kwargs["n_neighbors"]]

    return Replay(call)


@replays(REPOSITORY, "queue window")
def window(case: Case) -> Replay:
    def call(K: Tensor, pointer: Tensor, count: Tensor) -> Tensor:
        slots = torch.arange(int(K), device=K.device)[:, None]
        return ops.queue_recent(slots, pointer, int(count))[:, 0]

    return Replay(call)


@replays(REPOSITORY, "MoCo")
def step(case: Case) -> Replay:
    options, shapes = case.kwargs, case.shapes
    D, K = shapes["queue"]
    farthest = at_the_edge(options)
    stream = options.get("modality", "joint")
    model = HaLP(
        hidden_size=shapes["encoder_q.encoder.gru.weight_hh_l0"][1],
        num_layers=len([key for key in shapes if key.startswith("encoder_q.encoder.gru.bias_hh")])
        // 2,
        width=D,
        mlp="encoder_q.fc.2.weight" in shapes,
        queue_size=K,
        momentum=options["m"],
        temperature=options["T"],
        mu=options["mu"],
        hardness=None if farthest else float(options["lambda_pos"]),
        positives=options["num_positives"],
        prototypes=shapes["prototypes"][0],
    )
    contrast = model.streams["joint"]
    start = int(case.arrays["kept.queue_ptr"][0]) - len(case.arrays["in.xq"])

    def view(x: Tensor) -> Tensor:
        return make_streams({"motion": "joint_motion"}.get(stream, stream), "ntu25")(x)

    def call(xq, xk, queue, prototypes, pick, u) -> list[Tensor]:
        before = {k: v.clone() for k, v in contrast.encoder_k.state_dict().items()}
        contrast.queue.copy_(queue.detach())
        contrast.queue_ptr.fill_(start % K)
        contrast.prototypes.copy_(prototypes.detach())
        done = model([view(xq), view(xk)], [(pick, u.detach())])
        q, k = done.queries[0], done.keys[0]
        similar = torch.cat([(q * k).sum(1, keepdim=True), q @ contrast.bank.T], 1)
        logits = similar.detach() / options["T"]
        *_, bias = contrast.encoder_k.fc.parameters()
        model_ema = bias.detach().clone()
        contrast.encoder_k.load_state_dict(before)
        bank, pointer = contrast.bank.clone(), contrast.queue_ptr.clone()
        ops.queue_push_(bank, pointer, k)
        slots = (start + torch.arange(len(k))) % K
        return [
            done.loss.view(1),
            done.terms["info_nce"].detach().view(1),
            done.terms["positives"].detach().view(1),
            logits,
            bank[slots].T,
            pointer,
            model_ema,
        ]

    return Replay(call, model, model.published_keys, data=("xk", "queue", "prototypes", "u"))
