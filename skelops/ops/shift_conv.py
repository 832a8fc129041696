"""Temporal shift within the 1x1 convolution behind it: shifted features are never written."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops.temporal_shift import shifted


def shift_conv(x: Tensor, weight: Tensor, fold_div: int = 8) -> Tensor:
    r"""1x1 convolution of features of which a part comes from the next frame, a part from the last.

    .. math::
        y_{not} = \sum_{i < f} W_{oi} x_{ni,t+1} + \sum_{f \le i < 2 f} W_{oi} x_{ni,t-1}
            + \sum_{i \ge 2 f} W_{oi} x_{nit}, \quad f = \lfloor C / div \rfloor

    The same as ``temporal_shift`` and a convolution without bias; zeros move in.

    Args:
        x: (N, C, T, ...), any number of axes behind the frames.
        weight: (C', C).
        fold_div: one in how many channels shifts each way, at least 2.

    Returns:
        (N, C', T, ...), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: ``x`` has less than three axes, ``weight`` does not fit it, ``fold_div`` is less
            than 2, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> x = torch.arange(3.0).expand(1, 4, 3)
        >>> shift_conv(x, torch.eye(4)[:3], fold_div=4)[0]
        tensor([[1., 2., 0.],
                [0., 0., 1.],
                [0., 1., 2.]])

    Source: Lin et al., *TSM*, ICCV 2019, section 3; Abdelkawy et al., *EPAM-Net*, Neurocomputing
    2025.
    """
    x, weight = _check.autocast(x, weight)
    _check.tensors("shift_conv", x=x, weight=weight)
    if x.dim() < 3:
        raise _check.fail("shift_conv", "x of shape (N, C, T, ...)", _check.shape_text(x.shape))
    _check.shape("shift_conv", "weight", weight, "C' C", C=x.shape[1])
    if fold_div < 2:
        raise _check.fail("shift_conv", "fold_div of at least 2", fold_div)
    return _op(x, weight, x.shape[1] // fold_div)


def _reference(x: Tensor, weight: Tensor, fold: int) -> Tensor:
    return torch.einsum("oi,ni...->no...", weight, shifted(x, fold)).contiguous()


_op = define(
    "shift_conv",
    "(Tensor x, Tensor weight, int fold) -> Tensor",
    _reference,
    fake=lambda x, weight, fold: x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:]),
    grads=("x", "weight"),
    gpu=("triton",),
)
