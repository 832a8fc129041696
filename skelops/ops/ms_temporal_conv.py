"""Multi-branch temporal convolution: 1x1 -> BN -> ReLU -> dilated convolutions | max-pool, 1x1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops.bn_act_add import (
    check_statistics,
    given,
    normalise,
    statistics_dtype,
    update_running,
    values_per_channel,
)

POOL_SIZE = 3


def ms_temporal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    conv_weights: Sequence[Tensor],
    conv_biases: Sequence[Tensor],
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    dilations: Sequence[int],
    training: bool,
    stride: int = 1,
    padding_mode: str = "zeros",
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Branches of a multi-scale temporal module, concatenated, before their last normalisation.

    With :math:`h = W x + b` split by rows into branches and :math:`a = \mathrm{relu}(BN(h))`:

    .. math::
        y^{conv}_{notv} = \sum_{i,j} K_{oij}\, a_{n,i,\,st + d(j - \lfloor k/2 \rfloor),\,v} + c_o
        \qquad y^{pool}_{nitv} = \max_{|j| \le 1} a_{n,i,\,st + j,\,v}
        \qquad y^{plain}_{nitv} = h_{n,i,\,st,\,v}

    One convolution branch per entry of ``dilations``; then, if ``norm_weight`` has channels left, a
    max-pool branch (window 3); then, if ``weight`` has rows left, a plain 1x1 branch. The
    concatenation is written once; h and the statistics are all that is kept for the backward.

    Args:
        x: (N, C, T, V).
        weight, bias: (C', C) and (C',), the 1x1 transforms of all branches, by rows.
        conv_weights, conv_biases: per convolution branch (w, w, k) and (w,), k odd and common.
        norm_weight, norm_bias, running_mean, running_var: of the BN over the rows of the
            convolution and pool branches; see ``bn_act_add`` for dtypes and updates.
        dilations: per convolution branch.
        training: statistics of this batch.
        stride: in time.
        padding_mode: "zeros" or "replicate" in front of the convolutions; the pool ignores borders.
        momentum, eps: of the BN.

    Returns:
        (N, C', ceil(T / stride), V), x's dtype.

    Raises:
        ValueError: shapes, devices or options do not fit; an even kernel; no frame.
        TypeError: not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> y = ms_temporal_conv(x, w, b, [k1, k2], [c1, c2], g, h, m, v, dilations=[1, 2],
        ...                      training=True)  # MS-TCN of CTR-GCN: widths C/4 each

    Source: Liu et al., MS-G3D, CVPR 2020, section 3.4, as reduced by CTR-GCN (Chen et al., ICCV
    2021, section 3.4: k = 5, d = 1, 2) and ST-GCN++ (Duan et al., 2022: k = 3, d = 1..4).
    """
    op = "ms_temporal_conv"
    x, weight, bias, *taps = _check.autocast(x, weight, bias, *conv_weights, *conv_biases)
    conv_weights, conv_biases = taps[: len(conv_weights)], taps[len(conv_weights) :]
    named = {f"conv_weights[{i}]": w for i, w in enumerate(conv_weights)}
    named |= {f"conv_biases[{i}]": b for i, b in enumerate(conv_biases)}
    _check.tensors(op, x=x, weight=weight, bias=bias, **named)
    _check.shape(op, "x", x, "N C T V")
    _check.shape(op, "weight", weight, "C' C", C=x.shape[1])
    _check.shape(op, "bias", bias, "C'", **{"C'": weight.shape[0]})
    if x.shape[2] == 0:
        raise _check.fail(op, "x with at least one frame", _check.shape_text(x.shape))
    if stride < 1:
        raise _check.fail(op, "stride >= 1", stride)
    if padding_mode not in ("zeros", "replicate"):
        raise _check.fail(op, 'padding_mode "zeros" or "replicate"', repr(padding_mode))
    if not len(dilations) == len(conv_weights) == len(conv_biases):
        counts = f"{len(dilations)}, {len(conv_weights)}, {len(conv_biases)}"
        raise _check.fail(op, "as many dilations as conv_weights and conv_biases", counts)
    if any(d < 1 for d in dilations):
        raise _check.fail(op, "dilations >= 1", list(dilations))
    kernel_size = conv_weights[0].shape[-1] if conv_weights else 1
    if kernel_size % 2 == 0:
        raise _check.fail(op, "conv_weights of an odd kernel size", kernel_size)
    widths = []
    for i, (w, b) in enumerate(zip(conv_weights, conv_biases, strict=True)):
        _check.shape(op, f"conv_weights[{i}]", w, "w w k", w=w.shape[0], k=kernel_size)
        _check.shape(op, f"conv_biases[{i}]", b, "w", w=w.shape[0])
        widths.append(w.shape[0])
    norm: dict[str, Tensor | None] = {"norm_weight": norm_weight, "norm_bias": norm_bias}
    norm |= {"running_mean": running_mean, "running_var": running_var}
    _check.norm_tensors(op, x, **norm)
    normed = norm_weight.shape[0]
    for name, value in norm.items():
        if value is not None:
            _check.shape(op, name, value, "C", C=normed)
    if not sum(widths) <= normed <= weight.shape[0]:
        expected = f"norm_weight of {sum(widths)} (convolutions) to {weight.shape[0]} channels"
        raise _check.fail(op, expected, normed)
    if normed > sum(widths):
        widths.append(normed - sum(widths))
    check_statistics(op, x, running_mean, running_var, training)
    parameters = (weight, bias, *conv_weights, *conv_biases, norm_weight, norm_bias)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters))
    out, _, mean, var = _op(
        x, weight, bias, _flat(conv_weights, x), _flat(conv_biases, x), norm_weight, norm_bias,
        *given(training, running_mean, running_var), widths, list(dilations), kernel_size, stride,
        padding_mode == "replicate", training, keep, eps,
    )  # fmt: skip
    if training:
        update_running(running_mean, running_var, mean, var, momentum, values_per_channel(x))
    return out


