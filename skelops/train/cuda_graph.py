"""A network's training pass without the host: CUDA graphs of its forward and its backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class CudaGraphed:
    """Call a network in training by replaying CUDA graphs.

    Networks of this field consist of hundreds of kernels of some microseconds: launching them one
    by one takes the host longer than running them takes the GPU. The graphs are captured at the
    first batch (``torch.cuda.make_graphed_callables``); a batch of another shape or precision, such
    as the last of an epoch, is computed as usual.

    Args:
        network: (N, ...) -> Tensor, in training mode, on one GPU; parameters and buffers must stay
            where they are.

    Example:
        >>> step = CudaGraphed(model)
        >>> cross_entropy(step(x), y).backward()
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.replay: Callable[[Tensor], Tensor] | None = None
        self.key: tuple | None = None

    def __call__(self, x: Tensor) -> Tensor:
        mixed, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = (x.shape, x.dtype, dtype if mixed else None, self.network.training)
        # Replays read the parameters as they are, so that no cast of theirs may be remembered.
        with torch.autocast("cuda", dtype, enabled=mixed, cache_enabled=False):
            if self.replay is None and self.network.training:
                self.replay, self.key = self._capture(x), key
            return self.network(x) if key != self.key else self.replay(x)

    def _capture(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Capture without a trace: the runs that warm up change neither statistics nor seeds."""
        before = [buffer.clone() for buffer in self.network.buffers()]
        with torch.random.fork_rng([x.device]):
            torch.cuda.make_graphed_callables(self.network, (x.clone(),), allow_unused_input=True)
        replay = self.network.__dict__.pop("forward")
        with torch.no_grad():
            for buffer, value in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(value)
        return replay
