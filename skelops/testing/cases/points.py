"""Cases of anchor regression and of searches in point clouds."""

from __future__ import annotations

from functools import partial

import torch

from skelops import ops
from skelops.testing.cases import Case, register, relayout


def anchor_regression(
    draw, N=2, A=5, V=3, D=2, extra=True, shared=True, spread=2.0, layout="contiguous"
):
    place = draw.normal(*(() if shared else (N,)), A, D, scale=3.0).to(draw.norm_dtype)
    tensors = (
        draw.normal(N, A, V, scale=spread),
        draw.normal(N, A, V, D),
        place,
        draw.normal(N, A, V) if extra else None,
    )
    return tuple(t if t is None else relayout(t, layout) for t in tensors)


def _public(logits, offset, anchors, extra):
    """The op's first result."""
    return torch.cat(ops.anchor_regression(logits, offset, anchors, extra), 2)


_regression = partial(Case, build=anchor_regression, public=_public)
register(
    "anchor_regression",
    _regression("small", small=True),
    _regression("small_space", dims=dict(D=3, extra=False, shared=False), small=True),
    _regression("itop", dims=dict(N=1, A=2100, V=15)),
    _regression("cloud", dims=dict(N=3, A=130, V=17, D=3, extra=False, shared=False)),
    _regression("confident", dims=dict(A=67, V=9, D=3, spread=30.0)),
)


def _cloud(draw, N, L):
    """Points far enough apart that no rounding decides."""
    points = torch.rand(N, L, 3, dtype=torch.float64, generator=draw.generator)
    return (points * 4 - 2).to(draw.dtype).to(draw.device)


def farthest_point_sample(draw, N=2, L=9, count=4, start=0, skip_origin=False, layout="contiguous"):
    return relayout(_cloud(draw, N, L), layout), count, start, skip_origin


def _sample(points, count, start, skip_origin):
    return ops.farthest_point_sample(points, count, start=start, skip_origin=skip_origin)


_fps = partial(Case, build=farthest_point_sample, public=_sample, backward=False)
register(
    "farthest_point_sample",
    _fps("small", small=True),
    _fps("cloud", dims=dict(N=3, L=300, count=32, start=7)),
    _fps("all", dims=dict(L=13, count=13, skip_origin=True)),
)


def _clouds(draw, N, Q, L, layout):
    return relayout(_cloud(draw, N, Q), layout), relayout(_cloud(draw, N, L), layout)


def knn(draw, N=2, Q=3, L=7, k=4, layout="contiguous"):
    return *_clouds(draw, N, Q, L, layout), k


_knn = partial(Case, build=knn, public=ops.knn, backward=False)
register(
    "knn",
    _knn("small", small=True),
    _knn("cloud", dims=dict(N=3, Q=19, L=300, k=16)),
    _knn("all", dims=dict(N=1, Q=2, L=13, k=13)),
)


def ball_query(draw, N=2, Q=3, L=7, radius=1.5, k=4, layout="contiguous"):
    return *_clouds(draw, N, Q, L, layout), radius, k


_ball = partial(Case, build=ball_query, public=ops.ball_query, backward=False)
register(
    "ball_query",
    _ball("small", small=True),
    _ball("cloud", dims=dict(N=3, Q=19, L=300, radius=0.7, k=16)),
    _ball("nothing", dims=dict(Q=2, L=13, radius=1e-3, k=5)),
)
