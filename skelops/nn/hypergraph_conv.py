"""Convolution on a hypergraph of joints, as in networks on general hypergraphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelops import _check, ops
from skelops.nn.packed import Packed, Part, init_conv


class HypergraphConv(Packed):
    r"""Hypergraph convolution, on one hypergraph or on one per sample.

    .. math:: y_{nctu} = \sum_v \Theta_{uv} \sum_i W_{ci} x_{nitv} + b_c

    With ``normalization="row"`` this is ``HypergraphConv`` of PyTorch Geometric without attention
    (its parameters under its names by ``published_parts``), with ``"symmetric"`` and
    ``aggregate_first=False`` the layer of HGNN.

    Args:
        in_channels, out_channels: C and C'.
        H: (V, E) incidence, e.g. ``get_layout("ntu25").incidence()``; None if every call brings
            its own.
        normalization: "row" or "symmetric", see ``ops.hypergraph_operator``.
        learn_edge_weight: weights of the hyperedges are a parameter, from ones.
        aggregate_first: the bias is added after the aggregation; before it if False.
        bias: whether there is one.

    Shape: x (N, C, T, V), H (V, E) or (N, V, E), edge_weight (E,) or (N, E) -> (N, C', T, V).

    Raises:
        ValueError: an unknown normalization, learned weights without H, a call without any H.

    Source: Feng et al., HGNN, AAAI 2019; Bai et al., Hypergraph convolution and hypergraph
    attention, Pattern Recognition 2021.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        H: Tensor | None = None,
        normalization: str = "row",
        *,
        learn_edge_weight: bool = False,
        aggregate_first: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if H is None and learn_edge_weight:
            raise _check.fail("HypergraphConv", "H where the edge weights are learned", None)
        self.normalization = normalization
        self.aggregate_first = aggregate_first
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.edge_weight = nn.Parameter(H.new_ones(H.shape[-1])) if learn_edge_weight else None
        self.register_buffer("H", None if H is None else H.clone(), persistent=False)
        operator = None if H is None else ops.hypergraph_operator(H, normalization=normalization)
        self.register_buffer("operator", operator, persistent=False)
        self.reset_parameters()

    def reset_parameters(self, kaiming: bool = False) -> None:
        out_channels, in_channels = self.weight.shape
        bias = self.weight.new_empty(0) if self.bias is None else self.bias
        init_conv(self.weight, bias, in_channels, out_channels, kaiming)

    def published(self) -> dict[str, Part]:
        return {"lin.weight": Part("weight", (), tuple(self.weight.shape))}

    def forward(
        self, x: Tensor, H: Tensor | None = None, edge_weight: Tensor | None = None
    ) -> Tensor:
        H = self.H if H is None else H
        edge_weight = self.edge_weight if edge_weight is None else edge_weight
        if H is None:
            raise _check.fail("HypergraphConv", "H here or at construction", None)
        if H is self.H and edge_weight is None:
            operator = self.operator
        else:
            operator = ops.hypergraph_operator(H, edge_weight, normalization=self.normalization)
        bias = self.bias
        if bias is not None and not self.aggregate_first:
            bias = bias.unsqueeze(0)
        return ops.graph_conv(x, operator.unsqueeze(-3), self.weight.unsqueeze(0), bias)
