"""Systems of mass matrices by the compiled kernels, a thread per frame."""

from __future__ import annotations

import torch

from skelops.ops.cuda._bodies import refusal, rows


def supports(packed, force, parent) -> str | None:
    return refusal(parent)


def prepared(packed, force, parent):
    """What the kernels take."""
    return *rows(packed, force), parent


def forward(*args):
    return torch.ops.skelops._tree_solve_cuda(*prepared(*args))


def backward(grad, *args):
    *inputs, needs = args
    return torch.ops.skelops._tree_solve_backward_cuda(*rows(grad), *prepared(*inputs), needs)
