"""What a reader of a published format offers: a source of clips, loaded one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Clip:
    """One recorded clip as a reader returns it.

    Args:
        xyz: (T, M, V, C) float32, T >= 1; all zero where a person was not detected. With
            confidence, it is the last channel.
        label: class, an index into the classes of the source.
        name: name of the clip, unique in its source.
        subject: 1-based performer.
        view: 1-based camera.
        extra: further numbers or strings of the clip; the same keys in all clips of a source.
    """

    xyz: np.ndarray
    label: int
    name: str
    subject: int = 1
    view: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Clips on disk in a published format; opening lists them, ``load`` reads one.

    A source is pickled into worker processes, so it holds paths and small tables, never open files.
    """

    layout: str
    classes: tuple[str, ...]
    num_persons: int
    channels: int
    confidence: bool  # the last channel is a score in [0, 1]
    fps: float | None

    def __len__(self) -> int: ...

    def load(self, index: int) -> Clip | None:
        """One clip, or None where the format's published rules leave it out.

        Raises:
            ValueError: damaged content; the message names file and place.
        """


@dataclass(frozen=True)
class Format:
    """A format: how to recognise and how to open it."""

    name: str
    describes: str  # one line for the command line's help
    recognises: Callable[[Path], bool]  # looks at a path (file or directory) without reading it all
    open: Callable[..., Source]  # (path, **options) -> Source


FORMATS: dict[str, Format] = {}


def register_format(format: Format) -> Format:
    """Make a format known to ``read``, ``convert`` and the command line; returns it."""
    FORMATS[format.name] = format
    return format
