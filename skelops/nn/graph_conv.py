"""Graph convolution with a shared topology; returns z, before its normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from skelops import ops
from skelops.nn.packed import Packed, Part, init_conv
from skelops.nn.topology import Topology


class GraphConv(Packed):
    r"""Graph convolution on a topology shared by the batch.

    .. math:: z_{nctw} = \sum_k \sum_v A_{kvw} \Big(\sum_i W_{kci} x_{nitv} + b_{kc}\Big)

    Args:
        in_channels, out_channels: C and C'.
        A: (K, V, V) adjacency, or the number of subsets K if it comes with every call.
        topology: see ``Topology``.
        aggregate_first: one bias (C',) after the aggregation instead of one per subset before it.
        transposed: gather over the rows of A (PYSKL, 2s-AGCN) or, if False, over its columns.

    Shape: (N, C, T, V) -> (N, C', T, V).

    Source: Yan et al., ST-GCN, AAAI 2018, eq. 9; Duan et al., ST-GCN++, 2022.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A: Tensor | int,
        topology: str = "learnable",
        *,
        aggregate_first: bool = False,
        transposed: bool = True,
    ) -> None:
        super().__init__()
        K = A if isinstance(A, int) else A.shape[0]
        self.aggregate_first = aggregate_first
        self.transposed = transposed
        self.topology = None if isinstance(A, int) else Topology(A, topology)
        order = (out_channels, K) if aggregate_first else (K, out_channels)
        self.weight = nn.Parameter(torch.empty(*order, in_channels))
        self.bias = nn.Parameter(torch.empty(order[:1] if aggregate_first else order))
        self.reset_parameters()

    def reset_parameters(self, kaiming: bool = False) -> None:
        rows, columns, *_ = self.published()["conv.weight"].shape
        init_conv(self.weight, self.bias, columns, rows, kaiming)

    def published(self) -> dict[str, Part]:
        a, b, C = self.weight.shape
        shape = (a, b * C, 1, 1) if self.aggregate_first else (a * b, C, 1, 1)
        return {
            "conv.weight": Part("weight", (), shape),
            "conv.bias": Part("bias", (), (self.bias.numel(),)),
        }

    def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:
        """``A``: instead of the module's own adjacency."""
        return ops.graph_conv(x, *self._arguments(A), self.bias, transposed=self.transposed)

    def _arguments(self, A: Tensor | None) -> tuple[Tensor, Tensor]:
        A = self.topology() if A is None else A
        return A, self.weight.transpose(0, 1) if self.aggregate_first else self.weight

    def infer(self, x: Tensor, A: Tensor | None = None, **tail: Any) -> Tensor:
        """The unit that ends by ``tail``, without gradients: ``ops.graph_unit``."""
        options = {"bias_after": self.aggregate_first, "transposed": self.transposed}
        return ops.graph_unit(x, *self._arguments(A), self.bias, **options, **tail)
