"""How far a result may be from the truth: one rule for every op, backend and dtype.

A kernel's error against the float64 reference may be twice the error of the reference evaluated in
the kernel's own dtype on the same rounded inputs, plus ``FLOOR``. Floating results of full
precision are compared element by element; half types in the L2 norm, because the few elements at
the kink of a rectifier or a maximum may fall on either side for any implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor

FACTOR = 2.0
FLOOR = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2**-10,
    torch.float16: 2**-13,
}
HALVES = (torch.bfloat16, torch.float16)


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item() if x.numel() else 0.0


def error(got: Tensor, exact: Tensor, dtype: torch.dtype, scale: float = 0.0) -> float:
    """Relative error; infinite where ``got`` is not finite although ``exact`` is.

    Args:
        got, exact: of one shape.
        dtype: decides between the L2 norm (half types) and the worst element.
        scale: typical size of the terms that were summed, for results that cancel to nothing.
    """
    if exact.numel() == 0:
        return 0.0
    got, exact = got.double(), exact.double()
    finite = exact.isfinite()
    if not torch.equal(got.isfinite(), finite):
        return float("inf")
    got, exact = got.where(finite, 0), exact.where(finite, 0)
    difference, typical = (got - exact).abs(), rms(exact) + scale
    if typical == 0:
        return float("inf") if difference.any() else 0.0
    if dtype in HALVES:
        return rms(difference) / typical
    return (difference / (exact.abs() + typical)).max().item()


def bound(eager_error: float, dtype: torch.dtype) -> float:
    return FACTOR * eager_error + FLOOR[dtype]


def term_size(grad_output: Tensor, gradient: Tensor) -> float:
    """Size of a sum of independent terms as many as output elements fall to one of the gradient."""
    if gradient.numel() == 0:
        return 0.0
    return rms(grad_output) * (grad_output.numel() / gradient.numel()) ** 0.5


def close(got: Tensor, expected: Tensor, scale: float = 0.0) -> bool:
    """Two evaluations of one kernel agree up to rounding in their dtype."""
    if not expected.is_floating_point():
        return got.dtype == expected.dtype and torch.equal(got, expected)
    return (
        got.shape == expected.shape
        and got.dtype == expected.dtype
        and error(got, expected, got.dtype, scale) <= FLOOR[got.dtype]
    )
