"""Forward kinematics by the compiled kernels, a thread per frame."""

from __future__ import annotations

import torch

from skelops.ops.cuda._bodies import parameters, refusal, rows


def supports(q, offset, axis, parent, joint) -> str | None:
    return refusal(parent)


def prepared(q, offset, axis, parent, joint):
    """What the kernels take."""
    return *rows(q), *parameters(q, offset, axis), parent, joint


def forward(*args):
    return torch.ops.skelops._forward_kinematics_cuda(*prepared(*args))


def backward(grad_pos, grad_rot, *args):
    *inputs, _ = args
    return torch.ops.skelops._forward_kinematics_backward_cuda(
        *rows(grad_pos, grad_rot), *prepared(*inputs)
    )
