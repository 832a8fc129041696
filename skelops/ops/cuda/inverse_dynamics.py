"""Inverse dynamics by the compiled kernel, a thread per frame."""

from __future__ import annotations

from torch import Tensor

from skelops.ops.cuda import _tree_dynamics


def supports(q, qd, qdd, wrench, inertia, offset, axis, gravity, parent, joint) -> str | None:
    return _tree_dynamics.supports(parent)


def forward(*args) -> Tensor:
    return _tree_dynamics.forward(True, *args)


def backward(grad, *args) -> tuple[Tensor, ...]:
    *inputs, needs = args
    return _tree_dynamics.backward(True, grad, tuple(inputs), needs)
