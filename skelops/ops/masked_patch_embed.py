"""Embedding of chosen tokens l = ids[n, k]: y[n, k] = W patch(x, l) + b + pos[v] + temp[t']."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tokens


def masked_patch_embed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pos: Tensor | None = None,
    temp: Tensor | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    r"""Embed tokens of a skeleton, with their places; only those that an encoder will see.

    .. math::
        y_{nk} = \sum_{cj} W_{cj}\, x_{n,t'u+j,v,c} + b + pos_v + temp_{t'}, \qquad
        t'V + v = ids_{nk}

    The same as the published strided convolution over all tokens, two additions and a gather.

    Args:
        x: (N, T, V, C), T a multiple of u.
        weight: (D, C, u, 1), of a convolution over u frames with stride u.
        bias: (D,), or None.
        pos: (V, D), embedding of the joints, or None.
        temp: (T / u, D), embedding of the segments, or None.
        ids: (N, K) int64, tokens to embed, in [0, L), L = T / u * V, those of a clip distinct.
            None embeds all L.

    Returns:
        (N, K, D), x's dtype, accumulated in float32 for half types.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, dtypes differ outside autocast, or ``ids`` is not
            int64.
        RuntimeError: an id out of range; on a GPU, where looking would cost a synchronisation, its
            row is the bias.

    Backends: cpu, triton, reference.

    Example:
        >>> x = torch.randn(2, 120, 25, 3)
        >>> ids, mask, _ = motion_mask(x, torch.rand(2, 750))
        >>> masked_patch_embed(x, torch.randn(256, 3, 4, 1), ids=ids).shape
        torch.Size([2, 74, 256])

    Source: Mao et al., MAMP, ICCV 2023, section 3.1.
    """
    name = "masked_patch_embed"
    x, weight, bias, pos, temp = _check.autocast(x, weight, bias, pos, temp)
    _check.tensors(name, x=x, weight=weight, bias=bias, pos=pos, temp=temp)
    _check.shape(name, "x", x, "N T V C")
    N, T, V, C = x.shape
    _check.shape(name, "weight", weight, "D C u 1", C=C, **{"1": 1})
    D, segment = weight.shape[0], weight.shape[2]
    _tokens.count_tokens(name, x, segment)
    if bias is not None:
        _check.shape(name, "bias", bias, "D", D=D)
    if pos is not None:
        _check.shape(name, "pos", pos, "V D", V=V, D=D)
    if temp is not None:
        _check.shape(name, "temp", temp, "T/u D", D=D, **{"T/u": T // segment})
    if ids is not None:
        _tokens.check_integers(name, "ids", ids, x, torch.int64)
        _check.shape(name, "ids", ids, "N K", N=N)
    return _op(x, weight, bias, pos, temp, ids)


def _reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pos: Tensor | None,
    temp: Tensor | None,
    ids: Tensor | None,
) -> Tensor:
    N, V = x.shape[0], x.shape[2]
    patch = _tokens.patches(x, weight.shape[2])
    if ids is None:
        ids = torch.arange(patch.shape[1], device=x.device).expand(N, -1)
    patch = patch[torch.arange(N, device=x.device)[:, None], ids]
    y = torch.einsum("nkjc,dcj->nkd", patch, weight[..., 0])
    for table, row in ((pos, ids % V), (temp, ids // V)):
        y = y if table is None else y + table[row]
    return (y if bias is None else y + bias).contiguous()


def _fake(x, weight, bias, pos, temp, ids):
    N, T, V, _ = x.shape
    tokens = T // weight.shape[2] * V if ids is None else ids.shape[1]
    return x.new_empty(N, tokens, weight.shape[0])


_op = define(
    "masked_patch_embed",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? pos, Tensor? temp, Tensor? ids) -> Tensor",
    _reference,
    fake=_fake,
    grads=("x", "weight", "bias", "pos", "temp"),
    gpu=("triton",),
)
