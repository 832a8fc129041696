"""Heat-maps, temporal shifts, PoseC3D and EPAM-Net."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from skelops import ops
from skelops.data.pose import crop_pose, flip_pose, pose_box, resize_pose
from skelops.data.transform import legacy_uniform_frames
from skelops.graph import get_layout
from skelops.models import epam_loss
from skelops.models.epam_net import (
    PUBLISHED_KEYS,
    EPAMNet,
    FrameGuidance,
    NonLocalGuidance,
    PoseGuidance,
    SqueezeExcitation,
    XShiftBlock,
    XShiftNet,
)
from skelops.models.posec3d import SlowOnly
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options, below

PYSKL, EPAM = "kennymckormick/pyskl", "ahmed-nady/Multimodal-Action-Recognition"
TSM = "mit-han-lab/temporal-shift-module"
COCO = get_layout("coco17")
LEFT, RIGHT = (1, 3, 5, 7, 9, 11, 13, 15), (2, 4, 6, 8, 10, 12, 14, 16)
# Of the published generators: limbs, and which of them are on either side.
LIMBS = (
    (0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (5, 7), (7, 9), (0, 6), (6, 8), (8, 10), (5, 11),
    (11, 13), (13, 15), (6, 12), (12, 14), (14, 16), (11, 12),
)  # fmt: skip
LEFT_LIMBS, RIGHT_LIMBS = (0, 2, 4, 5, 6, 10, 11, 12), (1, 3, 7, 8, 9, 13, 14, 15)


# ---- Heat-maps ----------------------------------------------------------------------------------


def exchanged(count: int, left: tuple[int, ...], right: tuple[int, ...]) -> list[int]:
    partner = list(range(count))
    for a, b in zip(left, right, strict=True):
        partner[a], partner[b] = b, a
    return partner


def generator(options: Options, convention: str) -> Callable[[Tensor, Tensor, int, int], Tensor]:
    """``maps(keypoint, score, H, W) -> (T, K, H, W)`` as the published generator gives them."""
    sigma, use_score = options.take("sigma", 0.6), options.take("use_score", True)
    joints, limbs = options.take("with_kp", True), options.take("with_limb", False)
    pairs = [tuple(pair) for pair in options.take("skeletons", LIMBS)]
    double, scaling = options.take("double", False), options.take("scaling", 1.0)
    sides = [tuple(options.take(f"{side}_kp", own)) for side, own in (("left", LEFT),
                                                                     ("right", RIGHT))]  # fmt: skip
    limb_sides = [
        tuple(options.take(f"{side}_limb", own))
        for side, own in (("left", LEFT_LIMBS), ("right", RIGHT_LIMBS))
    ]
    options.expect()

    def maps(keypoint: Tensor, score: Tensor, H: int, W: int) -> Tensor:
        H, W = int(H * scaling + 0.5), int(W * scaling + 0.5)
        keypoint = torch.nan_to_num(keypoint) if convention == "epam" else keypoint
        keypoint, score = keypoint[None] * scaling, score[None] if use_score else None
        # Sides are those of the default skeleton unless they are given.
        mirror = exchanged(keypoint.shape[3], *sides) if double else range(keypoint.shape[3])
        if limbs and double:
            turned = [{mirror[v] for v in pair} for pair in pairs]
            partner = exchanged(len(pairs), *limb_sides)
            if any(set(pairs[k]) != turned[i] for i, k in enumerate(partner)):
                raise NotUnderstood("limbs whose sides do not match those of the joints")

        def drawn(flip: bool) -> Tensor:
            y = ops.pose_heatmap(
                keypoint, score, H, W, joints=joints, limbs=pairs if limbs else None, sigma=sigma,
                flip=torch.tensor([flip], device=keypoint.device), mirror=list(mirror),
                convention=convention,
            )  # fmt: skip
            return y[0].movedim(0, 1)

        return torch.cat([drawn(False), drawn(True)]) if double else drawn(False)

    return maps


@replays(PYSKL, "GeneratePoseTarget")
@replays(EPAM, "GeneratePoseTarget")
def heatmap(case: Case) -> Replay:
    options = Options(case.kwargs)
    channels_last = case.repository == EPAM
    size = {name: options.take(name) for name in ("H", "W")}
    maps = generator(options, "epam" if channels_last else "pyskl")

    def call(keypoint: Tensor, score: Tensor, hw: Tensor | None = None) -> Tensor:
        y = maps(keypoint, score, *(size.values() if hw is None else hw.tolist()))
        return y.movedim(1, -1) if channels_last else y

    return Replay(call)


@replays(EPAM, "Pipeline")
def pose_pipeline(case: Case) -> Replay:
    size, T = (56, 56), 48
    maps = generator(Options({}), "epam")

    def call(keypoint, score, hw, flip, outside):
        frames = legacy_uniform_frames(keypoint.shape[1], T, np.random.RandomState(255), 0)
        sampled = keypoint[:, frames]
        box = pose_box(sampled, tuple(hw.tolist()), outside=bool(outside))
        compact = crop_pose(sampled, box)
        box_hw = (box[2:] - box[:2]).flip(0)
        resized = resize_pose(compact, box_hw.tolist(), size)
        flipped = flip_pose(resized, size[1], COCO.mirror) if flip else resized
        of_frames = score[:, frames]
        if flip:
            of_frames = of_frames[..., list(COCO.mirror)]
        drawn = maps(flipped, of_frames, *size).movedim(0, 1)
        return frames, frames[::3], box_hw, compact, resized, flipped, drawn

    return Replay(call)


# ---- Temporal shift -----------------------------------------------------------------------------


@replays(EPAM, "TemporalShift")
@replays(TSM, "TemporalShift")
def shift(case: Case) -> Replay:
    options = Options(case.kwargs)
    divisor = options.take("fold_div", options.take("n_div", 8))
    frames = options.take("n_segment")
    options.expect(inplace=(False,))

    def call(x: Tensor) -> Tensor:
        if frames is None:
            return ops.temporal_shift(x, divisor)
        clips = x.unflatten(0, (-1, frames)).transpose(1, 2)
        return ops.temporal_shift(clips, divisor).transpose(1, 2).flatten(0, 1)

    return Replay(call)


# ---- Networks -----------------------------------------------------------------------------------


def slow_only(case: Case) -> Replay:
    options, head = Options(case.kwargs["backbone"]), Options(case.kwargs["cls_head"])
    stages = options.take("num_stages", 4)
    strides = [options.take(name, (1, 2)) for name in ("conv1_stride", "pool1_stride")]
    if any(of_frames != 1 for of_frames, _ in strides):
        raise NotUnderstood(f"strides of frames in the stem {strides}")
    net = SlowOnly(
        head.take("num_classes"),
        options.take("in_channels", 3),
        base_channels=options.take("base_channels", 64),
        blocks=options.take("stage_blocks", (3, 4, 6, 3)[:stages]),
        inflate=options.take("inflate", (0, 0, 1, 1)[:stages]),
        spatial_strides=options.take("spatial_strides", (1, 2, 2, 2)[:stages]),
        temporal_strides=options.take("temporal_strides", (1,) * stages),
        stem_stride=strides[0][1],
        pool_stride=strides[1][1],
        dropout=head.take("dropout", 0.5),
    )
    options.expect(
        type=(), out_indices=([stages - 1], (stages - 1,)), pretrained=(None,), depth=(50,),
        conv1_kernel=([1, 7, 7],), advanced=(False,), inflate_style=("3x1x1",),
        frozen_stages=(-1,), norm_eval=(False,), zero_init_residual=(), pretrained2d=(),
    )  # fmt: skip
    head.expect(type=(), in_channels=(), init_std=(), loss_cls=(), mode=("3D",))
    return Replay(net, net, net.published_keys)


def fold_of(case: Case) -> int:
    """The streams have a file each, and shift by shares of their own."""
    return 4 if "Pose" in case.meta["source"] else 8


@replays(EPAM, "BlockX3D")
def block(case: Case) -> Replay:
    options = Options(case.kwargs)
    C, hidden, out = (options.take(name) for name in ("inplanes", "planes", "outplanes"))
    stride, ratio = options.take("spatial_stride", 1), options.take("se_ratio")
    options.expect(
        downsample=(), se_style=("half",), use_swish=(True,), with_cp=(False,), with_se=(),
        n_segment=(), shift_div=(fold_of(case),), fold_div=(fold_of(case),),
    )  # fmt: skip
    module = XShiftBlock(C, hidden, out, stride, fold_of(case), ratio)
    return Replay(module, module, PUBLISHED_KEYS["stream"][:4])


@replays(EPAM, "SEModule")
def squeeze_excitation(case: Case) -> Replay:
    module = SqueezeExcitation(case.kwargs["channels"], case.kwargs["reduction"])
    return Replay(module, module)


@replays(EPAM, "CBAMSpatialEfficientTemporalAttention")
def pose_guidance(case: Case) -> Replay:
    options = Options(case.kwargs)
    kind = options.take("attention_type", "serial")
    options.expect()
    if kind not in ("nested", "serial"):
        raise NotUnderstood(f"argument attention_type={kind!r}")
    module = PoseGuidance(kind == "nested")
    return Replay(module, module)


@replays(EPAM, "SpatialTemporalAttention")
def frame_guidance(case: Case) -> Replay:
    options = Options(case.kwargs)
    module = FrameGuidance(options.take("channels", 216), case.shapes["fc1.weight"][0])
    options.expect()
    return Replay(module, module)


@replays(EPAM, "NonLocal3d")
def non_local(case: Case) -> Replay:
    options, shapes = Options(case.kwargs), case.shapes
    C = options.take("in_channels")
    mode, reduction = options.take("mode", "embedded_gaussian"), options.take("reduction", 2)
    scaled = options.take("use_scale", True)
    options.expect(sub_sample=(False,))
    if mode not in ("dot_product", "embedded_gaussian"):
        raise NotUnderstood(f"argument mode={mode!r}")
    sizes = (C, shapes["theta.conv.weight"][1], reduction)
    module = NonLocalGuidance(*sizes, softmax=mode == "embedded_gaussian", scaled=scaled)
    return Replay(lambda x, s: module(s, x), module, ((r"(weight|bias)$", r"conv.\1"),))


def stream_of(case: Case, prefix: str, classes: int, stem_stride: int, fold_div: int) -> XShiftNet:
    """A stream of the widths and blocks that the entries under the prefix show."""
    shapes = below(case.shapes, prefix)
    width, maps, *_ = shapes["conv1_s.conv.weight"]
    found = {tuple(map(int, at)) for k in shapes for at in re.findall(r"^layer(\d+)\.(\d+)\.", k)}
    stages = [layer for layer, _ in found]
    blocks = [stages.count(layer) for layer in sorted(set(stages))]
    return XShiftNet(
        classes,
        maps,
        blocks=blocks,
        base_channels=width,
        stem_stride=stem_stride,
        fold_div=fold_div,
    )


# Of the published streams, told by the entries.
STREAM = {
    "gamma_w": (1, 1.0), "gamma_b": (2.25,), "gamma_d": (), "in_channels": (), "num_stages": (),
    "base_channels": (), "stage_blocks": (), "se_style": ("half",), "se_ratio": (1 / 16,),
    "use_swish": (True,), "use_sta": (False,), "pretrained": (None,), "norm_eval": (False,),
    "with_cp": (False,), "zero_init_residual": (),
}  # fmt: skip


@replays(EPAM, "X3DTemporalShift")
@replays(EPAM, "X3DTemporalShiftPose")
def backbone(case: Case) -> Replay:
    options = Options(case.kwargs)
    stride = options.take("conv1_stride", 2)
    strides = options.take("spatial_strides", (2,))
    options.expect(**STREAM)
    if set(strides) != {2}:
        raise NotUnderstood(f"argument spatial_strides={strides}")
    net = stream_of(case, "", 1, stride, fold_of(case))
    own = ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias")
    return Replay(net.features, net, (*net.published_keys, (r"^backbone\.", "")), own=own)


@replays(EPAM, "PoseActionRecognition")
def pose_stream(case: Case) -> Replay:
    options = Options(case.kwargs)
    net = stream_of(case, "backbone.", options.take("num_classes", 60), 1, fold_div=4)
    options.expect(backbone_type=("poseX3dTShiftSE",), num_stages=(), conv1_stride=())
    return Replay(net, net, net.published_keys)


GUIDANCE = {
    "CBAM_spatial_efficient_temporal": "nested",
    "spatial_temporal": "frames",
    "self_attention": "non_local",
}


@replays(EPAM, "RGBPoseAttentionActionRecognizer")
def whole(case: Case) -> Replay:
    options, shapes = Options(case.kwargs), case.shapes
    net = EPAMNet(
        options.take("num_classes", 120),
        shapes["pose_backbone.conv1_s.conv.weight"][1],
        guidance=GUIDANCE[options.take("attention", "temporal")],
        frames=shapes.get("attention_module.fc1.weight", (16,))[0],
    )
    options.expect(backbone_type=(), RGBPretrained=(None,), PosePretrained=(None,))
    return Replay(net, net, net.published_keys)


@replays(EPAM, "Loss")
def loss(case: Case) -> Replay:
    return Replay(epam_loss)
