"""The library's own exchange format: a packed .npz archive of plain arrays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import (
    archive_keys,
    has_key,
    layout_of,
    numbers,
    open_array,
    readable,
    unique_names,
)
from skelops.graph import get_layout, list_layouts


class Packed:
    """A packed archive of plain arrays; no pickle is ever loaded.

    ====================  =================================================================
    key                   content
    ====================  =================================================================
    ``xyz``               (F, V, C) or (F, M, V, C) floating, all clips end to end, metres
    ``length``            (N,) frames per clip, summing to F
    ``label``             (N,) 0-based class
    ``classes``           class names
    ``name, subject``     (N,) clip name and 1-based performer
    ``parent``            (V,) parent of each joint, -1 or itself at the root
    ``view, rep, ...``    optional (N,) arrays: ``view`` is the camera, others become ``extra``
    ``layout, fps``       optional scalars: name of the joint layout, frame rate in Hz
    ``confidence``        optional scalar: the last channel is a score
    ``ntu25_index``       optional (25,): joints in the NTU RGB+D order
    ====================  =================================================================

    The layout is the one named, else the registered one with the same bones, else, through
    ``ntu25_index``, "ntu25". An archive that is not compressed is memory-mapped, without its check
    sums; of a compressed one ``xyz`` is held in memory.

    Args:
        path: the archive.
        layout: name of the layout. "ntu25" reads other joints through ``ntu25_index``.

    Raises:
        ValueError: truncated or damaged archive, a missing key, pickled objects, or arrays that
            contradict each other; the message names file and key or clip.
    """

    def __init__(self, path: str | Path, layout: str | None = None) -> None:
        self.path = str(path)
        keys = archive_keys(path)
        for key in ("xyz", "length", "label", "classes", "name", "subject"):
            if key not in keys:
                raise ValueError(f"{path}: expected key {key!r}, got {sorted(keys)}")
        xyz = open_array(path, "xyz")
        if xyz.ndim not in (3, 4) or not np.issubdtype(xyz.dtype, np.floating):
            raise ValueError(
                f"{path}: expected floating xyz of shape (F, V, C) or (F, M, V, C), got "
                f"{xyz.dtype} {xyz.shape}"
            )
        arrays = {key: np.array(open_array(path, key)) for key in keys if key != "xyz"}
        self.layout, self.joints = _layout(path, arrays, xyz.shape[-2], layout)
        self.num_persons = xyz.shape[1] if xyz.ndim == 4 else 1
        self.channels = xyz.shape[-1]
        self.confidence = bool(_scalar(path, arrays, "confidence", 0))
        fps = _scalar(path, arrays, "fps", None)
        self.fps = None if fps is None else float(fps)
        if min(self.num_persons, self.channels - self.confidence) < 1:
            raise ValueError(f"{path}: expected persons and coordinates in xyz, got {xyz.shape}")
        self.classes = tuple(map(str, arrays.pop("classes").reshape(-1).tolist()))
        self._per_clip(arrays, len(xyz))

    def _per_clip(self, arrays: dict[str, np.ndarray], frames: int) -> None:
        n = arrays["length"].size
        for key in ("length", "label", "subject", "view"):
            value = arrays.setdefault(key, np.ones(n, np.int64))
            if value.ndim != 1 or not np.issubdtype(value.dtype, np.integer):
                raise ValueError(
                    f"{self.path}: expected integers (N,) in {key}, got {value.dtype} {value.shape}"
                )
        for key in ("label", "name", "subject", "view"):
            if arrays[key].shape != (n,):
                raise ValueError(
                    f"{self.path}: expected {key} with one entry for each of {n} clips, got shape "
                    f"{arrays[key].shape}"
                )
        self.length = arrays.pop("length").astype(np.int64)
        self.label, self.name, self.subject, self.view = (
            arrays.pop(key).tolist() for key in ("label", "name", "subject", "view")
        )
        self.name = unique_names(list(map(str, self.name)), self.path)
        skip = ("joints", "parent")
        self.extra = {k: v for k, v in arrays.items() if v.shape == (n,) and k not in skip}
        for i in np.flatnonzero(self.length < 1)[:1]:
            raise self._fail("at least one frame per clip", f"{self.length[i]} in {self._where(i)}")
        total = sum(self.length.tolist())
        if total != frames:
            expected = f"lengths that sum to the {frames} frames of xyz"
            raise self._fail(expected, f"a sum of {total}")
        for i, label in enumerate(self.label):
            if not 0 <= label < len(self.classes):
                expected = f"labels in 0..{len(self.classes) - 1}"
                raise self._fail(expected, f"{label} in {self._where(i)}")
        self.stop = np.cumsum(self.length)

    def _where(self, index: int) -> str:
        return f"clip {index} ({self.name[index]})"

    def _fail(self, expected: str, got: str) -> ValueError:
        return ValueError(f"{self.path}: expected {expected}, got {got}")

    def __len__(self) -> int:
        return len(self.length)

    def load(self, index: int) -> Clip:
        stop = self.stop[index]
        part = open_array(self.path, "xyz")[stop - self.length[index] : stop]
        xyz = numbers(part, (None,) * part.ndim, f"{self.path}, {self._where(index)}")
        xyz = xyz if xyz.ndim == 4 else xyz[:, None]
        return Clip(
            xyz if self.joints is None else xyz[:, :, self.joints],
            self.label[index],
            self.name[index],
            self.subject[index],
            self.view[index],
            {key: value[index] for key, value in self.extra.items()},
        )


def _scalar(path: str | Path, arrays: dict, key: str, default: object) -> object:
    value = arrays.pop(key, None)
    if value is None:
        return default
    if value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise ValueError(f"{path}: expected a finite number in {key}, got {value.tolist()!r:.80}")
    return value.item()


def _layout(
    path: str | Path, arrays: dict, joints: int, named: str | None
) -> tuple[str, np.ndarray | None]:
    """Layout name, and the joint order to bring the data into it (None: as it is)."""
    stored, parent = arrays.pop("layout", None), arrays.pop("parent", None)
    index = arrays.pop("ntu25_index", None)
    if stored is not None and named is None:
        with readable(path, "a known layout"):
            named = get_layout(str(stored)).name
    if named is not None and not (named == "ntu25" and joints != 25 and index is not None):
        return layout_of(joints, named, {}, str(path)), None
    if parent is not None:
        if parent.shape != (joints,):
            raise ValueError(f"{path}: expected parent of shape ({joints},), got {parent.shape}")
        bones = _edges(enumerate(parent.tolist()))
        for name in [] if named else list_layouts():
            layout = get_layout(name)
            if layout.num_joints == joints and _edges(layout.bones) == bones:
                return name, None
    if index is None:
        raise ValueError(
            f"{path}: expected a key 'layout', the bones of a registered layout in 'parent', or "
            f"'ntu25_index', got {joints} joints that fit none"
        )
    if index.shape != (25,) or index.dtype.kind not in "iu" or not (
        index.min() >= 0 and index.max() < joints
    ):  # fmt: skip
        raise ValueError(
            f"{path}: expected ntu25_index of shape (25,) in 0..{joints - 1}, got {index.dtype} of "
            f"shape {index.shape}, values up to {index.max(initial=-1)}"
        )
    return "ntu25", index


def _edges(pairs: Iterable[tuple[int, int]]) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in pairs if pair[1] not in (-1, pair[0])}


def _recognises(path: Path) -> bool:
    return path.is_file() and has_key(path, "xyz")


register_format(Format("packed", "packed .npz archive of skelops", _recognises, Packed))
