"""1x1 convolutions as products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skelops.nn.recompute import recomputed


def is_pointwise(conv: nn.Module) -> bool:
    """Whether a layer is a 1x1 convolution and nothing else."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
    )


def in_float32_here(x: Tensor) -> bool:
    """Whether a layer would compute x in float32 on a CPU, now rather than in a traced program."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def product(weight: Tensor, bias: Tensor | None, features: Tensor) -> Tensor:
    """W f + b for weight (C', C), bias (C',) and features (N, C, L), a product per sample."""
    weight = weight.expand(len(features), -1, -1)
    if bias is None:
        return torch.bmm(weight, features)
    return torch.baddbmm(bias[:, None], weight, features)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution of x (N, C, T, V) with weight (C', C) and bias (C',), see
    ``pointwise_conv``."""
    if not in_float32_here(x):
        return F.conv2d(x, weight[..., None, None], bias)
    return product(weight, bias, x.flatten(2)).unflatten(2, x.shape[2:])


def pointwise_conv(conv: nn.Module, x: Tensor) -> Tensor:
    """conv(x); a 1x1 convolution in float32 on a CPU by a product per sample.

    PyTorch rearranges the tensors of such a convolution, forwards and backwards, which takes up to
    as long as the arithmetic.

    Args:
        conv: any module; what is not a plain 1x1 ``nn.Conv2d`` is called.
        x: (N, C, T, V).

    Returns:
        (N, C', ceil(T / stride), V).
    """
    if not (is_pointwise(conv) and in_float32_here(x)):
        return conv(x)
    rows, columns = conv.stride
    taken = x[:, :, ::rows, ::columns]
    features = taken.flatten(2)
    strided = conv.stride != (1, 1)  # features are a copy
    again = (lambda: x[:, :, ::rows, ::columns].flatten(2)) if strided else None
    with recomputed(features, again):
        y = product(conv.weight.flatten(1), conv.bias, features)
    return y.unflatten(2, taken.shape[2:])
