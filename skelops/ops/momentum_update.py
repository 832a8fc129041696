"""Moving average of the parameters of one module in another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelops import _check


@torch.no_grad()
def momentum_update_(average: nn.Module, module: nn.Module, momentum: float = 0.999) -> None:
    """Move the parameters of ``average`` towards those of ``module``, all in one multi-tensor op.

    .. math:: a \\leftarrow m\\, a + (1 - m)\\, p

    One read of either and one write: at the roof of the memory, so there is no kernel of our own.
    Buffers, such as the statistics of batch normalisations, stay as they are.

    Args:
        average: written.
        module: of the same architecture.
        momentum: m.

    Raises:
        ValueError: a momentum out of [0, 1], other parameters.

    Source: He et al., MoCo, CVPR 2020, eq. 2.
    """
    op = "momentum_update_"
    if not 0 <= momentum <= 1:
        raise _check.fail(op, "momentum in [0, 1]", momentum)
    averages: list[Tensor] = list(average.parameters())
    parameters: list[Tensor] = list(module.parameters())
    if [a.shape for a in averages] != [p.shape for p in parameters]:
        raise _check.fail(op, "parameters of the same shapes", "others")
    if averages:
        torch._foreach_lerp_(averages, parameters, 1 - momentum)
