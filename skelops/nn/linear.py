"""``nn.Linear`` by the faster of two products."""

from __future__ import annotations

from torch import Tensor, nn

from skelops import ops


class Linear(nn.Linear):
    """``nn.Linear``, with its keys and results, by :func:`skelops.linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.linear(input, self.weight, self.bias)
