"""Convert recordings in a published format into a clip store, as a stream."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from skelops.data.store import ClipWriter

if TYPE_CHECKING:
    from skelops.data.formats._base import Clip, Source

ON_ERROR = ("raise", "skip")
_BATCH = 16  # clips per message between processes


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` did.

    Args:
        clips: clips written.
        frames: frames written.
        left_out: clips that the format's published rules leave out.
        skipped: why each damaged clip was skipped.
    """

    clips: int
    frames: int
    left_out: int
    skipped: tuple[str, ...]


def convert(
    source: Source,
    out: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    dtype: str = "float32",
    on_error: str = "raise",
    overwrite: bool = False,
) -> Conversion:
    """Write all clips of a source to a store, read in parallel and in order.

    The store does not depend on the number of workers. Some dozen clips per worker are in memory at
    a time. Whatever stops the conversion, no store is left behind.

    Args:
        source: the clips, see :func:`skelops.data.formats.open_source`.
        out: the store.
        workers: reading processes, 0 for none. Default: one per core of this process.
        progress: show a bar where tqdm is installed.
        dtype: "float32" or "float16", of the coordinates in the store.
        on_error: "raise", or "skip" damaged clips and report them.
        overwrite: replace a store that is there.

    Returns:
        Counts, and why clips were skipped.

    Raises:
        FileExistsError: ``out`` is there.
        ValueError: an argument out of range, a damaged clip (named, with its place), or no clip.
        OSError: a file could not be read, or the disk is full.
        RuntimeError: a reading process was killed, for example for want of memory.

    Example:
        >>> from skelops.data import convert
        >>> from skelops.data.formats import open_source
        >>> convert(open_source("nturgb+d_skeletons"), "ntu.clips")  # doctest: +SKIP
        Conversion(clips=56578, frames=4773093, left_out=302, skipped=())
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"convert: expected on_error in {ON_ERROR}, got {on_error!r}")
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if workers < 0:
        raise ValueError(f"convert: expected workers >= 0, got {workers}")
    left_out, skipped, frames = 0, [], 0
    writer = ClipWriter(
        out,
        layout=source.layout,
        classes=source.classes,
        num_persons=source.num_persons,
        channels=source.channels,
        confidence=source.confidence,
        dtype=dtype,
        fps=source.fps,
        source=type(source).__name__,
        overwrite=overwrite,
    )
    try:
        with writer, _bar(len(source), progress) as bar:
            for clip in _load_all(source, min(workers, -(-len(source) // _BATCH))):
                bar.update()
                if clip is None:
                    left_out += 1
                    continue
                error = clip if isinstance(clip, Exception) else None
                if error is None:
                    try:
                        writer.add(clip)
                        frames += len(clip.xyz)
                    except ValueError as refused:
                        error = refused
                if error is not None:
                    if on_error == "raise":
                        raise error
                    skipped.append(str(error))
    except RuntimeError as error:  # at any point: the death of a process interrupts its parent
        raise RuntimeError(
            f"convert: expected the reading processes to live, got, after {len(writer)} clips: "
            f"{error}"
        ) from error
    return Conversion(len(writer), frames, left_out, tuple(skipped))


class _Loaded(Dataset):
    """What a source loads: a clip, None, or the error that tells why there is none."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Clip | Exception | None:
        try:
            return self.source.load(index)
        except (ValueError, OSError) as error:
            return error


def _load_all(source: Source, workers: int) -> Iterator[Clip | Exception | None]:
    """Clips in order, read ahead by two batches per worker."""
    loaded = DataLoader(
        _Loaded(source),
        batch_size=_BATCH,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=_leave_interrupts_to_the_parent,
        generator=torch.Generator(),  # the state of the global one stays as it is
    )
    for batch in loaded:
        yield from batch


def _as_is(clip: Any) -> Any:
    return clip


def _leave_interrupts_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _NoBar(contextlib.nullcontext):
    def __enter__(self) -> _NoBar:
        return self

    def update(self) -> None:
        pass


def _bar(total: int, progress: bool) -> Any:
    if progress:
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            return tqdm(total=total, unit="clip")
    return _NoBar()
