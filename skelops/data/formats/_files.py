"""What readers share: json, text, arrays and class names, clips one per file, choice of persons."""

from __future__ import annotations

import csv
import json
import operator
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from skelops.graph import get_layout, list_layouts

MAX_FRAMES = 100_000  # of a clip whose frames are numbered: a number beyond is damage
MAX_CLASSES = 100_000
_NPY = np.lib.format
_NTU_NAME = re.compile(r"S\d{3}C(\d{3})P(\d{3})R\d{3}A\d{3}")


@contextmanager
def readable(path: str | Path, what: str) -> Iterator[None]:
    """Whatever a library raises about a damaged file becomes a ValueError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ValueError(f"{path}: expected {what}, got {got}") from error


def some_files(path: Path, ending: str) -> list[Path]:
    """A file if it has that ending, of a directory the first three such files below it."""
    files = islice(path.rglob(f"*{ending}"), 3) if path.is_dir() else [path]
    return [file for file in files if file.suffix == ending and file.is_file()]


def heads(path: Path, ending: str) -> list[bytes]:
    """The first 4 KiB of each of :func:`some_files`."""
    found = []
    for file_path in some_files(path, ending):
        with file_path.open("rb") as file:
            found.append(file.read(4096))
    return found


def read_text(path: str | Path) -> str:
    """A text file.

    Raises:
        ValueError: not UTF-8; the message names the byte.
    """
    try:
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got byte {error.start}") from error


def read_json(path: str | Path, kind: type) -> Any:
    """A json file that holds a ``kind``: dict or list.

    Raises:
        ValueError: not UTF-8, not json, nested too deep or of another kind; the message names line
            and column, or the byte.
    """
    text = read_text(path).removeprefix("\ufeff")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{path}: expected json, got {error.msg} at {place}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: expected json, got too many brackets in each other") from error
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{path}: expected json, got {error}") from error
    if not isinstance(value, kind):
        raise ValueError(
            f"{path}: expected a json {'object' if kind is dict else 'list'}, got "
            f"{type(value).__name__}"
        )
    return value


def item(record: Any, key: str, where: str) -> Any:
    """``record[key]``.

    Raises:
        ValueError: not a mapping, or without the key.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected a mapping with key {key!r}, got {short(record)}")
    if key not in record:
        raise ValueError(f"{where}: expected key {key!r}, got {short(sorted(map(str, record)))}")
    return record[key]


def items(record: Any, key: str, where: str) -> list:
    """``record[key]``, a list."""
    value = item(record, key, where)
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list in {key}, got {short(value)}")
    return value


def short(value: object) -> str:
    """What a value is, in few characters."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    text = repr(value) if not isinstance(value, (list, dict)) or len(value) < 30 else "..."
    return text if len(text) <= 80 else f"{text[:70]}... of {type(value).__name__}"


def integer(value: Any, low: int, high: int, what: str, where: str) -> int:
    """An integer in low..high; neither a bool nor a float.

    Raises:
        ValueError: anything else.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, (bool, np.ndarray)) or not low <= number <= high:
        raise ValueError(f"{where}: expected {what} in {low}..{high}, got {short(value)}")
    return number


def numbers(value: Any, shape: Sequence[int | None], where: str) -> np.ndarray:
    """Finite float32 numbers of a shape, in which None stands for any size.

    Raises:
        ValueError: no numbers, another shape, NaN, infinite or beyond float32.
    """
    wanted = str(tuple("any" if n is None else n for n in shape)).replace("'", "")
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        raise ValueError(f"{where}: expected numbers {wanted}, got {short(value)}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(value, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: expected numbers {wanted}, got {error}") from error
    if array.ndim != len(shape) or any(
        n not in (None, size) for n, size in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"{where}: expected numbers {wanted}, got {array.shape}")
    for place in np.argwhere(~np.isfinite(array))[:1]:
        raise ValueError(
            f"{where}: expected finite coordinates, got {array[tuple(place)]} at index "
            f"{place.tolist()}"
        )
    return array


# Arrays


