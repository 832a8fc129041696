"""Temporal shift: the first channels show the next frame, as many more the one before."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def temporal_shift(x: Tensor, fold_div: int = 8) -> Tensor:
    r"""Move a part of the channels one frame back and as many one frame on, zeros moving in.

    .. math::
        y_{nct} = x_{nc,t+1} \ (c < f), \quad x_{nc,t-1} \ (f \le c < 2 f), \quad x_{nct} \ (else),
        \quad f = \lfloor C / div \rfloor

    Args:
        x: (N, C, T, ...), any number of axes behind the frames.
        fold_div: one in how many channels moves each way, at least 2; 8 in TSM and in the RGB
            stream of EPAM-Net, 4 in its pose stream.

    Returns:
        x's shape and dtype.

    Raises:
        ValueError: ``x`` has less than three axes, or ``fold_div`` is less than 2.
        TypeError: ``x`` is not floating point.

    Backends: cpu, triton, reference.

    Example:
        >>> temporal_shift(torch.arange(3.0).expand(1, 4, 3), fold_div=4)[0, :3]
        tensor([[1., 2., 0.],
                [0., 0., 1.],
                [0., 1., 2.]])

    Source: Lin et al., *TSM*, ICCV 2019, section 3; Abdelkawy et al., *EPAM-Net*, Neurocomputing
    2025.
    """
    (x,) = _check.autocast(x)
    _check.tensors("temporal_shift", x=x)
    if x.dim() < 3:
        raise _check.fail("temporal_shift", "x of shape (N, C, T, ...)", _check.shape_text(x.shape))
    if fold_div < 2:
        raise _check.fail("temporal_shift", "fold_div of at least 2", fold_div)
    return _op(x, x.shape[1] // fold_div, False)


def shifted(x: Tensor, fold: int, reverse: bool = False) -> Tensor:
    """The first ``fold`` channels one frame back, as many more one frame on; or the other way."""
    first, second, still = x.split([fold, fold, x.shape[1] - 2 * fold], dim=1)
    if reverse:
        return torch.cat([_previous(first), _next(second), still], dim=1)
    return torch.cat([_next(first), _previous(second), still], dim=1)


def _next(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, 1:], torch.zeros_like(x[:, :, :1])], dim=2)


def _previous(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], dim=2)


def _backward(inputs: list, grad: Tensor) -> list[Tensor]:
    _, fold, reverse = inputs
    return [_op(grad, fold, not reverse)]


_op = define(
    "temporal_shift",
    "(Tensor x, int fold, bool reverse) -> Tensor",
    shifted,
    fake=lambda x, fold, reverse: torch.empty_like(x, memory_format=torch.contiguous_format),
    grads=("x",),
    backward=_backward,
    gpu=("triton",),
)
