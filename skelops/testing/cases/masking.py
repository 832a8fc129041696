"""Cases of masked pre-training: selections, embedding and return of tokens, targets, losses."""

from __future__ import annotations

from functools import partial
from itertools import product

import torch
from torch import Tensor

from skelops import ops
from skelops.testing.cases import Case, Draw, register, relayout

MAMP = dict(T=120, V=25, C=3)


def _clips(draw: Draw, N: int, T: int, V: int, C: int, absent: bool = False) -> Tensor:
    x = draw.normal(N, T, V, C)
    if absent:
        x[::2] = 0
    return x


def _noise(draw: Draw, N: int, L: int) -> Tensor:
    """Uniform, in single precision beside half types."""
    u = torch.rand(N, L, dtype=torch.float64, generator=draw.generator)
    return u.to(draw.norm_dtype).to(draw.device)


def _mask(draw: Draw, *shape: int, share: float = 0.5) -> Tensor:
    """Random, True = kept in about this share."""
    kept = torch.rand(shape, dtype=torch.float64, generator=draw.generator) < share
    return kept.to(draw.device)


def _ids(draw: Draw, N: int, L: int, K: int, ordered: bool = True) -> Tensor:
    """(N, K) distinct tokens of each row."""
    shuffled = torch.rand(N, L, dtype=torch.float64, generator=draw.generator).argsort(1)[:, :K]
    return (shuffled.sort(1).values if ordered else shuffled).to(draw.device)


def _arranged(layout: str, *tensors: Tensor | None) -> tuple:
    return tuple(t if t is None else relayout(t, layout) for t in tensors)


def motion_mask(
    draw, N=2, T=6, V=3, C=2, segment=2, keep=None, tau=0.8, exact=False, layout="contiguous",
    absent=False,
):  # fmt: skip
    L = T // segment * V
    tensors = _clips(draw, N, T, V, C, absent), _noise(draw, N, L)
    keep = int(L * (1 - 0.9)) if keep is None else keep
    return *_arranged(layout, *tensors), keep, segment, tau, exact


def _motion_mask_public(x, noise, keep, segment, tau, exact):
    ratio = 1 - (keep + 0.5) / noise.shape[1] if keep < noise.shape[1] else 0.0
    return ops.motion_mask(x, noise, mask_ratio=ratio, segment=segment, tau=tau, exact=exact)


_motion = partial(Case, build=motion_mask, public=_motion_mask_public, backward=False)
register(
    "motion_mask",
    _motion("small", dims=dict(keep=3), small=True),
    _motion("small_exact", dims=dict(keep=3, exact=True), small=True),
    _motion("small_uniform", dims=dict(keep=3, tau=0.0), small=True),
    _motion("mamp", dims=dict(N=4, segment=4, **MAMP)),
    _motion("mamp_batch", dims=dict(N=128, segment=4, **MAMP)),
    _motion("mamp_exact", dims=dict(N=2, T=40, V=25, C=3, segment=4, exact=True)),
    _motion("mae", dims=dict(N=4, segment=4, tau=0.0, **MAMP)),
    _motion("coco", dims=dict(N=3, T=64, V=17, C=2, segment=1, tau=0.75)),
    _motion("absent_person", dims=dict(N=4, segment=4, absent=True, **MAMP)),
    _motion("keep_all", dims=dict(N=3, T=12, V=20, C=3, segment=4, keep=60)),
    _motion("keep_none", dims=dict(N=3, T=12, V=20, C=3, segment=4, keep=0)),
    _motion("one_segment", dims=dict(N=3, T=5, V=20, C=3, segment=5, keep=7)),
    _motion("one_token", dims=dict(N=3, T=3, V=1, C=3, segment=3, keep=1)),
    _motion("sliced", dims=dict(N=2, T=20, V=17, C=3, keep=31, layout="sliced")),
    _motion("transposed", dims=dict(N=2, T=20, V=17, C=3, keep=31, layout="transposed")),
)