def open_array(path: str | Path, member: str | None = None) -> np.ndarray:
    """The array of a .npy file or of a member of an .npz archive; no pickle is ever loaded.

    Memory-mapped where it is not compressed. Of compressed members, the two used last are held in
    memory, whole, by each process.

    Raises:
        ValueError: damaged, or of objects; the message names file and member.
    """
    if member is None:
        with readable(path, "an array"), open(path, "rb") as file:
            return _map(path, file)
    with readable(path, f"a readable archive of arrays with key {member!r}"):
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{member}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return _inflate(str(path), info.filename, Path(path).stat().st_mtime_ns)
        with open(path, "rb") as file:
            file.seek(info.header_offset)
            local = file.read(30)
            name, extra = (int.from_bytes(local[i : i + 2], "little") for i in (26, 28))
            file.seek(info.header_offset + 30 + name + extra)
            return _map(path, file)


def array_axes(path: Path) -> set[int]:
    """Numbers of axes of :func:`some_files` that are .npy files."""
    axes = set()
    for file in some_files(path, ".npy"):
        with suppress(ValueError), readable(file, "an array"), file.open("rb") as opened:
            axes.add(len(_header(opened)[0]))
    return axes


def has_key(path: Path, *keys: str) -> bool:
    """A zip archive with one of the arrays; if its directory is damaged, by its first bytes."""
    for start in heads(path, ".npz"):
        try:
            return start.startswith(b"PK") and not set(keys).isdisjoint(archive_keys(path))
        except ValueError:
            return any(f"{key}.npy".encode() in start for key in keys)
    return False


def archive_keys(path: str | Path) -> list[str]:
    """Names of the arrays of an .npz archive.

    Raises:
        ValueError: no zip archive.
    """
    with readable(path, "a readable archive of arrays"), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = _NPY.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"a header of version {version}")
    read = _NPY.read_array_header_1_0 if version == (1, 0) else _NPY.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.kind not in "biufU" or min(shape, default=0) < 0:
        raise ValueError(f"{dtype} of shape {shape}")
    return shape, fortran, dtype


def _map(path: str | Path, file: Any) -> np.ndarray:
    shape, fortran, dtype = _header(file)
    if 0 in (*shape, dtype.itemsize):
        return np.empty(shape, dtype)
    order = "F" if fortran else "C"
    return np.memmap(path, dtype, "r", file.tell(), shape, order)


