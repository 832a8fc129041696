"""Graph isomorphism layer: an MLP on the sum of a joint and its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelops import ops


class GINConv(nn.Module):
    r"""Graph isomorphism layer of GraphMAE, the aggregation and first product in one op.

    .. math::
        a_v = (1 + \epsilon) x_v + \sum_u A_{vu} x_u, \qquad
        y = \sigma_2\big(\text{BN}(W_2\, \sigma_1(\text{BN}(W_1 a + b_1)) + b_2)\big)

    with PReLUs of one slope each.

    Args:
        in_channels, hidden, out_channels: widths in front of, between and behind the products.
        A: (V, V) adjacency without the joints themselves.
        plain: without the last normalisation and PReLU, as in a decoder.

    Shape: (N, C, T, V) -> (N, C', T, V).

    Source: Xu et al., GIN, ICLR 2019, eq. 4.1; Hou et al., GraphMAE, KDD 2022.
    """

    reads = ("linear1", "linear2")  # whose weights are taken, not called

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, A: Tensor, plain: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("A", A, persistent=False)
        self.register_buffer("eps", torch.zeros(1))
        self.linear1, self.norm1 = nn.Linear(in_channels, hidden), nn.BatchNorm2d(hidden)
        self.act1 = nn.PReLU()
        self.linear2 = nn.Linear(hidden, out_channels)
        self.norm2 = None if plain else nn.BatchNorm2d(out_channels)
        self.act2 = None if plain else nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        own = torch.eye(len(self.A), dtype=x.dtype, device=x.device)
        A = self.A.to(x) + (1 + self.eps.to(x)) * own
        y = ops.graph_conv(x, A[None], self.linear1.weight[None], self.linear1.bias)
        y = self.act1(self.norm1(y))
        y = ops.graph_conv(y, own[None], self.linear2.weight[None], self.linear2.bias)
        return y if self.norm2 is None else self.act2(self.norm2(y))