def slot_mask(draw, N=2, T=2, V=3, C=2, masked=None, layout="contiguous", absent=False):
    tensors = _clips(draw, N, T, V, C, absent), _noise(draw, N, T * V)
    masked = max(1, int(0.3 * T * V)) if masked is None else masked
    return *_arranged(layout, *tensors), masked


def _slot_mask_public(x, noise, masked):
    slots = noise.shape[1]
    ratio = 1.0 if masked == slots else masked and (masked + 0.5) / slots
    return ops.slot_mask(x, noise, mask_ratio=ratio)


_slot = partial(Case, build=slot_mask, public=_slot_mask_public)
register(
    "slot_mask",
    _slot("small", small=True),
    _slot("small_all", dims=dict(masked=6), small=True),
    _slot("penn", dims=dict(N=3, T=30, V=13, C=2)),
    _slot("ntu", dims=dict(N=4, T=64, V=25, C=3)),
    _slot("ucla", dims=dict(N=4, T=52, V=20, C=3, absent=True)),
    _slot("features", dims=dict(N=2, T=13, V=17, C=64)),
    _slot("keep_all", dims=dict(N=2, T=13, V=17, C=3, masked=0)),
    _slot("one_slot", dims=dict(N=3, T=1, V=1, C=3, masked=1)),
    _slot("sliced", dims=dict(N=2, T=13, V=20, C=3, layout="sliced")),
    _slot("transposed", dims=dict(N=2, T=13, V=20, C=3, layout="transposed")),
    _slot("expanded", dims=dict(N=3, T=13, V=20, C=3, layout="expanded")),
)


def part_mask(draw, N=2, T=2, V=3, C=2, per_clip=False, layout="contiguous", share=0.7):
    shape = (N, V) if per_clip else (V,)
    tensors = draw.normal(N, T, V, C), draw.normal(C), _mask(draw, *shape, share=share)
    return _arranged(layout, *tensors)


_part = partial(Case, build=part_mask, public=ops.part_mask)
register(
    "part_mask",
    _part("small", small=True),
    _part("small_per_clip", dims=dict(per_clip=True), small=True),
    _part("coco", dims=dict(N=4, T=64, V=17, C=64)),
    _part("coco_per_clip", dims=dict(N=4, T=64, V=17, C=64, per_clip=True)),
    _part("frames", dims=dict(N=65, T=1, V=17, C=64, per_clip=True)),
    _part("ntu", dims=dict(N=2, T=13, V=25, C=3, per_clip=True)),
    _part("wide", dims=dict(N=2, T=5, V=20, C=257)),
    _part("keep_all", dims=dict(N=2, T=13, V=17, C=64, share=1.0)),
    _part("keep_none", dims=dict(N=2, T=13, V=17, C=64, share=0.0)),
    _part("one_joint", dims=dict(N=2, T=13, V=1, C=5, per_clip=True)),
    _part("sliced", dims=dict(N=2, T=13, V=20, C=16, layout="sliced")),
    _part("transposed", dims=dict(N=2, T=13, V=20, C=16, layout="transposed", per_clip=True)),
    _part("expanded", dims=dict(N=3, T=13, V=17, C=16, layout="expanded", per_clip=True)),
)


