"""Dynamic hyper-graphs of joint embeddings, added to a static topology.

D[n, k, i, j] = ||f[n, k, :, i] - f[n, k, :, j]||
H[n, k, i, :] = softmax(-D[n, k, i, :]) over the topk nearest of i, else 0
G[n, k, i, j] = sum_e H[i, e] (w_e / r_i) (w_e / c_e) H[j, e];   out = A + max(alpha, 0) G
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define

EPS = 1e-8


def hyper_adjacency(
    embedding: Tensor,
    edge_weight: Tensor,
    adjacency: Tensor,
    alpha: Tensor,
    *,
    topk: int = 9,
    rows: int | None = None,
) -> Tensor:
    r"""Adjacency of multi-head hyper-graph convolutions.

    Every vertex opens a hyper-edge: vertex :math:`i` belongs to the edges :math:`e` of its nearest
    neighbours, itself included, the closer the more.

    .. math::
        D_{ij} &= \lVert f_i - f_j \rVert_2, \qquad
        H_{ie} = \frac{e^{-D_{ie}}}{\sum_{e' \in N_i} e^{-D_{ie'}}} \;[e \in N_i] \\
        c_e &= \sum_i H_{ie} + 10^{-8}, \qquad r_i = \sum_e H_{ie} |w_e| + 10^{-8} \\
        \mathrm{out}_{ij} &= A_{ij} + \max(\alpha, 0)
            \sum_e \frac{H_{ie} w_e}{r_i} \frac{w_e}{c_e} H_{je}

    for every sample and head, where :math:`N_i` are the ``topk`` vertices with the smallest
    :math:`D_{ij}`, of equal ones those of lower index. Distances are sums of squared differences,
    without the cancellation of their matrix-product form. No gradient passes through the choice
    of :math:`N_i`; that of a distance is 0 where two vertices coincide.

    Args:
        embedding: (N, K, D, W) embeddings f of W vertices per head, real joints before virtual.
        edge_weight: (N, K, W) weights w of the hyper-edges; their signs cancel.
        adjacency: (K, W, W) static topology A, added as it is.
        alpha: (1,) or () strength of the hyper-graph; below 0 there is none.
        topk: vertices per neighbourhood, 1 to W.
        rows: U, how many leading rows to compute; None for all W.

    Returns:
        (N, K, U, W), embedding's dtype, computed in float32 for half types.

    Raises:
        ValueError: shapes do not fit, topk or rows exceed W, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> f = torch.randn(2, 8, 4, 28)                # 25 joints and 3 virtual ones
        >>> w = torch.tanh(torch.randn(2, 8, 28))
        >>> A = hyper_adjacency(f, w, torch.eye(28).expand(8, 28, 28), torch.ones(1), rows=25)
        >>> A.shape
        torch.Size([2, 8, 25, 28])

    Source: Zhou et al., Adaptive Hyper-Graph Convolution Network for Skeleton-based Human Action
    Recognition with Virtual Connections, ICCV 2025, section 3.2.
    """
    op = "hyper_adjacency"
    embedding, edge_weight, adjacency, alpha = _check.autocast(
        embedding, edge_weight, adjacency, alpha
    )
    _check.tensors(
        op, embedding=embedding, edge_weight=edge_weight, adjacency=adjacency, alpha=alpha
    )
    _check.shape(op, "embedding", embedding, "N K D W")
    N, K, _, W = embedding.shape
    _check.shape(op, "edge_weight", edge_weight, "N K W", N=N, K=K, W=W)
    _check.shape(op, "adjacency", adjacency, "K W W", K=K, W=W)
    if alpha.numel() != 1:
        raise _check.fail(op, "alpha with one element", _check.shape_text(alpha.shape))
    for name, count in (("topk", topk), ("rows", W if rows is None else rows)):
        if not 1 <= count <= W:
            raise _check.fail(op, f"{name} from 1 to W={W} vertices", count)
    return _op(embedding, edge_weight, adjacency, alpha, topk, W if rows is None else rows)


def _reference(embedding, edge_weight, adjacency, alpha, topk, rows):
    full = torch.promote_types(embedding.dtype, torch.float32)
    f, w, A, alpha = (t.to(full) for t in (embedding, edge_weight, adjacency, alpha))
    H = incidence(f, topk)
    edges = w.square() / (H.sum(-2) + EPS)
    degrees = (H * w.abs().unsqueeze(-2)).sum(-1, keepdim=True) + EPS
    with torch.autocast(f.device.type, enabled=False):
        G = (H / degrees * edges.unsqueeze(-2))[..., :rows, :] @ H.mT
    return (A[:, :rows] + torch.relu(alpha) * G).to(embedding.dtype).contiguous()


def incidence(f: Tensor, topk: int) -> Tensor:
    """H (..., W, W) of embeddings (..., D, W): vertices by the edges that they belong to."""
    square = (f.unsqueeze(-1) - f.unsqueeze(-2)).square().sum(-3)
    apart = square != 0  # sqrt has no derivative at 0
    D = square.where(apart, 1).sqrt().where(apart, 0)
    nearest = D.detach().sort(stable=True).indices[..., :topk]
    return torch.zeros_like(D).scatter(-1, nearest, torch.softmax(-D.gather(-1, nearest), -1))


def _fake(embedding, edge_weight, adjacency, alpha, topk, rows):
    N, K, _, W = embedding.shape
    return embedding.new_empty(N, K, rows, W)


_op = define(
    "hyper_adjacency",
    "(Tensor embedding, Tensor edge_weight, Tensor adjacency, Tensor alpha, int topk, int rows) "
    "-> Tensor",
    _reference,
    fake=_fake,
    grads=("embedding", "edge_weight", "adjacency", "alpha"),
    gpu=("triton",),
)
