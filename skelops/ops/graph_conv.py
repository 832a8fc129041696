"""Graph convolution over K subsets: z[n, c, t, u] = sum_k sum_v A[k, u, v] f[n, k, c, t, v]."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def graph_conv(
    x: Tensor,
    A: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    transposed: bool = False,
) -> Tensor:
    r"""Spatial graph convolution of a skeleton sequence, with its 1x1 feature transform.

    .. math::
        f_{nkctv} = \sum_i W_{kci} x_{nitv} + b_{kc}, \qquad
        z_{nctu} = \sum_k \sum_v A_{kuv} f_{nkctv}

    Args:
        x: (N, C, T, V) features; without ``weight`` (N, K * C', T, V), already transformed.
        A: (K, V, V) adjacency shared by the batch, or (N, K, V, V) one per sample. On a CPU a
            shared A is scanned at every call, and zeros (three of four entries in a skeleton's)
            cost nothing: an infinite or NaN feature then reaches only the joints that
            A connects it to.
        weight: (K, C', C) feature transform, or None.
        bias: (K, C') added to the transformed features before aggregation, or (C',) added to the
            result, or None.
        transposed: False contracts the columns, z[u] = sum_v A[u, v] f[v]; True the rows,
            z[w] = sum_v f[v] A[v, w].

    Returns:
        (N, C', T, V), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, cuda, reference.

    Example:
        >>> A = skelops.graph.get_layout("ntu25").adjacency("spatial")
        >>> graph_conv(x, A, torch.randn(3, 128, 64)).shape  # x (N, 64, T, 25)
        torch.Size([N, 128, T, 25])

    Source: Yan et al., ST-GCN, AAAI 2018, eq. 9; per-sample A: Shi et al., 2s-AGCN, CVPR 2019,
    eq. 3.
    """
    x, A, weight, bias = _check.autocast(x, A, weight, bias)
    _check.tensors("graph_conv", x=x, A=A, weight=weight, bias=bias)
    _check.shape("graph_conv", "x", x, "N C T V")
    subsets, _ = check_subsets("graph_conv", x, A, weight)
    if bias is not None and bias.dim() == 1:
        _check.shape("graph_conv", "bias", bias, "C'", **{"C'": _out_channels(x, weight, subsets)})
    elif bias is not None:
        sizes = {"K": subsets, "C'": _out_channels(x, weight, subsets)}
        _check.shape("graph_conv", "bias", bias, "K C'", **sizes)
    return _op(x, A, weight, bias, transposed)


def _out_channels(x: Tensor, weight: Tensor | None, subsets: int) -> int:
    return x.shape[1] // subsets if weight is None else weight.shape[1]


def check_graph(op: str, x: Tensor, A: Tensor) -> int:
    """Check A against x (N, C, T, V) -> K."""
    N, _, _, V = x.shape
    if V == 0:
        raise _check.fail(op, "x with at least one joint", _check.shape_text(x.shape))
    if A.dim() == 4:
        _check.shape(op, "A", A, "N K V V", N=N, V=V)
    else:
        _check.shape(op, "A", A, "K V V", V=V)
    if A.shape[-3] == 0:
        raise _check.fail(op, "A with at least one subset", _check.shape_text(A.shape))
    return A.shape[-3]


def check_subsets(op: str, x: Tensor, A: Tensor, weight: Tensor | None) -> tuple[int, int]:
    """Check A and weight against x (N, C, T, V) -> (K, C')."""
    C, subsets = x.shape[1], check_graph(op, x, A)
    if weight is not None:
        _check.shape(op, "weight", weight, "K C' C", K=subsets, C=C)
    elif C % subsets:
        raise _check.fail(
            op, f"x with K * C' channels for A of K={subsets} subsets", _check.shape_text(x.shape)
        )
    return subsets, _out_channels(x, weight, subsets)


def transform(x: Tensor, weight: Tensor | None, bias: Tensor | None, subsets: int) -> Tensor:
    """1x1 feature transform of every subset: (N, C, T, V) -> (N, K, C', T, V)."""
    if weight is None:
        f = x.unflatten(1, (subsets, x.shape[1] // subsets))
    else:
        f = torch.einsum("nitv,kci->nkctv", x, weight)
    if bias is not None and bias.dim() == 2:
        f = f + bias[:, :, None, None]
    return f


def _reference(
    x: Tensor, A: Tensor, weight: Tensor | None, bias: Tensor | None, transposed: bool
) -> Tensor:
    f = transform(x, weight, bias, A.shape[-3])
    joints = "vu" if transposed else "uv"
    subsets = "nk" if A.dim() == 4 else "k"
    z = torch.einsum(f"nkctv,{subsets}{joints}->nctu", f, A)
    if bias is not None and bias.dim() == 1:
        z = z + bias[:, None, None]
    return z.contiguous()


def _fake(x, A, weight, bias, transposed):
    N, _, T, V = x.shape
    return x.new_empty(N, _out_channels(x, weight, A.shape[-3]), T, V)


_op = define(
    "graph_conv",
    "(Tensor x, Tensor A, Tensor? weight, Tensor? bias, bool transposed) -> Tensor",
    _reference,
    fake=_fake,
    grads=("x", "A", "weight", "bias"),
    gpu=("triton", "cuda"),
)
