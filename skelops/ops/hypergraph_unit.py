"""Unit on a hyper-graph: y = relu(BN(hypergraph_conv(x)) + x)."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops.bn_act_add import _op as _bn_act_add
from skelops.ops.bn_act_add import (
    check_statistics,
    given,
    normalise,
    statistics_dtype,
    update_running,
    values_per_channel,
)
from skelops.ops.hypergraph_conv import _fake as _conv_fake
from skelops.ops.hypergraph_conv import _reference as _conv
from skelops.ops.hypergraph_conv import check as check_conv


def hypergraph_unit(
    x: Tensor,
    A: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    virtual: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    residual: bool,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""``hypergraph_conv`` with its normalisation, the input as residual, and ReLU.

    With z the result of :func:`hypergraph_conv`:

    .. math::
        y = \mathrm{relu}\Big(\gamma \frac{z - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta + x\Big)

    Kept for the backward: the inputs, z and the statistics, not y. The gradients of z and of the
    residual are made in cache.

    Args:
        x, A, weight, bias, virtual: see :func:`hypergraph_conv`.
        norm_weight, norm_bias: (C',) scale and shift, x's dtype or float32.
        running_mean, running_var: (C',) statistics: read when not ``training``, else updated in
            place (the variance without bias) if given.
        residual: add x; C' = C then.
        training: statistics of this batch.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.

    Returns:
        (N, C', T, V), x's dtype; statistics in float32 for half types.

    Raises:
        ValueError: shapes or devices do not fit; running statistics missing outside training;
            a single value per channel in training.
        TypeError: not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> A, x = torch.rand(2, 8, 25, 25), torch.randn(2, 128, 64, 25)
        >>> w, gamma, beta = torch.randn(128, 16), torch.ones(128), torch.zeros(128)
        >>> hypergraph_unit(x, A, w, None, None, gamma, beta, residual=True, training=True).shape
        torch.Size([2, 128, 64, 25])

    Source: Zhou et al., Hyper-GCN, ICCV 2025, section 3.2.
    """
    op = "hypergraph_unit"
    x, A, weight, bias, virtual = _check.autocast(x, A, weight, bias, virtual)
    check_conv(op, x, A, weight, bias, virtual)
    C = weight.shape[0]
    if residual and x.shape[1] != C:
        what = f"weight of C'={x.shape[1]} rows, as many as x has channels, for a residual"
        raise _check.fail(op, what, _check.shape_text(weight.shape))
    norm: dict[str, Tensor | None] = {"norm_weight": norm_weight, "norm_bias": norm_bias}
    norm |= {"running_mean": running_mean, "running_var": running_var}
    _check.norm_tensors(op, x, **norm)
    for name, value in norm.items():
        if value is not None:
            _check.shape(op, name, value, "C'", **{"C'": C})
    check_statistics(op, x, running_mean, running_var, training)
    tensors = (x, A, weight, bias, virtual, norm_weight, norm_bias)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    out, _, mean, var = _op(
        *tensors, *given(training, running_mean, running_var), residual, training, keep, eps
    )
    if training:
        update_running(running_mean, running_var, mean, var, momentum, values_per_channel(x))
    return out


def _reference(
    x, A, weight, bias, virtual, norm_weight, norm_bias, running_mean, running_var, residual,
    training, keep, eps,
):  # fmt: skip
    z = _conv(x, A, weight, bias, virtual)
    y, mean, var = normalise(z, norm_weight, norm_bias, running_mean, running_var, training, eps)
    y = (y + x if residual else y).relu().to(x.dtype).contiguous()
    kept = z.detach().clone() if keep else x.new_empty(0)
    if not training:
        mean = var = mean.new_empty(0)
    return y, kept, mean.detach().clone(), var.detach().clone()


def _fake(
    x, A, weight, bias, virtual, norm_weight, norm_bias, running_mean, running_var, residual,
    training, keep, eps,
):  # fmt: skip
    out = _conv_fake(x, A, weight, bias, virtual)
    channels = weight.shape[0] if training else 0
    mean, var = (x.new_empty(channels, dtype=statistics_dtype(x)) for _ in range(2))
    return out, torch.empty_like(out) if keep else x.new_empty(0), mean, var


def _again(inputs, saved):
    z, *batch = saved
    x, norm, running, (residual, training, _, eps) = (
        inputs[0], inputs[5:7], inputs[7:9], inputs[9:]
    )  # fmt: skip
    tail = (x if residual else None, *(None,) * 5, 0, False, True, eps)
    return _bn_act_add(z, *norm, *(batch if training else running), *tail)[0]


_op = define(
    "hypergraph_unit",
    "(Tensor x, Tensor A, Tensor weight, Tensor? bias, Tensor? virtual, Tensor norm_weight, "
    "Tensor norm_bias, Tensor? running_mean, Tensor? running_var, bool residual, bool training, "
    "bool keep, float eps) -> (Tensor out, Tensor conv, Tensor mean, Tensor var)",
    _reference,
    fake=_fake,
    grads=("x", "A", "weight", "bias", "virtual", "norm_weight", "norm_bias"),
    saved=("conv", "mean", "var"),
    gpu=("triton",),
    again=_again,
)
