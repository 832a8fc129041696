"""Momentum contrast: an encoder, its moving average and a queue of keys."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from skelops import ops


class Features(nn.Module):
    """What a network gives to its head, (N, C, T, V, M) -> (N, ``num_features``).

    Args:
        network: with ``pooled`` and ``out_features``.
        args: further arguments of ``pooled``.
    """

    def __init__(self, network: nn.Module, *args) -> None:
        super().__init__()
        self.network, self.num_features = network, network.out_features
        self.args = args

    def forward(self, x: Tensor) -> Tensor:
        return self.network.pooled(x, *self.args)


class MomentumContrast(nn.Module):
    """Two encoders of one architecture and the queue of what the second, averaged one has seen.

    A step is ``key = contrast.key(view)``, a loss of ``contrast.query(other_view)`` against the key
    and ``contrast.bank``, and after the backward ``contrast.enqueue(key)``, at once or, of the keys
    in ``pending``, by ``end_step``.

    The queue is stored as published, (D, K), with the rows of ``bank`` dense in memory.

    Args:
        query, key: the encoders, (N, C, T, V, M) -> (N, D). The second gets no gradient.
        width: D.
        queue_size: K.
        momentum: of the moving average, by :func:`skelops.momentum_update_`. Buffers follow the
            key encoder's own batches, as published.

    Source: He et al., MoCo, CVPR 2020, section 3.2.
    """

    queue: Tensor
    queue_ptr: Tensor

    def __init__(
        self,
        query: nn.Module,
        key: nn.Module,
        width: int = 128,
        queue_size: int = 32768,
        momentum: float = 0.999,
    ) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = query, key.requires_grad_(False)
        self.momentum = momentum
        self.pending: Tensor | None = None
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, width), dim=1).T)
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))

    @property
    def bank(self) -> Tensor:
        """The queue as (K, D)."""
        return self.queue.T

    def query(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, D) of unit length."""
        return _unit(self.encoder_q(x))

    @torch.no_grad()
    def key(self, x: Tensor, *args) -> Tensor:
        """(N, C, T, V, M) -> (N, D) of unit length, after one step of the moving average.

        ``args``: further arguments of the encoder.
        """
        ops.momentum_update_(self.encoder_k, self.encoder_q, self.momentum)
        return _unit(self.encoder_k(x, *args))

    def enqueue(self, key: Tensor) -> None:
        """Write the keys of all processes over the oldest of the queue."""
        ops.queue_push_(self.bank, self.queue_ptr, gather_rows(key))

    def encoder_loaded(self) -> None:
        """The second encoder follows the first one, which was filled from another run."""
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())

    def end_step(self) -> None:
        """Write the keys of the last step, whose backward is done."""
        if self.training and self.pending is not None:
            self.enqueue(self.pending)
        self.pending = None


def _unit(z: Tensor) -> Tensor:
    return F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)


def gather_rows(x: Tensor) -> Tensor:
    """The rows (N, D) of all processes, in their order; their numbers may differ."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    world = distributed.get_world_size()
    count = torch.tensor([len(x)], device=x.device)
    counts = [torch.empty_like(count) for _ in range(world)]
    distributed.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    padded = F.pad(x, (0, 0, 0, max(sizes) - len(x)))
    found = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(found, padded)
    return torch.cat([rows[:size] for rows, size in zip(found, sizes, strict=True)])
