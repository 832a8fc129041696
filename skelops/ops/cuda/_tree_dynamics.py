"""What the compiled kernels on trees of bodies take: contiguous tensors in a full precision."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_BODIES = 200


def supports(parent) -> str | None:
    return f"at most {MAX_BODIES} bodies, got {len(parent)}" if len(parent) > MAX_BODIES else None


def forward(inverse: bool, q: Tensor, *args) -> Tensor:
    return torch.ops.skelops._tree_dynamics_cuda(inverse, *_prepared(q, *args)).to(q.dtype)


def backward(inverse: bool, grad: Tensor, args: tuple, needs: int) -> tuple[Tensor, ...]:
    """``args`` as of the op, with accelerations in third place."""
    dtype = grad.dtype
    found = torch.ops.skelops._tree_dynamics_backward_cuda(
        inverse, *_prepared(grad, *args), bool(needs >> 4 & 1)
    )
    n = len(args[-1])
    shapes = [(-1, n)] * 3 + [(-1, n, 6), (n, 10)]
    return tuple(
        t.view(shape).to(dtype) if needs >> i & 1 else grad.new_empty(0)
        for i, (t, shape) in enumerate(zip(found, shapes, strict=True))
    )


def _prepared(first: Tensor, *args) -> tuple:
    compute = torch.promote_types(first.dtype, torch.float32)
    return tuple(a.to(compute).contiguous() if isinstance(a, Tensor) else a for a in (first, *args))
