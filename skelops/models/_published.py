"""Published checkpoints: into a model and back."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skelops import _check
from skelops.graph import get_layout, list_layouts
from skelops.nn import Part, published_parts

# Pairs for ``re.sub``, applied in order to the names that ``published_parts`` gives.
KeyPairs = Sequence[tuple[str, str | Callable[[re.Match], str]]]

# Our modules are nested where the published units are flat.
UNIT_KEYS: KeyPairs = (
    (r"(?<![^.])(graph|temporal|gates|topology)\.", ""),
    (r"\bdown\.conv\b", "down.0"),
    (r"\bdown\.bn\b", "down.1"),
)


def _from_one(match: re.Match) -> str:
    return f"l{int(match[1]) + 1}."


# Blocks l1, l2, ... with units gcn1 and tcn1, as in CTR-GCN and what follows it.
OFFICIAL_BLOCKS: KeyPairs = ((r"^blocks\.(\d+)\.", _from_one), (r"\.(gcn|tcn)\.", r".\g<1>1."))


class LoadReport(NamedTuple):
    """What ``load_published`` found.

    Args:
        missing: published keys of the model that the checkpoint lacks.
        unexpected: keys of the checkpoint that the model does not have.
        skipped: keys left out because the head has another number of classes.
    """

    missing: list[str]
    unexpected: list[str]
    skipped: list[str]


def published_keys(model: nn.Module, pairs: KeyPairs | None = None) -> dict[str, Part]:
    """Published key -> part of ``model.state_dict()``; ``pairs`` defaults to the model's own."""
    pairs = model.published_keys if pairs is None else pairs
    return _renamed(published_parts(model), pairs)


def _renamed(entries: Mapping[str, Any], pairs: KeyPairs) -> dict[str, Any]:
    found = {}
    for name, entry in entries.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        found[name] = entry
    return found


def load_published(
    model: nn.Module, source: Mapping | str | os.PathLike, *, strict: bool = True
) -> LoadReport:
    """Fill a model with a checkpoint of the published implementation.

    Args:
        model: from ``create_model``, of the variant, layout and widths of the checkpoint.
        source: a state_dict, possibly wrapped (``state_dict``, ``model_state_dict``, ``model``) and
            prefixed (``module.``), or the path of one; files are read with ``weights_only=True``.
        strict: raise for keys that are missing or left over, and for a head of another number of
            classes; otherwise these are reported and the head stays as it is.

    Returns:
        LoadReport.

    Raises:
        ValueError: a checkpoint of another joint layout, other shapes, other keys.

    Example:
        >>> model = create_model("ctr_gcn", num_classes=60)
        >>> load_published(model, "ntu60_xsub_joint.pt")
    """
    state = _renamed(read_state(source), getattr(model, "published_aliases", ()))
    parts = published_keys(model)
    _check_layout(model, parts, state)
    skipped = []
    for key, part in parts.items():
        if key in state and tuple(state[key].shape) != part.shape:
            if not re.search(r"(^|\.)fc\.(weight|bias)$", part.source):
                got = _check.shape_text(state[key].shape)
                expected = f"{key} of shape {_check.shape_text(part.shape)}"
                raise _check.fail("load_published", expected, got)
            if strict:
                expected = f"a head of {part.shape[0]} classes (strict=False leaves it as it is)"
                raise _check.fail("load_published", expected, f"{state[key].shape[0]} classes")
            skipped.append(key)
    missing = [key for key in parts if key not in state]
    unexpected = [key for key in state if key not in parts]
    if strict and (missing or unexpected):
        names = {"missing": missing, "unexpected": unexpected}
        got = " and ".join(f"{len(v)} {k} ({v[0]}, ...)" for k, v in names.items() if v)
        raise _check.fail("load_published", f"the keys of {type(model).__name__}", got)
    own = model.state_dict()
    with torch.no_grad():
        for key, part in parts.items():
            if key in state and key not in skipped:
                part.of(own[part.source]).copy_(state[key])
    return LoadReport(missing, unexpected, skipped)


def published_state(model: nn.Module) -> dict[str, Tensor]:
    """The state_dict as the published implementation has it: the inverse of ``load_published``."""
    own = model.state_dict()
    return {key: part.of(own[part.source]).clone() for key, part in published_keys(model).items()}


def read_state(source: Mapping | str | os.PathLike) -> dict[str, Tensor]:
    """The state_dict of a checkpoint, without what it is wrapped in."""
    if not isinstance(source, Mapping):
        source = torch.load(source, map_location="cpu", weights_only=True)
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(source.get(wrapper), Mapping):
            source = source[wrapper]
    return {key.removeprefix("module."): value for key, value in source.items()}


def _check_layout(model: nn.Module, parts: Mapping[str, Part], state: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint whose graphs, or else input normalisation, are those of other joints."""
    layout = getattr(model, "layout", None)
    if layout is None:
        return
    V = joints = layout.num_joints
    shapes = [(part, tuple(state[key].shape)) for key, part in parts.items() if key in state]
    graphs = [got[-1] for part, got in shapes if part.source.split(".")[-1] in ("A", "PA")]
    for part, got in shapes:
        if part.source == "data_bn.weight" and got[0] * V % part.shape[0] == 0:
            joints = got[0] * V // part.shape[0]
    joints = graphs[0] if graphs else joints
    if joints != V:
        named = [name for name in list_layouts() if get_layout(name).num_joints == joints]
        raise _check.fail(
            "load_published",
            f"a checkpoint for {V} joints ({layout.name})",
            f"one for {joints} joints ({' or '.join(named) or 'no registered layout'})",
        )
