"""Forward dynamics by the compiled kernels, a thread per frame."""

from __future__ import annotations

import torch

from skelops.ops.cuda._bodies import gradient, rows
from skelops.ops.cuda._bodies import prepared_motion as prepared
from skelops.ops.cuda._bodies import supports_motion as supports

__all__ = ["backward", "forward", "prepared", "supports"]


def forward(*args):
    return torch.ops.skelops._forward_dynamics_cuda(*prepared(*args))


def backward(grad, *args):
    *inputs, qdd, needs = args
    found = torch.ops.skelops._forward_dynamics_backward_cuda(
        *rows(grad), *prepared(*inputs), *rows(qdd), needs
    )
    return *found[:4], gradient(found[4], inputs[4])
