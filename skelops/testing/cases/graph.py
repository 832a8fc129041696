"""Cases of the blocks of graph convolutional networks: aggregation, temporal module, tails."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from skelops import ops
from skelops.ops._dropout import LEVELS
from skelops.testing.cases import Case, Draw, register, relayout

EPS = 1e-5


def skeleton(K: int, V: int) -> Tensor:
    """A tree's adjacency by hops, split into itself, towards and away from the root."""
    parent = torch.zeros(V, V, dtype=torch.float64)
    for v in range(1, V):
        parent[(v - 1) // 2, v] = 1
    subsets, hop = [torch.eye(V, dtype=torch.float64)], parent
    while len(subsets) < K:
        subsets += [hop, hop.T]
        hop = hop @ parent if V > 4 else hop
    return torch.stack(subsets[:K])


def _adjacency(draw: Draw, N: int, K: int, V: int, per_sample: bool, sparse: bool) -> Tensor:
    shape = (N, K, V, V) if per_sample else (K, V, V)
    if sparse:
        edges = skeleton(K, V).to(draw.dtype).to(draw.device)
        return draw.normal(*shape, mean=1, scale=0.1) * edges
    return draw.normal(*shape, scale=V**-0.5)


def _arranged(layout: str, *tensors: Tensor | None) -> tuple:
    return tuple(t if t is None else relayout(t, layout) for t in tensors)


def graph_conv(
    draw, N=2, C=3, D=2, T=2, V=4, K=2, weight=True, bias="subset", per_sample=False, sparse=False,
    transposed=False, layout="contiguous", absent=False,
):  # fmt: skip
    x = draw.normal(N, C if weight else K * D, T, V)
    if absent:
        x[::2] = 0
    A = _adjacency(draw, N, K, V, per_sample, sparse)
    w = draw.normal(K, D, C, scale=(K * C) ** -0.5) if weight else None
    shapes = {"subset": (K, D), "output": (D,)}
    b = draw.normal(*shapes[bias]) if bias else None
    return *_arranged(layout, x, A, w, b), transposed


def _graph_conv_public(x, A, weight, bias, transposed):
    return ops.graph_conv(x, A, weight, bias, transposed=transposed)


_graph = partial(Case, build=graph_conv, public=_graph_conv_public)
for weight, bias, transposed, per_sample in product(
    (True, False), ("subset", "output", None), (False, True), (False, True)
):
    name = f"{'w' if weight else 'now'}-{bias or 'no'}_bias-{'rows' if transposed else 'columns'}"
    dims: dict[str, Any] = {"weight": weight, "bias": bias, "transposed": transposed}
    dims |= {"per_sample": per_sample}
    suffix = "-per_sample" if per_sample else ""
    register("graph_conv", _graph(name + suffix, dims=dims, small=True))
register(
    "graph_conv",
    _graph("stgcn_first", dims=dict(N=1, C=3, D=64, T=64, V=25, K=3, sparse=True)),
    _graph("stgcn", dims=dict(N=2, C=64, D=64, T=13, V=25, K=3, sparse=True)),
    _graph("stgcn_dense", dims=dict(N=2, C=64, D=64, T=13, V=25, K=3)),
    _graph("stgcn_rows", dims=dict(C=64, D=32, T=13, V=17, K=3, sparse=True, transposed=True)),
    _graph("stgcnpp", dims=dict(N=2, T=13, V=17, K=3, D=64, weight=False, transposed=True)),
    _graph("agcn", dims=dict(N=5, C=5, D=10, T=13, V=20, K=3, bias="output", per_sample=True)),
    _graph("dggcn", dims=dict(N=1, C=64, D=14, T=13, V=25, K=8, bias=None)),
    _graph("aggregate_only", dims=dict(N=2, T=64, V=25, K=1, D=5, weight=False, bias=None)),
    _graph(
        "aggregate_sample", dims=dict(N=2, T=13, V=25, K=8, D=10, weight=False, per_sample=True)
    ),
    _graph("one_joint", dims=dict(N=2, C=5, D=7, T=13, V=1, K=1)),
    _graph("one_frame", dims=dict(N=5, C=64, D=5, T=1, V=25, K=3)),
    _graph("whole_body", dims=dict(N=1, C=5, D=10, T=13, V=67, K=3, sparse=True)),
    _graph("whole_body_133", dims=dict(N=1, C=5, D=6, T=3, V=133, K=3, sparse=True)),
    _graph("two_bodies", dims=dict(N=1, C=3, D=16, T=13, V=128, K=3, transposed=True)),
    _graph("dense_67", dims=dict(N=1, C=5, D=17, T=13, V=67, K=1, bias=None, transposed=True)),
    _graph("absent_person", dims=dict(N=2, C=5, D=10, T=13, V=25, K=3, sparse=True, absent=True)),
    _graph("transposed", dims=dict(N=2, C=5, D=10, T=13, V=20, K=3, layout="transposed")),
    _graph("sliced", dims=dict(N=2, C=64, D=5, T=13, V=25, K=3, sparse=True, layout="sliced")),
    _graph("expanded", dims=dict(N=5, C=5, D=10, T=13, V=17, K=3, layout="expanded")),
    _graph(
        "sliced_sample",
        dims=dict(N=2, D=5, T=13, V=20, K=3, weight=False, per_sample=True, layout="sliced"),
    ),
)


def ctr_graph_conv(
    draw, N=2, C=3, D=2, R=3, T=2, V=4, K=2, refine="w4b4", weight=True, bias=True,
    per_sample=False, sparse=False, transposed=False, scalar_alpha=False, layout="contiguous",
    absent=False,
):  # fmt: skip
    R = R if refine else D
    x = draw.normal(N, C if weight else K * D, T, V)
    p, q = draw.normal(N, K, R, V), draw.normal(N, K, R, V)
    if absent:
        x[::2], p[::2], q[::2] = 0, 0, 0
    tensors = (
        x,
        _adjacency(draw, N, K, V, per_sample, sparse),
        p,
        q,
        draw.normal(*(() if scalar_alpha else (1,)), mean=0.5, scale=0.1),
        draw.normal(K, D, R, scale=(R * V) ** -0.5) if refine else None,
        draw.normal(K, D, scale=V**-0.5) if refine == "w4b4" else None,
        draw.normal(K, D, C, scale=(K * C) ** -0.5) if weight else None,
        draw.normal(K, D) if bias else None,
    )
    return *_arranged(layout, *tensors), transposed


def _ctr_graph_conv_public(*args):
    return ops.ctr_graph_conv(*args[:-1], transposed=args[-1])


_ctr = partial(Case, build=ctr_graph_conv, public=_ctr_graph_conv_public)
for i, (refine, weight, has_bias, transposed) in enumerate(
    product(("w4b4", "w4", None), (True, False), (True, False), (False, True))
):
    name = (
        f"{refine or 'dg'}-{'w' if weight else 'now'}-{'' if has_bias else 'no_'}bias"
        f"-{'rows' if transposed else 'columns'}"
    )
    dims = {"refine": refine, "weight": weight, "bias": has_bias, "transposed": transposed}
    dims |= {"per_sample": i % 5 == 0, "scalar_alpha": i % 3 == 0}
    register("ctr_graph_conv", _ctr(name, dims=dims, small=True))
register(
    "ctr_graph_conv",
    _ctr("ctrgcn_first", dims=dict(N=1, C=3, D=64, R=8, T=64, V=25, K=3, sparse=True)),
    _ctr("ctrgcn", dims=dict(N=2, C=64, D=64, R=8, T=13, V=25, K=3, sparse=True)),
    _ctr("ctrgcn_wide_relations", dims=dict(N=1, C=16, D=10, R=32, T=13, V=20, K=3)),
    _ctr("pyskl", dims=dict(N=2, C=64, D=16, R=8, T=13, V=17, K=3, transposed=True)),
    _ctr("dggcn", dims=dict(N=2, D=10, T=13, V=25, K=8, refine=None, weight=False, bias=False)),
    _ctr("one_joint", dims=dict(N=2, C=5, D=7, R=3, T=13, V=1, K=1)),
    _ctr("one_frame", dims=dict(N=5, C=16, D=5, R=8, T=1, V=25, K=3)),
    _ctr("one_relation", dims=dict(N=2, C=5, D=14, R=1, T=13, V=20, K=3, bias=False)),
    _ctr("whole_body", dims=dict(N=1, C=5, D=10, R=5, T=13, V=67, K=1, sparse=True)),
    _ctr("two_bodies", dims=dict(N=1, C=3, D=5, R=8, T=1, V=128, K=1, transposed=True)),
    _ctr("per_sample", dims=dict(N=5, C=5, D=17, R=4, T=13, V=17, K=3, per_sample=True)),
    _ctr("absent_person", dims=dict(N=2, C=5, D=10, R=8, T=13, V=25, K=3, absent=True)),
    _ctr("transposed", dims=dict(N=2, C=5, D=10, R=5, T=13, V=20, K=3, layout="transposed")),
    _ctr("sliced", dims=dict(N=2, C=16, D=5, R=8, T=13, V=25, K=3, layout="sliced")),
    _ctr("expanded", dims=dict(N=5, C=5, D=10, R=4, T=13, V=17, K=3, layout="expanded")),
    _ctr(
        "sliced_dg",
        dims=dict(D=10, T=13, V=17, K=8, refine=None, weight=False, bias=False, layout="sliced"),
    ),
)


def hypergraph_conv(
    draw, N=2, C=4, D=6, T=2, V=3, Q=2, K=2, bias=True, per_sample=True, layout="contiguous",
    absent=False,
):  # fmt: skip
    x = draw.normal(N, C, T, V)
    if absent:
        x[::2] = 0
    A = draw.normal(*((N,) if per_sample else ()), K, V, V + Q, scale=(V + Q) ** -0.5)
    w = draw.normal(D, C // K, scale=(C // K) ** -0.5)
    b = draw.normal(D) if bias else None
    virtual = draw.normal(Q, C) if Q else None
    return _arranged(layout, x, A, w, b, virtual)


_hyper = partial(Case, build=hypergraph_conv, public=ops.hypergraph_conv)
for bias, Q, per_sample in product((True, False), (2, 0), (True, False)):
    name = f"{'' if bias else 'no_'}bias-{Q}_virtual-{'per_sample' if per_sample else 'shared'}"
    dims = {"bias": bias, "Q": Q, "per_sample": per_sample}
    register("hypergraph_conv", _hyper(name, dims=dims, small=True))
register(
    "hypergraph_conv",
    _hyper("narrower", dims=dict(C=6, D=4, V=2, Q=1), small=True),
    _hyper("hypergcn", dims=dict(N=1, C=128, D=128, T=64, V=25, Q=3, K=8)),
    _hyper("hypergcn_wider", dims=dict(N=2, C=128, D=256, T=13, V=25, Q=3, K=8)),
    _hyper("hypergcn_256", dims=dict(N=2, C=256, D=256, T=13, V=25, Q=3, K=8)),
    _hyper("nw_ucla", dims=dict(N=2, C=128, D=128, T=13, V=20, Q=3, K=8)),
    _hyper("no_virtual", dims=dict(N=2, C=128, D=128, T=13, V=25, Q=0, K=8, bias=False)),
    _hyper("shared", dims=dict(N=5, C=64, D=128, T=13, V=20, Q=3, K=8, per_sample=False)),
    _hyper("one_head", dims=dict(N=2, C=5, D=7, T=13, V=17, Q=3, K=1)),
    _hyper("uneven_heads", dims=dict(N=2, C=15, D=51, T=13, V=25, Q=2, K=3)),
    _hyper("narrow_result", dims=dict(N=2, C=128, D=16, T=13, V=20, Q=3, K=4)),
    _hyper("one_joint", dims=dict(N=2, C=6, D=4, T=13, V=1, Q=1, K=2)),
    _hyper("one_frame", dims=dict(N=5, C=128, D=128, T=1, V=25, Q=3, K=8)),
    _hyper("whole_body", dims=dict(N=1, C=16, D=32, T=13, V=67, Q=5, K=2)),
    _hyper("two_bodies", dims=dict(N=1, C=16, D=16, T=13, V=125, Q=3, K=1)),
    _hyper("absent_person", dims=dict(N=2, C=16, D=32, T=13, V=25, Q=3, K=2, absent=True)),
    _hyper("transposed", dims=dict(N=2, C=16, D=32, T=13, V=20, Q=3, K=2, layout="transposed")),
    _hyper("sliced", dims=dict(N=2, C=16, D=8, T=13, V=25, Q=3, K=2, layout="sliced")),
    _hyper("expanded", dims=dict(N=5, C=16, D=32, T=13, V=25, Q=3, K=2, layout="expanded")),
)


def bn_act_add(
    draw, N=2, C=3, T=3, V=4, training=True, relu=True, residual=None, running=True, mean=0.0,
    scale=1.0, layout="contiguous", absent=False, norm_dtype="float32", dropped=0,
):  # fmt: skip
    def norm():
        weight, bias = draw.norm(C, mean=1), draw.norm(C)
        statistics = (draw.norm(C, mean=mean), draw.variance(C) * scale**2)
        if norm_dtype in ("x", "mixed"):
            weight, bias = weight.to(draw.dtype), bias.to(draw.dtype)
        if norm_dtype == "x":
            statistics = tuple(s.to(draw.dtype) for s in statistics)
        return weight, bias, *(statistics if running or not training else (None, None))

    x = draw.normal(N, C, T, V, mean=mean, scale=scale)
    r = None if residual is None else draw.normal(N, C, T, V)
    if absent:
        x[::2] = 0
    first, second = norm(), norm() if residual == "norm" else (None,) * 4
    seed = torch.tensor([2**40 + 7], device=draw.device) if dropped else None
    return *_arranged(layout, x, *first, r, *second), seed, dropped, training, relu, EPS


def _bn_act_add_public(*args):
    *tensors, seed, dropped, training, relu, eps = args
    drop = {"dropout": dropped / LEVELS, "seed": seed}
    return ops.bn_act_add(*tensors, training=training, relu=relu, eps=eps, **drop)


_bn = partial(Case, build=bn_act_add, public=_bn_act_add_public)
for training, relu, residual in product((True, False), (True, False), (None, "plain", "norm")):
    name = f"{'training' if training else 'eval'}-{'relu' if relu else 'linear'}-{residual or 'no'}"
    dims = {"training": training, "relu": relu, "residual": residual}
    register("bn_act_add", _bn(f"{name}_residual", dims=dims, small=True))
register(
    "bn_act_add",
    _bn("small_dropout", dims=dict(dropped=20000, residual="norm"), small=True),
    _bn("dropout", dims=dict(N=2, C=5, T=13, V=25, dropped=32768, residual="plain")),
    _bn("dropout_downsample", dims=dict(N=3, C=17, T=13, V=20, dropped=6554, residual="norm")),
    _bn("stgcn", dims=dict(N=2, C=64, T=13, V=25, residual="plain")),
    _bn("downsample", dims=dict(N=2, C=64, T=13, V=25, residual="norm")),
    _bn("stgcn_eval", dims=dict(N=1, C=64, T=64, V=25, residual="plain", training=False)),
    _bn("downsample_eval", dims=dict(N=5, C=5, T=13, V=20, residual="norm", training=False)),
    _bn("no_running", dims=dict(N=2, C=5, T=13, V=17, running=False)),
    _bn("one_joint", dims=dict(N=2, C=5, T=13, V=1, residual="plain")),
    _bn("one_frame", dims=dict(N=5, C=64, T=1, V=25, residual="norm")),
    _bn("whole_body", dims=dict(N=1, C=10, T=13, V=67, relu=False)),
    _bn("two_bodies", dims=dict(N=1, C=3, T=64, V=128, residual="plain")),
    _bn("offset", dims=dict(N=2, C=5, T=13, V=25, mean=100.0)),
    _bn("large", dims=dict(N=2, C=5, T=13, V=25, mean=300.0, scale=1000.0)),
    _bn("absent_person", dims=dict(N=2, C=5, T=13, V=25, residual="norm", absent=True)),
    _bn("half_norm", dims=dict(N=2, C=17, T=13, V=20, residual="norm", norm_dtype="x")),
    _bn("half_eval", dims=dict(C=5, T=13, V=20, residual="norm", norm_dtype="x", training=False)),
    _bn("mixed_norm", dims=dict(N=2, C=5, T=13, V=17, residual="norm", norm_dtype="mixed")),
    _bn("transposed", dims=dict(N=2, C=5, T=13, V=20, residual="norm", layout="transposed")),
    _bn("sliced", dims=dict(N=2, C=17, T=13, V=25, residual="norm", layout="sliced")),
    _bn("expanded", dims=dict(N=5, C=5, T=13, V=17, residual="plain", layout="expanded")),
    _bn(
        "transposed_eval",
        dims=dict(N=2, C=5, T=13, V=17, residual="plain", training=False, layout="transposed"),
    ),
)


def hypergraph_unit(
    draw, N=2, C=4, D=4, T=3, V=3, Q=2, K=2, bias=True, per_sample=True, residual=True,
    training=True, keep=True, running=True, layout="contiguous", absent=False,
):  # fmt: skip
    tensors = hypergraph_conv(
        draw, N, C, D, T, V, Q, K, bias=bias, per_sample=per_sample, layout=layout, absent=absent
    )
    statistics = (draw.norm(D), draw.variance(D)) if running or not training else (None, None)
    norm = _arranged(layout, draw.norm(D, mean=1), draw.norm(D), *statistics)
    return *tensors, *norm, residual, training, keep, EPS


def _hypergraph_unit_public(*args):
    *tensors, residual, training, _, eps = args
    return ops.hypergraph_unit(*tensors, residual=residual, training=training, eps=eps)


_unit = partial(Case, build=hypergraph_unit, public=_hypergraph_unit_public)
for training, residual, per_sample in product((True, False), repeat=3):
    name = f"{'training' if training else 'eval'}-{'residual' if residual else 'plain'}"
    dims = {"training": training, "residual": residual, "per_sample": per_sample}
    name = f"{name}-{'per_sample' if per_sample else 'shared'}"
    register("hypergraph_unit", _unit(name, dims=dims, small=True))
register(
    "hypergraph_unit",
    _unit("wider", dims=dict(D=6, residual=False, bias=False, Q=0), small=True),
    _unit(
        "inference", dims=dict(C=16, D=16, T=13, V=25, training=False, keep=False), backward=False
    ),
    _unit("training_no_keep", dims=dict(C=16, D=16, T=13, V=17, keep=False), backward=False),
    _unit("hypergcn", dims=dict(N=2, C=128, D=128, T=64, V=25, Q=3, K=8)),
    _unit("hypergcn_wider", dims=dict(N=2, C=32, D=64, T=13, V=25, Q=3, K=8, residual=False)),
    _unit("hypergcn_256", dims=dict(N=2, C=256, D=256, T=13, V=20, Q=3, K=8)),
    _unit("hypergcn_eval", dims=dict(N=1, C=128, D=128, T=13, V=25, Q=3, K=8, training=False)),
    _unit("uneven_heads", dims=dict(N=2, C=15, D=15, T=13, V=17, Q=2, K=3)),
    _unit("one_joint", dims=dict(N=2, C=6, D=6, T=13, V=1, Q=1)),
    _unit("one_frame", dims=dict(N=5, C=32, D=32, T=1, V=25, Q=3)),
    _unit("no_running", dims=dict(N=2, C=8, D=8, T=13, V=20, running=False)),
    _unit("absent_person", dims=dict(N=2, C=16, D=16, T=13, V=25, absent=True)),
    _unit("transposed", dims=dict(N=2, C=16, D=16, T=13, V=20, layout="transposed")),
    _unit("sliced", dims=dict(N=2, C=16, D=8, T=13, V=25, residual=False, layout="sliced")),
    _unit("expanded", dims=dict(N=5, C=16, D=16, T=13, V=25, layout="expanded")),
)


def ms_temporal_conv(
    draw, N=2, C=3, T=4, V=2, widths=(2, 2), pool=2, plain=2, dilations=(1, 2), k=3, stride=1,
    replicate=False, training=True, keep=True, running=True, layout="contiguous", absent=False,
):  # fmt: skip
    normed = sum(widths) + pool
    x = draw.normal(N, C, T, V)
    if absent:
        x[::2] = 0
    taps = [draw.normal(w, w, k, scale=(w * k) ** -0.5).reshape(-1) for w in widths]
    statistics = (draw.norm(normed), draw.variance(normed))
    tensors = (
        x,
        draw.normal(normed + plain, C, scale=C**-0.5),
        draw.normal(normed + plain),
        torch.cat([*taps, x.new_empty(0)]),
        draw.normal(sum(widths)),
        draw.norm(normed, mean=1),
        draw.norm(normed),
        *(statistics if running or not training else (None, None)),
    )
    widths = [*widths, pool] if pool else list(widths)
    options = (widths, list(dilations), k, stride, replicate, training, keep, EPS)
    return *_arranged(layout, *tensors), *options


def _ms_temporal_conv_public(
    x, weight, bias, conv_weight, conv_bias, norm_weight, norm_bias, running_mean, running_var,
    widths, dilations, kernel_size, stride, replicate, training, keep, eps,
):  # fmt: skip
    w = widths[: len(dilations)]
    taps = conv_weight.split([n * n * kernel_size for n in w]) if w else ()
    return ops.ms_temporal_conv(
        x,
        weight,
        bias,
        [t.view(n, n, kernel_size) for t, n in zip(taps, w, strict=True)],
        list(conv_bias.split(w)) if w else [],
        norm_weight,
        norm_bias,
        running_mean,
        running_var,
        dilations=dilations,
        training=training,
        stride=stride,
        padding_mode="replicate" if replicate else "zeros",
        eps=eps,
    )


_ms = partial(Case, build=ms_temporal_conv, public=_ms_temporal_conv_public)
_TCN4 = dict(C=64, widths=(16, 16), pool=16, plain=16, k=5)
_MSTCN = dict(C=64, widths=(14, 10, 10, 10), pool=10, plain=10, dilations=(1, 2, 3, 4))
for training, replicate, stride in product((True, False), (True, False), (1, 2)):
    name = f"{'training' if training else 'eval'}-{'replicate' if replicate else 'zeros'}-{stride}"
    dims = {"training": training, "replicate": replicate, "stride": stride}
    register("ms_temporal_conv", _ms(name, dims=dims, small=True))
register(
    "ms_temporal_conv",
    _ms("no_pool", dims=dict(pool=0), small=True),
    _ms("no_plain", dims=dict(plain=0), small=True),
    _ms("no_conv", dims=dict(widths=(), dilations=(), k=1, stride=2), small=True),
    _ms("only_conv", dims=dict(pool=0, plain=0, widths=(3,), dilations=(2,), T=5), small=True),
    _ms("pointwise_conv", dims=dict(k=1), small=True),
    _ms("inference", dims=dict(training=False, keep=False), backward=False),
    _ms("training_no_keep", dims=dict(C=5, T=13, V=17, keep=False), backward=False),
    _ms("mstcn4", dims=dict(N=2, T=13, V=25, **_TCN4)),
    _ms("mstcn4_stride2", dims=dict(N=1, T=64, V=25, stride=2, **_TCN4)),
    _ms("mstcn4_eval", dims=dict(N=1, T=13, V=25, training=False, **_TCN4)),
    _ms("mstcn", dims=dict(N=1, T=13, V=17, **_MSTCN)),
    _ms("mstcn_stride2", dims=dict(N=2, T=13, V=25, stride=2, **_MSTCN)),
    _ms("mstcn_replicate", dims=dict(N=1, T=13, V=20, replicate=True, **_MSTCN)),
    _ms("mstcn_eval_stride3", dims=dict(N=1, T=13, V=25, stride=3, training=False, **_MSTCN)),
    _ms("shorter_than_padding", dims=dict(C=5, T=2, V=17, widths=(3, 5), dilations=(1, 4), k=5)),
    _ms(
        "shorter_replicate",
        dims=dict(C=5, T=2, V=17, widths=(3, 5), dilations=(1, 4), k=5, replicate=True, stride=2),
    ),
    _ms("one_joint", dims=dict(N=2, C=5, T=13, V=1)),
    _ms("one_frame", dims=dict(N=5, C=5, T=1, V=25, stride=2)),
    _ms("whole_body", dims=dict(N=1, C=5, T=13, V=67, widths=(3, 5), pool=7, plain=1)),
    _ms("two_bodies", dims=dict(N=1, C=3, T=13, V=128, stride=3)),
    _ms("no_running", dims=dict(C=5, T=13, V=17, running=False)),
    _ms("absent_person", dims=dict(C=5, T=13, V=25, training=False, absent=True)),
    _ms("transposed", dims=dict(C=5, T=13, V=20, layout="transposed")),
    _ms("sliced", dims=dict(C=17, T=13, V=25, stride=2, layout="sliced")),
    _ms("expanded", dims=dict(N=5, C=5, T=13, V=17, replicate=True, layout="expanded")),
)


def temporal_mean(draw, N=2, C=3, T=3, V=4, scale=1.0, layout="contiguous"):
    return (relayout(draw.normal(N, C, T, V, scale=scale), layout),)


_mean = partial(Case, build=temporal_mean, public=ops.temporal_mean)
register(
    "temporal_mean",
    _mean("small", small=True),
    _mean("small_one_frame", dims=dict(T=1), small=True),
    _mean("ntu", dims=dict(N=5, C=64, T=64, V=25)),
    _mean("coco", dims=dict(N=2, C=5, T=13, V=17)),
    _mean("one_joint", dims=dict(N=2, C=5, T=13, V=1)),
    _mean("one_frame", dims=dict(N=5, C=64, T=1, V=25)),
    _mean("two_bodies", dims=dict(N=1, C=3, T=64, V=128)),
    _mean("large", dims=dict(N=2, C=5, T=64, V=20, scale=5e3)),
    _mean("transposed", dims=dict(N=2, C=5, T=13, V=20, layout="transposed")),
    _mean("sliced", dims=dict(N=2, C=5, T=13, V=67, layout="sliced")),
    _mean("expanded", dims=dict(N=5, C=5, T=13, V=17, layout="expanded")),
)


def hyper_adjacency(
    draw, N=2, K=2, D=3, W=5, topk=3, rows=None, virtual=0, scale=1.0, alpha=0.8,
    scalar_alpha=False, weightless=False, layout="contiguous",
):  # fmt: skip
    """The last ``virtual`` vertices coincide, as those of a new model do; all of them if W."""
    embedding = draw.normal(N, K, D, W, scale=scale)
    embedding[..., W - virtual :] = embedding[..., W - 1 :]
    edge_weight = torch.tanh(draw.normal(N, K, W))
    tensors = (
        embedding,
        torch.zeros_like(edge_weight) if weightless else edge_weight,
        draw.normal(K, W, W, scale=W**-0.5),
        draw.normal(*(() if scalar_alpha else (1,)), mean=alpha, scale=0.1),
    )
    return *_arranged(layout, *tensors), topk, W if rows is None else rows


def _hyper_adjacency_public(*args):
    *tensors, topk, rows = args
    return ops.hyper_adjacency(*tensors, topk=topk, rows=rows)


_hyper = partial(Case, build=hyper_adjacency, public=_hyper_adjacency_public)
register(
    "hyper_adjacency",
    _hyper("square", small=True),
    _hyper("rows", dims=dict(rows=3, scalar_alpha=True), small=True),
    _hyper("one_row", dims=dict(rows=1, topk=2), small=True),
    _hyper("all_neighbours", dims=dict(topk=5, rows=4), small=True),
    _hyper("no_neighbours", dims=dict(topk=1), small=True),
    _hyper("switched_off", dims=dict(alpha=-0.8), small=True),
    _hyper("ntu_64", dims=dict(K=8, D=4, W=28, topk=9, rows=25)),
    _hyper("ntu_128", dims=dict(N=1, K=8, D=8, W=28, topk=9, rows=25)),
    _hyper("ntu_256", dims=dict(N=1, K=8, D=16, W=28, topk=9, rows=25)),
    _hyper("ntu_no_virtual", dims=dict(N=1, K=8, D=4, W=25, topk=9)),
    _hyper("nw_ucla", dims=dict(N=5, K=8, D=8, W=23, topk=9, rows=20)),
    _hyper("coco", dims=dict(N=1, K=3, D=5, W=17, topk=17)),
    _hyper("new_virtual", dims=dict(K=8, D=4, W=28, topk=9, rows=25, virtual=3)),
    _hyper("coincident", dims=dict(K=3, D=4, W=20, topk=9, virtual=20)),
    _hyper("weightless", dims=dict(K=3, D=4, W=20, topk=5, weightless=True)),
    _hyper("far_apart", dims=dict(K=3, D=4, W=20, topk=9, scale=200.0)),
    _hyper("close", dims=dict(K=3, D=4, W=20, topk=9, scale=1e-3)),
    _hyper("one_vertex", dims=dict(K=3, D=4, W=1, topk=1)),
    _hyper("one_channel", dims=dict(K=3, D=1, W=25, topk=9)),
    _hyper("whole_body", dims=dict(N=1, K=3, D=16, W=67, topk=20, rows=64)),
    _hyper("two_bodies", dims=dict(N=1, K=2, D=64, W=128, topk=9)),
    _hyper("dense_128", dims=dict(N=1, K=1, D=8, W=128, topk=100, rows=127)),
    _hyper("transposed", dims=dict(K=3, D=4, W=25, topk=9, layout="transposed")),
    _hyper("sliced", dims=dict(K=3, D=8, W=28, topk=9, rows=25, layout="sliced")),
    _hyper("expanded", dims=dict(N=5, K=3, D=4, W=23, topk=9, layout="expanded")),
)
