"""Feed-forward that does not keep its hidden units: y = W2 gelu(W1 x + b1) + b2."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops._library import define
from skelops.ops._feed_forward import checked


def mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    r"""Two linear layers with a GELU between them.

    .. math:: y_n = W^2 \, \text{gelu}(W^1 x_n + b^1) + b^2, \qquad
        \text{gelu}(z) = z \, \Phi(z)

    A block of rows passes both layers in the second-level cache. For the backward x alone is kept;
    it computes the hidden units again, which takes an eighth more arithmetic than to keep them and
    their GELU, eight times the memory of x. On a GPU and in half types PyTorch's own layers run.

    Args:
        x: (..., C) rows.
        w1, b1: (H, C), (H,) of the first layer, as in ``nn.Linear``.
        w2, b2: (C, H), (C,) of the second.

    Returns:
        (..., C), x's dtype.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ.

    Backends: cpu, reference.

    Example:
        >>> w1, w2 = torch.randn(1024, 256) / 16, torch.randn(256, 1024) / 32
        >>> mlp(torch.randn(8, 750, 256), w1, torch.zeros(1024), w2, torch.zeros(256)).shape
        torch.Size([8, 750, 256])

    Source: Vaswani et al., NeurIPS 2017, section 3.3; Dosovitskiy et al., ViT, ICLR 2021.
    """
    x, w1, b1, w2, b2 = checked("mlp", x, w1, b1, w2, b2)
    if x.device.type != "cpu" or x.dtype in (torch.float16, torch.bfloat16):
        return _reference(x, w1, b1, w2, b2)
    return _op(x.reshape(-1, x.shape[-1]), w1, b1, w2, b2).view(x.shape)


def _reference(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)


_op = define(
    "mlp",
    "(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2) -> Tensor",
    _reference,
    fake=lambda x, w1, b1, w2, b2: torch.empty_like(x, memory_format=torch.contiguous_format),
    grads=("x", "w1", "b1", "w2", "b2"),
)
