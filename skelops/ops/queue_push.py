"""Queue of keys: a ring buffer whose rows are overwritten in the order they came."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check


@torch.no_grad()
def queue_push_(queue: Tensor, pointer: Tensor, keys: Tensor) -> Tensor:
    """Write keys over the oldest rows of a queue, in place and without a copy to the host.

    .. math:: queue_{(p + i) \\bmod K} = keys_i, \\quad p \\leftarrow (p + N) \\bmod K

    Args:
        queue: (K, D), N <= K; written. The keys take its dtype, which may be a half type.
        pointer: () or (1,) int64, the next row to write; advanced. A tensor, so that it is saved
            with the queue and a captured CUDA graph goes on counting.
        keys: (N, D); N may differ from call to call and need not divide K.

    Returns:
        The queue.

    Raises:
        ValueError: shapes do not fit, more keys than rows.
        TypeError: ``pointer`` is not int64.

    Example:
        >>> queue, pointer = torch.zeros(8, 4), torch.zeros(1, dtype=torch.int64)
        >>> queue_push_(queue, pointer, torch.ones(3, 4)).sum().item(), pointer.item()
        (12.0, 3)

    Source: He et al., MoCo, CVPR 2020, section 3.2.
    """
    op = "queue_push_"
    _check.shape(op, "queue", queue, "K D")
    K, D = queue.shape
    _check.shape(op, "keys", keys, "N D", D=D)
    _check_pointer(op, pointer)
    if len(keys) > K:
        raise _check.fail(op, f"at most K={K} keys", len(keys))
    rows = (pointer.view(1) + torch.arange(len(keys), device=queue.device)) % K
    queue.index_copy_(0, rows, keys.detach().to(queue.dtype))
    pointer.add_(len(keys)).remainder_(K)
    return queue


def queue_recent(queue: Tensor, pointer: Tensor, count: int) -> Tensor:
    """The rows written last, (count, D), oldest first.

    Args:
        queue: (K, D).
        pointer: () or (1,) int64, the next row to write.
        count: at most K.

    Raises:
        ValueError: shapes do not fit, a count out of 0..K.
        TypeError: ``pointer`` is not int64.

    Example:
        >>> queue_recent(torch.arange(5.0)[:, None], torch.tensor([1]), 3)[:, 0].tolist()
        [3.0, 4.0, 0.0]
    """
    op = "queue_recent"
    _check.shape(op, "queue", queue, "K D")
    _check_pointer(op, pointer)
    if not 0 <= count <= len(queue):
        raise _check.fail(op, f"count in 0..{len(queue)}", count)
    rows = torch.arange(-count, 0, device=queue.device)
    return queue[(pointer.view(1) + rows) % len(queue)]


def _check_pointer(op: str, pointer: Tensor) -> None:
    if pointer.dtype != torch.int64:
        raise TypeError(f"{op}: expected pointer of dtype torch.int64, got {pointer.dtype}")
    if pointer.numel() != 1:
        raise _check.fail(op, "pointer of one element", _check.shape_text(pointer.shape))
