"""Readers of published formats: find out what a path holds, open it, read it whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from skelops.data.clips import Clips
from skelops.data.formats import (
    ctrgcn,
    kinetics,
    motion_capture,
    ntu,
    nw_ucla,
    packed,
    pku_mmd,
    pose_estimators,
    pyskl,
    shrec,
    stgcn,
)
from skelops.data.formats._base import FORMATS, Clip, Format, Source, register_format
from skelops.data.store import is_store

__all__ = [
    "FORMATS",
    "Clip",
    "Format",
    "Source",
    "ctrgcn",
    "detect",
    "kinetics",
    "motion_capture",
    "ntu",
    "nw_ucla",
    "open_source",
    "packed",
    "pku_mmd",
    "pose_estimators",
    "pyskl",
    "read",
    "register_format",
    "shrec",
    "stgcn",
]


def detect(path: str | Path) -> Format:
    """The format of a file or directory, by names and first bytes.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no known format, or several; the message lists them.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a file or directory, got nothing")
    found = [format for format in FORMATS.values() if format.recognises(path)]
    if len(found) == 1:
        return found[0]
    got = ", ".join(format.name for format in found) or _look(path)
    raise ValueError(f"{path}: expected one of the formats {', '.join(FORMATS)}, got {got}")


def _look(path: Path) -> str:
    if path.is_dir():
        return "a directory with files of none"
    with path.open("rb") as file:
        start = file.read(8)
    return f"a file that starts with {start!r}" if start else "an empty file"


def open_source(path: str | Path, format: str | None = None, **options: Any) -> Source:
    """Open recordings without reading them all; ``load`` reads one clip.

    Args:
        path: file or directory.
        format: a name in ``FORMATS``. Default: what :func:`detect` finds.
        options: of the format's source.

    Raises:
        FileNotFoundError: nothing is there.
        TypeError: an option that the format does not have.
        ValueError: unknown or damaged; the message names file and place.
    """
    if format is None:
        return detect(path).open(path, **options)
    if format not in FORMATS:
        raise ValueError(f"open_source: expected one of {', '.join(FORMATS)}, got {format!r}")
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: expected a file or directory, got nothing")
    return FORMATS[format].open(path, **options)


def read(path: str | Path, format: str | None = None, **options: Any) -> Clips:
    """Read recordings into memory, or map a clip store. Nothing on disk is changed.

    Args:
        path, format, options: as for :func:`open_source`; a store is known by its first bytes.

    Returns:
        The clips, without those that the format's rules leave out.

    Raises:
        FileNotFoundError: nothing is there.
        TypeError: an option that the format does not have.
        ValueError: unknown or damaged, or no clip is left; the message names file and place.

    Example:
        >>> from skelops.data import read
        >>> read("all_sqe").layout  # doctest: +SKIP
        'nw_ucla20'
    """
    if format is None and is_store(path):
        return Clips.open(path)
    source = open_source(path, format, **options)
    loaded = (source.load(index) for index in range(len(source)))
    clips = [clip for clip in loaded if clip is not None]
    if not clips:
        raise ValueError(f"{path}: expected at least one clip, got none")
    extra = {key: np.array([clip.extra[key] for clip in clips]) for key in clips[0].extra}
    try:
        return Clips(
            np.concatenate([clip.xyz for clip in clips]),
            np.array([len(clip.xyz) for clip in clips]),
            np.array([clip.label for clip in clips]),
            source.classes,
            source.layout,
            name=np.array([clip.name for clip in clips]),
            subject=np.array([clip.subject for clip in clips]),
            view=np.array([clip.view for clip in clips]),
            fps=source.fps,
            extra=extra,
            confidence=source.confidence,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix('Clips: ')}") from error
