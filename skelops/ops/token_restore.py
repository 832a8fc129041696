"""Decoder input: y[n, l] = (z[n, k] if token l is the k-th kept one else m) + pos[v] + temp[t']."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tokens


def token_restore(
    z: Tensor, mask_token: Tensor, ids_restore: Tensor, pos: Tensor, temp: Tensor
) -> Tensor:
    r"""Put the encoded tokens back to their places and a learned vector to all others.

    .. math::
        y_{nl} = \begin{cases} z_{nk} & \text{if } k = ids_{nl} \in [0, K) \\ m & \text{else}
            \end{cases} \;+\; pos_v + temp_{t'}, \qquad l = t'V + v

    One write of the result; published code concatenates, gathers by an index as wide as the
    features and adds twice.

    Args:
        z: (N, K, D) encoded tokens.
        mask_token: (D,).
        ids_restore: (N, L) int64 of :func:`skelops.motion_mask`, L = T' V: place of every token
            among those of ``z``; an id outside of [0, K) stands for a masked token. A place occurs
            once in a clip.
        pos: (V, D), embedding of the joints.
        temp: (T', D), embedding of the segments.

    Returns:
        (N, L, D), z's dtype.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, dtypes differ outside autocast, or
            ``ids_restore`` is not int64.

    Backends: cpu, triton, reference.

    Example:
        >>> x = torch.randn(2, 120, 25, 3)
        >>> ids_keep, mask, ids_restore = motion_mask(x, torch.rand(2, 750))
        >>> z, token = torch.randn(2, 74, 256), torch.zeros(256)
        >>> token_restore(z, token, ids_restore, torch.zeros(25, 256), torch.zeros(30, 256)).shape
        torch.Size([2, 750, 256])

    Source: Mao et al., MAMP, ICCV 2023, section 3.3.
    """
    name = "token_restore"
    z, mask_token, pos, temp = _check.autocast(z, mask_token, pos, temp)
    _check.tensors(name, z=z, mask_token=mask_token, pos=pos, temp=temp)
    _check.shape(name, "z", z, "N K D")
    N, _, D = z.shape
    _check.shape(name, "mask_token", mask_token, "D", D=D)
    _check.shape(name, "pos", pos, "V D", D=D)
    _check.shape(name, "temp", temp, "T' D", D=D)
    _tokens.check_integers(name, "ids_restore", ids_restore, z, torch.int64)
    tokens = {"L": pos.shape[0] * temp.shape[0]}
    _check.shape(name, "ids_restore", ids_restore, "N L", N=N, **tokens)
    return _op(z, mask_token, ids_restore, pos, temp)


def _reference(
    z: Tensor, mask_token: Tensor, ids_restore: Tensor, pos: Tensor, temp: Tensor
) -> Tensor:
    N, K, D = z.shape
    kept = (ids_restore >= 0) & (ids_restore < K)
    tokens = torch.cat([z, mask_token.expand(N, 1, D)], dim=1)
    rows = torch.arange(N, device=z.device)[:, None]
    y = tokens[rows, ids_restore.where(kept, K)]
    return (y + (temp[:, None] + pos).flatten(0, 1)).contiguous()


_op = define(
    "token_restore",
    "(Tensor z, Tensor mask_token, Tensor ids_restore, Tensor pos, Tensor temp) -> Tensor",
    _reference,
    fake=lambda z, mask_token, ids_restore, pos, temp: z.new_empty(
        z.shape[0], ids_restore.shape[1], z.shape[2]
    ),
    grads=("z", "mask_token", "pos", "temp"),
    gpu=("triton",),
)
