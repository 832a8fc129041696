"""Feed-forward of a few channels and many hidden units: y = W2 drop(relu(W1 x + b1)) + b2."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops._library import define
from skelops.ops import _dropout
from skelops.ops._feed_forward import checked


def narrow_ffn(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    *,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    r"""Feed-forward of a transformer that never writes its hidden units.

    .. math::
        h_{nj} = \frac{m_{nj}}{1 - p} \max\Big(0, \sum_c W^1_{jc} x_{nc} + b^1_j\Big), \qquad
        y_{nc} = \sum_j W^2_{cj} h_{nj} + b^2_c

    Where the hidden layer is far wider than x, as over the 24 channels of a joint and 2048
    units, its traffic is all the time of the unfused form. Here it lives in registers or in a
    first-level cache, and the backward computes it again.

    Args:
        x: (..., C) rows.
        w1, b1: (H, C), (H,) of the first layer, as in ``nn.Linear``.
        w2, b2: (C, H), (C,) of the second.
        dropout: p in [0, 1), rounded to a multiple of 2^-16; the hidden units that it takes
            depend on the seed, the row's number and the unit alone.
        seed: (1,) int64 on x's device; drawn by torch if None.

    Returns:
        (..., C), x's dtype; float32 sums for half types.

    Raises:
        ValueError: shapes do not fit, ``dropout`` out of range, or tensors are on different
            devices.
        TypeError: a tensor of the wrong dtype.

    Backends: cpu, triton, reference.

    Example:
        >>> layer = torch.nn.TransformerEncoderLayer(24, 8, 2048)
        >>> first, second = layer.linear1, layer.linear2
        >>> x = torch.randn(64, 25, 24)
        >>> narrow_ffn(x, first.weight, first.bias, second.weight, second.bias).shape
        torch.Size([64, 25, 24])

    Source: Vaswani et al., NeurIPS 2017, section 3.3; CascadeFormer 1.2 (arXiv 2509.00692). Random
    numbers: Philox4x32-10 of Salmon et al., SC 2011.
    """
    name = "narrow_ffn"
    x, w1, b1, w2, b2 = checked(name, x, w1, b1, w2, b2)
    seed, dropped = _dropout.checked(name, x, dropout, seed)
    return _op(x.reshape(-1, x.shape[-1]), w1, b1, w2, b2, seed, dropped).view(x.shape)


def _reference(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, seed: Tensor | None, dropped: int
) -> Tensor:
    h = _dropout.drop(F.relu(F.linear(x, w1, b1)), seed, dropped)
    return F.linear(h, w2, b2)


_op = define(
    "narrow_ffn",
    "(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? seed, int dropped) -> Tensor",
    _reference,
    fake=lambda x, w1, b1, w2, b2, seed, dropped: torch.empty_like(
        x, memory_format=torch.contiguous_format
    ),
    grads=("x", "w1", "b1", "w2", "b2"),
    gpu=("triton",),
)
