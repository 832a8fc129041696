"""Frames of videos and of depth maps: the few that a sample shows, each by its number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
MILLIMETRES = 1000  # of a metre


class MediaError(ValueError):
    """A recording that is not there, does not decode, or has other frames than it should."""


def read_video(path: str | Path, index: Sequence[int], *, grey: bool = False) -> np.ndarray:
    """Frames of a video, decoded by PyAV up to the last that is asked for.

    Args:
        path: of the file.
        index: (T,) numbers of the frames, from 0, in any order, also repeated.
        grey: brightness instead of colours.

    Returns:
        (T, H, W, 3) uint8, red, green and blue; with ``grey`` (T, H, W, 1).

    Raises:
        MediaError: a file that does not decode as far as that.
        RuntimeError: PyAV is not installed.
    """
    shown = {}
    with _decoder(path) as (container, stream):
        for i, frame in enumerate(container.decode(stream)):
            if i in index:
                image = frame.to_ndarray(format="gray" if grey else "rgb24")
                shown[i] = image[..., None] if grey else image
            if i == max(index):
                break
    return _in_order(shown, index, path)


def read_depth(path: str | Path, index: Sequence[int]) -> np.ndarray:
    """Depth maps: a folder of PNG files with 16 bits, or an array "depth" (F, H, W) of an npz file.

    Args:
        path: folder, whose files count in the order of their names, or file.
        index: (T,) numbers of the maps, from 0, in any order, also repeated.

    Returns:
        (T, H, W, 1) float32 metres. Integers are millimetres, floating numbers metres.

    Raises:
        MediaError: a damaged file, or one with other contents, or fewer maps.
        RuntimeError: Pillow is not installed.
    """
    path = Path(path)
    if path.is_dir():
        files = _maps(path)
        shown = {i: _png(files[i]) for i in set(index) if i < len(files)}
    else:
        maps = _array(path)
        shown = {i: maps[i] for i in set(index) if i < len(maps)}
    found = _in_order(shown, index, path)
    metres = found if found.dtype.kind == "f" else found / np.float32(MILLIMETRES)
    return metres.astype(np.float32)[..., None]


def count_frames(path: str | Path) -> int:
    """Frames of a video or depth maps of a folder or file, without decoding them.

    Raises:
        MediaError: it cannot be read.
        RuntimeError: PyAV is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return len(_maps(path))
    return _count(path, path.stat().st_mtime_ns) if path.is_file() else _missing(path)


def find_media(folder: str | Path, name: str, *, depth: bool = False) -> Path:
    """The recording of a clip: ``name`` and a suffix of ``VIDEOS``, or with ``depth`` the folder
    ``name`` or ``name.npz``.

    Raises:
        MediaError: there is none.
    """
    suffixes = ("", ".npz") if depth else VIDEOS
    for suffix in suffixes:
        path = Path(folder) / f"{name}{suffix}"
        if path.exists():
            return path
    kinds = "a folder or .npz" if depth else ", ".join(VIDEOS)
    raise MediaError(f"{folder}: expected {kinds} of clip {name}, got none")


def _missing(path: Path) -> Any:
    raise MediaError(f"{path}: expected a recording, got none")


def _in_order(shown: dict[int, np.ndarray], index: Sequence[int], path: str | Path) -> np.ndarray:
    lost = sorted(set(index) - set(shown))
    if lost:
        raise MediaError(f"{path}: expected frame {lost[0]}, got none that decodes")
    sizes = {image.shape for image in shown.values()}
    if len(sizes) > 1:
        raise MediaError(f"{path}: expected frames of one size, got {sorted(sizes)}")
    return np.stack([shown[i] for i in index])


@contextlib.contextmanager
def _decoder(path: str | Path) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError:
        raise RuntimeError("expected PyAV to read videos, got none: pip install av") from None
    try:
        with av.open(str(path)) as container:
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, IndexError, OSError) as error:
        got = str(error) if isinstance(error, av.error.FFmpegError) else "no video"
        raise MediaError(f"{path}: expected a video that decodes, got {got}") from None


@lru_cache(maxsize=1 << 16)
def _count(path: Path, stamp: int) -> int:
    if path.suffix == ".npz":
        return len(_array(path))
    with _decoder(path) as (container, stream):
        return stream.frames or sum(packet.size > 0 for packet in container.demux(stream))


def _maps(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.png"))
    if not files:
        raise MediaError(f"{folder}: expected depth maps as .png, got none")
    return files


def _png(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError:
        raise RuntimeError("expected Pillow to read PNG, got none: pip install pillow") from None
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(f"{path}: expected a PNG that decodes, got {error}") from None
    if not image.mode.startswith("I"):
        raise MediaError(f"{path}: expected a depth map of 16 bits, got mode {image.mode}")
    return np.asarray(image)


def _array(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            maps = file["depth"]
    except Exception as error:  # a damaged archive raises whatever its reader trips over
        raise MediaError(f"{path}: expected an array depth, got {error}") from None
    if maps.ndim != 3 or maps.dtype.kind not in "uif":
        raise MediaError(f"{path}: expected depth of numbers (F, H, W), got {maps.shape}")
    return maps


READERS: dict[str, Callable[[str | Path, Sequence[int]], np.ndarray]] = {
    "rgb": read_video,
    "infrared": lambda path, index: read_video(path, index, grey=True),
    "depth": read_depth,
}
