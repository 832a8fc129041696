"""A2J and the loss of A2J-Transformer; operations on point clouds."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from skelops import ops
from skelops.models import a2j
from skelops.nn.point_set import interpolate
from skelops.testing.replay import ANY, Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options

A2J, TRANSFORMER = "zhangboshen/A2J", "ChanglongJiangGit/A2J-Transformer"


@replays(A2J, "generate_anchors + shift")
def anchors(case: Case) -> Replay:
    # The second result is of the shape that the note gives.
    rectangle = re.search(r"shape \((\d+), *(\d+)\)", case.meta["note"])
    height, width = map(int, rectangle.groups()) if rectangle else (1, 1)

    def call(shape: Tensor, stride: Tensor) -> tuple[Tensor, ...]:
        named = {
            "anchors": a2j.image_anchors(*shape.tolist(), int(stride)),
            "anchors_rect": a2j.image_anchors(height, width, int(stride)),
        }
        return tuple(named[name] for name in case.meta["output_names"])

    return Replay(call)


def grid(case: Case) -> Tensor:
    options = Options(case.kwargs)
    height, width = options.take("shape")
    stride = options.take("stride", a2j.STRIDE)
    cell = [options.take(name) or a2j.CELL for name in ("P_h", "P_w")]
    options.expect(spatialFactor=(), is_3D=(), voting=(), thres=(), img_shape=())
    return a2j.image_anchors(height, width, stride, *cell)


@replays(A2J, "post_process")
def post_process(case: Case) -> Replay:
    places = grid(case)

    def call(logits: Tensor, offset: Tensor, depth: Tensor | None = None) -> Tensor:
        return ops.anchor_regression(logits, offset, places.to(logits), depth)[0]

    return Replay(call)


@replays(A2J, "A2J_loss")
def loss(case: Case) -> Replay:
    places = grid(case)
    factor = case.kwargs.get("spatialFactor", 0.5)

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        *votes, target = inputs
        terms = a2j.a2j_loss(a2j.Votes(*votes), places.to(target), target, factor)
        return tuple(term.view(1) for term in terms)

    def gradients(*inputs: Tensor) -> dict[str, Tensor]:
        *votes, target = inputs
        votes = [x.detach().requires_grad_() for x in votes]
        anchor, regression = call(*votes, target)
        found = torch.autograd.grad(anchor + 3 * regression, votes)
        return dict(zip(case.meta["input_names"], found, strict=False))

    return Replay(call, gradients=gradients)


@replays(A2J, "A2J_model")
def network(case: Case) -> Replay:
    options = Options(case.kwargs)
    model = a2j.A2J(options.take("num_classes"), with_depth=options.take("is_3D", True))
    options.expect()

    def call(depth: Tensor) -> tuple[Tensor, ...]:
        votes = model(depth.to(model.backbone.conv1.weight))
        named = dict(zip(("cls", "reg", "depth"), votes, strict=True))
        named["joints"] = model.joints(votes, *depth.shape[2:])
        return tuple(named[name] for name in case.meta["output_names"])

    return Replay(call, model, model.published_keys)


# Of the data sets: rows and columns, and depths.
SPACES = {
    "InterHand2.6M": (16, a2j.DEPTHS),
    "nyu": (16, (-75.0, 0.0, 75.0)),
    "hands2017": (11, (-75.0, 0.0, 75.0)),
}


def space_anchors(options: Options) -> Tensor:
    size, depths = SPACES[options.take("dataset", "InterHand2.6M")]
    return a2j.space_anchors(size, depths=depths)


@replays(TRANSFORMER, "generate_keypoints_coord_new")
def space_joints(case: Case) -> Replay:
    options = Options(case.kwargs)
    options.expect(num_joints=(), is_3D=())

    def call(offset: Tensor, weight: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
        found = a2j.space_joints(weight, offset.reshape(*weight.shape, -1), reference)
        return found[: len(case.meta["output_names"])]

    return Replay(call)


@replays(TRANSFORMER, "generate_all_anchors_3d")
def every_space_anchor(case: Case) -> Replay:
    anchors = space_anchors(Options(case.kwargs))
    return Replay(lambda *_: anchors)


@replays(TRANSFORMER, "a2jloss_new")
def space_loss(case: Case) -> Replay:
    options, names = Options(case.kwargs), case.meta["input_names"]
    factor, anchors = options.take("spatialFactor", 0.5), space_anchors(options)
    options.expect(is_3D=(True,), use_lvl_weights=(False,))

    def terms(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        offset = given["offset"].unflatten(-1, (-1, 3))
        return a2j.a2j_space_loss(
            given["weight"], offset, given["reference"], given["annotation"], given["valid"],
            factor,
        )  # fmt: skip

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = terms(dict(zip(names, inputs, strict=True)))
        named = dict(zip(("anchor_loss", "regression_loss"), found, strict=True))
        named["anchors_full"] = anchors
        return tuple(named[name] for name in case.meta["output_names"])

    def gradients(*inputs: Tensor) -> dict[str, Tensor]:
        given = dict(zip(names, inputs, strict=True))
        leaves = {n: given[n].detach().requires_grad_() for n in ("offset", "weight", "reference")}
        anchor, regression = terms(given | leaves)
        found = torch.autograd.grad(anchor + 3 * regression, leaves.values())
        return dict(zip(leaves, found, strict=True))

    return Replay(call, gradients=gradients)


def point_operations(case: Case) -> Replay:
    names = case.meta["input_names"]
    if not {"points", "n_fps", "k", "radius", "n_ball"} <= set(names):
        raise NotUnderstood(f"operations on {sorted(names)}")

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, inputs, strict=True))
        points = given["points"]
        chosen = ops.farthest_point_sample(points, int(given["n_fps"]))
        centers = points.gather(1, chosen[..., None].expand(-1, -1, 3))
        named = {"fps": chosen}
        named["knn"], named["knn_d2"] = ops.knn(centers, points, int(given["k"]))
        named["ball"], named["ball_count"] = ops.ball_query(
            centers, points, float(given["radius"]), int(given["n_ball"])
        )
        interpolated, nearest, weight = interpolate(points, centers, given["features"])
        named |= {"three_idx": nearest, "three_w": weight, "interp": interpolated}
        return tuple(named[name] for name in case.meta["output_names"])

    return Replay(call, data=("points", "radius"))


replays("definition;", ANY)(point_operations)
