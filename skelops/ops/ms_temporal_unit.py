"""A multi-scale unit over frames at inference: y = relu(BN(ms_temporal_conv(x)) + r)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _unit
from skelops.ops.ms_temporal_conv import _reference as ms_temporal_conv


def ms_temporal_unit(
    x: Tensor,
    weight: _unit.Pieces,
    bias: _unit.Pieces,
    conv_weights: Sequence[Tensor],
    conv_biases: Sequence[Tensor],
    inner_norm: Sequence[Tensor],
    *,
    widths: Sequence[int],
    dilations: Sequence[int],
    kernel_size: int,
    stride: int = 1,
    padding_mode: str = "zeros",
    inner_eps: float = 1e-5,
    norm: Sequence[Tensor] = (),
    residual: Tensor | None = None,
    relu: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    r"""Branches over several time scales, their normalisations, a residual and ReLU, without
    gradients.

    .. math::
        z = \mathrm{ms\_temporal\_conv}(x), \qquad
        y = \mathrm{relu}\Big(\gamma \frac{z - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta + r\Big)

    z is normalised where it was computed, and weights are read as they are: nothing is folded or
    kept between calls.

    Args:
        x: (N, C, T, V), T >= 1.
        weight, bias: (C', C) and (C',), the 1x1 transforms of all branches, or pieces of them one
            after the other, in any shape.
        conv_weights, conv_biases: of every convolution, (w, w, k) and (w,).
        inner_norm: of the rows of the convolutions and the pool, as ``norm`` of
            :func:`temporal_unit`; not empty.
        widths: w of every convolution, then of the max-pool if there is one.
        dilations: of every convolution.
        kernel_size: k, odd and common.
        stride: in time.
        padding_mode: "zeros" or "replicate", see :func:`ms_temporal_conv`.
        inner_eps: of ``inner_norm``.
        norm, residual, relu, eps: see :func:`temporal_unit`.

    Returns:
        (N, C', ceil(T / stride), V), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes, devices or options do not fit; an even kernel; no channel, frame, joint.
        TypeError: not floating point, dtypes differ, or a tensor requires a gradient while
            gradients are recorded.

    Backends: cpu, reference.

    Example:
        >>> x, w, b = torch.randn(2, 64, 16, 25), torch.randn(64, 64), torch.randn(64)
        >>> taps, shifts = torch.randn(2, 16, 16, 5).unbind(), torch.randn(2, 16).unbind()
        >>> ms_temporal_unit(x, w, b, taps, shifts, torch.rand(4, 48).unbind(),
        ...                  widths=[16, 16, 16], dilations=[1, 2], kernel_size=5).shape
        torch.Size([2, 64, 16, 25])

    Source: Liu et al., MS-G3D, CVPR 2020, section 3.4; Chen et al., CTR-GCN, ICCV 2021.
    """
    op = "ms_temporal_unit"
    x, residual = _check.autocast(x, residual)
    _unit.check_features(op, x)
    weight, bias, conv_weights, conv_biases = _unit.pieces(
        op, x, weight=weight, bias=bias, conv_weights=conv_weights, conv_biases=conv_biases
    )
    N, C, T, V = x.shape
    if stride < 1:
        raise _check.fail(op, "stride >= 1", stride)
    if padding_mode not in ("zeros", "replicate"):
        raise _check.fail(op, 'padding_mode "zeros" or "replicate"', repr(padding_mode))
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise _check.fail(op, "an odd kernel_size", kernel_size)
    if min((*dilations, *widths), default=1) < 1:
        raise _check.fail(op, "widths and dilations >= 1", f"{[*widths]} and {[*dilations]}")
    if len(widths) - len(dilations) not in (0, 1):
        counts = f"{len(widths)} and {len(dilations)}"
        raise _check.fail(op, "a width per dilation and at most one more", counts)
    channels, convs = _unit.numel(bias), widths[: len(dilations)]
    if sum(widths) > channels:
        raise _check.fail(op, f"widths of at most {channels} channels", [*widths])
    _unit.check_pieces(op, "bias", x, bias, channels)
    _unit.check_pieces(op, "weight", x, weight, channels * C)
    taps = kernel_size * sum(w * w for w in convs)
    _unit.check_pieces(op, "conv_weights", x, conv_weights, taps)
    _unit.check_pieces(op, "conv_biases", x, conv_biases, sum(convs))
    if not inner_norm:
        raise _check.fail(op, "an inner_norm", "none")
    _unit.check_norm(op, "inner_norm", x, inner_norm, sum(widths))
    _unit.check_tail(op, x, norm, residual, (N, channels, (T - 1) // stride + 1, V))
    return _op(
        x, weight, bias, conv_weights, conv_biases, inner_norm, widths, dilations, kernel_size,
        stride, padding_mode == "replicate", inner_eps, norm, residual, relu, eps,
    )  # fmt: skip


def _reference(
    x, weight, bias, conv_weight, conv_bias, inner_norm, widths, dilations, kernel_size, stride,
    replicate, inner_eps, norm, residual, relu, eps,
):  # fmt: skip
    each = len(inner_norm) // 4
    g, h, mean, var = (_unit.joined(inner_norm[i * each : (i + 1) * each], -1) for i in range(4))
    taps, shifts = (_unit.joined(t, -1) if t else x.new_empty(0) for t in (conv_weight, conv_bias))
    w, b = _unit.joined(weight, -1, x.shape[1]), _unit.joined(bias, -1)
    z, *_ = ms_temporal_conv(
        x, w, b, taps, shifts, g, h, mean, var, widths, dilations, kernel_size, stride, replicate,
        False, False, inner_eps,
    )  # fmt: skip
    return _unit.tail(z, norm, residual, relu, eps)


def _fake(
    x, weight, bias, conv_weight, conv_bias, inner_norm, widths, dilations, kernel_size, stride,
    replicate, inner_eps, norm, residual, relu, eps,
):  # fmt: skip
    N, _, T, V = x.shape
    return x.new_empty(N, _unit.numel(bias), (T - 1) // stride + 1, V)


_op = define(
    "ms_temporal_unit",
    "(Tensor x, Tensor[] weight, Tensor[] bias, Tensor[] conv_weight, Tensor[] conv_bias, "
    "Tensor[] inner_norm, int[] widths, int[] dilations, int kernel_size, int stride, "
    f"bool replicate, float inner_eps, {_unit.TAIL}) -> Tensor",
    _reference,
    fake=_fake,
    grads=(),
)