def masked_patch_embed(
    draw, N=2, T=4, V=3, C=2, D=3, segment=2, K=3, bias=True, places=True, ids=True, ordered=True,
    layout="contiguous", absent=False,
):  # fmt: skip
    L = T // segment * V
    tensors = (
        _clips(draw, N, T, V, C, absent),
        draw.normal(D, C, segment, 1, scale=(C * segment) ** -0.5),
        draw.normal(D) if bias else None,
        draw.normal(V, D, scale=0.5) if places else None,
        draw.normal(T // segment, D, scale=0.5) if places else None,
        _ids(draw, N, L, K, ordered) if ids else None,
    )
    return _arranged(layout, *tensors)


_embed = partial(Case, build=masked_patch_embed, public=ops.masked_patch_embed)
for bias, places, ids in product((True, False), (True, False), (True, False)):
    name = f"{'' if bias else 'no_'}bias-{'' if places else 'no_'}places-{'kept' if ids else 'all'}"
    dims = {"bias": bias, "places": places, "ids": ids}
    register("masked_patch_embed", _embed(name, dims=dims, small=True))
register(
    "masked_patch_embed",
    _embed("mamp", dims=dict(N=4, segment=4, K=74, D=256, **MAMP)),
    _embed("mamp_all", dims=dict(N=2, segment=4, D=256, ids=False, **MAMP)),
    _embed("mamp_shuffled", dims=dict(N=4, segment=4, K=74, D=64, ordered=False, **MAMP)),
    _embed("coco", dims=dict(N=3, T=64, V=17, C=2, segment=1, K=109, D=64)),
    _embed("long", dims=dict(N=2, T=300, V=25, C=3, segment=4, K=187, D=96)),
    _embed("wide_patch", dims=dict(N=2, T=24, V=20, C=3, segment=8, K=11, D=50)),
    _embed("none_kept", dims=dict(N=2, T=12, V=20, C=3, segment=4, K=0, D=32)),
    _embed("one_token", dims=dict(N=3, T=3, V=1, C=3, segment=3, K=1, D=5)),
    _embed("absent_person", dims=dict(N=3, T=12, V=25, C=3, segment=4, K=9, D=33, absent=True)),
    _embed("sliced", dims=dict(N=2, T=12, V=17, C=3, K=31, D=40, layout="sliced")),
    _embed("transposed", dims=dict(N=2, T=12, V=17, C=3, K=31, D=40, layout="transposed")),
    _embed("expanded", dims=dict(N=3, T=12, V=17, C=3, K=31, D=40, layout="expanded")),
)


def token_restore(draw, N=2, T=2, V=3, K=2, D=3, layout="contiguous"):
    """T segments."""
    places = _ids(draw, N, T * V, T * V, ordered=False)
    tensors = (
        draw.normal(N, K, D),
        draw.normal(D),
        places,
        draw.normal(V, D, scale=0.5),
        draw.normal(T, D, scale=0.5),
    )
    return _arranged(layout, *tensors)


_restore = partial(Case, build=token_restore, public=ops.token_restore)
register(
    "token_restore",
    _restore("small", small=True),
    _restore("small_none_kept", dims=dict(K=0), small=True),
    _restore("mamp", dims=dict(N=4, T=30, V=25, K=74, D=256)),
    _restore("coco", dims=dict(N=3, T=64, V=17, K=109, D=64)),
    _restore("odd_width", dims=dict(N=5, T=13, V=20, K=26, D=50)),
    _restore("wide", dims=dict(N=2, T=3, V=17, K=5, D=600)),
    _restore("keep_all", dims=dict(N=2, T=3, V=20, K=60, D=32)),
    _restore("one_token", dims=dict(N=3, T=1, V=1, K=1, D=5)),
    _restore("sliced", dims=dict(N=2, T=6, V=17, K=31, D=40, layout="sliced")),
    _restore("transposed", dims=dict(N=2, T=6, V=17, K=31, D=40, layout="transposed")),
    _restore("expanded", dims=dict(N=3, T=6, V=17, K=31, D=40, layout="expanded")),
)


def motion_target(
    draw, N=2, T=6, V=3, C=2, segment=2, stride=1, normalise=True, layout="contiguous",
    absent=False,
):  # fmt: skip
    x = relayout(_clips(draw, N, T, V, C, absent), layout)
    return x, segment, stride, normalise


def _motion_target_public(x, segment, stride, normalise):
    return ops.motion_target(x, segment=segment, stride=stride, normalise=normalise)


_TARGETS = {
    "small": dict(small=True),
    "small_raw": dict(dims=dict(normalise=False, stride=3), small=True),
    "small_joint": dict(dims=dict(stride=0), small=True),
    "mamp": dict(dims=dict(N=4, segment=4, **MAMP)),
    "mamp_raw": dict(dims=dict(N=4, segment=4, normalise=False, **MAMP)),
    "mamp_stride3": dict(dims=dict(N=2, segment=4, stride=3, **MAMP)),
    "mae": dict(dims=dict(N=4, segment=4, stride=0, **MAMP)),
    "coordinates": dict(dims=dict(N=2, T=13, V=17, C=2, segment=1, stride=0, normalise=False)),
    "long_stride": dict(dims=dict(N=2, T=12, V=17, C=3, segment=4, stride=40, normalise=False)),
    "wide_patch": dict(dims=dict(N=2, T=24, V=20, C=3, segment=8, stride=2)),
    "one_token": dict(dims=dict(N=3, T=3, V=1, C=3, segment=3)),
    "absent_person": dict(dims=dict(N=4, T=12, V=25, C=3, segment=4, absent=True, stride=0)),
    "sliced": dict(dims=dict(N=2, T=12, V=17, C=3, layout="sliced")),
    "transposed": dict(dims=dict(N=2, T=12, V=17, C=3, layout="transposed")),
    "expanded": dict(dims=dict(N=3, T=12, V=17, C=3, layout="expanded")),
}
_target = partial(Case, build=motion_target, public=_motion_target_public)
register("motion_target", *(_target(name, **fields) for name, fields in _TARGETS.items()))


def masked_motion_loss(
    draw, N=2, T=6, V=3, C=2, segment=2, stride=1, normalise=True, layout="contiguous",
    absent=False, share=0.3,
):  # fmt: skip
    L = T // segment * V
    tensors = (
        _clips(draw, N, T, V, C, absent),
        draw.normal(N, L, segment * C),
        _mask(draw, N, L, share=share),
    )
    return *_arranged(layout, *tensors), segment, stride, normalise


def _masked_motion_loss_public(x, pred, mask, segment, stride, normalise):
    return ops.masked_motion_loss(
        x, pred, mask, segment=segment, stride=stride, normalise=normalise
    )


_loss = partial(Case, build=masked_motion_loss, public=_masked_motion_loss_public)
register(
    "masked_motion_loss",
    *(_loss(name, **fields) for name, fields in _TARGETS.items()),
    _loss("mamp_batch", dims=dict(N=32, segment=4, share=0.1, **MAMP)),
    _loss("small_all_masked", dims=dict(share=0.0), small=True),
    _loss("small_none_masked", dims=dict(share=1.0), small=True),
)


def masked_cosine_loss(
    draw, N=2, T=2, V=3, C=4, beta=2.0, literal=False, per_clip=False, layout="contiguous",
    share=0.5,
):  # fmt: skip
    mask = _mask(draw, *((N, V) if per_clip else (V,)), share=share)
    tensors = draw.normal(N, T, V, C), draw.normal(N, T, V, C), mask
    return *_arranged(layout, *tensors), beta, literal


def _masked_cosine_loss_public(x, y, mask, beta, literal):
    return ops.masked_cosine_loss(x, y, mask, beta=beta, literal=literal)


_cosine = partial(Case, build=masked_cosine_loss, public=_masked_cosine_loss_public)
register(
    "masked_cosine_loss",
    _cosine("small", small=True),
    _cosine("small_per_clip", dims=dict(beta=3.0, per_clip=True), small=True),
    _cosine("small_literal", dims=dict(literal=True, share=0.0), small=True),
    _cosine("small_linear", dims=dict(beta=1.0, share=0.0), small=True),
    _cosine("small_none_masked", dims=dict(share=1.0), small=True),
    _cosine("coco", dims=dict(N=4, T=64, V=17, C=64)),
    _cosine("coco_per_clip", dims=dict(N=4, T=64, V=17, C=64, per_clip=True, beta=1.5)),
    _cosine("frames", dims=dict(N=65, T=1, V=17, C=64, per_clip=True)),
    _cosine("odd_width", dims=dict(N=2, T=13, V=20, C=37, share=0.0)),
    _cosine("wide", dims=dict(N=2, T=3, V=25, C=257)),
    _cosine("sliced", dims=dict(N=2, T=13, V=20, C=16, layout="sliced")),
    _cosine("transposed", dims=dict(N=2, T=13, V=20, C=16, layout="transposed", per_clip=True)),
    _cosine("expanded", dims=dict(N=3, T=13, V=17, C=16, layout="expanded", per_clip=True)),
)
