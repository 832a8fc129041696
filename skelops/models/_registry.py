"""Models by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from skelops import _check
from skelops.graph import Layout, get_layout

_MODELS: dict[str, Callable[..., nn.Module]] = {}


def register_model(name: str) -> Callable:
    """Class or function decorator: make a model known to ``create_model``."""

    def add(model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        _MODELS[name] = model
        return model

    return add


def list_models() -> list[str]:
    """Names for ``create_model``."""
    return sorted(_MODELS)


def create_model(name: str, **kwargs) -> nn.Module:
    """Build a model with freshly initialised weights.

    Args:
        name: one of ``list_models()``.
        kwargs: of the model, e.g. ``num_classes=60, layout="ntu25", base_channels=64``.

    Returns:
        A module (N, C, T, V, M) -> logits (N, num_classes).

    Raises:
        ValueError: an unknown name or layout.

    Example:
        >>> model = create_model("ctr_gcn", num_classes=60, layout="ntu25")
    """
    if name not in _MODELS:
        raise _check.fail("create_model", f"one of {', '.join(list_models())}", repr(name))
    return _MODELS[name](**kwargs)


def graph_of(graph: str | Tensor, layout: str | Layout, published: str = "pyskl") -> Tensor:
    """Adjacency (K, V, V): as given, or a kind of the layout's in the tree of that code base."""
    if isinstance(graph, Tensor):
        return graph
    layout = get_layout(layout)
    parents = layout.graph_parents if published == "pyskl" else layout.parents
    return layout.adjacency(graph, parents=parents)
