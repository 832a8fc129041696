"""Published modules and the fused forwards that take their place.

A forward here computes what the module's own does, from the module's own parameters. What it reads
of a module is what makes its ``Form``; whether the two agree is measured, see ``patch``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skelops import ops
from skelops.nn import norm
from skelops.nn.adaptive_graph_conv import apply_gates
from skelops.nn.adaptive_hypergraph_conv import (
    embed_vertices,
    hypergraph_unit,
    static_adjacency,
)
from skelops.nn.ctr_graph_conv import dynamic_graph_conv, joint_embeddings
from skelops.nn.pointwise import pointwise_conv

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
        return pointwise_conv(layer[0], x), layer[1]
    if isinstance(find(layer, "bn"), nn.BatchNorm2d) and not _drops(layer):
        return pointwise_conv(layer.conv, x), layer.bn
    residual = layer(x)
    return (residual if isinstance(residual, Tensor) else None), None


def _drops(module: nn.Module) -> bool:
    """Whether dropout behind the module acts."""
    drop = find(module, "drop")
    return isinstance(drop, nn.Dropout) and drop.training and drop.p > 0


# ---- over joints: relu(BN(z) + D(x)) ----


def _stacked(convs: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """1x1 convolutions of one shape: weights (K, C', C) and biases (K, C')."""
    return torch.stack([c.weight.flatten(1) for c in convs]), torch.stack([c.bias for c in convs])


def _ctr_unit(m: nn.Module, x: Tensor, transposed: bool) -> Tensor:
    K = len(m.convs)
    weight12, bias12 = _stacked([getattr(c, name) for name in ("conv1", "conv2") for c in m.convs])
    p, q = joint_embeddings(x, *(t.unflatten(0, (2, K)) for t in (weight12, bias12)))
    weight4, bias4 = _stacked([c.conv4 for c in m.convs])
    weight3, bias3 = _stacked([c.conv3 for c in m.convs])
    A = m.PA if isinstance(find(m, "PA"), Tensor) else m.A
    refinement = (p, q, m.alpha, weight4, bias4, weight3, bias3)
    z = ops.ctr_graph_conv(x, A.to(x.device), *refinement, transposed=transposed)
    return norm.bn_act_add(z, m.bn, *_shortcut(find(m, "down"), x))


def _ctr_official(m: nn.Module, x: Tensor) -> Tensor:
    return _ctr_unit(m, x, transposed=False)


def _ctr_pyskl(m: nn.Module, x: Tensor) -> Tensor:
    return _ctr_unit(m, x, transposed=True)


def _adaptive_z(m: nn.Module, x: Tensor, relate: Callable[[Tensor], Tensor], A: Tensor) -> Tensor:
    """sum_k conv_d_k(x (A_k + S_k)), S = relate(a^T b / (C_e T)); ``relate`` scales it."""
    N, V = len(x), x.shape[-1]
    K = len(m.conv_d)
    weight, bias = _stacked([*m.conv_a, *m.conv_b])
    embedded = F.conv2d(x, weight.flatten(0, 1)[..., None, None], bias.flatten())
    a, b = embedded.view(N, 2, K, -1, V).unbind(1)
    A = A + relate(a.transpose(-1, -2) @ b / a.shape[2])
    weight, bias = _stacked(m.conv_d)
    return ops.graph_conv(x, A, weight, bias.sum(0), transposed=True)


def _agcn_unit(m: nn.Module, x: Tensor) -> Tensor:
    A = m.A.to(x.device) + m.PA
    z = _adaptive_z(m, x, lambda s: s.softmax(-2), A)
    return norm.bn_act_add(z, m.bn, *_shortcut(find(m, "down"), x))


def _aagcn_unit(m: nn.Module, x: Tensor) -> Tensor:
    if m.adaptive:
        z = _adaptive_z(m, x, lambda s: m.alpha * s.tanh(), m.A)
    else:
        weight, bias = _stacked(m.conv_d)
        z = ops.graph_conv(x, m.A, weight, bias.sum(0), transposed=True)
    y = norm.bn_act_add(z, m.bn, *_shortcut(find(m, "down"), x))
    return apply_gates(y, m) if m.attention else y


def _pyskl_unit(m: nn.Module, x: Tensor, A: Tensor | None = None) -> Tensor:
    combine = {"offset": torch.add, "importance": torch.mul}.get(m.adaptive)
    A = m.A if combine is None else combine(m.A, m.PA)
    K = len(A)
    if m.conv.out_channels == K * m.bn.num_features:
        weight, bias = m.conv.weight.view(K, -1, x.shape[1]), m.conv.bias.view(K, -1)
    else:
        weight = m.conv.weight.view(-1, K, x.shape[1]).transpose(0, 1)
        bias = m.conv.bias
    z = ops.graph_conv(x, A, weight, bias, transposed=True)
    return norm.bn_act_add(z, m.bn, *_shortcut(find(m, "down"), x))


def _dynamic_unit(m: nn.Module, x: Tensor, A: Tensor | None = None) -> Tensor:
    N, _, T, V = x.shape
    K = len(m.A)
    f = norm.bn_act_add(pointwise_conv(m.pre[0], x), m.pre[1]).view(N, K, -1, T, V)
    p, q = joint_embeddings(x, *(t.unflatten(1, (K, -1)) for t in _stacked((m.conv1, m.conv2))))
    alpha = None if m.ctr is None else m.alpha[:1]
    beta = None if m.ada is None else m.beta[0]
    z = pointwise_conv(m.post, dynamic_graph_conv(f, m.A, p, q, alpha, beta))
    return norm.bn_act_add(z, m.bn, *_shortcut(find(m, "down"), x))


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


# ---- over frames: z and the normalisations it still needs ----


def _multi_scale_z(m: nn.Module, x: Tensor) -> tuple[Tensor, Sequence[nn.BatchNorm2d]]:
    first, inner, last, convs, padding_mode, stride = [], [], [], [], "zeros", 1
    for branch in m.branches:
        if isinstance(branch, nn.Conv2d):
            first.append(branch)
            continue
        first.append(branch[0])
        if len(branch) == 2:
            last.append(branch[1])
            continue
        inner.append(branch[1])
        if isinstance(branch[3], nn.MaxPool2d):
            stride = branch[3].stride[0]
            last.extend(branch[4:])
        else:
            conv = branch[3].conv
            convs.append(conv)
            stride, padding_mode = conv.stride[0], conv.padding_mode
            last.append(find(branch[3], "bn"))
    size = max(c.kernel_size[0] for c in convs)
    kernels = []
    for c in convs:
        gap = (size - c.kernel_size[0]) // 2
        kernels.append(F.pad(c.weight.squeeze(-1), (gap, gap)) if gap else c.weight.squeeze(-1))
    V, mean_joint = x.shape[-1], find(m, "add_coeff")
    if mean_joint is not None:  # DG-STGCN: the mean of the joints is a further one.
        x = torch.cat([x, x.mean(-1, keepdim=True)], -1)
    joint = _Norms(inner)
    z = ops.ms_temporal_conv(
        x,
        torch.cat([c.weight.flatten(1) for c in first]),
        torch.cat([c.bias for c in first]),
        kernels,
        [c.bias for c in convs],
        joint.weight,
        joint.bias,
        joint.running_mean,
        joint.running_var,
        dilations=[c.dilation[0] for c in convs],
        training=joint.training,
        stride=stride,
        padding_mode=padding_mode,
        momentum=joint.momentum,
        eps=joint.eps,
    )
    joint.keep()
    if mean_joint is not None:
        z = torch.addcmul(z[..., :V], z[..., V:].contiguous(), mean_joint[:V])
    if find(m, "transform") is None:
        return z, last
    bn, _, conv = m.transform
    return pointwise_conv(conv, norm.bn_act_add(z, bn)), [m.bn]


def _temporal_z(m: nn.Module, x: Tensor) -> tuple[Tensor, Sequence[nn.BatchNorm2d]]:
    return (m.conv(x), [m.bn]) if find(m, "branches") is None else _multi_scale_z(m, x)


def _multi_scale(m: nn.Module, x: Tensor) -> Tensor:
    """The module on its own; with its residual and rectifier where the form has one."""
    z, norms = _multi_scale_z(m, x)
    residual = _shortcut(find(m, "residual"), x)
    rectified = find(m, "act") is not None and find(m, "transform") is None
    y = _bn_act_add(z, norms, *residual, relu=rectified)
    return m.drop(y) if find(m, "drop") is not None else y


# ---- blocks: relu(tcn(gcn(x)) + R(x)) ----


def _closing(m: nn.Module, tcn: nn.Module, y: Tensor, x: Tensor) -> Tensor:
    residual, res_bn = _shortcut(find(m, "residual"), x)
    rectified = find(tcn, "act") is not None and find(tcn, "transform") is None
    if rectified or _drops(tcn) or find(tcn, "residual") is not None:
        return _sum(tcn(y), residual, res_bn)
    return _bn_act_add(*_temporal_z(tcn, y), residual, res_bn)


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
    z = conv(norm.bn_act_add(y, first))
    p = drop.p if drop.training else 0.0
    return norm.bn_act_add(z, last, residual, res_bn, dropout=p), A


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
