"""Points in space on a GPU. Kernels are launched without fused multiplication and addition: their
distances then are those of every other backend to the last bit."""

from __future__ import annotations

import triton
import triton.language as tl

from skelops.ops.triton import _tiles

MAX_POINTS = 8192  # that one program holds


@triton.jit
def load_points(ptr, l, inside):
    """Coordinates of points l of a cloud (L, 3); those outside are nowhere."""
    x = tl.load(ptr + l * 3, mask=inside, other=float("nan")).to(tl.float32)
    y = tl.load(ptr + l * 3 + 1, mask=inside, other=float("nan")).to(tl.float32)
    z = tl.load(ptr + l * 3 + 2, mask=inside, other=float("nan")).to(tl.float32)
    return x, y, z


@triton.jit
def squared_distance(ax, ay, az, bx, by, bz):
    """Not a number counts as infinite."""
    x = ax - bx
    y = ay - by
    z = az - bz
    d = x * x + y * y + z * z
    return tl.where(d == d, d, float("inf"))


def unsupported(points, held: bool) -> str | None:
    if held and points.shape[1] > MAX_POINTS:
        return f"at most {MAX_POINTS} points, got {points.shape[1]}"
    if points.dtype not in _tiles.DTYPES[1:]:
        return f"no {str(points.dtype).removeprefix('torch.')} kernel"
    return None
