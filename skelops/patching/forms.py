"""Published modules and the fused forwards that take their place.

A forward here computes what the module's own does, from the module's own parameters. What it reads
of a module is what makes its ``Form``; whether the two agree is measured, see ``patch``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skelops import ops
from skelops.nn import norm
from skelops.nn.adaptive_graph_conv import apply_gates, inner_products
from skelops.nn.adaptive_hypergraph_conv import (
    embed_vertices,
    hypergraph_unit,
    static_adjacency,
)
from skelops.nn.ctr_graph_conv import dynamic_graph_conv, frames_as_samples, joint_embeddings
from skelops.nn.pointwise import pointwise_conv
from skelops.nn.recompute import recomputed
from skelops.nn.temporal_conv import of_one_size

PROBE_FRAMES = 12


@dataclass(frozen=True)
class Form:
    """A published module.

    Args:
        name: of the form, for reports.
        forward: (module, *inputs) -> what the module's own forward returns.
        parts: names of what the module must have, dotted into its children.
        probe: (module) -> shapes of inputs to compare the two forwards on.
        class_names: under which it was published; a module of such a name that lacks some of
            ``parts`` is reported with what it lacks.
    """

    name: str
    forward: Callable[..., Any]
    parts: tuple[str, ...]
    probe: Callable[[nn.Module], Sequence[tuple[int, ...]]]
    class_names: tuple[str, ...]

    def lacking(self, module: nn.Module) -> list[str]:
        """Names of ``parts`` that the module does not have."""
        return [name for name in self.parts if not _has(module, name)]


def _has(module: nn.Module, name: str) -> bool:
    path, _, last = name.rpartition(".")
    return hasattr(find(module, path) if path else module, last)


def find(module: Any, name: str) -> Any:
    """An attribute by its dotted name, or None."""
    for step in name.split("."):
        module = getattr(module, step, None)
    return module


class _Norms:
    """Batch normalisations of neighbouring channels as one, in the way of ``nn.BatchNorm2d``."""

    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        self.norms = norms
        self.eps, self.training = norms[0].eps, norms[0].training
        self.momentum = max(norm.count_batch(n) for n in norms)
        self.weight = torch.cat([n.weight for n in norms])
        self.bias = torch.cat([n.bias for n in norms])
        self.running_mean = torch.cat([n.running_mean for n in norms])
        self.running_var = torch.cat([n.running_var for n in norms])

    def keep(self) -> None:
        """Hand the running statistics back after a training step."""
        if not self.training:
            return
        widths = [len(n.weight) for n in self.norms]
        for name in ("running_mean", "running_var"):
            for n, value in zip(self.norms, getattr(self, name).split(widths), strict=True):
                getattr(n, name).copy_(value)


def _bn_act_add(
    z: Tensor,
    norms: Sequence[nn.BatchNorm2d],
    residual: Tensor | None,
    res_bn: nn.BatchNorm2d | None,
    relu: bool = True,
) -> Tensor:
    if len(norms) == 1:
        return norm.bn_act_add(z, norms[0], residual, res_bn, relu=relu)
    if res_bn is not None:
        residual = norm.bn_act_add(residual, res_bn, relu=False)
    joint = _Norms(norms)
    statistics = (joint.weight, joint.bias, joint.running_mean, joint.running_var)
    y = ops.bn_act_add(
        z, *statistics, residual, training=joint.training, relu=relu,
        momentum=joint.momentum, eps=joint.eps,
    )  # fmt: skip
    joint.keep()
    return y


def _shortcut(layer: Callable[[Tensor], Any] | None, x: Tensor) -> tuple[Tensor | None, Any]:
    """Residual of a unit, and the normalisation that it still needs."""
    if layer is None:
        return None, None
    if isinstance(layer, nn.Sequential) and len(layer) == 2:
        return _normed(x, *layer)
    if isinstance(find(layer, "bn"), nn.BatchNorm2d) and not _drops(layer):
        return _normed(x, layer.conv, layer.bn)
    residual = layer(x)
    return (residual if isinstance(residual, Tensor) else None), None


def _normed(x: Tensor, conv: nn.Module, bn: nn.BatchNorm2d) -> tuple[Tensor, Any]:
    if norm.at_inference(x, bn):
        return norm.conv_bn(x, conv, bn, relu=False), None
    return pointwise_conv(conv, x), bn


def _drops(module: nn.Module) -> bool:
    """Whether dropout behind the module acts."""
    drop = find(module, "drop")
    return isinstance(drop, nn.Dropout) and drop.training and drop.p > 0


# ---- over joints: relu(BN(z) + D(x)) ----


def _pieces(convs: Sequence[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases as the ops without gradients take them."""
    return [c.weight for c in convs], [c.bias for c in convs]


