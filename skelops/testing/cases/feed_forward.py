"""Cases of feed-forward layers of a transformer."""

from __future__ import annotations

from functools import partial

import torch

from skelops import ops
from skelops.ops._dropout import LEVELS
from skelops.testing.cases import Case, register, relayout


def mlp(draw, N=5, C=3, H=7, layout="contiguous"):
    tensors = (
        draw.normal(N, C),
        draw.normal(H, C, scale=C**-0.5),
        draw.normal(H, scale=0.1),
        draw.normal(C, H, scale=H**-0.5),
        draw.normal(C, scale=0.1),
    )
    return tuple(relayout(t, layout) for t in tensors)


_mlp = partial(Case, build=mlp, public=ops.mlp)
register(
    "mlp",
    _mlp("small", small=True),
    _mlp("mamp", dims=dict(N=110, C=256, H=1024)),
    _mlp("odd", dims=dict(N=53, C=33, H=301, layout="transposed")),
)


def narrow_ffn(draw, dropped=0, **dims):
    seed = torch.tensor([2**40 + 7], device=draw.device) if dropped else None
    return *mlp(draw, **dims), seed, dropped


def _public(x, w1, b1, w2, b2, seed, dropped):
    return ops.narrow_ffn(x, w1, b1, w2, b2, dropout=dropped / LEVELS, seed=seed)


_case = partial(Case, build=narrow_ffn, public=_public)
register(
    "narrow_ffn",
    _case("small", small=True),
    _case("small_dropout", dims=dict(H=19, dropped=20000), small=True),
    _case("cascadeformer_cv", dims=dict(N=200, C=24, H=512, dropped=6554)),
    _case("odd", dims=dict(N=131, C=33, H=201, layout="transposed")),
    _case("one_row", dims=dict(N=1, C=1, H=1)),
)


def linear(draw, N=5, C=3, D=4, bias=True, layout="contiguous"):
    tensors = draw.normal(N, C), draw.normal(D, C, scale=C**-0.5), draw.normal(D) if bias else None
    return tuple(t if t is None else relayout(t, layout) for t in tensors)


_linear = partial(Case, build=linear, public=ops.linear)
register(
    "linear",
    _linear("small", small=True),
    _linear("mlp", dims=dict(N=301, C=256, D=1024)),
    _linear("deep", dims=dict(N=53, C=777, D=33, bias=False)),
    _linear("transposed", dims=dict(N=105, C=65, D=31, layout="transposed")),
)


def temporal_conv(draw, N=2, C=3, D=4, T=6, V=5, k=3, bias=True, stride=1, layout="contiguous"):
    x, w = draw.normal(N, C, T, V), draw.normal(D, C, k, scale=(C * k) ** -0.5)
    tensors = x, w, draw.normal(D) if bias else None
    return *(t if t is None else relayout(t, layout) for t in tensors), stride


_temporal = partial(Case, build=temporal_conv, public=ops.temporal_conv)
register(
    "temporal_conv",
    _temporal("small", small=True),
    _temporal("small_one_frame", dims=dict(T=1, k=5, bias=False), small=True),
    _temporal("st_gcn", dims=dict(C=64, D=64, T=64, V=25, k=9)),
    _temporal("wider", dims=dict(N=5, C=33, D=65, T=13, V=20, k=9)),
    _temporal("long_kernel", dims=dict(N=1, C=5, D=7, T=10, V=17, k=11)),
    _temporal("transposed", dims=dict(C=16, D=8, T=18, V=25, k=7, layout="transposed")),
    _temporal("small_stride", dims=dict(T=7, stride=2, k=5), small=True),
    _temporal("strided", dims=dict(N=5, C=33, D=65, T=31, V=25, k=9, stride=2)),
    _temporal("even_frames", dims=dict(C=16, D=24, T=32, V=20, k=9, stride=2, bias=False)),
    _temporal("long_stride", dims=dict(N=3, C=8, D=9, T=17, V=25, k=7, stride=3)),
    _temporal("stride_beyond", dims=dict(N=1, C=4, D=3, T=11, V=3, k=3, stride=5)),
    _temporal("one_tap", dims=dict(C=16, D=8, T=9, V=25, k=1)),
)
