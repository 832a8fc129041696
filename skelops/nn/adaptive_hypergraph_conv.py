"""Convolution on hyper-graphs with virtual joints, and what keeps the virtual joints apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skelops import _check, ops
from skelops.nn.norm import bn_act_add, norm_arguments

EPS = 1e-8


class AdaptiveHypergraphConv(nn.Module):
    r"""Multi-head convolution on a hyper-graph that is found per sample (M-HGC).

    Q virtual joints, the same in every sample and frame, take part beside the V real ones. With
    :math:`t = [\mathrm{mean}_T(x), p]` of W = V + Q vertices, per head:

    .. math::
        f = W^V t, \qquad w = \tanh(W^E_2\, \mathrm{lrelu}(W^E_1 t)), \qquad
        A = \frac{S \odot L}{|S \odot L|_1 + 10^{-8}} + \max(\alpha, 0)\, G(f, w)

    G is the hyper-graph of ``skelops.ops.hyper_adjacency``, L the links of the skeleton, of every
    vertex with itself and of every joint with every virtual one, S learnable and rows normalised;
    features then are transformed and gathered by ``skelops.ops.hypergraph_conv``.

    Args:
        in_channels, out_channels: C and C', divisible by the number of heads.
        A: (1, V, V) links of the joints, or (K, V, V) of each head.
        num_virtual: Q; 0 for none.
        heads: K.
        reduction: channels of a head over those of its embedding f.
        topk: vertices of a neighbourhood, itself included; 9, or all if there are fewer, if None.

    Shape: (N, C, T, V) -> (N, C', T, V).

    Raises:
        ValueError: channels that the heads do not divide, or topk out of 1..W.

    Source: Zhou et al., Hyper-GCN, ICCV 2025, section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A: Tensor,
        num_virtual: int = 3,
        *,
        heads: int = 8,
        reduction: int = 4,
        topk: int | None = None,
    ) -> None:
        super().__init__()
        name, V = "AdaptiveHypergraphConv", A.shape[-1]
        W = V + num_virtual
        if in_channels % heads or out_channels % heads:
            what = f"channels divisible by {heads} heads"
            raise _check.fail(name, what, f"{in_channels} -> {out_channels}")
        if num_virtual < 0:
            raise _check.fail(name, "num_virtual >= 0", num_virtual)
        topk = min(9, W) if topk is None else topk
        if not 1 <= topk <= W:
            what = f"topk from 1 to {W}, the joints and the virtual ones"
            raise _check.fail(name, what, topk)
        self.heads, self.topk = heads, topk
        embed = heads * max(in_channels // heads // reduction, 1)
        # These hold the parameters as published; ``embed_vertices`` computes by head.
        self.to_V = nn.Conv1d(in_channels, embed, 1, groups=heads)
        self.to_W = nn.Sequential(
            nn.Conv1d(in_channels, embed, 1, groups=heads),
            nn.LeakyReLU(),
            nn.Conv1d(embed, heads, 1),
            nn.Tanh(),
        )
        self.conv_d = nn.Conv2d(in_channels, out_channels, 1, groups=heads)
        # As published all virtual joints start from one place, where the order of equal neighbours
        # alone tells them apart.
        self.hyper_joint = nn.Parameter(torch.randn(1, in_channels).repeat(num_virtual, 1))
        self.alpha = nn.Parameter(torch.ones(1))
        links = torch.ones(heads, W, W)
        links[:, :V, :V] = A
        links[:, V:, V:] = torch.eye(num_virtual)
        self.register_buffer("links", links)
        self.edge_importance = nn.Parameter(torch.ones_like(links))
        for conv in (self.to_V, self.to_W[0], self.to_W[2], self.conv_d):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            nn.init.zeros_(conv.bias)

    def adjacency(self, x: Tensor, static: Tensor | None = None, rows: int | None = None) -> Tensor:
        """A (N, K, rows, W); ``static`` its part without the hyper-graph, rows all W if None."""
        if static is None:
            static = static_adjacency(self.links, self.edge_importance)
        table = self.hyper_joint.T.expand(len(x), -1, -1)
        t = torch.cat([ops.temporal_mean(x), table], dim=-1)
        f, w = embed_vertices(t, self.heads, self.to_V, self.to_W)
        return ops.hyper_adjacency(f, w, static, self.alpha, topk=self.topk, rows=rows)

    def forward(self, x: Tensor, static: Tensor | None = None) -> Tensor:
        """``static``: see ``adjacency``."""
        return self.gather(x, self.adjacency(x, static, rows=x.shape[-1]))

    def gather(self, x: Tensor, A: Tensor) -> Tensor:
        """(N, C', T, V) of x on an adjacency (N, K, V, W)."""
        return ops.hypergraph_conv(x, A, *gathering(self.conv_d, self.hyper_joint))

    def unit(
        self,
        x: Tensor,
        bn: nn.BatchNorm2d,
        residual: Tensor | None,
        res_bn: nn.BatchNorm2d | None,
        static: Tensor | None = None,
    ) -> Tensor:
        """relu(bn(self(x)) + res_bn(residual)), see ``hypergraph_unit``."""
        A = self.adjacency(x, static, rows=x.shape[-1])
        return hypergraph_unit(x, A, self.conv_d, self.hyper_joint, bn, residual, res_bn)


def gathering(conv: nn.Conv2d, table: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Transform, its bias and virtual joints as ``ops.hypergraph_conv`` takes them."""
    return conv.weight.flatten(1), conv.bias, table if len(table) else None


def hypergraph_unit(
    x: Tensor,
    A: Tensor,
    conv: nn.Conv2d,
    table: Tensor,
    bn: nn.BatchNorm2d,
    residual: Tensor | None,
    res_bn: nn.BatchNorm2d | None,
) -> Tensor:
    """relu(bn(hypergraph_conv(x)) + res_bn(residual)), by one op where the residual is x."""
    parameters = gathering(conv, table)
    if residual is None or residual is x:
        norm, options = norm_arguments(bn)
        return ops.hypergraph_unit(x, A, *parameters, *norm, residual=residual is x, **options)
    return bn_act_add(ops.hypergraph_conv(x, A, *parameters), bn, residual, res_bn)


def embed_vertices(
    t: Tensor, heads: int, to_V: nn.Conv1d, to_W: nn.Sequential
) -> tuple[Tensor, Tensor]:
    """f (N, K, D, W) and w (N, K, W) of vertices (N, C, W) by the layers as published."""
    N, _, W = t.shape
    # One product per head over all samples; as convolutions of K groups they take thrice as
    # long on a CPU, and TF32 on a GPU, which is too coarse for distances.
    t = t.unflatten(1, (heads, -1)).permute(1, 2, 0, 3).flatten(2)
    f, hidden = (
        torch.baddbmm(c.bias.view(heads, -1, 1), c.weight.view(heads, -1, t.shape[1]), t)
        for c in (to_V, to_W[0])
    )
    hidden, last = to_W[1](hidden).flatten(0, 1), to_W[2]
    w = torch.addmm(last.bias[:, None], last.weight.flatten(1), hidden).tanh()
    return f.view(heads, -1, N, W).permute(2, 0, 1, 3), w.view(heads, N, W).transpose(0, 1)


def static_adjacency(links: Tensor, importance: Tensor) -> Tensor:
    """The links weighted by their importance, rows of unit L1 norm: (..., W, W)."""
    A = importance * links
    return A / (torch.linalg.vector_norm(A, 1, dim=-1, keepdim=True) + EPS)


def divergence_loss(tables: Sequence[Tensor]) -> Tensor:
    r"""Mean positive cosine between the virtual joints of a layer, averaged over the layers.

    .. math::
        \frac{1}{L} \sum_l \frac{1}{Q (Q - 1)} \Big(\sum_{ij} \max(\cos(p^l_i, p^l_j), 0) - Q\Big)

    Args:
        tables: L of (Q, C), C of each layer.

    Returns:
        (), 0 if there are fewer than two virtual joints.

    Source: Zhou et al., Hyper-GCN, ICCV 2025, section 3.3.
    """
    Q = len(tables[0])
    if Q < 2:
        return tables[0].new_zeros(())
    total: Tensor | float = 0.0
    for width in {table.shape[1]: None for table in tables}:
        p = torch.stack([table for table in tables if table.shape[1] == width])
        norm = torch.linalg.vector_norm(p, dim=-1)
        dots = (p[:, :, None] * p[:, None]).sum(-1)
        cosine = dots / (norm[:, :, None] * norm[:, None] + EPS)
        total = total + cosine.relu().sum()
    return (total / len(tables) - Q) / (Q * (Q - 1))