def _stacked(convs: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """1x1 convolutions of one shape: weights (K, C', C) and biases (K, C')."""
    return torch.stack([c.weight.flatten(1) for c in convs]), torch.stack([c.bias for c in convs])


def _ctr_unit(m: nn.Module, x: Tensor, transposed: bool) -> Tensor:
    K = len(m.convs)
    A = (m.PA if isinstance(find(m, "PA"), Tensor) else m.A).to(x.device)
    shortcut = _shortcut(find(m, "down"), x)
    if norm.at_inference(x, m.bn):
        subsets = [*m.convs]
        embed = [*(c.conv1 for c in subsets), *(c.conv2 for c in subsets)]
        refined, last = [c.conv4 for c in subsets], [c.conv3 for c in subsets]
        parameters = (*_pieces(embed), *_pieces(refined), *_pieces(last))
        options = {"transposed": transposed, **norm.tail([m.bn], *shortcut)}
        return ops.ctr_graph_unit(x, A, m.alpha, *parameters, **options)
    weight12, bias12 = _stacked([getattr(c, name) for name in ("conv1", "conv2") for c in m.convs])
    p, q = joint_embeddings(x, *(t.unflatten(0, (2, K)) for t in (weight12, bias12)))
    weight4, bias4 = _stacked([c.conv4 for c in m.convs])
    weight3, bias3 = _stacked([c.conv3 for c in m.convs])
    refinement = (p, q, m.alpha, weight4, bias4, weight3, bias3)
    z = ops.ctr_graph_conv(x, A, *refinement, transposed=transposed)
    return norm.bn_act_add(z, m.bn, *shortcut)


def _ctr_official(m: nn.Module, x: Tensor) -> Tensor:
    return _ctr_unit(m, x, transposed=False)


def _ctr_pyskl(m: nn.Module, x: Tensor) -> Tensor:
    return _ctr_unit(m, x, transposed=True)


def _related(m: nn.Module, x: Tensor) -> Tensor:
    """a^T b / (C_e T) of the embeddings by ``conv_a`` and ``conv_b``."""
    return inner_products(x, len(m.conv_d), *_pieces([*m.conv_a, *m.conv_b]))


def _adaptive_unit(m: nn.Module, x: Tensor, A: Tensor) -> Tensor:
    """relu(BN(sum_k conv_d_k(x A_k)) + D(x))."""
    shortcut = _shortcut(find(m, "down"), x)
    if norm.at_inference(x, m.bn):
        options = {"bias_after": True, "transposed": True, **norm.tail([m.bn], *shortcut)}
        return ops.graph_unit(x, A, *_pieces(m.conv_d), **options)
    weight, bias = _stacked(m.conv_d)
    z = ops.graph_conv(x, A, weight, bias.sum(0), transposed=True)
    return norm.bn_act_add(z, m.bn, *shortcut)


def _agcn_unit(m: nn.Module, x: Tensor) -> Tensor:
    return _adaptive_unit(m, x, m.A.to(x.device) + m.PA + _related(m, x).softmax(-2))


def _aagcn_unit(m: nn.Module, x: Tensor) -> Tensor:
    A = m.A + m.alpha * _related(m, x).tanh() if m.adaptive else m.A
    y = _adaptive_unit(m, x, A)
    return apply_gates(y, m) if m.attention else y


def _pyskl_unit(m: nn.Module, x: Tensor, A: Tensor | None = None) -> Tensor:
    combine = {"offset": torch.add, "importance": torch.mul}.get(m.adaptive)
    A = m.A if combine is None else combine(m.A, m.PA)
    K = len(A)
    after = m.conv.out_channels != K * m.bn.num_features
    if after:
        weight = m.conv.weight.view(-1, K, x.shape[1]).transpose(0, 1)
        bias = m.conv.bias
    else:
        weight, bias = m.conv.weight.view(K, -1, x.shape[1]), m.conv.bias.view(K, -1)
    shortcut = _shortcut(find(m, "down"), x)
    if norm.at_inference(x, m.bn):
        options = {"bias_after": after, "transposed": True, **norm.tail([m.bn], *shortcut)}
        return ops.graph_unit(x, A, weight, bias, **options)
    z = ops.graph_conv(x, A, weight, bias, transposed=True)
    return norm.bn_act_add(z, m.bn, *shortcut)


def _dynamic_unit(m: nn.Module, x: Tensor, A: Tensor | None = None) -> Tensor:
    N, _, T, V = x.shape
    K = len(m.A)
    f, seen = norm.conv_bn(x, m.pre[0], m.pre[1]), x
    per_frame = "NA" in (m.ctr, m.ada)
    if per_frame:
        f, seen = frames_as_samples(f), frames_as_samples(x)
    weights = (t.unflatten(1, (K, -1)) for t in _stacked((m.conv1, m.conv2)))
    p, q = joint_embeddings(seen, *weights)
    count = K if find(m, "subset_wise") else 1
    alpha = None if m.ctr is None else m.alpha[:count]
    beta = None if m.ada is None else m.beta[:count]
    acts = find(m, "ctr_act") or "tanh", find(m, "ada_act") or "softmax"
    z = dynamic_graph_conv(f.view(len(f), K, -1, f.shape[2], V), m.A, p, q, alpha, beta, *acts)
    z = z.view(N, T, -1, V).transpose(1, 2) if per_frame else z
    return norm.conv_bn(z, m.post, m.bn, *_shortcut(find(m, "down"), x))


def _hyper_unit(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    N, V, K = len(x), x.shape[-1], len(m.PA)
    table = m.hyper_joint.T.expand(N, -1, -1)
    t = torch.cat([ops.temporal_mean(x), table], dim=-1)
    f, w = embed_vertices(t, K, m.to_V, m.to_W)
    static = static_adjacency(m.PA, m.edge_importance)
    A = ops.hyper_adjacency(f, w, static, m.alpha, topk=9, rows=V)
    tail = (m.bn, *_shortcut(find(m, "down"), x))
    return hypergraph_unit(x, A, m.conv_d, m.hyper_joint, *tail), m.hyper_joint


def _temporal_graphical(m: nn.Module, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    K = len(A)
    weight = m.conv.weight.view(K, -1, x.shape[1])
    bias = None if m.conv.bias is None else m.conv.bias.view(K, -1)
    return ops.graph_conv(x, A, weight, bias, transposed=True), A


# ---- over frames: relu(BN(z) + R(x)) ----


class _Branches(NamedTuple):
    """The layers of a multi-scale module: 1x1 convolutions, the normalisations behind them,
    convolutions over frames, and the last normalisations unless a ``transform`` follows."""

    first: list[nn.Conv2d]
    inner: list[nn.BatchNorm2d]
    convs: list[nn.Conv2d]
    last: list[nn.BatchNorm2d]
    stride: int

    @classmethod
    def of(cls, m: nn.Module) -> _Branches:
        found, stride = cls([], [], [], [], 1), 1
        for branch in m.branches:
            if isinstance(branch, nn.Conv2d):
                found.first.append(branch)
                continue
            conv, bn, *layers = branch
            found.first.append(conv)
            if not layers:
                found.last.append(bn)
                continue
            found.inner.append(bn)
            _, over_frames, *last = layers
            if isinstance(over_frames, nn.MaxPool2d):
                stride = over_frames.stride[0]
                found.last.extend(last)
            else:
                conv = over_frames.conv
                found.convs.append(conv)
                stride = conv.stride[0]
                found.last.append(find(over_frames, "bn"))
        return found._replace(stride=stride)

    def kernels(self) -> list[Tensor]:
        return of_one_size([c.weight.squeeze(-1) for c in self.convs])

    def options(self) -> dict[str, Any]:
        return {
            "dilations": [c.dilation[0] for c in self.convs],
            "stride": self.stride,
            "padding_mode": self.convs[-1].padding_mode,
        }


def _multi_scale_unit(x: Tensor, b: _Branches, **tail: Any) -> Tensor:
    kernels = b.kernels()
    return ops.ms_temporal_unit(
        x,
        *_pieces(b.first),
        kernels,
        [c.bias for c in b.convs],
        norm.norm_pieces(b.inner),
        widths=[c.out_channels for c in b.first[: len(b.inner)]],
        kernel_size=kernels[0].shape[-1],
        inner_eps=b.inner[0].eps,
        **b.options(),
        **tail,
    )


def _multi_scale_z(m: nn.Module, x: Tensor, b: _Branches) -> Tensor:
    V, mean_joint = x.shape[-1], find(m, "add_coeff")
    if mean_joint is not None:  # DG-STGCN: the mean of the joints is a further one.
        x = torch.cat([x, x.mean(-1, keepdim=True)], -1)
    joint = _Norms(b.inner)
    z = ops.ms_temporal_conv(
        x,
        torch.cat([c.weight.flatten(1) for c in b.first]),
        torch.cat([c.bias for c in b.first]),
        b.kernels(),
        [c.bias for c in b.convs],
        joint.weight,
        joint.bias,
        joint.running_mean,
        joint.running_var,
        training=joint.training,
        momentum=joint.momentum,
        eps=joint.eps,
        **b.options(),
    )
    joint.keep()
    if mean_joint is None:
        return z
    return torch.addcmul(z[..., :V], z[..., V:].contiguous(), mean_joint[:V])


def _over_frames(
    m: nn.Module,
    x: Tensor,
    residual: Tensor | None = None,
    res_bn: nn.BatchNorm2d | None = None,
    relu: bool = True,
) -> Tensor:
    """relu(BN(z) + residual) of a temporal module, its own residual and rectifier left out."""
    if find(m, "branches") is None:
        return norm.conv_bn(x, m.conv, m.bn, residual, res_bn, relu=relu)
    b, transform = _Branches.of(m), find(m, "transform")
    norms = b.last if transform is None else [transform[0]]
    fused = find(m, "add_coeff") is None and norm.at_inference(x, *b.inner, *norms)
    if transform is None:
        if fused:
            return _multi_scale_unit(x, b, **norm.tail(norms, residual, res_bn, relu=relu))
        return _bn_act_add(_multi_scale_z(m, x, b), norms, residual, res_bn, relu)
    if fused:
        y = _multi_scale_unit(x, b, **norm.tail(norms))
    else:
        y = norm.bn_act_add(_multi_scale_z(m, x, b), *norms)
    with recomputed(y):
        return norm.conv_bn(y, transform[2], m.bn, residual, res_bn, relu=relu)


def _multi_scale(m: nn.Module, x: Tensor) -> Tensor:
    """The module on its own; with its residual and rectifier where the form has one."""
    residual = _shortcut(find(m, "residual"), x)
    rectified = find(m, "act") is not None and find(m, "transform") is None
    y = _over_frames(m, x, *residual, relu=rectified)
    return m.drop(y) if find(m, "drop") is not None else y


# ---- blocks: relu(tcn(gcn(x)) + R(x)) ----


def _closing(m: nn.Module, tcn: nn.Module, y: Tensor, x: Tensor) -> Tensor:
    residual, res_bn = _shortcut(find(m, "residual"), x)
    rectified = find(tcn, "act") is not None and find(tcn, "transform") is None
    with recomputed(y):
        if rectified or _drops(tcn) or find(tcn, "residual") is not None:
            return _sum(tcn(y), residual, res_bn)
        return _over_frames(tcn, y, residual, res_bn)


def _sum(y: Tensor, residual: Tensor | None, res_bn: nn.BatchNorm2d | None) -> Tensor:
    if residual is None:
        return y.relu()
    if res_bn is None:
        return (y + residual).relu()
    return norm.bn_act_add(residual, res_bn, y)


def _official_block(m: nn.Module, x: Tensor) -> Any:
    y = m.gcn1(x)
    if isinstance(y, tuple):  # Hyper-GCN hands the virtual joints on.
        return _closing(m, m.tcn1, y[0], x), *y[1:]
    return _closing(m, m.tcn1, y, x)


def _pyskl_block(m: nn.Module, x: Tensor, A: Tensor | None = None) -> Tensor:
    return _closing(m, m.tcn, m.gcn(x) if A is None else m.gcn(x, A), x)


def _st_gcn_block(m: nn.Module, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    first, _, conv, last, drop = m.tcn
    residual, res_bn = _shortcut(m.residual, x)
    y, A = m.gcn(x, A)
    y = norm.bn_act_add(y, first)
    p = drop.p if drop.training else 0.0
    with recomputed(y):
        return norm.conv_bn(y, conv, last, residual, res_bn, dropout=p), A


# ---- attention ----


def _attention(m: nn.Module, x: Tensor, *unused: Any, **also_unused: Any) -> Tensor:
    if (m.training and m.attn_drop.p > 0) or any(isinstance(a, Tensor) for a in unused):
        return original(m)(m, x, *unused, **also_unused)
    y = ops.st_attention(m.qkv(x), m.num_heads, scale=m.scale)
    return m.proj_drop(m.proj(y))


def original(module: nn.Module) -> Callable[..., Any]:
    """The forward that a patched module had."""
    return type(module).__mro__[1].forward


# ---- probes ----


def _features(conv: str, graph: str) -> Callable[[nn.Module], Sequence[tuple[int, ...]]]:
    """(N, C, T, V) by a convolution's channels and a graph's joints."""

    def shapes(m: nn.Module) -> Sequence[tuple[int, ...]]:
        A = find(m, graph)
        return [(2, find(m, conv).in_channels, PROBE_FRAMES, 7 if A is None else A.shape[-1])]

    return shapes


def _inputs(m: nn.Module) -> int:
    before = m.conv.out_channels == len(m.A) * m.bn.num_features
    return m.conv.in_channels if before else m.conv.in_channels // len(m.A)


def _first_joints(m: nn.Module) -> Sequence[tuple[int, ...]]:
    real = m.PA.shape[-1] - len(m.hyper_joint)
    return [(2, m.conv_d.in_channels, PROBE_FRAMES, real)]


def _block_of(gcn: str) -> Callable[[nn.Module], Sequence[tuple[int, ...]]]:
    def shapes(m: nn.Module) -> Sequence[tuple[int, ...]]:
        unit = find(m, gcn)
        for form in FORMS:
            if not form.lacking(unit):
                return form.probe(unit)
        raise LookupError(f"{gcn} has no form that skelops knows")

    return shapes


def _graphical(conv: nn.Conv2d, K: int) -> Sequence[tuple[int, ...]]:
    return [(2, conv.in_channels, PROBE_FRAMES, 7), (K, 7, 7)]


_MULTI_SCALE = ("branches.0.0.weight", "branches.0.1", "branches.0.3.conv.weight", "branches.1")
FORMS = (
    Form(
        "unit of CTR-GCN",
        _ctr_official,
        ("convs.0.conv1", "convs.0.conv2", "convs.0.conv3", "convs.0.conv4", "alpha", "PA", "bn"),
        _features("convs.0.conv3", "PA"),
        ("unit_gcn",),
    ),
    Form(
        "unit of PYSKL's CTR-GCN",
        _ctr_pyskl,
        ("convs.0.conv1", "convs.0.conv2", "convs.0.conv3", "convs.0.conv4", "alpha", "A", "bn"),
        _features("convs.0.conv3", "A"),
        ("unit_ctrgcn",),
    ),
    Form(
        "unit of Hyper-GCN",
        _hyper_unit,
        ("hyper_joint", "to_V", "to_W.2", "conv_d", "PA", "edge_importance", "alpha", "bn"),
        _first_joints,
        ("HYPERGC",),
    ),
    Form(
        "unit of 2s-AGCN",
        _agcn_unit,
        ("conv_a.0", "conv_b.0", "conv_d.0", "A", "PA", "bn", "soft"),
        _features("conv_d.0", "PA"),
        ("unit_gcn",),
    ),
    Form(
        "unit of AAGCN",
        _aagcn_unit,
        ("conv_d.0", "A", "bn", "adaptive", "attention"),
        _features("conv_d.0", "A"),
        ("unit_aagcn",),
    ),
    Form(
        "unit of ST-GCN++",
        _pyskl_unit,
        ("conv.weight", "A", "bn", "adaptive"),
        lambda m: [(2, _inputs(m), PROBE_FRAMES, m.A.shape[-1])],
        ("unit_gcn",),
    ),
    Form(
        "unit of DG-STGCN",
        _dynamic_unit,
        ("pre.1", "post", "conv1", "conv2", "A", "alpha", "beta", "bn"),
        _features("pre.0", "A"),
        ("dggcn",),
    ),
    Form(
        "graph convolution of ST-GCN",
        _temporal_graphical,
        ("conv.weight", "kernel_size"),
        lambda m: _graphical(m.conv, m.kernel_size),
        ("ConvTemporalGraphical",),
    ),
    Form(
        "multi-scale temporal convolution",
        _multi_scale,
        _MULTI_SCALE,
        _features("branches.0.0", "add_coeff"),
        ("MultiScale_TemporalConv", "MSTCN", "mstcn"),
    ),
    Form(
        "block of CTR-GCN, 2s-AGCN or Hyper-GCN",
        _official_block,
        ("gcn1", "tcn1"),
        _block_of("gcn1"),
        ("TCN_GCN_unit", "CTRGCNBlock"),
    ),
    Form(
        "block of ST-GCN",
        _st_gcn_block,
        ("gcn.conv", "gcn.kernel_size", "tcn.4"),
        lambda m: _graphical(m.gcn.conv, m.gcn.kernel_size),
        ("st_gcn",),
    ),
    Form(
        "block of PYSKL",
        _pyskl_block,
        ("gcn", "tcn"),
        _block_of("gcn"),
        ("STGCNBlock", "AAGCNBlock", "DGBlock"),
    ),
    Form(
        "attention of a vision transformer",
        _attention,
        ("qkv.weight", "proj.weight", "num_heads", "scale", "attn_drop", "proj_drop"),
        lambda m: [(2, 17, m.qkv.in_features)],
        ("Attention",),
    ),
)  # fmt: skip
