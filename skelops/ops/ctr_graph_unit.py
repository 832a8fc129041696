"""A unit of CTR-GCN over joints at inference: y = relu(BN(ctr_graph_conv(x)) + r)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _unit
from skelops.ops.ctr_graph_conv import _reference as ctr_graph_conv
from skelops.ops.graph_conv import check_graph


def ctr_graph_unit(
    x: Tensor,
    A: Tensor,
    alpha: Tensor,
    embed_weight: _unit.Pieces,
    embed_bias: _unit.Pieces,
    weight4: _unit.Pieces,
    bias4: _unit.Pieces,
    weight: _unit.Pieces,
    bias: _unit.Pieces,
    *,
    transposed: bool = False,
    norm: Sequence[Tensor] = (),
    residual: Tensor | None = None,
    relu: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    r"""Channel-wise topology refinement from features to features, without gradients.

    .. math::
        p, q &= W^{1,2} \mathrm{mean}_T(x) + b^{1,2} \\
        z &= \mathrm{ctr\_graph\_conv}(x, A, p, q, \alpha, W^4, b^4, W, b) \\
        y &= \mathrm{relu}\Big(\gamma \frac{z - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta + r\Big)

    z is normalised where it was computed, and weights are read as they are: nothing is folded or
    kept between calls. Every parameter may come in pieces one after the other, such as one of every
    subset, in any shape.

    Args:
        x: (N, C, T, V), T >= 1.
        A: (K, V, V) shared topology, or (N, K, V, V) one per sample.
        alpha: one element, the strength of the refinement.
        embed_weight: (2, K, R, C), W1 and W2.
        embed_bias: (2, K, R).
        weight4: (K, C', R), from relations to channels.
        bias4: (K, C').
        weight: (K, C', C), the feature transform.
        bias: (K, C').
        transposed: False contracts the columns of the refined graph (CTR-GCN), True its rows
            (PYSKL).
        norm, residual, relu, eps: see :func:`temporal_unit`.

    Returns:
        (N, C', T, V), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes or devices do not fit; no channel, frame or joint.
        TypeError: not floating point, dtypes differ, or a tensor requires a gradient while
            gradients are recorded.

    Backends: cpu, reference.

    Example:
        >>> x, A, alpha = torch.randn(2, 64, 16, 25), torch.randn(3, 25, 25), torch.ones(1)
        >>> embed = torch.randn(2, 3, 8, 64), torch.randn(2, 3, 8)
        >>> refine = torch.randn(3, 64, 8), torch.randn(3, 64)
        >>> features = torch.randn(3, 64, 64), torch.randn(3, 64)
        >>> ctr_graph_unit(x, A, alpha, *embed, *refine, *features).shape
        torch.Size([2, 64, 16, 25])

    Source: Chen et al., CTR-GCN, ICCV 2021, eq. 4-7 and section 3.4.
    """
    op = "ctr_graph_unit"
    named = {
        "embed_weight": embed_weight, "embed_bias": embed_bias, "weight4": weight4,
        "bias4": bias4, "weight": weight, "bias": bias,
    }  # fmt: skip
    x, A, alpha, residual = _check.autocast(x, A, alpha, residual)
    _unit.check_features(op, x)
    parameters = _unit.pieces(op, x, **named)
    N, C, T, V = x.shape
    _unit.check_pieces(op, "A", x, (A,), A.numel())
    K = check_graph(op, x, A)
    relations = _unit.numel(parameters[1]) // (2 * K)
    channels = _unit.numel(parameters[4]) // (K * C)
    _unit.check_pieces(op, "alpha", x, (alpha,), 1)
    counts = (
        2 * K * relations * C, 2 * K * relations, K * channels * relations, K * channels,
        K * channels * C, K * channels,
    )  # fmt: skip
    for name, given, count in zip(named, parameters, counts, strict=True):
        _unit.check_pieces(op, name, x, given, count)
    _unit.check_tail(op, x, norm, residual, (N, channels, T, V))
    return _op(x, A, alpha, *parameters, transposed, norm, residual, relu, eps)


def _sizes(x: Tensor, A: Tensor, embed_bias: Sequence[Tensor], weight: Sequence[Tensor]):
    K = A.shape[-3]
    relations = _unit.numel(embed_bias) // (2 * K)
    return K, relations, _unit.numel(weight) // (K * x.shape[1])


def _reference(
    x, A, alpha, embed_weight, embed_bias, weight4, bias4, weight, bias, transposed, norm,
    residual, relu, eps,
):  # fmt: skip
    K, R, channels = _sizes(x, A, embed_bias, weight)
    C = x.shape[1]
    e = torch.einsum("skrc,ncv->snkrv", _unit.joined(embed_weight, 2, K, R, C), x.mean(2))
    p, q = e + _unit.joined(embed_bias, 2, 1, K, R, 1)
    w4, b4 = _unit.joined(weight4, K, channels, R), _unit.joined(bias4, K, channels)
    w, b = _unit.joined(weight, K, channels, C), _unit.joined(bias, K, channels)
    z = ctr_graph_conv(x, A, p, q, alpha, w4, b4, w, b, transposed)
    return _unit.tail(z, norm, residual, relu, eps)


def _fake(
    x, A, alpha, embed_weight, embed_bias, weight4, bias4, weight, bias, transposed, norm,
    residual, relu, eps,
):  # fmt: skip
    channels = _sizes(x, A, embed_bias, weight)[-1]
    return x.new_empty(x.shape[0], channels, x.shape[2], x.shape[3])


_op = define(
    "ctr_graph_unit",
    "(Tensor x, Tensor A, Tensor alpha, Tensor[] embed_weight, Tensor[] embed_bias, "
    "Tensor[] weight4, Tensor[] bias4, Tensor[] weight, Tensor[] bias, bool transposed, "
    f"{_unit.TAIL}) -> Tensor",
    _reference,
    fake=_fake,
    grads=(),
)