def _flat(tensors: Sequence[Tensor], x: Tensor) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else x.new_empty(0)


def _reference(
    x, weight, bias, conv_weight, conv_bias, norm_weight, norm_bias, running_mean, running_var,
    widths, dilations, kernel_size, stride, replicate, training, keep, eps,
):  # fmt: skip
    h = torch.einsum("nitv,ci->nctv", x, weight) + bias[:, None, None]
    normed = sum(widths)
    a, mean, var = normalise(
        h[:, :normed], norm_weight, norm_bias, running_mean, running_var, training, eps
    )
    branches = a.relu().to(x.dtype).split(widths, dim=1)
    out = []
    taps = conv_weight.split([w * w * kernel_size for w in widths[: len(dilations)]])
    shifts = conv_bias.split(widths[: len(dilations)])
    for branch, tap, shift, d in zip(branches, taps, shifts, dilations, strict=False):
        pad = (0, 0, d * (kernel_size // 2), d * (kernel_size // 2))
        branch = F.pad(branch, pad, mode="replicate" if replicate else "constant")
        w = branch.shape[1]
        tap = tap.view(w, w, kernel_size, 1)
        out.append(F.conv2d(branch, tap, shift, stride=(stride, 1), dilation=(d, 1)))
    if len(branches) > len(dilations):
        size, margin = (POOL_SIZE, 1), (POOL_SIZE // 2, 0)
        out.append(F.max_pool2d(branches[-1], size, stride=(stride, 1), padding=margin))
    out.append(h[:, normed:, ::stride])
    hidden = h[:, :normed].detach() if keep else x.new_empty(0)
    hidden = hidden.clone(memory_format=torch.contiguous_format)
    if not training:
        mean = var = mean.new_empty(0)
    return torch.cat(out, dim=1).contiguous(), hidden, mean.detach().clone(), var.detach().clone()


def _fake(
    x, weight, bias, conv_weight, conv_bias, norm_weight, norm_bias, running_mean, running_var,
    widths, dilations, kernel_size, stride, replicate, training, keep, eps,
):  # fmt: skip
    N, _, T, V = x.shape
    normed = sum(widths)
    out = x.new_empty(N, weight.shape[0], (T - 1) // stride + 1, V)
    hidden = x.new_empty(N, normed, T, V) if keep else x.new_empty(0)
    mean, var = (
        x.new_empty(normed if training else 0, dtype=statistics_dtype(x)) for _ in range(2)
    )
    return out, hidden, mean, var


_op = define(
    "ms_temporal_conv",
    "(Tensor x, Tensor weight, Tensor bias, Tensor conv_weight, Tensor conv_bias, "
    "Tensor norm_weight, Tensor norm_bias, Tensor? running_mean, Tensor? running_var, "
    "int[] widths, int[] dilations, int kernel_size, int stride, bool replicate, bool training, "
    "bool keep, float eps) -> (Tensor out, Tensor hidden, Tensor mean, Tensor var)",
    _reference,
    fake=_fake,
    grads=("x", "weight", "bias", "conv_weight", "conv_bias", "norm_weight", "norm_bias"),
    saved=("hidden", "mean", "var"),
    gpu=("triton",),
)
