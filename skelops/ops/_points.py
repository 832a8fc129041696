"""Points in space: squared distances as every backend computes them, and checks of clouds."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check


def compute_dtype(points: Tensor) -> torch.dtype:
    return torch.float64 if points.dtype == torch.float64 else torch.float32


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Of points (..., 3): the squares are added one after the other, in at least float32.

    A distance that is not a number, as that of a point that is not one, counts as infinite.
    """
    x, y, z = (a.to(compute_dtype(a)) - b.to(compute_dtype(b))).square().unbind(-1)
    return (x + y + z).nan_to_num(nan=torch.inf, posinf=torch.inf)


def check_cloud(op: str, **clouds: Tensor) -> None:
    """Clouds (N, L, 3) of one batch, on which nothing depends that has a gradient."""
    _check.tensors(op, **clouds)
    (first_name, first), *rest = clouds.items()
    _check.shape(op, first_name, first, "N L 3" if not rest else "N Q 3", **{"3": 3})
    for name, cloud in rest:
        _check.shape(op, name, cloud, "N L 3", N=first.shape[0], **{"3": 3})
    for name, cloud in clouds.items():
        if cloud.requires_grad:
            raise TypeError(f"{op}: expected {name} that requires no gradient, got one that does")


def check_count(op: str, name: str, count: int, points: Tensor) -> None:
    """No more than there are points."""
    if points.shape[1] >= 2**31:
        raise _check.fail(op, f"less than {2**31} points", points.shape[1])
    if not 1 <= count <= points.shape[1]:
        raise _check.fail(op, f"{name} from 1 to the {points.shape[1]} points", count)
