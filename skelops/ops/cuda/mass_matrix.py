"""The mass matrix by the compiled kernels, a thread per frame."""

from __future__ import annotations

import torch

from skelops.ops.cuda._bodies import gradient, parameters, refusal, rows


def supports(q, inertia, offset, axis, parent, joint, packed) -> str | None:
    return refusal(parent)


def prepared(q, inertia, offset, axis, parent, joint, packed):
    """What the kernels take."""
    return *rows(q), *parameters(q, inertia, offset, axis), parent, joint, packed


def forward(*args):
    return torch.ops.skelops._mass_matrix_cuda(*prepared(*args))


def backward(grad, *args):
    *inputs, needs = args
    dq, dinertia = torch.ops.skelops._mass_matrix_backward_cuda(
        *rows(grad), *prepared(*inputs), needs
    )
    return dq, gradient(dinertia, inputs[1])
