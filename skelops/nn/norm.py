"""Batch normalisation modules in the hands of the fused ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skelops import ops
from skelops.nn.convolve import convolve
from skelops.nn.pointwise import is_pointwise


def at_inference(x: Tensor, *norms: nn.BatchNorm2d) -> bool:
    """Whether a unit may run as one of the ops without gradients, which read parameters as they
    are: plain tensors on a CPU, no gradients, no autocast, nothing traced, and normalisations by
    running statistics."""
    return (
        not torch.is_grad_enabled()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and all(
            type(n) is nn.BatchNorm2d and not n.training and n.track_running_stats and n.affine
            for n in norms
        )
    )


def norm_pieces(norms: Sequence[nn.BatchNorm2d]) -> list[Tensor]:
    """Normalisations of neighbouring channels as the ops without gradients take them."""
    pieces = [n.weight for n in norms]
    pieces += [n.bias for n in norms]
    pieces += [n.running_mean for n in norms]
    return pieces + [n.running_var for n in norms]


def tail(
    norms: Sequence[nn.BatchNorm2d],
    residual: Tensor | None = None,
    res_bn: nn.BatchNorm2d | None = None,
    *,
    relu: bool = True,
) -> dict[str, Any]:
    """Arguments that end a unit at inference: relu(norms(z) + res_bn(residual))."""
    if res_bn is not None:
        residual = bn_act_add(residual, res_bn, relu=False)
    return {"norm": norm_pieces(norms), "residual": residual, "relu": relu, "eps": norms[0].eps}


def apply_tail(
    z: Tensor, norm: Sequence[Tensor], residual: Tensor | None, relu: bool, eps: float
) -> Tensor:
    """The end of a unit whose op could not take it, of one normalisation."""
    return ops.bn_act_add(z, *norm, residual, training=False, relu=relu, eps=eps)


def conv_bn(
    x: Tensor,
    conv: nn.Conv2d,
    bn: nn.BatchNorm2d,
    residual: Tensor | None = None,
    res_bn: nn.BatchNorm2d | None = None,
    *,
    relu: bool = True,
    dropout: float = 0.0,
) -> Tensor:
    """``bn_act_add`` of conv(x); one op at inference if the convolution is 1x1."""
    if dropout == 0 and at_inference(x, bn) and is_pointwise(conv) and conv.stride[1] == 1:
        return pointwise_unit(x, conv, **tail([bn], residual, res_bn, relu=relu))
    z = convolve(conv, x)
    return bn_act_add(z, bn, residual, res_bn, relu=relu, dropout=dropout)


def pointwise_unit(x: Tensor, conv: nn.Conv2d, **tail: Any) -> Tensor:
    """``ops.temporal_unit`` with a 1x1 convolution."""
    return ops.temporal_unit(x, conv.weight, conv.bias, stride=conv.stride[0], **tail)


def bn_act_add(
    x: Tensor,
    bn: nn.BatchNorm2d,
    residual: Tensor | None = None,
    res_bn: nn.BatchNorm2d | None = None,
    *,
    relu: bool = True,
    dropout: float = 0.0,
) -> Tensor:
    """relu(drop(bn(x)) + res_bn(residual)) in one pass: ``ops.bn_act_add`` with modules.

    Args:
        x: (N, C, T, V).
        bn: its normalisation, in the mode (train or eval) the module is in.
        residual: (N, C, T, V) or None.
        res_bn: normalisation of the residual, or None for the residual as it is.
        relu: apply the rectifier.
        dropout: rate, in either mode.

    Returns:
        (N, C, T, V).

    Raises:
        TypeError: ``bn`` or ``res_bn`` is a SyncBatchNorm, whose statistics are not of this batch.
    """
    if res_bn is not None and (res_bn.training, res_bn.eps) != (bn.training, bn.eps):
        residual, res_bn = bn_act_add(residual, res_bn, relu=False), None
    norm, options = norm_arguments(bn)
    second = () if res_bn is None else norm_arguments(res_bn)[0]
    return ops.bn_act_add(x, *norm, residual, *second, relu=relu, dropout=dropout, **options)


def norm_arguments(bn: nn.BatchNorm2d) -> tuple[tuple[Tensor | None, ...], dict]:
    """Tensors and options of a normalisation as the ops take them; its batch is counted."""
    options = {"training": bn.training, "momentum": count_batch(bn), "eps": bn.eps}
    return (bn.weight, bn.bias, bn.running_mean, bn.running_var), options


def count_batch(bn: nn.BatchNorm2d) -> float:
    """Count a training batch, as ``nn.BatchNorm2d`` does -> weight of it in the statistics."""
    if isinstance(bn, nn.SyncBatchNorm):
        raise TypeError("bn_act_add: expected a BatchNorm2d, got SyncBatchNorm")
    if bn.training and bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    return bn.momentum if bn.momentum is not None else 1 / float(bn.num_batches_tracked)
