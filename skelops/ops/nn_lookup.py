"""Nearest neighbour of other samples in a queue: idx[n] = argmax_k z[n] . Q[k], id[k] != ids[n]."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def nn_lookup(z: Tensor, queue: Tensor, queue_id: Tensor, ids: Tensor) -> Tensor:
    r"""The most similar entry of a queue that is not of the sample itself.

    .. math:: idx_n = \arg\max_k \begin{cases} -1 & id_k = ids_n \\ z_n \cdot Q_k & \text{else}
        \end{cases}

    The queue is read once, in tiles: no similarity is written. Of equal similarities the first
    wins; one that is not a number never does. Half types are multiplied as they are and summed in
    float32, in an autocast region too. No gradient flows.

    Args:
        z: (N, D), rows of unit norm.
        queue: (K, D) likewise.
        queue_id: (K,) int64, the sample that each entry is of; -1 for none.
        ids: (N,) int64.

    Returns:
        (N,) int64.

    Raises:
        ValueError: shapes do not fit, an empty queue, or tensors are on different devices.
        TypeError: tensors are not floating point or of different dtypes, ids not int64.

    Backends: cpu, triton, reference.

    Example:
        >>> z, Q = (F.normalize(torch.randn(n, 256)) for n in (32, 32768))
        >>> nn_lookup(z, Q, torch.arange(32768), torch.arange(32)).shape
        torch.Size([32])

    Source: Mehraban et al., STARS, arXiv 2407.10935, section 3; Dwibedi et al., NNCLR, ICCV 2021.
    """
    name = "nn_lookup"
    _check.tensors(name, z=z, queue=queue)
    _check.shape(name, "z", z, "N D")
    _check.shape(name, "queue", queue, "K D", D=z.shape[1])
    if queue.shape[0] == 0:
        raise _check.fail(name, "a queue of at least one entry", _check.shape_text(queue.shape))
    check_ids(name, z, queue_id=(queue_id, queue.shape[0]), ids=(ids, z.shape[0]))
    return _op(z.detach(), queue.detach(), queue_id, ids)


def check_ids(op: str, like: Tensor, **named: tuple[Tensor, int]) -> None:
    """int64 vectors of given lengths on a tensor's device."""
    for name, (ids, size) in named.items():
        if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
            got = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise TypeError(f"{op}: expected {name} of dtype torch.int64, got {got}")
        if ids.shape != (size,):
            raise _check.fail(op, f"{name} of shape ({size},)", _check.shape_text(ids.shape))
        if ids.device != like.device:
            raise _check.fail(op, f"{name} on device {like.device}", ids.device)


def _reference(z, queue, queue_id, ids):
    compute = torch.float64 if z.dtype == torch.float64 else torch.float32
    with torch.autocast(z.device.type, enabled=False):
        similarity = z.to(compute) @ queue.to(compute).T
    similarity = similarity.masked_fill(queue_id == ids[:, None], -1)
    return similarity.masked_fill(similarity.isnan(), -torch.inf).argmax(1)


def _fake(z, queue, queue_id, ids):
    return torch.empty_like(ids, memory_format=torch.contiguous_format)


_op = define(
    "nn_lookup",
    "(Tensor z, Tensor queue, Tensor queue_id, Tensor ids) -> Tensor",
    _reference,
    fake=_fake,
    grads=(),
    gpu=("triton",),
)
