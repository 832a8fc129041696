"""Velocities and accelerations of recorded clips, by the conventions of the published models.

What the first frame's difference is has no common answer:

- ``"value"``: the difference from zero, q_0 itself (LaDy);
- ``"zero"``: none (FineTec's pseudo-acceleration, a clip that starts at rest);
- ``"repeat"``: that of the second frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check

FIRST = ("value", "zero", "repeat")


def velocity(q: Tensor, dt: float = 1.0, first: str = "repeat", dim: int = -2) -> Tensor:
    """Backward differences (q_t - q_{t-1}) / dt.

    Args:
        q: (..., T, n), T along ``dim``.
        dt: time between frames.
        first: "value", "zero" or "repeat", see above.
        dim: the axis of frames.

    Returns:
        q's shape.

    Raises:
        ValueError: ``first`` is none of these.
    """
    if first not in FIRST:
        raise _check.fail("velocity", f"first to be one of {', '.join(FIRST)}", repr(first))
    rest = q.diff(dim=dim)
    start = q.narrow(dim, 0, min(1, q.shape[dim]))
    if first == "zero" or (first == "repeat" and not rest.shape[dim]):
        start = torch.zeros_like(start)
    elif first == "repeat":
        start = rest.narrow(dim, 0, 1)
    return torch.cat([start, rest], dim) / dt


def acceleration(q: Tensor, dt: float = 1.0, first: str = "zero", dim: int = -2) -> Tensor:
    """Accelerations of a clip.

    "zero" and "repeat" are central, (q_{t+1} - 2 q_t + q_{t-1}) / dt^2, with zeros in the first and
    last frame or those of their neighbours; "value" is ``velocity`` taken twice, as LaDy has it.

    Args:
        q: (..., T, n), T along ``dim``.
        dt: time between frames.
        first: "value", "zero" or "repeat".
        dim: the axis of frames.

    Returns:
        q's shape.

    Raises:
        ValueError: ``first`` is none of these.
    """
    if first not in FIRST:
        raise _check.fail("acceleration", f"first to be one of {', '.join(FIRST)}", repr(first))
    if first == "value":
        return velocity(velocity(q, dt, first, dim), dt, first, dim)
    T = q.shape[dim]
    if T < 3:
        return torch.zeros_like(q)
    inner = q.diff(n=2, dim=dim) / dt**2
    ends = [inner.narrow(dim, i, 1) for i in (0, T - 3)]
    if first == "zero":
        ends = [torch.zeros_like(end) for end in ends]
    return torch.cat([ends[0], inner, ends[1]], dim)
