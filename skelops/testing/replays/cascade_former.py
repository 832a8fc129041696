"""CascadeFormer: T1, whole models of every version, and their parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from skelops.graph import Layout
from skelops.models.cascade_former import (
    T1,
    CascadeFormer,
    CrossAttention,
    Size,
    SpatialTransformer,
    select_person,
)
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options

REPOSITORIES = ("Yusen-Peng/CascadeFormer", "YP4AIresearch/CascadeFormer")
Shapes = Mapping[str, tuple[int, ...]]


def version_of(shapes: Shapes) -> str:
    found = {"1.1": "joint_conv.", "1.2": "spatial_transformer."}
    return next((v for v, part in found.items() if any(part in key for key in shapes)), "1.0")


def size_of(shapes: Shapes, heads: int, large: bool) -> Size:
    """``large`` is that of the kind of model; T1 of version 1.2 tells itself."""
    (pos,) = (shape for key, shape in shapes.items() if key.endswith("pos_embedding"))
    layers = [re.search(r"transformer_encoder\.layers\.(\d+)\.", key) for key in shapes]
    depth = 1 + max(int(found[1]) for found in layers if found)
    return Size(pos[2], pos[2], heads, depth, pos[1], large)


def replay(call: Callable, model: nn.Module, shapes: Shapes) -> Replay:
    """Version 1.0 is also published with another name of its embedding."""
    old = any(re.search(r"(^|\.)embedding\.weight$", key) for key in shapes)
    model.published_aliases = ()
    return Replay(call, model, ((r"\bjoint_embedding\b", "embedding"),) if old else ())


def layout_of(joints: int) -> Layout:
    """The models know a layout by its number of joints alone."""
    return Layout("case", tuple(range(joints)))


def clips_of(x: Tensor, joints: int) -> Tensor:
    return x if x.dim() == 4 else x.unflatten(2, (joints, -1))


def pretraining(case: Case) -> Replay:
    options = Options(case.kwargs)
    V, C = options.take("num_joints"), 3 if options.take("three_d") else 2
    heads, shapes = options.take("nhead"), case.shapes
    options.expect(d_model=(), num_layers=())
    large = version_of(shapes) == "1.2" and "joint_embedding.weight" not in shapes
    model = T1(layout_of(V), C, version_of(shapes), size_of(shapes, heads, large))

    def call(x: Tensor) -> Tensor:
        return model.reconstruct(clips_of(x, V)).view(x.shape)

    return replay(call, model, shapes)


def classification(case: Case) -> Replay:
    options = Options(case.kwargs)
    V, C = options.take("num_joints"), 3 if options.take("three_d") else 2
    heads, shapes = options.take("nhead"), case.shapes
    model = CascadeFormer(
        options.take("num_classes"),
        layout_of(V),
        version=version_of(shapes),
        size=size_of(shapes, heads, "head.net.0.weight" in shapes),
        in_channels=C,
        cross_heads=options.take("cross_attention_heads", heads),
    )
    options.expect(d_model=(), num_layers=())
    return replay(lambda x: model.classify(clips_of(x, V)), model, shapes)


def spatial(case: Case) -> Replay:
    options = Options(case.kwargs)
    width = options.take("d_model")
    V, C, heads = options.take("num_joints"), options.take("input_dim"), options.take("nhead")
    options.expect()
    output = C if "output_proj.weight" in case.shapes else None
    model = SpatialTransformer(V, C, width, heads, output)
    frames = case.arrays["out.y"].shape

    def call(x: Tensor) -> Tensor:
        return model(clips_of(x, V)).reshape(frames)

    return Replay(call, model)


def cross(case: Case) -> Replay:
    options = Options(case.kwargs)
    width, heads = options.take("d_model"), options.take("nhead")
    options.take("dropout", 0.0)
    options.expect()
    model = CrossAttention(width, heads, "norm1.weight" in case.shapes)
    return Replay(model, model)


def person(case: Case) -> Replay:
    if case.kwargs:
        raise NotUnderstood(f"arguments {sorted(case.kwargs)}")
    return Replay(select_person)


for repository in REPOSITORIES:
    replays(repository, "BaseT1")(pretraining)
    replays(repository, "Whole")(classification)
    replays(repository, "SpatialTransformer")(spatial)
    for kind in ("CrossAttention", "SimpleCrossAttention", "CrossAttentionWithFFN"):
        replays(repository, kind)(cross)
    replays(repository, "Wrap", "train_T1)")(person)
