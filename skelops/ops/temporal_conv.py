"""Convolution over frames with half the multiplications."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops import _check
from skelops._library import define


def temporal_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    r"""Convolution of every joint over the frames, with zeros around them.

    .. math:: y_{notv} = b_o + \sum_{c, j} W_{ocj} x_{nc, s t + j - (k - 1) / 2, v}

    In float32 and float64 on a CPU four frames and three taps meet at the points 0, +-3/4, +-3/2
    and infinity, in six products instead of twelve; a kernel of nine is the sum of three such ones,
    one of nine with a stride of two, over odd and over even frames, of four. The rounding error is
    about four times that of the direct sum; a value that is not finite also reaches the other
    results of its four frames. Everything else is left to PyTorch.

    Args:
        x: (N, C, T, V), with a channel, a frame and a joint.
        weight: (C', C, k), C' >= 1, k odd.
        bias: (C',) or None.
        stride: s, in time.

    Returns:
        (N, C', ceil(T / s), V), x's dtype.

    Raises:
        ValueError: shapes do not fit or are empty, k is even, s < 1, or tensors are on different
            devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, reference.

    Example:
        >>> temporal_conv(torch.ones(1, 1, 4, 1), torch.ones(1, 1, 3)).flatten()
        tensor([2., 3., 3., 2.])

    Source: Yan et al., ST-GCN, AAAI 2018, section 3.2; Winograd, *Arithmetic Complexity of
    Computations*, SIAM 1980; Lavin and Gray, CVPR 2016.
    """
    x, weight, bias = _check.autocast(x, weight, bias)
    _check.tensors("temporal_conv", x=x, weight=weight, bias=bias)
    _check.shape("temporal_conv", "x", x, "N C T V")
    if 0 in x.shape[1:]:
        expected = "x with a channel, a frame and a joint"
        raise _check.fail("temporal_conv", expected, _check.shape_text(x.shape))
    _check.shape("temporal_conv", "weight", weight, "C' C k", C=x.shape[1])
    if weight.shape[0] == 0:
        raise _check.fail("temporal_conv", "an output channel", _check.shape_text(weight.shape))
    if weight.shape[2] % 2 == 0:
        raise _check.fail("temporal_conv", "an odd kernel", weight.shape[2])
    if stride < 1:
        raise _check.fail("temporal_conv", "stride >= 1", stride)
    if bias is not None:
        _check.shape("temporal_conv", "bias", bias, "C'", **{"C'": weight.shape[0]})
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return _reference(x, weight, bias, stride)
    return _op(x, weight, bias, stride)


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    padding = (weight.shape[2] // 2, 0)
    return F.conv2d(x, weight[..., None], bias, (stride, 1), padding).contiguous()


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    N, _, T, V = x.shape
    return x.new_empty(N, weight.shape[0], (T - 1) // stride + 1, V)


_op = define(
    "temporal_conv",
    "(Tensor x, Tensor weight, Tensor? bias, int stride) -> Tensor",
    _reference,
    fake=_fake,
    grads=("x", "weight", "bias"),
)
