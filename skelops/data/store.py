"""The clip store: one file per data set, memory-mapped; written as a stream, all or nothing.

::

    0       64 bytes: magic, format version, place, size and CRC-32 of the header, CRC-32 of the 60
            bytes before it; all little-endian
    4096    arrays, each at a multiple of 4096 bytes, with zeros in between: "xyz" (F, M, V, C),
            "present" (F, M), then per clip "length", "label", "name" (UCS-4), "subject", "view" and
            "extra/<key>"
    end     header: JSON with layout, classes, fps, confidence, number of clips, what was converted
            and by which version, and for each array dtype, shape, place and the CRC-32 of every
            64 MiB
"""

from __future__ import annotations

import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from skelops.data.clips import PER_CLIP, Clips, find_not_finite, find_present, in_clip
from skelops.graph import Layout, get_layout, list_layouts, register_layout

if TYPE_CHECKING:
    from skelops.data.formats._base import Clip

MAGIC = b"SKELCLIP"
SKELETON = ("parents", "joint_names")  # of the layout, for who does not know it
VERSION = 1
PREAMBLE = struct.Struct("<8sIIQQI24xI")  # magic, version, 0, header at, its size, its CRC, own CRC
ALIGN = 4096
BLOCK = 64 << 20  # bytes per checksum
_MOST_HEADER = 256 << 20
DTYPES = ("float32", "float16")


