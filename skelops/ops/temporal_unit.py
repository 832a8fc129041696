"""A unit over frames at inference: y = relu(BN(conv(x)) + r), conv (k, 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _unit


def temporal_unit(
    x: Tensor,
    weight: _unit.Pieces,
    bias: _unit.Pieces | None = None,
    *,
    kernel_size: int = 1,
    stride: int = 1,
    dilation: int = 1,
    norm: Sequence[Tensor] = (),
    residual: Tensor | None = None,
    relu: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    r"""Convolution over frames, its normalisation, a residual and ReLU, without gradients.

    .. math::
        z_{notv} = \sum_{i,j} W_{oij}\, x_{n,i,\,st + d(j - \lfloor k/2 \rfloor),\,v} + b_o, \qquad
        y = \mathrm{relu}\Big(\gamma \frac{z - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta + r\Big)

    z is normalised where it was computed, and weights are read as they are: nothing is folded or
    kept between calls.

    Args:
        x: (N, C, T, V), T >= 1.
        weight: (C', C, k), or pieces of it one after the other, such as those of neighbouring
            convolutions, in any shape.
        bias: (C',), or pieces of it, or None.
        kernel_size: k, odd; 1 for a 1x1 convolution. Frames beyond the clip are zero.
        stride, dilation: in time.
        norm: weight, bias, running mean and variance (C') each, x's dtype or float32, or of P
            neighbouring normalisations the P weights, then the P biases and so on; empty for none.
        residual: (N, C', ceil(T / stride), V), or None.
        relu: apply the rectifier.
        eps: added to the variance.

    Returns:
        (N, C', ceil(T / stride), V), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes, devices or options do not fit; an even kernel; no channel, frame, joint.
        TypeError: not floating point, dtypes differ, or a tensor requires a gradient while
            gradients are recorded.

    Backends: cpu, reference.

    Example:
        >>> conv, bn = torch.nn.Conv2d(64, 64, (9, 1)), torch.nn.BatchNorm2d(64)
        >>> norm = (bn.weight, bn.bias, bn.running_mean, bn.running_var)
        >>> x = torch.randn(2, 64, 16, 25)
        >>> with torch.no_grad():
        ...     temporal_unit(x, conv.weight, conv.bias, kernel_size=9, norm=norm).shape
        torch.Size([2, 64, 16, 25])

    Source: Yan et al., ST-GCN, AAAI 2018, section 3.2.
    """
    op = "temporal_unit"
    x, residual = _check.autocast(x, residual)
    _unit.check_features(op, x)
    weight, bias = _unit.pieces(op, x, weight=weight, bias=bias)
    N, C, T, V = x.shape
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise _check.fail(op, "an odd kernel_size", kernel_size)
    if stride < 1 or dilation < 1:
        raise _check.fail(op, "stride and dilation >= 1", f"{stride} and {dilation}")
    channels = _unit.numel(weight) // (C * kernel_size)
    _unit.check_pieces(op, "weight", x, weight, channels * C * kernel_size)
    if bias:
        _unit.check_pieces(op, "bias", x, bias, channels)
    _unit.check_tail(op, x, norm, residual, (N, channels, (T - 1) // stride + 1, V))
    return _op(x, weight, bias, kernel_size, stride, dilation, norm, residual, relu, eps)


def _reference(x, weight, bias, kernel_size, stride, dilation, norm, residual, relu, eps):
    w = _unit.joined(weight, -1, x.shape[1], kernel_size, 1)
    b = _unit.joined(bias, -1) if bias else None
    pad = dilation * (kernel_size // 2)
    z = F.conv2d(x, w, b, (stride, 1), (pad, 0), (dilation, 1))
    return _unit.tail(z, norm, residual, relu, eps)


def _fake(x, weight, bias, kernel_size, stride, dilation, norm, residual, relu, eps):
    N, C, T, V = x.shape
    channels = _unit.numel(weight) // (C * kernel_size)
    return x.new_empty(N, channels, (T - 1) // stride + 1, V)


_op = define(
    "temporal_unit",
    "(Tensor x, Tensor[] weight, Tensor[] bias, int kernel_size, int stride, int dilation, "
    f"{_unit.TAIL}) -> Tensor",
    _reference,
    fake=_fake,
    grads=(),
)
