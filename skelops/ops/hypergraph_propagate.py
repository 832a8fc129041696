"""Convolution on any hypergraph: its propagation operator, and ``graph_conv`` on it."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops.ops.graph_conv import graph_conv

NORMALIZATIONS = ("row", "symmetric")


def hypergraph_operator(
    H: Tensor, edge_weight: Tensor | None = None, *, normalization: str = "row"
) -> Tensor:
    r"""Propagation operator of a hypergraph, joints to hyperedges to joints.

    .. math::
        \Theta_{row} = D_v^{-1} H W D_e^{-1} H^T, \qquad
        \Theta_{symmetric} = D_v^{-1/2} H W D_e^{-1} H^T D_v^{-1/2}

    with the degrees of joints :math:`(D_v)_{vv} = \sum_e w_e H_{ve}` and of hyperedges
    :math:`(D_e)_{ee} = \sum_v H_{ve}`. The inverse of a degree 0 is 0, so that an empty hyperedge
    contributes nothing and an isolated joint has a row of zeros, with finite gradients.

    Args:
        H: (V, E) or (N, V, E) incidence, not negative; it may be soft, e.g. an attention.
        edge_weight: (E,) or (N, E) weights of the hyperedges, not negative; ones if None.
        normalization: "row", the random walk, whose rows sum to one, or "symmetric".

    Returns:
        (V, V), or (N, V, V) where an argument is per sample; H's dtype, computed in float32 for
        half types.

    Raises:
        ValueError: shapes do not fit, tensors on different devices, an unknown normalization.
        TypeError: a tensor is not floating point, or dtypes differ.

    Example:
        >>> H = skelops.graph.get_layout("ntu25").incidence()
        >>> hypergraph_operator(H).sum(1)  # every joint belongs to a part
        tensor([1., 1., ..., 1.])

    Source: symmetric: Feng et al., HGNN, AAAI 2019, eq. 10; row: Bai et al., Hypergraph convolution
    and hypergraph attention, Pattern Recognition 2021, eq. 6.
    """
    op = "hypergraph_operator"
    _check.tensors(op, H=H, edge_weight=edge_weight)
    if H.dim() == 3:
        _check.shape(op, "H", H, "N V E")
    else:
        _check.shape(op, "H", H, "V E")
    if edge_weight is not None:
        sizes = {"E": H.shape[-1]} | ({"N": H.shape[0]} if H.dim() == 3 else {})
        axes = "E" if edge_weight.dim() == 1 else "N E"
        _check.shape(op, "edge_weight", edge_weight, axes, **sizes)
    if normalization not in NORMALIZATIONS:
        expected = f"normalization one of {', '.join(NORMALIZATIONS)}"
        raise _check.fail(op, expected, repr(normalization))
    with torch.autocast(H.device.type, enabled=False):
        dtype = torch.promote_types(H.dtype, torch.float32)
        incidence = H.to(dtype)
        weighted = incidence
        if edge_weight is not None:
            weighted = incidence * edge_weight.to(dtype).unsqueeze(-2)
        joint_degree, edge_degree = weighted.sum(-1), incidence.sum(-2)
        theta = (weighted * _inverse(edge_degree).unsqueeze(-2)) @ incidence.mT
        if normalization == "row":
            theta = _inverse(joint_degree).unsqueeze(-1) * theta
        else:
            root = _inverse(joint_degree, -0.5)
            theta = root.unsqueeze(-1) * theta * root.unsqueeze(-2)
        return theta.to(H.dtype)


def _inverse(degree: Tensor, power: float = -1.0) -> Tensor:
    """degree^power, 0 where there is none; its gradient is finite there too."""
    some = degree > 0
    return torch.where(some, torch.where(some, degree, 1.0) ** power, 0.0)


def hypergraph_propagate(
    x: Tensor,
    H: Tensor,
    edge_weight: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    normalization: str = "row",
    aggregate_first: bool = True,
) -> Tensor:
    r"""Hypergraph convolution of a skeleton sequence, on the hypergraph of every frame.

    .. math:: y_{nctu} = \sum_v \Theta_{uv} \sum_i W_{ci} x_{nitv} + b_c

    The operator has V^2 entries where its factors have 2 V E, about as many for the hypergraphs of
    a skeleton; it is built once for all frames and channels, and aggregated by ``graph_conv``.

    Args:
        x: (N, C, T, V) features.
        H: (V, E) or (N, V, E) incidence, not negative.
        edge_weight: (E,) or (N, E) weights of the hyperedges, not negative; ones if None.
        weight: (C', C) feature transform, or None.
        bias: (C'), or None.
        normalization: "row" or "symmetric", see ``hypergraph_operator``.
        aggregate_first: add the bias to the result (PyTorch Geometric); if False, to the
            transformed features before aggregation (HGNN).

    Returns:
        (N, C', T, V), x's dtype. Isolated joints get the bias, or 0 if not ``aggregate_first``.

    Raises:
        ValueError: shapes do not fit, tensors on different devices, an unknown normalization.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: those of graph_conv.

    Example:
        >>> H = skelops.graph.get_layout("ntu25").incidence()
        >>> hypergraph_propagate(torch.randn(2, 64, 16, 25), H, weight=torch.randn(128, 64)).shape
        torch.Size([2, 128, 16, 25])

    Source: Feng et al., HGNN, AAAI 2019, eq. 11; Bai et al., Hypergraph convolution and hypergraph
    attention, Pattern Recognition 2021.
    """
    op = "hypergraph_propagate"
    theta = hypergraph_operator(H, edge_weight, normalization=normalization)
    x, theta, weight, bias = _check.autocast(x, theta, weight, bias)
    _check.tensors(op, x=x, H=theta, weight=weight, bias=bias)
    _check.shape(op, "x", x, "N C T V")
    N, C, _, V = x.shape
    if theta.shape[-1] != V or (theta.dim() == 3 and theta.shape[0] != N):
        wanted = "(N, V, E)" if H.dim() == 3 else "(V, E)"
        raise _check.fail(op, f"H of shape {wanted} with N={N}, V={V}", _check.shape_text(H.shape))
    if weight is not None:
        _check.shape(op, "weight", weight, "C' C", C=C)
        weight = weight.unsqueeze(0)
    if bias is not None:
        channels = C if weight is None else weight.shape[1]
        _check.shape(op, "bias", bias, "C'", **{"C'": channels})
        bias = bias if aggregate_first else bias.unsqueeze(0)
    return graph_conv(x, theta.unsqueeze(-3), weight, bias)
