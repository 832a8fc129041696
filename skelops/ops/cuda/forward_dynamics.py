"""Forward dynamics by the compiled kernels, a thread per frame."""

from __future__ import annotations

import torch

from skelops.ops.cuda._bodies import gradient, parameters, refusal, rows


def supports(
    q, qd, tau, wrench, inertia, offset, axis, gravity, parent, joint
) -> str | None:  # fmt: skip
    return refusal(parent)


def prepared(q, qd, tau, wrench, inertia, offset, axis, gravity, parent, joint):
    """What the kernels take."""
    return (
        *rows(q, qd, tau, wrench),
        *parameters(q, inertia, offset, axis, gravity),
        parent,
        joint,
    )


def forward(*args):
    return torch.ops.skelops._forward_dynamics_cuda(*prepared(*args))


def backward(grad, *args):
    *inputs, qdd, needs = args
    found = torch.ops.skelops._forward_dynamics_backward_cuda(
        *rows(grad), *prepared(*inputs), *rows(qdd), needs
    )
    return *found[:4], gradient(found[4], inputs[4])
