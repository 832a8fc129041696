"""A unit over joints at inference: y = relu(BN(graph_conv(x)) + r)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _unit
from skelops.ops.graph_conv import _reference as graph_conv
from skelops.ops.graph_conv import check_graph


def graph_unit(
    x: Tensor,
    A: Tensor,
    weight: _unit.Pieces,
    bias: _unit.Pieces | None = None,
    *,
    bias_after: bool = False,
    transposed: bool = False,
    norm: Sequence[Tensor] = (),
    residual: Tensor | None = None,
    relu: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    r"""Graph convolution, its normalisation, a residual and ReLU, without gradients.

    .. math::
        z_{nctu} = \sum_k \sum_v A_{kuv} \Big(\sum_i W_{kci} x_{nitv} + b_{kc}\Big), \qquad
        y = \mathrm{relu}\Big(\gamma \frac{z - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta + r\Big)

    z is normalised where it was computed, and weights are read as they are: nothing is folded or
    kept between calls.

    Args:
        x: (N, C, T, V), T >= 1.
        A: (K, V, V) shared by the batch, or (N, K, V, V) one per sample; see :func:`graph_conv`.
        weight: (K, C', C), or pieces of it one after the other, such as one of every subset, in any
            shape.
        bias: (K, C') added before aggregation, or pieces of it, or None.
        bias_after: add the sum of ``bias`` (K, C') or (C',) to the result instead.
        transposed: False contracts the columns of A, True the rows.
        norm, residual, relu, eps: see :func:`temporal_unit`.

    Returns:
        (N, C', T, V), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes or devices do not fit; no channel, frame or joint.
        TypeError: not floating point, dtypes differ, or a tensor requires a gradient while
            gradients are recorded.

    Backends: cpu, reference.

    Example:
        >>> A = skelops.graph.get_layout("ntu25").adjacency("spatial")
        >>> graph_unit(torch.randn(2, 64, 16, 25), A, torch.randn(3, 128, 64)).shape
        torch.Size([2, 128, 16, 25])

    Source: Yan et al., ST-GCN, AAAI 2018, eq. 9 and section 3.4.
    """
    op = "graph_unit"
    x, A, residual = _check.autocast(x, A, residual)
    _unit.check_features(op, x)
    weight, bias = _unit.pieces(op, x, weight=weight, bias=bias)
    N, C, T, V = x.shape
    _unit.check_pieces(op, "A", x, (A,), A.numel())
    subsets = check_graph(op, x, A)
    channels = _unit.numel(weight) // (subsets * C)
    _unit.check_pieces(op, "weight", x, weight, subsets * channels * C)
    if bias:
        found = _unit.numel(bias)
        count = channels if bias_after and found == channels else subsets * channels
        _unit.check_pieces(op, "bias", x, bias, count)
    _unit.check_tail(op, x, norm, residual, (N, channels, T, V))
    return _op(x, A, weight, bias, bias_after, transposed, norm, residual, relu, eps)


def _channels(x: Tensor, A: Tensor, weight: Sequence[Tensor]) -> int:
    return _unit.numel(weight) // (A.shape[-3] * x.shape[1])


def _reference(x, A, weight, bias, bias_after, transposed, norm, residual, relu, eps):
    K, channels = A.shape[-3], _channels(x, A, weight)
    w = _unit.joined(weight, K, channels, x.shape[1])
    b = None
    if bias:
        b = _unit.joined(bias, -1, channels)
        b = b.sum(0) if bias_after else b
    z = graph_conv(x, A, w, b, transposed)
    return _unit.tail(z, norm, residual, relu, eps)


def _fake(x, A, weight, bias, bias_after, transposed, norm, residual, relu, eps):
    N, _, T, V = x.shape
    return x.new_empty(N, _channels(x, A, weight), T, V)


_op = define(
    "graph_unit",
    "(Tensor x, Tensor A, Tensor[] weight, Tensor[] bias, bool bias_after, bool transposed, "
    f"{_unit.TAIL}) -> Tensor",
    _reference,
    fake=_fake,
    grads=(),
)
