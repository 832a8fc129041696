"""Channel-wise topology refinement (CTR-GC): a graph per sample, subset and channel, never stored.

G[n, k, c, u, v] = alpha (sum_r W4[k, c, r] tanh(p[n, k, r, u] - q[n, k, r, v]) + b4[k, c])
                   + A[k, u, v];   z[n, c, t, u] = sum_k sum_v G[n, k, c, u, v] f[n, k, c, t, v]
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops.graph_conv import check_subsets, transform


def ctr_graph_conv(
    x: Tensor,
    A: Tensor,
    p: Tensor,
    q: Tensor,
    alpha: Tensor,
    weight4: Tensor | None = None,
    bias4: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    transposed: bool = False,
) -> Tensor:
    r"""Graph convolution on a topology refined per sample and channel.

    .. math::
        S_{nkruv} &= \tanh(p_{nkru} - q_{nkrv}) \\
        G_{nkcuv} &= \alpha \Big(\sum_r W^4_{kcr} S_{nkruv} + b^4_{kc}\Big) + A_{kuv} \\
        f_{nkctv} &= \sum_i W_{kci} x_{nitv} + b_{kc}, \qquad
        z_{nctu} = \sum_k \sum_v G_{nkcuv} f_{nkctv}

    Neither S nor G is materialised, in the forward or in the backward, which rebuilds them.

    Args:
        x: (N, C, T, V) features; without ``weight`` (N, K * C', T, V), already transformed.
        A: (K, V, V) shared topology, or (N, K, V, V) one per sample.
        p, q: (N, K, R, V) joint embeddings, e.g. two 1x1 transforms of ``temporal_mean(x)``.
        alpha: (1,) or () strength of the refinement.
        weight4: (K, C', R) from relations to channels; None takes S itself and needs R = C'
            (the form of DG-STGCN).
        bias4: (K, C'), only with ``weight4``.
        weight: (K, C', C) feature transform, or None.
        bias: (K, C') added to the transformed features, or None.
        transposed: False contracts the columns, z[u] = sum_v G[u, v] f[v] (CTR-GCN); True the
            rows, z[w] = sum_v f[v] G[v, w] (PYSKL).

    Returns:
        (N, C', T, V), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> m = temporal_mean(x)                                 # (N, 64, 25)
        >>> p, q = (torch.einsum("kri,niv->nkrv", w, m) for w in (w1, w2))
        >>> z = ctr_graph_conv(x, A, p, q, alpha, weight4, bias4, weight, bias)

    Source: Chen et al., CTR-GCN, ICCV 2021, eq. 4-7; without weight4: Duan et al., DG-STGCN, 2022,
    section 3.2.
    """
    op = "ctr_graph_conv"
    named = {"A": A, "p": p, "q": q, "alpha": alpha, "weight4": weight4, "bias4": bias4}
    named |= {"weight": weight, "bias": bias}
    x, *rest = _check.autocast(x, *named.values())
    A, p, q, alpha, weight4, bias4, weight, bias = rest
    _check.tensors(op, x=x, **dict(zip(named, rest, strict=True)))
    _check.shape(op, "x", x, "N C T V")
    subsets, channels = check_subsets(op, x, A, weight)
    sizes = {"N": x.shape[0], "K": subsets, "V": x.shape[3], "C'": channels}
    _check.shape(op, "p", p, "N K R V", **sizes)
    sizes["R"] = p.shape[2]
    _check.shape(op, "q", q, "N K R V", **sizes)
    if alpha.numel() != 1:
        raise _check.fail(op, "alpha with one element", _check.shape_text(alpha.shape))
    if weight4 is not None:
        _check.shape(op, "weight4", weight4, "K C' R", **sizes)
    elif p.shape[2] != channels:
        expected = f"p of shape (N, K, C', V) with C'={channels} without weight4"
        raise _check.fail(op, expected, _check.shape_text(p.shape))
    if bias4 is not None:
        if weight4 is None:
            raise _check.fail(op, "bias4 only together with weight4", "bias4 alone")
        _check.shape(op, "bias4", bias4, "K C'", **sizes)
    if bias is not None:
        _check.shape(op, "bias", bias, "K C'", **sizes)
    return _op(x, A, p, q, alpha, weight4, bias4, weight, bias, transposed)


def _reference(x, A, p, q, alpha, weight4, bias4, weight, bias, transposed):
    f = transform(x, weight, bias, A.shape[-3])
    G = torch.tanh(p.unsqueeze(-1) - q.unsqueeze(-2))
    if weight4 is not None:
        G = torch.einsum("kcr,nkruv->nkcuv", weight4, G)
    if bias4 is not None:
        G = G + bias4[:, :, None, None]
    G = alpha * G + A.unsqueeze(-3)
    joints = "vu" if transposed else "uv"
    return torch.einsum(f"nkctv,nkc{joints}->nctu", f, G).contiguous()


def _fake(x, A, p, q, alpha, weight4, bias4, weight, bias, transposed):
    channels = x.shape[1] // A.shape[-3] if weight is None else weight.shape[1]
    return x.new_empty(x.shape[0], channels, x.shape[2], x.shape[3])


_op = define(
    "ctr_graph_conv",
    "(Tensor x, Tensor A, Tensor p, Tensor q, Tensor alpha, Tensor? weight4, Tensor? bias4, "
    "Tensor? weight, Tensor? bias, bool transposed) -> Tensor",
    _reference,
    fake=_fake,
    grads=("x", "A", "p", "q", "alpha", "weight4", "bias4", "weight", "bias"),
    gpu=("triton",),
)
