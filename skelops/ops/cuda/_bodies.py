"""What the kernels on trees of bodies take: contiguous rows, parameters in the type of the sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MAX_BODIES = 128


def refusal(parents: tuple[int, ...] | list[int]) -> str | None:
    """Why a tree has no kernel."""
    if len(parents) > MAX_BODIES:
        return f"at most {MAX_BODIES} bodies, got {len(parents)}"
    return None


def rows(*tensors: Tensor | None) -> tuple[Any, ...]:
    return tuple(t if t is None else t.contiguous() for t in tensors)


def parameters(like: Tensor, *tensors: Tensor | None) -> tuple[Any, ...]:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return tuple(t if t is None else t.to(dtype).contiguous() for t in tensors)


def gradient(total: Tensor, of: Tensor) -> Tensor:
    """The sum over frames in a parameter's shape and dtype; empty where it is not wanted."""
    return total.view(of.shape).to(of.dtype) if total.numel() else total.to(of.dtype)


def supports_motion(
    q, qd, drive, wrench, inertia, offset, axis, gravity, parent, joint
) -> str | None:  # fmt: skip
    return refusal(parent)


def prepared_motion(q, qd, drive, wrench, inertia, offset, axis, gravity, parent, joint):
    """What the kernels on frames in motion take."""
    return (
        *rows(q, qd, drive, wrench),
        *parameters(q, inertia, offset, axis, gravity),
        parent,
        joint,
    )
