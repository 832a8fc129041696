"""Tail of a residual block: y = relu(drop(BN(x)) + r), the residual r optionally normalised."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _dropout


def bn_act_add(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    residual: Tensor | None = None,
    res_weight: Tensor | None = None,
    res_bias: Tensor | None = None,
    res_running_mean: Tensor | None = None,
    res_running_var: Tensor | None = None,
    *,
    training: bool,
    relu: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    r"""Batch normalisation, dropout, residual and ReLU in one pass.

    .. math::
        y = \mathrm{relu}\Big(\frac{m}{1 - p} \Big(\gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}
            + \beta\Big) + r\Big)

    Kept for the backward: x, the residual and the statistics. The masks of dropout and rectifier
    are computed again.

    Args:
        x: (N, C, T, V).
        weight, bias: (C,) scale and shift, x's dtype or float32.
        running_mean, running_var: (C,) statistics: read when not ``training``, else updated in
            place (the variance without bias) if given.
        residual: (N, C, T, V) added to the result, or None.
        res_weight, res_bias, res_running_mean, res_running_var: (C,) a normalisation of the
            residual, or None for the residual as it is.
        training: statistics of this batch, as in ``torch.nn.functional.batch_norm``.
        relu: apply the rectifier.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.
        dropout: p in [0, 1), rounded to a multiple of 2^-16; the values that it takes depend on
            the seed and the place in x alone. It does not depend on ``training``.
        seed: (1,) int64 on x's device; drawn by torch if None.

    Returns:
        (N, C, T, V), x's dtype; statistics in float32 for half types.

    Raises:
        ValueError: shapes or devices do not fit; running statistics missing outside training;
            a single value per channel in training; ``dropout`` out of range.
        TypeError: not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> y = bn_act_add(z, bn.weight, bn.bias, bn.running_mean, bn.running_var, x, training=True)

    Source: Ioffe and Szegedy, ICML 2015, algorithm 1; the tail of every block since ST-GCN (Yan et
    al., AAAI 2018). Random numbers: Philox4x32-10 of Salmon et al., SC 2011.
    """
    op = "bn_act_add"
    x, residual = _check.autocast(x, residual)
    _check.tensors(op, x=x, residual=residual)
    _check.shape(op, "x", x, "N C T V")
    C = x.shape[1]
    if residual is not None:
        _check.shape(op, "residual", residual, "N C T V", **dict(zip("NCTV", x.shape, strict=True)))
    elif res_weight is not None:
        raise _check.fail(op, "residual together with res_weight", "res_weight alone")
    norm = {"weight": weight, "bias": bias, "running_mean": running_mean}
    norm |= {"running_var": running_var, "res_weight": res_weight, "res_bias": res_bias}
    norm |= {"res_running_mean": res_running_mean, "res_running_var": res_running_var}
    _check.norm_tensors(op, x, **norm)
    for name, value in norm.items():
        if value is not None:
            _check.shape(op, name, value, "C", C=C)
    for given_name, other_name in (("res_weight", "res_bias"), ("res_bias", "res_weight")):
        if norm[given_name] is not None and norm[other_name] is None:
            raise _check.fail(op, f"{other_name} together with {given_name}", f"{given_name} alone")
    check_statistics(op, x, running_mean, running_var, training)
    if res_weight is not None:
        check_statistics(op, x, res_running_mean, res_running_var, training)
    seed, dropped = _dropout.checked(op, x, dropout, seed)
    out, mean, var, res_mean, res_var = _op(
        x, weight, bias, *given(training, running_mean, running_var), residual, res_weight,
        res_bias, *given(training, res_running_mean, res_running_var), seed, dropped, training,
        relu, eps,
    )  # fmt: skip
    if training:
        count = values_per_channel(x)
        update_running(running_mean, running_var, mean, var, momentum, count)
        if res_weight is not None:
            update_running(res_running_mean, res_running_var, res_mean, res_var, momentum, count)
    return out


def check_statistics(
    op: str, x: Tensor, mean: Tensor | None, var: Tensor | None, training: bool
) -> None:
    if not training and (mean is None or var is None):
        raise _check.fail(op, "running_mean and running_var outside training", "None")
    if (mean is None) != (var is None):
        raise _check.fail(op, "running_mean and running_var or neither", "one of them")
    if training and values_per_channel(x) == 1:
        got = _check.shape_text(x.shape)
        raise _check.fail(op, "x with more than one value per channel in training", got)


def given(training: bool, *statistics: Tensor | None) -> tuple[Tensor | None, ...]:
    """Running statistics are an input only outside training, where nothing updates them."""
    return (None,) * len(statistics) if training else statistics


@torch.no_grad()
def update_running(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    count: int,
) -> None:
    """Exponential average of batch statistics, in place; an empty batch changes nothing."""
    if running_mean is None or running_var is None or count < 2:
        return
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)


def values_per_channel(x: Tensor) -> int:
    return x.shape[0] * x.shape[2] * x.shape[3]


def statistics_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """BN in the statistics' dtype -> (normalised x, mean, biased variance)."""
    x = x.to(statistics_dtype(x))
    if training and x.numel() == 0:
        mean = var = x.new_zeros(x.shape[1])
    elif training or running_mean is None or running_var is None:
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    else:
        mean, var = running_mean.to(x.dtype), running_var.to(x.dtype)
    scale = weight.to(x.dtype) * (var + eps).rsqrt()
    y = (x - mean[:, None, None]) * scale[:, None, None] + bias.to(x.dtype)[:, None, None]
    return y, mean, var


