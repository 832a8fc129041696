"""Cases of the units at inference: parameters whole and in pieces, with every end of a unit."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from torch import Tensor

from skelops import ops
from skelops.testing.cases import Case, Draw, register, relayout

EPS, INNER_EPS = 1e-5, 1e-3
NAMES = ("norm", "residual", "relu", "eps")


def _pieces(t: Tensor, count: int) -> list[Tensor]:
    return [piece.contiguous() for piece in t.tensor_split(count)]


def _norm(draw: Draw, C: int, pieces: int = 1) -> list[Tensor]:
    whole = (draw.norm(C, mean=1), draw.norm(C), draw.norm(C), draw.variance(C))
    return [piece for t in whole for piece in _pieces(t, pieces)]


def _tail(draw: Draw, shape: tuple[int, ...], norms: int, residual: bool, relu: bool) -> tuple:
    norm = _norm(draw, shape[1], norms) if norms else []
    return norm, draw.normal(*shape) if residual else None, relu, EPS


def temporal_unit(
    draw, N=2, C=3, D=4, T=5, V=4, k=1, stride=1, dilation=1, bias=True, pieces=1, norms=1,
    residual=True, relu=True, layout="contiguous",
):  # fmt: skip
    x = relayout(draw.normal(N, C, T, V), layout)
    weight = _pieces(draw.normal(D, C, k, 1, scale=(C * k) ** -0.5), pieces)
    shift = _pieces(draw.normal(D), pieces) if bias else []
    shape = (N, D, (T - 1) // stride + 1, V)
    tail = _tail(draw, shape, norms, residual, relu)
    return x, weight, shift, k, stride, dilation, *tail


def _temporal_unit_public(x, weight, bias, k, stride, dilation, *tail):
    options = {"kernel_size": k, "stride": stride, "dilation": dilation}
    return ops.temporal_unit(x, weight, bias, **options, **dict(zip(NAMES, tail, strict=True)))


_temporal = partial(Case, build=temporal_unit, public=_temporal_unit_public, backward=False)
for k, stride, residual in product((1, 3), (1, 2), (True, False)):
    dims: dict[str, Any] = {"k": k, "stride": stride, "residual": residual, "relu": residual}
    name = f"k{k}-stride{stride}-{'residual' if residual else 'linear'}"
    register("temporal_unit", _temporal(name, dims=dims, small=True))
register(
    "temporal_unit",
    _temporal("stgcn", dims=dict(C=64, D=64, T=16, V=25, k=9)),
    _temporal("stgcn_stride", dims=dict(N=1, C=64, D=128, T=13, V=25, k=9, stride=2)),
    _temporal("dilated", dims=dict(C=5, D=14, T=13, V=17, k=5, dilation=2)),
    _temporal("dilated_stride", dims=dict(C=5, D=14, T=13, V=17, k=5, dilation=3, stride=2)),
    _temporal("long_stride", dims=dict(C=5, D=14, T=13, V=20, k=3, stride=5)),
    _temporal("beyond", dims=dict(C=3, D=5, T=2, V=3, k=9, dilation=2)),
    _temporal("pointwise", dims=dict(C=64, D=96, T=13, V=25, pieces=6, residual=False, norms=0)),
    _temporal("downsample", dims=dict(C=64, D=128, T=13, V=25, stride=2, relu=False)),
    _temporal("no_bias", dims=dict(C=5, D=10, T=13, V=25, bias=False, norms=3, pieces=3)),
    _temporal("along_joints", dims=dict(C=64, D=1, T=25, V=1, k=25, norms=0, relu=False)),
    _temporal("one_frame", dims=dict(N=3, C=5, D=6, T=1, V=25, k=3)),
    _temporal("transposed", dims=dict(C=5, D=6, T=13, V=17, k=3, layout="transposed")),
    _temporal("sliced", dims=dict(C=5, D=6, T=13, V=17, layout="sliced")),
    _temporal("expanded", dims=dict(N=5, C=5, D=6, T=13, V=17, layout="expanded")),
)


def graph_unit(
    draw, N=2, C=3, D=4, T=5, V=4, K=2, bias="before", per_sample=False, transposed=False,
    pieces=1, norms=1, residual=True, relu=True, layout="contiguous",
):  # fmt: skip
    x = relayout(draw.normal(N, C, T, V), layout)
    A = draw.normal(*((N, K, V, V) if per_sample else (K, V, V)), scale=V**-0.5)
    weight = _pieces(draw.normal(K, D, C, scale=(K * C) ** -0.5), pieces)
    shapes = {"before": (K, D), "after": (1, D), "summed": (K, D)}
    shift = _pieces(draw.normal(*shapes[bias]), pieces) if bias else []
    tail = _tail(draw, (N, D, T, V), norms, residual, relu)
    return x, A, weight, shift, bias in ("after", "summed"), transposed, *tail


def _graph_unit_public(x, A, weight, bias, bias_after, transposed, *tail):
    options = {"bias_after": bias_after, "transposed": transposed}
    return ops.graph_unit(x, A, weight, bias, **options, **dict(zip(NAMES, tail, strict=True)))


_graph = partial(Case, build=graph_unit, public=_graph_unit_public, backward=False)
for bias, per_sample, transposed in product(
    ("before", "after", "summed", None), (False, True), (False, True)
):
    rows = "rows" if transposed else "columns"
    name = f"{bias or 'no'}_bias-{rows}{'-per_sample' if per_sample else ''}"
    dims = {"bias": bias, "per_sample": per_sample, "transposed": transposed}
    register("graph_unit", _graph(name, dims=dims, small=True))
register(
    "graph_unit",
    _graph("stgcnpp", dims=dict(C=64, D=64, T=16, V=25, K=3, transposed=True)),
    _graph(
        "agcn",
        dims=dict(C=64, D=96, T=13, V=25, K=3, bias="summed", per_sample=True, pieces=3),
    ),
    _graph("first", dims=dict(N=1, C=3, D=64, T=16, V=17, K=3, residual=False)),
    _graph("no_norm", dims=dict(C=5, D=10, T=13, V=20, norms=0, relu=False)),
    _graph("many_norms", dims=dict(C=5, D=10, T=13, V=20, norms=3, bias=None, residual=False)),
    _graph("transposed", dims=dict(C=5, D=6, T=13, V=17, layout="transposed")),
    _graph("expanded", dims=dict(N=5, C=5, D=6, T=13, V=17, layout="expanded")),
)


def ctr_graph_unit(
    draw, N=2, C=3, D=4, T=5, V=4, K=2, R=2, per_sample=False, transposed=False, pieces=1,
    norms=1, residual=True, relu=True, layout="contiguous",
):  # fmt: skip
    x = relayout(draw.normal(N, C, T, V), layout)
    A = draw.normal(*((N, K, V, V) if per_sample else (K, V, V)), scale=V**-0.5)
    parameters = (
        draw.normal(2, K, R, C, scale=C**-0.5), draw.normal(2, K, R),
        draw.normal(K, D, R, scale=R**-0.5), draw.normal(K, D),
        draw.normal(K, D, C, scale=(K * C) ** -0.5), draw.normal(K, D),
    )  # fmt: skip
    in_pieces = (_pieces(t.flatten(0, 1), pieces) for t in parameters)
    tail = _tail(draw, (N, D, T, V), norms, residual, relu)
    return x, A, draw.normal(1), *in_pieces, transposed, *tail


def _ctr_graph_unit_public(x, A, alpha, *rest):
    *parameters, transposed = rest[: -len(NAMES)]
    tail = dict(zip(NAMES, rest[-len(NAMES) :], strict=True))
    return ops.ctr_graph_unit(x, A, alpha, *parameters, transposed=transposed, **tail)


_ctr = partial(Case, build=ctr_graph_unit, public=_ctr_graph_unit_public, backward=False)
for per_sample, transposed, residual in product((False, True), (False, True), (True, False)):
    rows = "rows" if transposed else "columns"
    name = f"{rows}{'-per_sample' if per_sample else ''}{'' if residual else '-linear'}"
    dims = {"per_sample": per_sample, "transposed": transposed}
    dims |= {"residual": residual, "relu": residual}
    register("ctr_graph_unit", _ctr(name, dims=dims, small=True))
register(
    "ctr_graph_unit",
    _ctr("ctrgcn", dims=dict(C=64, D=64, T=16, V=25, K=3, R=8, pieces=6)),
    _ctr("first", dims=dict(N=1, C=3, D=64, T=13, V=25, K=3, R=8, pieces=3)),
    _ctr("wider", dims=dict(C=64, D=96, T=13, V=20, K=3, R=8, transposed=True)),
    _ctr("no_norm", dims=dict(C=5, D=10, T=13, V=17, norms=0, residual=False)),
    _ctr("many_norms", dims=dict(C=5, D=10, T=13, V=17, norms=3)),
    _ctr("transposed", dims=dict(C=5, D=6, T=13, V=17, layout="transposed")),
    _ctr("sliced", dims=dict(C=5, D=6, T=1, V=17, layout="sliced")),
)


def ms_temporal_unit(
    draw, N=2, C=3, T=5, V=4, widths=(2, 2, 2), plain=2, k=3, dilations=(1, 2), stride=1,
    replicate=False, pieces=1, norms=1, residual=True, relu=True, layout="contiguous",
):  # fmt: skip
    x = relayout(draw.normal(N, C, T, V), layout)
    D, convs = sum(widths) + plain, widths[: len(dilations)]
    weight = _pieces(draw.normal(D, C, scale=C**-0.5), pieces)
    taps = [draw.normal(w, w, k, scale=(w * k) ** -0.5) for w in convs]
    inner = _norm(draw, sum(widths), pieces)
    tail = _tail(draw, (N, D, (T - 1) // stride + 1, V), norms, residual, relu)
    return (
        x, weight, _pieces(draw.normal(D), pieces), taps, [draw.normal(w) for w in convs], inner,
        list(widths), list(dilations), k, stride, replicate, INNER_EPS, *tail,
    )  # fmt: skip


def _ms_temporal_unit_public(*args):
    *parameters, widths, dilations, k, stride, replicate, inner_eps = args[: -len(NAMES)]
    return ops.ms_temporal_unit(
        *parameters,
        widths=widths,
        dilations=dilations,
        kernel_size=k,
        stride=stride,
        padding_mode="replicate" if replicate else "zeros",
        inner_eps=inner_eps,
        **dict(zip(NAMES, args[-len(NAMES) :], strict=True)),
    )


_multi = partial(Case, build=ms_temporal_unit, public=_ms_temporal_unit_public, backward=False)
for stride, replicate, residual in product((1, 2), (False, True), (True, False)):
    border = "replicate" if replicate else "zeros"
    name = f"stride{stride}-{border}-{'residual' if residual else 'linear'}"
    dims = {"stride": stride, "replicate": replicate, "residual": residual, "relu": residual}
    register("ms_temporal_unit", _multi(name, dims=dims, small=True))
register(
    "ms_temporal_unit",
    _multi("ctrgcn", dims=dict(C=64, T=16, V=25, widths=(16,) * 3, plain=16, k=5, pieces=4)),
    _multi(
        "stgcnpp",
        dims=dict(
            C=64, T=13, V=25, widths=(14, 10, 10, 10, 10), plain=10, dilations=(1, 2, 3, 4),
            stride=2, residual=False,
        ),
    ),
    _multi("no_pool", dims=dict(C=5, T=13, V=17, widths=(3, 4), norms=0)),
    _multi("no_plain", dims=dict(C=5, T=13, V=17, plain=0, norms=3, pieces=2)),
    _multi("pool_only", dims=dict(C=5, T=13, V=20, widths=(4,), dilations=(), k=1)),
    _multi("transposed", dims=dict(C=5, T=13, V=17, layout="transposed")),
    _multi("one_frame", dims=dict(N=5, C=5, T=1, V=17, layout="expanded")),
)  # fmt: skip
