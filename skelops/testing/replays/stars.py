"""STARS: the network, its loss and its queue, votes of neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import ops
from skelops.models._pretext import Classifier
from skelops.models.mamp import MAMPEncoder
from skelops.models.stars import STARS, NeighbourQueue
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options
from skelops.testing.replays.mamp import encoder_arguments

REPOSITORY = "TaatiTeam/STARS"


def fill(queue: NeighbourQueue, features: Tensor, ids: Tensor, ptr: Tensor) -> None:
    """From the published layout, (D, K)."""
    queue.queue.copy_(features.T)
    queue.queue_id.copy_(ids)
    queue.queue_ptr.copy_(ptr)


@replays(REPOSITORY, "Wrap", "_dequeue_and_enqueue")
def contrast(case: Case) -> Replay:
    options = Options(case.kwargs)
    temperature, size = options.take("temperature", 0.07), options.take("queue_size")
    among = max(options.take("topk", 0), 1)
    options.expect()
    if among > 1 and len(case.meta["input_names"]) != 10:
        raise NotUnderstood(f"a random one of {among} neighbours that the case does not have")
    queue = NeighbourQueue(size, case.arrays["in.queue"].shape[0])

    def call(p0: Tensor, p1: Tensor, z0: Tensor, z1: Tensor, Q: Tensor, queue_id: Tensor,
             ids: Tensor, ptr: Tensor, *picks: Tensor) -> list[Tensor]:  # fmt: skip
        queue.to(Q.device, Q.dtype)
        fill(queue, Q.detach(), queue_id, ptr)
        Q = queue.queue.clone()
        p0, p1, z0, z1 = (F.normalize(t) for t in (p0, p1, z0, z1))
        nn0, nn1 = (
            queue.nearest(z.detach(), ids, among, pick)
            for z, pick in zip((z0, z1), picks or (None, None), strict=True)
        )
        loss0 = ops.nn_contrastive_loss(p0, Q, nn1, temperature)
        loss1 = ops.nn_contrastive_loss(p1, Q, nn0, temperature)
        queue.push(z0.detach(), ids)
        found = {"loss": (loss0 + loss1) / 2, "loss0": loss0, "loss1": loss1, "nn0": nn0}
        found |= {"nn1": nn1, "queue_id_after": queue.queue_id, "queue_ptr_after": queue.queue_ptr}
        rows = (int(ptr) + torch.arange(len(ids))) % size
        found["queue_after_cols"] = queue.queue[rows].T
        return [found[name] for name in case.meta["output_names"]]

    return Replay(call, data=("project0", "project1", "queue"))


# The published encoder takes these, and masks nothing.
UNUSED = {"motion_aware_tau": (), "mask_ratio": (0.0,), "cls_token": (False,)}


def pretraining(options: Options, width: int, **kwargs) -> STARS:
    """The network whose predictor gives ``width`` features."""
    encoder = encoder_arguments(options, depth=4)
    if width != encoder["width"]:
        raise NotUnderstood(f"predictions of {width} features of {encoder['width']}")
    return STARS(
        tuned=encoder["depth"],  # the published backward goes through all blocks
        hidden=options.take("predictor_hidden_dim", 4096),
        views=2,
        **encoder,
        **kwargs,
    )


def classifier(options: Options, prefix: str = "") -> Replay:
    """The encoder without the predictor: features, then a linear layer."""
    classes = options.take("num_class", 60)
    model = Classifier(MAMPEncoder(**encoder_arguments(options, depth=4)), classes)
    options.expect(
        base_encoder=(), clr_pretrain=(False,), predictor_hidden_dim=(), feature_dim=(),
        queue_size=(), momentum=(), Temperature=(), topk=(), **UNUSED,
    )  # fmt: skip
    return Replay(model, model, ((r"^encoder\.", ""), (r"^fc\.", "head."), (r"^", prefix)))


@replays(REPOSITORY, "Transformer", "net/transformer.py")
def transformer(case: Case) -> Replay:
    options = Options(case.kwargs)
    if not options.take("clr_pretrain", False):
        return classifier(options)
    model = pretraining(options, options.take("num_class", 60), queue_size=1)
    options.expect(**UNUSED)

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        project = model.projector(model.encoder(x))
        return model.predictor(project), project

    keys = (*model.published_keys, (r"^encoder_student\.", ""))
    return Replay(call, model, keys, own=("queue", "queue_id", "queue_ptr"))


@replays(REPOSITORY, "SkeletonNNCLR")
def network(case: Case) -> Replay:
    options = Options(case.kwargs)
    if not options.take("pretrain", True):
        return classifier(options, "encoder_student.")
    if (topk := options.take("topk", 0)) > 1:
        raise NotUnderstood(f"a random one of {topk} neighbours that the case does not have")
    width = options.take("feature_dim", 128)
    model = pretraining(
        options, width, queue_size=options.take("queue_size", 32768),
        temperature=options.take("Temperature", 0.07),
    )  # fmt: skip
    options.expect(base_encoder=(), momentum=(), num_class=(), **UNUSED)

    def call(x: Tensor, ids: Tensor, Q: Tensor, queue_id: Tensor, ptr: Tensor) -> list[Tensor]:
        fill(model.queue, Q.detach(), queue_id, ptr)
        loss = model.loss(torch.stack([x, -x], dim=1), ids)
        if not model.training:
            with torch.no_grad():
                predict, project = model(x)
            model.queue.push(project, ids)
        rows = (int(ptr) + torch.arange(len(ids))) % len(model.queue.queue)
        found = {"loss": loss, "queue_after": model.queue.queue[rows].T}
        found |= {"queue_id_after": model.queue.queue_id, "queue_ptr_after": model.queue.queue_ptr}
        if not model.training:
            found |= {"predict": predict, "project": project}
        return [found.get(name, loss.new_zeros(())) for name in case.meta["output_names"]]

    # Scale and shift in front of a normalisation, which takes them away.
    before_norm = [f"encoder_student.norm.{name}" for name in ("weight", "bias")]
    before_norm.append("encoder_student.head.projector.0.bias")
    return Replay(call, model, model.published_keys, data=("queue",), vanishing=before_norm)


@replays(REPOSITORY, "Wrap", "knn_predict")
def vote(case: Case) -> Replay:
    options = Options(case.kwargs)
    classes, k = options.take("classes"), options.take("knn_k")
    temperature = options.take("knn_t")
    options.expect()

    def call(feature: Tensor, bank: Tensor, label: Tensor) -> Tensor:
        return ops.knn_vote(feature, bank, label, classes, k=k, temperature=temperature).argmax(1)

    return Replay(call)