def _reference(
    x, weight, bias, running_mean, running_var, residual, res_weight, res_bias, res_running_mean,
    res_running_var, seed, dropped, training, relu, eps,
):  # fmt: skip
    y, mean, var = normalise(x, weight, bias, running_mean, running_var, training, eps)
    y = _dropout.drop(y.flatten(2), seed, dropped).reshape(y.shape)
    res_mean = res_var = mean.new_empty(0)
    if res_weight is not None:
        r, res_mean, res_var = normalise(
            residual, res_weight, res_bias, res_running_mean, res_running_var, training, eps
        )
        y = y + r
    elif residual is not None:
        y = y + residual
    y = (y.relu() if relu else y).to(x.dtype).contiguous()
    if not training:
        mean = var = res_mean = res_var = mean.new_empty(0)
    return y, *(s.detach().clone() for s in (mean, var, res_mean, res_var))


def _fake(
    x, weight, bias, running_mean, running_var, residual, res_weight, res_bias, res_running_mean,
    res_running_var, seed, dropped, training, relu, eps,
):  # fmt: skip
    def statistics(present):
        size = x.shape[1] if present and training else 0
        return x.new_empty(size, dtype=statistics_dtype(x))

    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    second = res_weight is not None
    return out, statistics(True), statistics(True), statistics(second), statistics(second)


def _again(inputs, saved):
    x, weight, bias, *running, residual, res_weight, res_bias = inputs[:8]
    res_running, (seed, dropped, training, relu, eps) = inputs[8:10], inputs[10:]
    if training:
        running, res_running = saved[:2], saved[2:] if res_weight is not None else (None, None)
    return _op(
        x, weight, bias, *running, residual, res_weight, res_bias, *res_running, seed, dropped,
        False, relu, eps,
    )[0]  # fmt: skip


_op = define(
    "bn_act_add",
    "(Tensor x, Tensor weight, Tensor bias, Tensor? running_mean, Tensor? running_var, "
    "Tensor? residual, Tensor? res_weight, Tensor? res_bias, Tensor? res_running_mean, "
    "Tensor? res_running_var, Tensor? seed, int dropped, bool training, bool relu, float eps) "
    "-> (Tensor out, Tensor mean, Tensor var, Tensor res_mean, Tensor res_var)",
    _reference,
    fake=_fake,
    grads=("x", "weight", "bias", "residual", "res_weight", "res_bias"),
    saved=("mean", "var", "res_mean", "res_var"),
    gpu=("triton",),
    again=_again,
)
