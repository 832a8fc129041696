"""Cases of the input pipeline: random numbers, batches from a store of clips, streams of clips."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from skelops import ops
from skelops._library import OPS
from skelops.ops.sample_clips import ANGLE, MOTION, MOTION_MEAN, NATIVE, SCORE_MEAN
from skelops.testing.cases import Case, Draw, register, relayout

FRAMES = 90


def _integers(draw: Draw, low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape, generator=draw.generator).to(draw.device)


def random_uniform(draw, N=3, count=5, seed=2**40 + 3, epoch=0, stream=0):
    return _integers(draw, 0, 10**6, N), seed, epoch, stream, count


def _random_uniform_public(draw, seed, epoch, stream, count):
    return ops.random_uniform(draw, count, seed=seed, epoch=epoch, stream=stream)


_uniform = partial(Case, build=random_uniform, public=_random_uniform_public, backward=False)
register(
    "random_uniform",
    _uniform("small", small=True),
    _uniform("one", dims=dict(N=1, count=1, seed=-1)),
    _uniform("none", dims=dict(N=2, count=0)),
    _uniform("tile", dims=dict(N=5, count=64, epoch=7)),
    _uniform("tiles", dims=dict(N=2, count=67 * 3, stream=2**31 - 1, epoch=2**31 - 1)),
)


def sample_clips(
    draw, N=2, T=4, V=5, M=2, C=3, D=3, kinds=(0,), layout="contiguous", persons=None, convert=0,
    order=False, branch=False, blur=0, noise=False, noise_std=False, part=0, parents=None,
    keep_missing=True, unit_box=False, gaps=False,
):  # fmt: skip
    xyz = draw.normal(FRAMES, M, V, C)
    xyz[:, :, :, :D] *= (_integers(draw, 0, 8, FRAMES, M, V, 1) > 0).to(draw.dtype)
    xyz[: FRAMES // 3, M - 1] = 0
    first = _integers(draw, 0, FRAMES // 2, N)
    length = _integers(draw, 1, FRAMES // 2, N)
    frame = first[:, None] + _integers(draw, 0, 10**6, N, T) % length[:, None]
    if gaps:
        frame[:, T // 2 :] = -1
    blend = draw.normal(N, T).abs().clamp(max=1) * (_integers(draw, 0, 2, N, T) > 0)
    joints = convert or V
    shown = part or joints
    parent = torch.full((len(kinds), shown), -1, device=draw.device)
    if parents:
        rows = _integers(draw, -1, joints, max(parents) + 1, shown)
        parent = torch.stack([parent[0] if r < 0 else rows[r] for r in parents])
    people = M if persons is None else persons
    weight = draw.normal(joints, 3).abs() if convert else None
    tensors = {
        "xyz": xyz,
        "bounds": torch.stack([first, first + length], dim=1),
        "frame": frame,
        "blend": blend,
        "affine": draw.normal(N, 2, D, D + 1),
        "parent": parent,
        "part": _integers(draw, 0, joints, part) if part else None,
        "person": None if persons is None else _integers(draw, -1, M, N, persons),
        "convert": _integers(draw, 0, V, convert, 3) if convert else None,
        "convert_weight": weight,
        "order": _integers(draw, 0, joints, N, joints) if order else None,
        "branch": _integers(draw, 0, 3, N, joints).to(torch.uint8) if branch else None,
        "blur": draw.normal(N, blur).abs() if blur else None,
        "noise": draw.normal(N, D, T, joints, people) if noise else None,
        "noise_std": draw.normal(N, D).abs() if noise_std else None,
        "draw": _integers(draw, 0, 10**6, N) if noise_std else None,
    }
    found = [t if t is None else relayout(t, layout) for t in tensors.values()]
    seeds: list[Any] = [11, 3, 2]
    dtype = draw.dtype
    return (*found[:6], list(kinds), *found[6:], *seeds, keep_missing, unit_box, dtype)


_NAMES = [name for _, name in OPS["sample_clips"].arguments[7:]]


def _sample_clips_public(*args):
    return ops.sample_clips(*args[:7], **dict(zip(_NAMES, args[7:], strict=True)))


_sample = partial(Case, build=sample_clips, public=_sample_clips_public, backward=False)
_streams = dict(kinds=(0, 0, MOTION, MOTION), parents=(-1, 0, -1, 0))
register(
    "sample_clips",
    _sample("small", small=True),
    _sample(
        "small_everything",
        dims=dict(
            kinds=(0, MOTION),
            parents=(-1, 0),
            persons=3,
            convert=4,
            order=True,
            branch=True,
            blur=3,
            noise=True,
            noise_std=True,
            part=3,
            gaps=True,
        ),
        small=True,
    ),
    _sample("four_streams", dims=dict(N=3, T=64, V=25, **_streams)),
    _sample("one_person", dims=dict(N=5, T=52, V=20, M=1, **_streams)),
    _sample("one_frame", dims=dict(N=2, T=1, V=25, **_streams)),
    _sample("one_joint", dims=dict(N=2, T=13, V=1, M=1)),
    _sample("flip_and_corrupt", dims=dict(N=3, T=13, V=25, order=True, branch=True)),
    _sample("strong_view", dims=dict(N=2, T=50, V=25, order=True, blur=15, noise_std=True)),
    _sample("given_noise", dims=dict(N=2, T=13, V=17, blur=5, noise=True)),
    _sample("converted", dims=dict(N=2, T=13, V=33, convert=17, order=True, **_streams)),
    _sample("persons", dims=dict(N=3, T=13, V=25, persons=3, gaps=True)),
    _sample("unit_box", dims=dict(N=3, T=13, V=20, M=1, unit_box=True, branch=True)),
    _sample("hand", dims=dict(N=2, T=13, V=25, part=13, **_streams)),
    _sample(
        "native_motion",
        dims=dict(
            N=3, T=13, V=25, kinds=(NATIVE, NATIVE, 0, NATIVE + MOTION), parents=(-1, 0, 0, 0)
        ),
    ),
    _sample(
        "scores",
        dims=dict(
            N=3, T=13, V=17, D=2, kinds=(0, SCORE_MEAN, MOTION + SCORE_MEAN), parents=(-1, 0, 0)
        ),
    ),
    _sample(
        "scores_of_motion",
        dims=dict(
            N=3,
            T=13,
            V=17,
            D=2,
            gaps=True,
            parents=(-1, 0, 0, 0),
            kinds=(
                MOTION_MEAN + NATIVE,
                MOTION_MEAN + NATIVE + SCORE_MEAN,
                MOTION_MEAN + MOTION + SCORE_MEAN,
                MOTION,
            ),
        ),
    ),
    _sample("angles", dims=dict(N=2, T=13, V=25, kinds=(ANGLE, ANGLE + MOTION), parents=(0, 1))),
    _sample("plane", dims=dict(N=2, T=13, V=17, C=2, D=2, keep_missing=False, **_streams)),
    _sample("line", dims=dict(N=2, T=13, V=17, C=1, D=1, keep_missing=False)),
    _sample("transposed", dims=dict(N=2, T=13, V=20, layout="transposed", **_streams)),
    _sample("sliced", dims=dict(N=2, T=13, V=20, layout="sliced", blur=3, **_streams)),
)


def skeleton_streams(
    draw, N=2, C=2, T=4, V=5, M=2, kinds=(0,), parents=None, part=0, root=None, result=None,
    layout="contiguous",
):  # fmt: skip
    """Random parents, a row for each number in ``parents``: -1 for none, -2 for the root."""
    x = relayout(draw.normal(N, C, T, V, M), layout)

    def joints(low: int, *shape: int) -> list:
        return torch.randint(low, V, shape, generator=draw.generator).tolist()

    shown = joints(0, part) if part else list(range(V))
    rows = joints(-1, max([0, *(parents or ())]) + 1, len(shown))
    rows += [[-1 if v == root else root for v in shown], [-1] * len(shown)]
    parent = [p for r in parents or [-1] * len(kinds) for p in rows[r]]
    return x, parent, shown, list(kinds), result or draw.dtype


def _skeleton_streams_public(x, parent, part, kinds, dtype):
    rows = [parent[i : i + len(part)] for i in range(0, len(parent), len(part))]
    # The default dtype is x's or that of an autocast region, which a case leaves open.
    wanted = None if dtype == x.dtype else dtype
    return ops.skeleton_streams(x, rows, kinds, part=part, dtype=wanted)


_derive = partial(Case, build=skeleton_streams, public=_skeleton_streams_public)
register(
    "skeleton_streams",
    _derive("small", small=True),
    _derive("small_streams", dims=dict(part=7, **_streams), small=True),
    _derive(
        "small_motion", dims=dict(T=3, M=1, kinds=(MOTION, MOTION), parents=(0, 0)), small=True
    ),
    _derive("four_streams", dims=dict(N=3, C=3, T=64, V=25, **_streams)),
    _derive("hand", dims=dict(C=3, T=13, V=25, part=13, **_streams)),
    _derive("leg", dims=dict(N=5, C=3, T=13, V=25, part=9, M=1, **_streams)),
    _derive("two_parents", dims=dict(C=3, T=13, V=20, kinds=(0, 0, MOTION), parents=(0, 1, 1))),
    _derive("rooted", dims=dict(C=3, T=13, V=25, kinds=(0, MOTION), parents=(-2, -2), root=20)),
    _derive("whole_body", dims=dict(N=1, C=3, T=13, V=67, **_streams)),
    _derive("two_bodies", dims=dict(N=1, C=2, T=5, V=133, M=2, part=48, **_streams)),
    _derive("hand_gesture", dims=dict(N=2, C=3, T=180, V=22, M=1, **_streams)),
    _derive("one_frame", dims=dict(N=5, C=3, T=1, V=25, **_streams)),
    _derive("one_joint", dims=dict(N=2, C=3, T=13, V=1, M=1, **_streams)),
    _derive("transposed", dims=dict(C=3, T=13, V=20, layout="transposed", **_streams)),
    _derive("sliced", dims=dict(C=5, T=13, V=17, layout="sliced", **_streams)),
    _derive("expanded", dims=dict(N=5, C=3, T=13, V=17, layout="expanded", **_streams)),
)


def pose_heatmap(
    draw, N=2, M=2, T=2, V=5, H=9, W=11, sigma=0.6, limbs=(), joints=True, flip=False,
    pixels=True, result=None, layout="contiguous",
):  # fmt: skip
    """Joints in and around the picture, some with scores below what is drawn."""
    size = torch.tensor([W, H])
    place = draw.normal(N, M, T, V, 2, scale=0.35, mean=0.5) * size.to(draw.device, draw.dtype)
    score = (0.6 + 0.2 * draw.normal(N, M, T, V)).abs()
    score = score * (_integers(draw, 0, 6, N, M, T, V) > 0).to(draw.dtype)
    pairs = [v for v in range(V) for _ in range(2)] * joints + [v for pair in limbs for v in pair]
    mirror = [*range(V)][::-1]
    partner = [mirror[v] for v in pairs] if flip else pairs
    turned = (_integers(draw, 0, 2, N) > 0) if flip else None
    place, score = relayout(place, layout), relayout(score, layout)
    eps = 1e-3 if pixels else 1e-4
    return place, score, turned, pairs, partner, H, W, sigma, eps, pixels, result or draw.dtype


def _pose_heatmap_public(
    keypoint, score, flip, pairs, flipped, height, width, sigma, eps, mirror_pixels, dtype
):
    V = keypoint.shape[3]
    wanted = None if dtype == keypoint.dtype else dtype
    table = list(zip(pairs[::2], pairs[1::2], strict=True))
    return ops.pose_heatmap(
        keypoint, score, height, width, joints=False, limbs=table, sigma=sigma, flip=flip,
        mirror=[*range(V)][::-1], convention="pyskl" if mirror_pixels else "epam", dtype=wanted,
    )  # fmt: skip


_heatmap = partial(Case, build=pose_heatmap, public=_pose_heatmap_public)
_limbs = ((0, 1), (1, 2), (2, 3), (3, 4), (0, 3))
register(
    "pose_heatmap",
    _heatmap("small", dims=dict(N=2, V=3, H=6, W=7, limbs=((0, 1), (2, 1))), small=True),
    _heatmap("published", dims=dict(N=2, T=3, V=17, H=56, W=56)),
    _heatmap("flipped", dims=dict(N=3, V=5, H=17, W=23, limbs=_limbs, flip=True, sigma=1.3)),
    _heatmap(
        "flipped_points",
        dims=dict(N=4, M=3, T=1, limbs=_limbs, joints=False, flip=True, pixels=False),
    ),
    _heatmap("transposed", dims=dict(N=2, M=1, T=5, V=20, H=9, W=65, layout="transposed")),
)


def temporal_shift(draw, N=2, C=5, T=3, shape=(4,), fold=1, reverse=False, layout="contiguous"):
    return relayout(draw.normal(N, C, T, *shape), layout), fold, reverse


def _temporal_shift_public(x, fold, reverse):
    if reverse:  # what only a backward asks for
        return OPS["temporal_shift"](x, fold, reverse)
    return ops.temporal_shift(x, x.shape[1] // fold)


def shift_conv(draw, N=2, C=5, T=3, shape=(4,), fold=1, outputs=3, layout="contiguous"):
    x = relayout(draw.normal(N, C, T, *shape), layout)
    return x, draw.normal(outputs, C, scale=max(C, 1) ** -0.5), fold


def _shift_conv_public(x, weight, fold):
    return ops.shift_conv(x, weight, x.shape[1] // fold)


_shift_conv = partial(Case, build=shift_conv, public=_shift_conv_public)
register(
    "shift_conv",
    _shift_conv("small", small=True),
    _shift_conv("pose_stream", dims=dict(C=24, T=9, shape=(7, 5), fold=6, outputs=54)),
    _shift_conv("one_frame", dims=dict(C=8, T=1, shape=(3, 3), outputs=17)),
    _shift_conv("many_columns", dims=dict(N=1, C=4, T=13, shape=(9, 19), fold=2, outputs=2)),
    _shift_conv("skeleton", dims=dict(C=16, T=13, shape=(25,), fold=2, layout="transposed")),
)


def x3d_block(
    draw, N=2, C=4, T=3, H=5, W=4, hidden=9, outputs=4, fold=1, stride=1, shortcut=False, squeeze=0,
    layout="contiguous",
):  # fmt: skip
    def weight(*shape):
        return draw.normal(*shape, scale=math.prod(shape[1:]) ** -0.5)

    excite = (None,) * 4
    if squeeze:
        excite = weight(squeeze, hidden), draw.normal(squeeze)
        excite += weight(hidden, squeeze), draw.normal(hidden)
    return (
        relayout(draw.normal(N, C, T, H, W), layout),
        weight(hidden, C), draw.normal(hidden),
        weight(hidden, 3, 3), draw.normal(hidden),
        weight(outputs, hidden), draw.normal(outputs),
        weight(outputs, C) if shortcut else None,
        *excite, fold, stride,
    )  # fmt: skip


def _x3d_block_public(*args):
    *tensors, fold, stride = args
    squeeze = None if tensors[8] is None else tuple(tensors[8:])
    fold_div = tensors[0].shape[1] // fold
    return ops.x3d_block(*tensors[:8], squeeze, fold_div=fold_div, stride=stride)


_x3d_block = partial(Case, build=x3d_block, public=_x3d_block_public, backward=False)
register(
    "x3d_block",
    _x3d_block("small", small=True),
    _x3d_block("excited", dims=dict(C=8, T=5, H=7, W=7, hidden=18, outputs=8, squeeze=8, fold=2)),
    _x3d_block(
        "first", dims=dict(C=8, T=2, H=9, W=10, hidden=18, outputs=16, stride=2, shortcut=True)
    ),
    _x3d_block(
        "rows", dims=dict(N=1, C=6, T=2, H=56, W=48, hidden=54, outputs=6, squeeze=8, fold=3)
    ),
    _x3d_block(
        "strided_rows",
        dims=dict(N=1, C=4, T=1, H=57, W=55, hidden=54, outputs=5, stride=2, shortcut=True),
    ),
    _x3d_block("frames", dims=dict(C=4, T=13, H=7, W=7, hidden=216, layout="transposed")),
)


_shift = partial(Case, build=temporal_shift, public=_temporal_shift_public)
register(
    "temporal_shift",
    _shift("small", small=True),
    _shift("pose_stream", dims=dict(C=24, T=9, shape=(7, 5), fold=6)),
    _shift("one_frame", dims=dict(C=8, T=1, shape=(3, 3))),
    _shift("skeleton", dims=dict(N=3, C=16, T=13, shape=(25,), fold=2, layout="transposed")),
)
