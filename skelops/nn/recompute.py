"""Tensors that are computed again for a backward rather than kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def recomputed(
    y: Tensor, again: Callable[[], Tensor] | None
) -> AbstractContextManager[object, bool | None]:
    """Where a backward would keep y, it calls ``again`` for it.

    Args:
        y: within the context, used as it is.
        again: () -> y; None: y is kept.
    """
    if again is None:
        return nullcontext()
    place, shape = y.untyped_storage()._cdata, y.shape
    # Hooks replace those around them, e.g. of checkpoints: the other tensors go to these.
    around = torch._C._autograd._top_saved_tensors_default_hooks(True)
    keep, give = around if around else (_same, _same)

    def pack(t: Tensor) -> tuple[bool, object]:
        same = t.untyped_storage()._cdata == place and t.shape == shape
        return same, None if same else keep(t)

    def unpack(packed: tuple[bool, object]) -> Tensor:
        same, other = packed
        if not same:
            return give(other)
        with torch.no_grad():
            return again()

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _same(t: Tensor) -> Tensor:
    return t
