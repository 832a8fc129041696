"""Feed-forward of a few channels and many hidden units: y = W2 drop(relu(W1 x + b1)) + b2."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops import _check
from skelops._library import define
from skelops.ops import _philox
from skelops.ops._feed_forward import checked

LEVELS = 2**16  # a rate is a multiple of 1 / LEVELS
HALF = 4 * _philox.TILE  # units in a row that share no word


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
        seed: (1,) int64 on x's device, with ``dropout`` only.

    Returns:
        (..., C), x's dtype; float32 sums for half types.

    Raises:
        ValueError: shapes do not fit, ``dropout`` out of range or without a ``seed``, or tensors
            are on different devices.
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
    if not 0 <= dropout < 1:
        raise _check.fail(name, "dropout in [0, 1)", dropout)
    dropped = min(round(dropout * LEVELS), LEVELS - 1)
    seed = _check_seed(x, seed) if dropped else None
    return _op(x.reshape(-1, x.shape[-1]), w1, b1, w2, b2, seed, dropped).view(x.shape)


def _check_seed(x: Tensor, seed: Tensor | None) -> Tensor:
    if not isinstance(seed, Tensor):
        raise _check.fail("narrow_ffn", "a seed with dropout", seed)
    if seed.dtype != torch.int64:
        raise TypeError(f"narrow_ffn: expected seed of dtype torch.int64, got {seed.dtype}")
    _check.shape("narrow_ffn", "seed", seed, "1", **{"1": 1})
    if seed.device != x.device:
        raise _check.fail("narrow_ffn", f"seed on x's device {x.device}", seed.device)
    return seed


def kept_units(seed: Tensor, rows: int, H: int, dropped: int) -> Tensor:
    """(rows, H) bool: units whose 16 random bits are not less than ``dropped``.

    Of every 64 words that Philox gives for a row, the low halves are those of 64 units and the high
    halves those of the next 64.
    """
    draw = torch.arange(rows, device=seed.device)
    pairs = -(-H // (2 * HALF))
    words = _philox.words(draw, seed, 0, 0, pairs * HALF).view(rows, pairs, 1, HALF)
    halves = torch.cat([words & 0xFFFF, words >> 16], 2)
    return halves.flatten(1)[:, :H] >= dropped


def _reference(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, seed: Tensor | None, dropped: int
) -> Tensor:
    h = F.relu(F.linear(x, w1, b1))
    if seed is not None:
        kept = kept_units(seed, x.shape[0], w1.shape[0], dropped)
        h = (h * (LEVELS / (LEVELS - dropped))).masked_fill(~kept, 0)
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
