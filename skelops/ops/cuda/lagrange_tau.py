"""Forces of learned Lagrangian dynamics by the compiled kernels, a block per frame."""

from __future__ import annotations

import torch

from skelops.ops.cuda._bodies import rows

SHARED_BYTES = 48 * 1024
VECTORS = 11


def supports(lower, skew, qd, qdd) -> str | None:
    d = qd.shape[2]
    size = 8 if qd.dtype == torch.float64 else 4
    if (lower.shape[2] + VECTORS * d) * size > SHARED_BYTES:
        return f"matrices of {d} rows do not fit into {SHARED_BYTES} bytes"
    return None


def prepared(lower, skew, qd, qdd):
    """What the kernels take."""
    return rows(lower, skew, qd, qdd)


def forward(*args):
    return torch.ops.skelops._lagrange_tau_cuda(*prepared(*args))


def backward(grad_tau, grad_kinetic, *args):
    *inputs, needs = args
    return torch.ops.skelops._lagrange_tau_backward_cuda(
        *rows(grad_tau, grad_kinetic), *prepared(*inputs), needs
    )
