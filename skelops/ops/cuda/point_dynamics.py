"""Point masses on rigid bones by the compiled kernels, a thread per frame."""

from __future__ import annotations

import torch

from skelops.ops.cuda._bodies import gradient, parameters, refusal, rows


def supports(x, v, force, mass, parents, root) -> str | None:
    return refusal(parents)


def prepared(x, v, force, mass, parents, root):
    """What the kernels take."""
    return *rows(x, v, force), *parameters(x, mass), parents, root


def forward(*args):
    return torch.ops.skelops._point_dynamics_cuda(*prepared(*args))


def backward(grad_acc, grad_multiplier, *args):
    *inputs, needs = args
    *found, dmass = torch.ops.skelops._point_dynamics_backward_cuda(
        *rows(grad_acc, grad_multiplier), *prepared(*inputs), needs
    )
    return *found, gradient(dmass, inputs[3])
