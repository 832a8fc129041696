"""Linear layer on processors whose vector registers the BLAS library leaves half empty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops import _build, _check
from skelops._library import define

MIN_ROWS = 32  # below, the weight's packing is not paid back


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""``torch.nn.functional.linear`` by the faster of two products.

    .. math:: y_{nd} = \sum_c W_{dc} x_{nc} + b_d

    MKL, which PyTorch's x86 builds call, uses the 512-bit registers of Intel's processors only.
    Others get a product of twice its speed from the op here, in float32 and float64; everything
    else, and products of a few rows, are left to PyTorch.

    Args:
        x: (..., C).
        weight: (D, C).
        bias: (D,) or None.

    Returns:
        (..., D), x's dtype.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ.

    Backends: cpu, reference.

    Example:
        >>> linear(torch.randn(8, 750, 256), torch.randn(768, 256)).shape
        torch.Size([8, 750, 768])

    Source: the packing of Goto and van de Geijn, ACM TOMS 34, 2008.
    """
    x, weight, bias = _check.autocast(x, weight, bias)
    _check.tensors("linear", x=x, weight=weight, bias=bias)
    if x.dim() == 0:
        raise _check.fail("linear", "x of shape (..., C)", _check.shape_text(x.shape))
    _check.shape("linear", "weight", weight, "D C", C=x.shape[-1])
    if bias is not None:
        _check.shape("linear", "bias", bias, "D", D=weight.shape[0])
    rows = x.reshape(-1, x.shape[-1])
    half = x.dtype in (torch.float16, torch.bfloat16)
    # A traced program takes any number of rows.
    few = not torch.compiler.is_compiling() and rows.shape[0] < MIN_ROWS
    if x.device.type != "cpu" or half or few or not FASTER_HERE:
        return F.linear(x, weight, bias)
    return _op(rows, weight, bias).view(*x.shape[:-1], weight.shape[0])


def faster_here() -> bool:
    """Whether the op beats the BLAS library that PyTorch calls on this processor."""
    return (
        torch.backends.mkl.is_available()
        and _build.cpu_isa() == "v4"
        and _build.cpu_vendor() != "GenuineIntel"
    )


FASTER_HERE = faster_here()  # a constant to programs that are traced


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


_op = define(
    "linear",
    "(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    _reference,
    fake=_fake,
    grads=("x", "weight", "bias"),
)
