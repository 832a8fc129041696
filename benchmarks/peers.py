"""What a user runs today: the papers' formulas in plain PyTorch, one call after the other.

Independent of skelops, so that these functions in float64 are also the truth every benchmark is
checked against.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# fmt: off
NTU25_PARENTS = (
    1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11,
)
# fmt: on


def skeleton_graph(parents: Sequence[int] = NTU25_PARENTS) -> Tensor:
    """Spatial graph of a tree of joints: self, inward, outward; columns of sum one."""
    inward = torch.zeros(len(parents), len(parents))
    for child, parent in enumerate(parents):
        if child != parent:
            inward[parent, child] = 1
    links = torch.stack([torch.eye(len(parents)), inward, inward.T])
    return links / links.sum(1, keepdim=True).clamp(min=1)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    return F.conv2d(x, weight[:, :, None, None], bias, stride=(stride, 1))


def temporal(x: Tensor, weight: Tensor, bias: Tensor, dilation: int, stride: int = 1) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight[..., None], bias, (stride, 1), (padding, 0), (dilation, 1))


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor
) -> Tensor:
    return F.batch_norm(x, running_mean, running_var, weight, bias, training=True)


def aggregate(x: Tensor, A: Tensor) -> Tensor:
    """ST-GCN: z[w] = sum_k sum_v f_k[v] A_k[v, w] of features x (N, K C, T, V)."""
    f = x.view(x.shape[0], A.shape[0], -1, *x.shape[2:])
    return torch.einsum("nkctv,kvw->nctw", f, A)


def refined_topology(
    p: Tensor, q: Tensor, weight4: Tensor, bias4: Tensor, alpha: Tensor, A: Tensor
) -> Tensor:
    """CTR-GC: a graph (N, C, V, V) from the embeddings p, q (N, R, V) of one subset."""
    relation = torch.tanh(p.unsqueeze(-1) - q.unsqueeze(-2))
    return pointwise(relation, weight4, bias4) * alpha + A


def ctr_aggregate(
    x: Sequence[Tensor],
    A: Tensor,
    p: Sequence[Tensor],
    q: Sequence[Tensor],
    alpha: Tensor,
    weight4: Sequence[Tensor],
    bias4: Sequence[Tensor],
) -> Tensor:
    """Sum over the subsets of the features of each on its refined topology."""
    z = None
    for k, f in enumerate(x):
        graph = refined_topology(p[k], q[k], weight4[k], bias4[k], alpha, A[k])
        y = torch.einsum("ncuv,nctv->nctu", graph, f)
        z = y if z is None else z + y
    return z


def ctr_unit(
    x: Tensor,
    A: Tensor,
    alpha: Tensor,
    weight1: Sequence[Tensor],
    bias1: Sequence[Tensor],
    weight2: Sequence[Tensor],
    bias2: Sequence[Tensor],
    weight3: Sequence[Tensor],
    bias3: Sequence[Tensor],
    weight4: Sequence[Tensor],
    bias4: Sequence[Tensor],
) -> Tensor:
    """CTR-GC with its transforms, all of them on every frame, as published."""
    z = None
    for k in range(len(A)):
        p = pointwise(x, weight1[k], bias1[k]).mean(-2)
        q = pointwise(x, weight2[k], bias2[k]).mean(-2)
        f = pointwise(x, weight3[k], bias3[k])
        graph = refined_topology(p, q, weight4[k], bias4[k], alpha, A[k])
        y = torch.einsum("ncuv,nctv->nctu", graph, f)
        z = y if z is None else z + y
    return z


def with_virtual(x: Tensor, virtual: Tensor) -> Tensor:
    """Hyper-GCN: features (N, C, T, V + Q), the table of virtual joints behind every frame."""
    table = virtual.T[None, :, None].expand(x.shape[0], -1, x.shape[2], -1)
    return torch.cat([x, table], dim=-1)


def aggregate_heads(x: Tensor, A: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Hyper-GCN: every head transforms its channels and mixes their joints by its graph."""
    N, _, T, V = x.shape
    heads = A.shape[1]
    f = F.conv2d(x, weight[:, :, None, None], bias, groups=heads)
    y = torch.einsum("nkuv,nkctv->nkctu", A, f.view(N, heads, -1, T, V))
    return y.reshape(N, -1, T, V)