class ClipWriter:
    """Write a store clip by clip; the file appears under its name when it is complete.

    The clips go to a hidden temporary file in the same directory, which is flushed to the disk and
    renamed at the end; an exception removes it. A killed process leaves ``.NAME.*.partial``.

    Args:
        path: the store.
        layout: name of the joint layout.
        classes: class names.
        num_persons: persons M per frame; clips with fewer are filled with zeros.
        channels: C, coordinates and, with ``confidence``, the score.
        num_joints: V. Default: that of the layout.
        confidence: the last channel is a score.
        dtype: "float32" or "float16", of the coordinates on disk.
        fps: frame rate in Hz, None if unknown.
        source: what the clips were read from, for people.
        overwrite: replace a file that is there.

    Raises:
        FileExistsError: the file is there.
        ValueError: an argument out of range; see also :meth:`add`.
        OSError: the disk is full; nothing is left of the store.

    Example:
        >>> import numpy as np, tempfile
        >>> from skelops.data import Clips, ClipWriter
        >>> from skelops.data.formats._base import Clip
        >>> path = tempfile.mkdtemp() + "/walks.clips"
        >>> with ClipWriter(path, layout="ntu25", classes=["walk"], num_persons=1) as writer:
        ...     writer.add(Clip(np.ones((30, 1, 25, 3), np.float32), label=0, name="first"))
        >>> Clips.open(path).xyz.shape
        (30, 1, 25, 3)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        layout: str,
        classes: Iterable[str],
        num_persons: int,
        channels: int = 3,
        num_joints: int | None = None,
        confidence: bool = False,
        dtype: str = "float32",
        fps: float | None = None,
        source: str = "",
        overwrite: bool = False,
    ) -> None:
        self.path, self.overwrite = Path(path), overwrite
        self.layout, self.classes = layout, tuple(map(str, classes))
        self.confidence, self.fps, self.source = bool(confidence), fps, source
        if str(np.dtype(dtype)) not in DTYPES:
            raise _fail(f"dtype in {DTYPES}", repr(dtype))
        self.dtype = np.dtype(dtype).newbyteorder("<")
        joints = get_layout(layout).num_joints if num_joints is None else num_joints
        self.shape = (num_persons, joints, channels)
        if num_persons < 1 or joints < 1 or channels - self.confidence < 1:
            raise _fail("at least one person, joint and coordinate", self.shape)
        self._refuse_existing()
        self._clips: dict[str, list] = {key: [] for key in PER_CLIP}
        self._extra: dict[str, list[np.ndarray]] = {}
        self._index: dict[str, int] = {}
        self._present: list[np.ndarray] = []
        self._entries: list[dict[str, Any]] = []
        self._partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}.partial")
        self._file: IO[bytes] | None = self._partial.open("xb", buffering=1 << 20)
        self._file.write(bytes(ALIGN))
        self._xyz = _ArrayStream(self._file)

    def _refuse_existing(self) -> None:
        if not self.overwrite and self.path.exists():
            raise FileExistsError(f"{self.path}: expected a new file (overwrite=True replaces it)")

    def __len__(self) -> int:
        return len(self._index)

    def add(self, clip: Clip, present: np.ndarray | None = None) -> None:
        """Append a clip.

        Args:
            clip: what a source loads; its coordinates are (T, M' <= M, V, C).
            present: (T, M') bool, whether a person was detected. Default: where any coordinate of
                the person is not zero.

        Raises:
            ValueError: a clip without a frame, with too many persons, other joints or channels, a
                label out of range, a name that is taken, or coordinates that are not finite (in the
                dtype of the store); nothing of it is written and the writer can go on.
            OSError: the disk is full; the writer is closed and its file removed.
        """
        if self._file is None:
            raise RuntimeError(f"{self.path}: expected an open ClipWriter, got a closed one")
        where = f"clip {len(self)} ({clip.name})"
        xyz, present = self._coordinates(clip, present, where)
        values = self._values(clip, len(xyz), where)
        try:
            self._xyz.write(xyz)
        except BaseException:
            self.abort()
            raise
        self._index[clip.name] = len(self)
        self._present.append(np.packbits(present))
        for key, value in zip(PER_CLIP, values, strict=True):
            self._clips[key].append(value)
        for key, value in clip.extra.items():
            self._extra.setdefault(key, []).append(np.asarray(value))

    def _coordinates(
        self, clip: Clip, present: np.ndarray | None, where: str
    ) -> tuple[np.ndarray, np.ndarray]:
        persons, joints, channels = self.shape
        xyz = np.asarray(clip.xyz)
        if xyz.ndim != 4 or xyz.dtype.kind != "f":
            raise _fail(f"floating xyz (T, M, V, C) in {where}", f"{xyz.dtype} {xyz.shape}")
        if len(xyz) < 1:
            raise _fail(f"at least one frame in {where}", "none")
        if xyz.shape[1] > persons:
            raise _fail(f"at most {persons} persons in {where}", xyz.shape[1])
        if xyz.shape[2:] != (joints, channels):
            expected = f"{joints} joints of {channels} channels in {where}"
            raise _fail(expected, f"{xyz.shape[2]} of {xyz.shape[3]}")
        if present is None:
            present = find_present(xyz, channels - self.confidence)
        elif present.shape != xyz.shape[:2]:
            raise _fail(f"present of shape {xyz.shape[:2]} in {where}", present.shape)
        with np.errstate(over="ignore"):
            stored = xyz.astype(self.dtype)
        if (bad := find_not_finite(stored)) is not None:
            expected = f"finite {self.dtype.name} coordinates"
            raise _fail(expected, f"{xyz[bad]} in {where}, {in_clip(bad)}")
        absent = ((0, 0), (0, persons - xyz.shape[1]))
        return np.pad(stored, (*absent, (0, 0), (0, 0))), np.pad(present, absent)

    def _values(self, clip: Clip, frames: int, where: str) -> tuple[int, int, str, int, int]:
        if not isinstance(clip.name, str) or not clip.name or "\0" in clip.name:
            raise _fail(f"a name in {where}", repr(clip.name))
        if clip.name in self._index:
            taken = f"the name of clip {self._index[clip.name]}"
            raise _fail("unique names", f"{taken} again in {where}")
        if not isinstance(clip.label, int | np.integer) or not 0 <= clip.label < len(self.classes):
            expected = f"a label in 0..{len(self.classes) - 1}"
            raise _fail(expected, f"{clip.label} in {where}")
        if len(self) and set(clip.extra) != set(self._extra):
            expected = f"extra values {sorted(self._extra)} in {where}"
            raise _fail(expected, sorted(clip.extra))
        for key, value in clip.extra.items():
            value = np.asarray(value)
            like = self._extra[key][0] if len(self) else value
            if value.dtype.kind not in "biufU" or "/" in key:
                raise _fail(f"a number or a string as extra {key!r} in {where}", value.dtype)
            if (value.dtype.kind, value.shape) != (like.dtype.kind, like.shape):
                expected = f"extra {key!r} of {like.dtype} {like.shape} in {where}"
                raise _fail(expected, f"{value.dtype} {value.shape}")
        return frames, int(clip.label), clip.name, int(clip.subject), int(clip.view)

    def close(self) -> None:
        """Complete the store: after this it is under its name, on the disk.

        Raises:
            ValueError: no clip was added.
            FileExistsError: the file has appeared meanwhile.
            OSError: the disk is full.
            RuntimeError: closed or aborted before.
        """
        if self._file is None:
            raise RuntimeError(f"{self.path}: expected an open ClipWriter, got a closed one")
        try:
            if not len(self):
                raise ValueError(f"{self.path}: expected at least one clip, got none")
            self._write_metadata(self._file)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._refuse_existing()
            os.replace(self._partial, self.path)
            self._file = None
        except BaseException:
            self.abort()
            raise
        _sync_directory(self.path.parent)

    def _write_metadata(self, file: IO[bytes]) -> None:
        frames = sum(self._clips["length"])
        self._entries.append(self._xyz.entry("xyz", self.dtype, (frames, *self.shape)))
        stream, persons = _ArrayStream(file), self.shape[0]
        for bits, length in zip(self._present, self._clips["length"], strict=True):
            stream.write(np.unpackbits(bits, count=length * persons))
        self._entries.append(stream.entry("present", np.dtype(bool), (frames, persons)))
        self._write_array("length", np.array(self._clips["length"], "<i8"))
        self._write_array("label", np.array(self._clips["label"], "<i8"))
        self._write_array("name", np.array(self._clips["name"]))
        self._write_array("subject", np.array(self._clips["subject"], "<i8"))
        self._write_array("view", np.array(self._clips["view"], "<i8"))
        for key, values in self._extra.items():
            self._write_array(f"extra/{key}", np.stack(values))
        from skelops import __version__

        skeleton = None
        if self.layout in list_layouts():
            skeleton = {key: getattr(get_layout(self.layout), key) for key in SKELETON}
        write_header(file, {
            "layout": self.layout,
            "skeleton": skeleton,
            "classes": self.classes,
            "fps": self.fps,
            "confidence": self.confidence,
            "clips": len(self),
            "source": self.source,
            "written_by": f"skelops {__version__}",
            "arrays": self._entries,
        })  # fmt: skip

    def _write_array(self, name: str, array: np.ndarray) -> None:
        assert self._file is not None
        if array.dtype == "<U0":
            array = array.astype("<U1")
        array = array.astype(array.dtype.newbyteorder("<"))
        stream = _ArrayStream(self._file)
        stream.write(array)
        self._entries.append(stream.entry(name, array.dtype, array.shape))

    def abort(self) -> None:
        """Give up: close and remove the temporary file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _ArrayStream:
    """The bytes of one array on their way to the file, with a checksum for every block."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        file.write(bytes(-file.tell() % ALIGN))
        self.offset, self.size = file.tell(), 0
        self.crc32: list[int] = []

    def write(self, array: np.ndarray) -> None:
        left = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        while len(left):
            room = BLOCK - self.size % BLOCK
            if room == BLOCK:
                self.crc32.append(0)
            part, left = left[:room], left[room:]
            self.crc32[-1] = zlib.crc32(part, self.crc32[-1])
            self.file.write(part)
            self.size += len(part)

    def entry(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "name": name,
            "dtype": dtype.str,
            "shape": shape,
            "offset": self.offset,
            "crc32": self.crc32,
        }


def _fail(expected: str, got: object) -> ValueError:
    return ValueError(f"ClipWriter: expected {expected}, got {got}")


def write_header(file: IO[bytes], header: dict[str, Any]) -> None:
    """Append the header and fill in the preamble that points to it."""
    text, at = json.dumps(header).encode(), file.tell()
    file.write(text)
    fields = PREAMBLE.pack(MAGIC, VERSION, 0, at, len(text), zlib.crc32(text), 0)
    file.seek(0)
    file.write(fields[:-4] + struct.pack("<I", zlib.crc32(fields[:-4])))
    file.seek(0, os.SEEK_END)


def _sync_directory(path: Path) -> None:
    """Put a rename on the disk, where the system can."""
    with suppress(OSError):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a store, checked against the size of the file.

    The header as written, and ``stamp``, its checksum, which tells apart the stores that one path
    has held.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no store, a newer version, truncated or damaged; the message names the file.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(PREAMBLE.size)
        if head[: len(MAGIC)] != MAGIC:
            got = f"a file that starts with {head[:8]!r}" if head else "an empty file"
            raise ValueError(f"{path}: expected a clip store, got {got}")
        if len(head) < PREAMBLE.size:
            raise ValueError(f"{path}: expected {PREAMBLE.size} bytes or more, got {size}")
        _, version, _, at, length, stamp, own = PREAMBLE.unpack(head)
        if version > VERSION:
            raise ValueError(
                f"{path}: expected a clip store of version {VERSION} or older, got version "
                f"{version}: a newer skelops wrote it"
            )
        if own != zlib.crc32(head[:-4]):
            raise ValueError(f"{path}: expected checksum {own:08x} of the first 60 bytes, "
                             f"got {zlib.crc32(head[:-4]):08x}")  # fmt: skip
        if size != at + length or length > _MOST_HEADER:
            raise ValueError(f"{path}: expected {at + length} bytes, got {size}")
        file.seek(at)
        text = file.read(length)
    if stamp != zlib.crc32(text):
        raise ValueError(f"{path}: expected checksum {stamp:08x} of the header in bytes "
                         f"{at}..{size}, got {zlib.crc32(text):08x}")  # fmt: skip
    try:
        header = json.loads(text)
        _check_header(header, at)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: expected a header of a clip store, got {error!r}") from error
    return {**header, "stamp": stamp, "arrays": {e["name"]: e for e in header["arrays"]}}


def _check_header(header: dict[str, Any], end: int) -> None:
    """Dtypes and shapes that belong together, in arrays that fill the file up to the header."""
    shapes: dict[str, tuple[int, ...]] = {}
    place = PREAMBLE.size
    for entry in header["arrays"]:
        name, kind = entry["name"], np.dtype(entry["dtype"]).kind
        shape, offset = tuple(entry["shape"]), entry["offset"]
        if kind not in "biufU" or any(type(n) is not int or n < 0 for n in (*shape, offset)):
            raise ValueError(f"{entry['dtype']} {shape} at {offset} in array {name!r}")
        if len(entry["crc32"]) != -(-_nbytes(entry) // BLOCK):
            raise ValueError(f"{len(entry['crc32'])} checksums of array {name!r}")
        if offset != -(-place // ALIGN) * ALIGN:
            raise ValueError(f"array {name!r} at {offset}")
        shapes[name], place = shape, offset + _nbytes(entry)
    if place != end:
        raise ValueError(f"arrays up to {place}, the header at {end}")
    clips, (frames, persons, V, channels) = header["clips"], shapes["xyz"]
    whole = {"xyz": shapes["xyz"], "present": (frames, persons)} | {k: (clips,) for k in PER_CLIP}
    for name, shape in whole.items():
        if shapes[name] != shape:
            raise ValueError(f"shape {shapes[name]} of {name!r} instead of {shape}")
    dtypes = {entry["name"]: entry["dtype"] for entry in header["arrays"]}
    wanted = {"xyz": ("<f4", "<f2"), "present": ("|b1",), "name": (f"<U{dtypes['name'][2:]}",)}
    for name in whole:
        if dtypes[name] not in wanted.get(name, ("<i8",)):
            raise ValueError(f"{dtypes[name]} of {name!r}")
    names = [header["layout"], *header["classes"]]
    if type(header["classes"]) is not list or any(type(name) is not str for name in names):
        raise ValueError(f"layout and class names {names}")
    if header.get("skeleton") is not None:
        parents, joints = (header["skeleton"][key] for key in SKELETON)
        if not len(parents) == len(joints) == V or not all(0 <= int(p) < V for p in parents):
            raise ValueError(f"a skeleton of {len(parents)} parents and {len(joints)} joint names")
    if type(header["confidence"]) is not bool or channels <= header["confidence"]:
        raise ValueError(f"confidence {header['confidence']} of {channels} channels")
    if header["fps"] is not None:
        float(header["fps"])


def _nbytes(entry: dict[str, Any]) -> int:
    count = np.dtype(entry["dtype"]).itemsize
    for n in entry["shape"]:
        count *= n
    return count


def is_store(path: str | Path) -> bool:
    """Whether a path is a file that starts like a clip store."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_store(path: str | Path) -> Clips:
    """Map a store; nothing but its header is read, everything else on first use.

    Args:
        path: a file that :class:`ClipWriter` or :meth:`Clips.save` has written.

    Returns:
        Clips whose arrays are read-only maps. They were checked when they were written;
        :func:`verify` checks them again.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no clip store, a newer version of it, truncated or damaged.
    """
    path = Path(path).resolve()
    header = read_header(path)
    raw = np.memmap(path, np.uint8, "r").view(np.ndarray)
    arrays = {
        name: raw[entry["offset"] : entry["offset"] + _nbytes(entry)]
        .view(entry["dtype"])
        .reshape(entry["shape"])
        for name, entry in header["arrays"].items()
    }
    skeleton = header.get("skeleton")
    if skeleton is not None and header["layout"] not in list_layouts():
        register_layout(Layout(header["layout"], **{k: tuple(skeleton[k]) for k in SKELETON}))
    return Clips._trusted(
        **{name: arrays[name] for name in ("xyz", "present", *PER_CLIP)},
        extra={k.removeprefix("extra/"): v for k, v in arrays.items() if k.startswith("extra/")},
        classes=tuple(header["classes"]),
        path=path,
        **{key: header[key] for key in ("layout", "fps", "confidence", "stamp")},
    )


def reopen_store(path: Path, stamp: int) -> Clips:
    """Open the store that a pickled :class:`Clips` was, and no other.

    Raises:
        ValueError: another store has taken its place.
    """
    clips = open_store(path)
    if clips.stamp != stamp:
        raise ValueError(f"{path}: expected store {stamp:08x}, got {clips.stamp:08x}: replaced")
    return clips


def save_store(clips: Clips, path: str | Path, *, overwrite: bool = False) -> None:
    """Write clips to a store as they are, see :meth:`Clips.save`."""
    from skelops.data.formats._base import Clip

    writer = ClipWriter(
        path,
        layout=clips.layout,
        classes=clips.classes,
        num_persons=clips.num_persons,
        num_joints=clips.num_joints,
        channels=clips.xyz.shape[3],
        confidence=clips.confidence,
        dtype=clips.xyz.dtype.name,
        fps=clips.fps,
        overwrite=overwrite,
    )
    with writer:
        for i in range(len(clips)):
            clip = Clip(
                clips[i],
                int(clips.label[i]),
                str(clips.name[i]),
                int(clips.subject[i]),
                int(clips.view[i]),
                {key: value[i] for key, value in clips.extra.items()},
            )
            writer.add(clip, clips.present[clips.offset[i] : clips.offset[i + 1]])


def verify(path: str | Path) -> None:
    """Read a whole store once: every checksum, and all that its writer had checked.

    Args:
        path: the store; memory stays below 256 MiB plus the per-clip arrays.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the store is damaged; the message names the array and the range of bytes, or
            the clip.
    """
    path = Path(path)
    clips = open_store(path)
    bad, end = None, PREAMBLE.size
    with path.open("rb", buffering=0) as file:
        for entry in read_header(path)["arrays"].values():
            if _read(path, file, end, entry["offset"] - end).any():
                raise ValueError(f"{path}: expected zeros in bytes {end}..{entry['offset']}")
            end = entry["offset"] + _nbytes(entry)
            for start, block in _read_blocks(path, file, entry):
                if entry["name"] == "present" and block.max(initial=0) > 1:
                    raise ValueError(f"{path}: expected 0 or 1 in 'present', got {block.max()}")
                if entry["name"] == "xyz" and bad is None:
                    values = block.view(entry["dtype"])
                    finite = np.isfinite(values)
                    if not finite.all():
                        bad = start // values.itemsize + int(np.argmin(finite))
    try:
        clips.check_metadata()
        if bad is not None:
            index = tuple(map(int, np.unravel_index(bad, clips.xyz.shape)))
            got = f"{clips.xyz[index]} in {clips.place(index)}"
            raise ValueError(f"expected finite coordinates, got {got}")
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix('Clips: ')}") from error


def _read_blocks(
    path: Path, file: IO[bytes], entry: dict[str, Any]
) -> Iterator[tuple[int, np.ndarray]]:
    """(start within the array, bytes) of every block, its checksum compared."""
    size = _nbytes(entry)
    for k, expected in enumerate(entry["crc32"]):
        start = k * BLOCK
        block = _read(path, file, entry["offset"] + start, min(BLOCK, size - start))
        got = zlib.crc32(block)
        if got != expected:
            begin = entry["offset"] + start
            raise ValueError(
                f"{path}: expected checksum {expected:08x} of array {entry['name']!r} in bytes "
                f"{begin}..{begin + len(block)}, got {got:08x}"
            )
        yield start, block


def _read(path: Path, file: IO[bytes], start: int, size: int) -> np.ndarray:
    file.seek(start)
    data = np.empty(size, np.uint8)
    got, view = 0, memoryview(data)
    while got < size and (count := file.readinto(view[got:])):  # type: ignore[attr-defined]
        got += count
    if got < size:
        raise ValueError(f"{path}: expected bytes {start}..{start + size}, got {got} of them")
    return data
