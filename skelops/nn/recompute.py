"""Tensors that are computed again for a backward rather than kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def recomputed(
    y: Tensor, again: Callable[[], Tensor] | None = None
) -> AbstractContextManager[object, bool | None]:
    """Where a backward would keep y, it computes it again: once for all who ask in turn.

    Args:
        y: within the context, used as it is or as a view of all of it.
        again: () -> y. By default what made y knows (``grad_fn.again``), from what it keeps for
            its own backward; where nothing does, and while a program is traced, y is kept.
    """
    again = again or _by_node(y)
    if again is None:
        return nullcontext()
    place, size = y.untyped_storage()._cdata, y.numel()
    found: Tensor | None = None
    uses = left = 0
    # Hooks replace those around them, e.g. of checkpoints: the other tensors go to these.
    around = torch._C._autograd._top_saved_tensors_default_hooks(True)
    keep, give = around if around else (_same, _same)

    def pack(t: Tensor) -> tuple[bool, Any]:
        nonlocal uses
        same = t.untyped_storage()._cdata == place and t.numel() == size and t.is_contiguous()
        uses += same
        return same, t.shape if same else keep(t)

    def unpack(packed: tuple[bool, Any]) -> Tensor:
        nonlocal found, left
        same, other = packed
        if not same:
            return give(other)
        if found is None:
            left = uses
            with torch.no_grad():
                found = again()
        t, left = found.view(other), left - 1
        if not left:
            found = None
        return t

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _by_node(y: Tensor) -> Callable[[], Tensor] | None:
    node: Any = None if torch.compiler.is_compiling() else y.grad_fn
    again = getattr(node, "again", None)
    return again and (lambda: again(node))


def _same(t: Tensor) -> Tensor:
    return t
