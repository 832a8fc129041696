"""Checks of public arguments, in one wording: ``<op>: expected <what>, got <what>``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def fail(op: str, expected: str, got: object) -> ValueError:
    return ValueError(f"{op}: expected {expected}, got {got}")


def shape_text(shape: Sequence[int]) -> str:
    return "(" + ", ".join(str(int(s)) for s in shape) + ("," if len(shape) == 1 else "") + ")"


def shape(op: str, name: str, x: Tensor, dims: str, **sizes: int) -> None:
    """Check rank and sizes: ``dims`` names the axes, ``sizes`` fixes those already known."""
    names, found = dims.split(), x.shape
    right = len(found) == len(names)
    for n, size in zip(names, found, strict=False):
        right = right and sizes.get(n, size) == size
    if not right:
        known = ", ".join(
            f"{n}={sizes[n]}" for n in dict.fromkeys(names) if n in sizes and n != str(sizes[n])
        )
        wanted = f"({', '.join(names)})" + (f" with {known}" if known else "")
        raise fail(op, f"{name} of shape {wanted}", shape_text(found))


def tensors(op: str, **named: Tensor | None) -> None:
    """All tensors floating point, of the dtype and on the device of the first."""
    (first_name, first), *rest = named.items()
    if not isinstance(first, Tensor):
        raise TypeError(f"{op}: expected {first_name} to be a tensor, got {type(first).__name__}")
    if not first.is_floating_point():
        raise TypeError(f"{op}: expected {first_name} of a floating dtype, got {first.dtype}")
    for name, t in rest:
        if t is None:
            continue
        if not isinstance(t, Tensor):
            raise TypeError(f"{op}: expected {name} to be a tensor, got {type(t).__name__}")
        if t.dtype != first.dtype:
            raise TypeError(
                f"{op}: expected {name} of {first_name}'s dtype {first.dtype}, got {t.dtype}"
            )
        if t.device != first.device:
            raise ValueError(
                f"{op}: expected {name} on {first_name}'s device {first.device}, got {t.device}"
            )


def norm_tensors(op: str, x: Tensor, **named: Tensor | None) -> None:
    """Normalisation parameters: one per channel, in x's dtype or (as statistics are) in float32."""
    for name, t in named.items():
        if t is None:
            continue
        if not isinstance(t, Tensor):
            raise TypeError(f"{op}: expected {name} to be a tensor, got {type(t).__name__}")
        if t.dtype not in (x.dtype, torch.float32):
            raise TypeError(
                f"{op}: expected {name} of dtype {x.dtype} or torch.float32, got {t.dtype}"
            )
        if t.device != x.device:
            raise ValueError(f"{op}: expected {name} on x's device {x.device}, got {t.device}")


def autocast(*values: Any) -> tuple[Any, ...]:
    """Under autocast, floating tensors below float64 in the region's dtype; else unchanged."""
    device = next((v.device.type for v in values if isinstance(v, Tensor)), "cpu")
    if not torch.is_autocast_enabled(device):
        return values
    dtype = torch.get_autocast_dtype(device)

    def cast(v: Any) -> Any:
        below_double = isinstance(v, Tensor) and v.is_floating_point() and v.dtype != torch.float64
        return v.to(dtype) if below_double else v

    return tuple(cast(v) for v in values)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype of a result computed from x as it is: x's, or that of an autocast region."""
    region = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    return torch.get_autocast_dtype(x.device.type) if region else x.dtype
