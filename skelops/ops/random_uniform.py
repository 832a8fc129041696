"""Uniform random numbers keyed by (seed, epoch, stream, draw): Philox4x32-10."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _philox


def random_uniform(
    draw: Tensor, count: int, *, seed: int, epoch: int = 0, stream: int = 0
) -> Tensor:
    r"""Random numbers that depend on their key alone, never on the batch, the device or the order.

    .. math::
        u_{ni} = 2^{-24} \lfloor 2^{-8}\, \mathrm{Philox}_{seed}(i, stream, draw_n, epoch) \rfloor

    Args:
        draw: (N,) int64, what the numbers belong to, e.g. clip ids; the low 32 bits count.
        count: numbers per draw.
        seed: 64-bit key.
        epoch: in [0, 2^31).
        stream: in [0, 2^31); numbers of different streams are independent.

    Returns:
        (N, count) float32 in [0, 1), bitwise the same on every backend.

    Raises:
        ValueError: ``draw`` is not 1-D, ``count``, ``epoch`` or ``stream`` is out of range.
        TypeError: ``draw`` is not int64.

    Backends: cpu, triton, reference.

    Example:
        >>> random_uniform(torch.tensor([7, 8, 7]), 2, seed=0).shape
        torch.Size([3, 2])

    Source: Philox4x32-10 of Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011.
    """
    check_key("random_uniform", draw, seed, epoch, stream)
    if count < 0:
        raise _check.fail("random_uniform", "count >= 0", count)
    return _op(draw, seed, epoch, stream, count)


def check_key(op: str, draw: Tensor, seed: int, epoch: int, stream: int) -> None:
    if not isinstance(draw, Tensor) or draw.dtype != torch.int64:
        got = draw.dtype if isinstance(draw, Tensor) else type(draw).__name__
        raise TypeError(f"{op}: expected draw of dtype torch.int64, got {got}")
    _check.shape(op, "draw", draw, "N")
    for name, value in (("epoch", epoch), ("stream", stream)):
        if not 0 <= value < 2**31:
            raise _check.fail(op, f"{name} in [0, 2^31)", value)
    if not -(2**63) <= seed < 2**63:
        raise _check.fail(op, "seed in [-2^63, 2^63)", seed)


_op = define(
    "random_uniform",
    "(Tensor draw, int seed, int epoch, int stream, int count) -> Tensor",
    _philox.uniform,
    fake=lambda draw, seed, epoch, stream, count: draw.new_empty(
        draw.shape[0], count, dtype=torch.float32
    ),
    grads=(),
    gpu=("triton",),
)
