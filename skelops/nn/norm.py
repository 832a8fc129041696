"""Batch normalisation modules in the hands of the fused ops."""

from __future__ import annotations

from torch import Tensor, nn

from skelops import ops


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