@lru_cache(maxsize=2)
def _inflate(path: str, name: str, stamp: int) -> np.ndarray:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        info = archive.getinfo(name)
        if info.file_size > 1100 * info.compress_size + 1024:  # more than deflate can do
            raise ValueError(f"{info.file_size} bytes out of {info.compress_size}")
        shape, fortran, dtype = _header(file)
        array = np.frombuffer(file.read(), dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def layout_of(joints: int, layout: str | None, known: Mapping[int, str], where: str) -> str:
    """Name of the layout given, else of that which is ``known`` for a number of joints, else of the
    only one that has so many.

    Raises:
        ValueError: the layout has another number of joints, or none or several have it.
    """
    fitting = [name for name in list_layouts() if get_layout(name).num_joints == joints]
    layout = layout or known.get(joints) or (fitting[0] if len(fitting) == 1 else None)
    if layout is None:
        raise ValueError(
            f"{where}: expected option layout for {joints} joints, got none; of so many joints "
            f"are {', '.join(fitting) or 'no layouts'}"
        )
    if get_layout(layout).num_joints != joints:
        raise ValueError(
            f"{where}: expected the {get_layout(layout).num_joints} joints of layout {layout}, "
            f"got {joints}"
        )
    return layout


# Classes and clips


def class_names(
    labels: Iterable[int],
    classes: Sequence[str] | None,
    where: str,
    names: Mapping[int, str] | None = None,
) -> tuple[str, ...]:
    """Class names given, or as many as the labels need: those known, else "class_7".

    Raises:
        ValueError: a label beyond the classes given.
    """
    count = 1 + max(labels, default=-1)
    if classes is None:
        return tuple((names or {}).get(i, f"class_{i}") for i in range(count))
    if count > len(classes):
        raise ValueError(f"{where}: expected labels in 0..{len(classes) - 1}, got {count - 1}")
    return tuple(classes)


def unique_names(names: Sequence[str], where: str | Path) -> tuple[str, ...]:
    """The names.

    Raises:
        ValueError: one occurs twice.
    """
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if seen.setdefault(name, i) != i:
            raise ValueError(
                f"{where}: expected unique names, got {short(name)} as clips {seen[name]} and {i}"
            )
    return tuple(names)


class FileClips:
    """Clips that are one file (or directory) each, classes that are directories or of a table.

    Args:
        path: a file, or a directory.
        found: the clips' files below that directory.
        labels: text file of lines ``name,label`` under this heading. Default: the class of a clip
            is the name of the directory that holds it.

    Attributes:
        files: of the clips, in the order of their names.
        names: paths below ``path`` without the ending, with "/".
        labels: class of each clip.
        classes: names in alphabetical order.

    Raises:
        FileNotFoundError: no file.
        ValueError: a clip without a label, or a damaged table; the message names the line.
    """

    def __init__(self, path: str | Path, found: Iterable[Path], labels: str | Path | None) -> None:
        root = Path(path).absolute()
        files = sorted({file.absolute() for file in found})
        if not files:
            raise FileNotFoundError(f"{path}: expected files of clips, got none")
        base = root if root not in files else root.parent
        names = [
            (file if file.is_dir() else file.with_suffix("")).relative_to(base).as_posix()
            for file in files
        ]
        self.names = unique_names(names, path)
        self.files = [str(file) for file in files]
        table = None if labels is None else _label_table(Path(labels))
        classes = []
        for name, file in zip(names, files, strict=True):
            if table is not None and name not in table:
                raise ValueError(f"{labels}: expected a line for clip {name!r}, got none")
            classes.append(file.parent.name if table is None else table[name])
        self.classes = tuple(sorted(set(classes)))
        index = {name: i for i, name in enumerate(self.classes)}
        self.labels = [index[name] for name in classes]

    def __len__(self) -> int:
        return len(self.files)


def _label_table(path: Path) -> dict[str, str]:
    rows = csv.reader(read_text(path).splitlines())
    table: dict[str, str] = {}
    with readable(path, "lines name,label"):
        for row in rows:
            where = f"line {rows.line_num}"
            if rows.line_num == 1:
                if row != ["name", "label"]:
                    raise ValueError(f"{row} at {where}, not the heading name,label")
            elif row:
                if len(row) != 2 or row[0] in table:
                    raise ValueError(f"{row} at {where}, not one new name and its label")
                table[row[0]] = row[1]
    return table


def sides(splits: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Published lists of clips as protocols: for each, the names that "train" and that "test".

    A protocol is what two lists share in their names, "xsub" of "xsub_train" and "xsub_val",
    "split1" of "train1" and "test1", else "split". What is validated on is tested on, but stays
    "val" where there is a list to test on too.
    """
    found: dict[str, dict[str, str]] = {}
    for split, names in splits.items():
        for word in ("train", "val", "test"):
            if word in split:
                rest = split.replace(word, "").strip("_")
                apart = word != "val" or split.replace("val", "test") in splits
                side = word if apart else "test"
                key = f"split{rest}" if not rest or rest.isdigit() else rest
                found.setdefault(key, {}).update(dict.fromkeys(names, side))
                break
    return found


def subject_and_view(name: str) -> tuple[int, int]:
    """Performer and camera of a name such as S001C002P003R002A010, else 1 and 1."""
    match = _NTU_NAME.match(name)
    return (int(match[2]), int(match[1])) if match else (1, 1)


# Persons and frames


def fit_persons(xyz: np.ndarray, num_persons: int, confidence: bool) -> np.ndarray:
    """Persons (T, P, V, C), those of :func:`seen_most`, filled up with zeros to ``num_persons``."""
    weight = xyz[..., -1].sum((0, 2)) if confidence else xyz.any((2, 3)).sum(0)
    kept = seen_most(weight, num_persons)
    fitted = np.zeros((len(xyz), num_persons, *xyz.shape[2:]), np.float32)
    fitted[:, : len(kept)] = xyz[:, kept]
    return fitted


def seen_most(weight: Sequence[float] | np.ndarray, num_persons: int) -> np.ndarray:
    """Which persons stay: those of the largest weight, in their order; the first wins a draw.

    The weight is the sum of a person's scores in a clip, without scores the number of frames in
    which the person is seen.
    """
    return np.sort(np.argsort(-np.asarray(weight), kind="stable")[:num_persons])


def place_frames(frames: Sequence[int], where: str) -> tuple[np.ndarray, int]:
    """Indices from 0 of numbered frames, the first number being 0, and how many they span.

    Raises:
        ValueError: the numbers span more than ``MAX_FRAMES``.
    """
    index = np.array(frames, np.int64) - min(frames)
    span = int(index.max()) + 1
    if span > MAX_FRAMES:
        raise ValueError(f"{where}: expected at most {MAX_FRAMES} frames, got numbers over {span}")
    return index, span
