"""Multi-head hypergraph convolution: every head transforms and aggregates its own channels."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def hypergraph_conv(
    x: Tensor,
    A: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    virtual: Tensor | None = None,
) -> Tensor:
    r"""Graph convolution of K heads on joints and, by way of a table, on virtual joints.

    .. math::
        f_{nkctv} = \sum_i W_{kci} x_{nkitv} + b_{kc}, \qquad
        h_{kcq} = \sum_i W_{kci} p_{qki} + b_{kc}, \qquad
        y_{nkctu} = \sum_v A_{nkuv} f_{nkctv} + \sum_q A_{nku,V+q} h_{kcq}

    The virtual joints p are the same in all samples and frames, so their share is a bias per
    (n, k, c, u): nothing is concatenated to x and no row of the result is thrown away.

    Args:
        x: (N, C, T, V) features, C = K * C/K channels by head.
        A: (N, K, V, V + Q) one per sample, or (K, V, V + Q). Rows are joints, columns joints and
            then virtual joints.
        weight: (C', C/K) transform, rows by head, as a 1x1 convolution of K groups stores it.
        bias: (C',) added to the transformed features, or None.
        virtual: (Q, C) features of the virtual joints; None if Q = 0.

    Returns:
        (N, C', T, V), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> A = torch.rand(2, 8, 25, 28)
        >>> x, virtual = torch.randn(2, 128, 64, 25), torch.randn(3, 128)
        >>> hypergraph_conv(x, A, torch.randn(256, 16), virtual=virtual).shape
        torch.Size([2, 256, 64, 25])

    Source: Zhou et al., Adaptive hyper-graph convolution network for skeleton-based human action
    recognition with virtual connections, ICCV 2025.
    """
    x, A, weight, bias, virtual = _check.autocast(x, A, weight, bias, virtual)
    check("hypergraph_conv", x, A, weight, bias, virtual)
    return _op(x, A, weight, bias, virtual)


def check(
    op: str, x: Tensor, A: Tensor, weight: Tensor, bias: Tensor | None, virtual: Tensor | None
) -> None:
    _check.tensors(op, x=x, A=A, weight=weight, bias=bias, virtual=virtual)
    _check.shape(op, "x", x, "N C T V")
    N, C, _, V = x.shape
    if V == 0:
        raise _check.fail(op, "x with at least one joint", _check.shape_text(x.shape))
    Q = 0
    if virtual is not None:
        _check.shape(op, "virtual", virtual, "Q C", C=C)
        Q = virtual.shape[0]
    joints = {"V": V, "V+Q": V + Q}
    if A.dim() == 4:
        _check.shape(op, "A", A, "N K V V+Q", N=N, **joints)
    else:
        _check.shape(op, "A", A, "K V V+Q", **joints)
    K = A.shape[-3]
    if K == 0 or C % K:
        heads = f"A of K heads that divide C={C}"
        raise _check.fail(op, heads, _check.shape_text(A.shape))
    _check.shape(op, "weight", weight, "C' C/K", **{"C/K": C // K})
    if weight.shape[0] % K:
        rows = f"weight of C' rows divisible by K={K}"
        raise _check.fail(op, rows, _check.shape_text(weight.shape))
    if bias is not None:
        _check.shape(op, "bias", bias, "C'", **{"C'": weight.shape[0]})


def _reference(
    x: Tensor, A: Tensor, weight: Tensor, bias: Tensor | None, virtual: Tensor | None
) -> Tensor:
    V, K = x.shape[3], A.shape[-3]
    w = weight.unflatten(0, (K, weight.shape[0] // K))
    b = None if bias is None else bias.unflatten(0, (K, bias.shape[0] // K)).unsqueeze(-1)
    graph = "nkuv" if A.dim() == 4 else "kuv"
    f = torch.einsum("nkitv,kci->nkctv", x.unflatten(1, (K, x.shape[1] // K)), w)
    if b is not None:
        f = f + b.unsqueeze(-1)
    y = torch.einsum(f"nkctv,{graph}->nkctu", f, A[..., :V])
    if virtual is not None:
        h = torch.einsum("qki,kci->kcq", virtual.unflatten(1, (K, virtual.shape[1] // K)), w)
        h = h if b is None else h + b
        share = torch.einsum(f"kcq,{graph[:-1]}q->{graph[:-2]}cu", h, A[..., V:])
        y = y + share.unsqueeze(-2)
    return y.flatten(1, 2).contiguous()


def _fake(x, A, weight, bias, virtual):
    N, _, T, V = x.shape
    return x.new_empty(N, weight.shape[0], T, V)


_op = define(
    "hypergraph_conv",
    "(Tensor x, Tensor A, Tensor weight, Tensor? bias, Tensor? virtual) -> Tensor",
    _reference,
    fake=_fake,
    grads=("x", "A", "weight", "bias", "virtual"),
    gpu=("triton",),
)
