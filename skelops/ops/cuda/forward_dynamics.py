"""Forward dynamics by the compiled kernel, a thread per frame."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops.ops.cuda import _tree_dynamics


def supports(q, qd, tau, wrench, inertia, offset, axis, gravity, parent, joint) -> str | None:
    return _tree_dynamics.supports(parent)


def forward(*args) -> Tensor:
    return _tree_dynamics.forward(False, *args)


def backward(grad, *args) -> tuple[Tensor, ...]:
    q, qd, tau, *others, qdd, needs = args
    if qdd.dtype not in (torch.float32, torch.float64):  # the saved ones are rounded
        qdd = forward(q.float(), qd, tau, *others)
    return _tree_dynamics.backward(False, grad, (q, qd, qdd, *others), needs)
