"""What a masked token has to predict: y[n, l, j C + c] = x[n, t + s, v, c] - x[n, t, v, c]."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tokens

EPS = 1e-6


def motion_target(
    x: Tensor, *, segment: int = 4, stride: int = 1, normalise: bool = True
) -> Tensor:
    r"""Motion of every token of a skeleton, or its coordinates, standardised per token.

    .. math::
        y_{nl,jC+c} = \begin{cases} x_{n,t+s,v,c} - x_{ntvc} & \text{if } t + s < T \\
            0 & \text{else} \end{cases}, \qquad t = t'u + j,\; l = t'V + v

        \hat y_{nl} = \frac{y_{nl} - \mathrm{mean}(y_{nl})}{\sqrt{\mathrm{var}(y_{nl}) + 10^{-6}}}

    with u = ``segment``, s = ``stride`` and the unbiased variance of the u C values of a token.
    :func:`skelops.masked_motion_loss` compares with it without writing it.

    Args:
        x: (N, T, V, C), T a multiple of ``segment``.
        segment: frames per token.
        stride: frames between the two differing ones; 0 gives the coordinates themselves.
        normalise: standardise every token.

    Returns:
        (N, L, segment * C), x's dtype, L = T / segment * V.

    Raises:
        ValueError: ``x`` is not 4-D, its frames do not fill segments, ``stride`` is negative, or
            tokens of a single value are to be standardised.
        TypeError: ``x`` is not floating point.

    Backends: cpu, triton, reference.

    Example:
        >>> motion_target(torch.randn(2, 120, 25, 3)).shape
        torch.Size([2, 750, 12])

    Source: Mao et al., MAMP, ICCV 2023, section 3.4 and its code.
    """
    name = "motion_target"
    (x,) = _check.autocast(x)
    _check.tensors(name, x=x)
    _check.shape(name, "x", x, "N T V C")
    check_target(name, x, segment, stride, normalise)
    return _op(x, segment, stride, normalise)


def check_target(op: str, x: Tensor, segment: int, stride: int, normalise: bool) -> int:
    """Check what a target is made of -> tokens of a clip."""
    tokens = _tokens.count_tokens(op, x, segment)
    if stride < 0:
        raise _check.fail(op, "stride >= 0", stride)
    if normalise and segment * x.shape[3] == 1:
        raise _check.fail(op, "tokens of several values to normalise", 1)
    return tokens


def target(x: Tensor, segment: int, stride: int, normalise: bool) -> Tensor:
    """The target in x's dtype, (N, L, segment * C)."""
    if stride > 0:
        lag = min(stride, x.shape[1])
        motion = x[:, lag:] - x[:, : x.shape[1] - lag]
        x = torch.cat([motion, torch.zeros_like(x[:, :lag])], dim=1)
    y = _tokens.patches(x, segment).flatten(2)
    if normalise:
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + EPS).sqrt()
    return y


def _reference(x: Tensor, segment: int, stride: int, normalise: bool) -> Tensor:
    compute = x if x.dtype == torch.float64 else x.float()
    y = target(compute, segment, stride, normalise)
    return y.to(x.dtype, copy=True, memory_format=torch.contiguous_format)


def _fake(x, segment, stride, normalise):
    N, T, V, C = x.shape
    return x.new_empty(N, T // segment * V, segment * C)


_op = define(
    "motion_target",
    "(Tensor x, int segment, int stride, bool normalise) -> Tensor",
    _reference,
    fake=_fake,
    grads=("x",),
    gpu=("triton",),
)
