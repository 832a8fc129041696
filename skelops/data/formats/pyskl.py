"""PYSKL: pickled annotations of 2-D and 3-D key points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from skelops.data import _pickle
from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import (
    MAX_CLASSES,
    class_names,
    fit_persons,
    heads,
    integer,
    item,
    layout_of,
    numbers,
    short,
    sides,
    subject_and_view,
    unique_names,
)

_LAYOUTS = {17: "coco17", 18: "openpose18", 20: "nw_ucla20", 25: "ntu25"}


class PYSKL:
    """The clips of a PYSKL pickle, read without running what it may contain.

    The pickle is ``{"split": {name: [frame_dir, ...]}, "annotations": [...]}`` or the list alone;
    an annotation has ``frame_dir``, ``label``, ``keypoint`` (M, T, V, C) and, in 2-D,
    ``keypoint_score`` (M, T, V) and ``img_shape``. Clips are (T, M, V, C) float32; scores become
    the last channel. Performer and camera are those of NTU RGB+D names; ``extra`` holds the
    ``height`` and ``width`` of the picture and, for each pair of splits such as "xsub_train" and
    "xsub_val", "train" or "test" under ``xsub``. Clips without a person are left out.

    Each process that reads holds the whole pickle in memory once.

    Args:
        path: the pickle.
        layout: name of the layout. Default: by the number of joints.
        classes: class names. Default: "class_0", "class_1", ...
        num_persons: persons per clip; of more, those with the highest sum of scores stay. Default:
            the most that a clip has.
        normalise: divide x by the width and y by the height of the picture.

    Attributes:
        splits: names of the clips of each published split.

    Raises:
        ValueError: damaged, or another content; the message names file and annotation.

    Source: Duan, Wang, Chen, Lin, *PYSKL: Towards Good Practices for Skeleton Action Recognition*,
    ACM Multimedia 2022.
    """

    fps = None

    def __init__(
        self,
        path: str | Path,
        layout: str | None = None,
        classes: Sequence[str] | None = None,
        num_persons: int | None = None,
        normalise: bool = False,
    ) -> None:
        self.path, self.normalise = str(path), normalise
        content = self._content()
        entries = self._annotations(content)
        if not entries:
            raise ValueError(f"{path}: expected annotations, got none")
        wheres = [self._where(i) for i in range(len(entries))]
        names = [str(item(e, "frame_dir", w)) for e, w in zip(entries, wheres, strict=True)]
        self.names = unique_names(names, path)
        self.labels = [
            integer(item(e, "label", w), 0, MAX_CLASSES, "label", w)
            for e, w in zip(entries, wheres, strict=True)
        ]
        shapes = [_shape(e, w) for e, w in zip(entries, wheres, strict=True)]
        self.joints, dims = shapes[0][2:]
        self.layout = layout_of(self.joints, layout, _LAYOUTS, wheres[0])
        self.confidence = "keypoint_score" in entries[0]
        self.channels = dims + self.confidence
        most = max(1, *(shape[0] for shape in shapes))
        self.num_persons = most if num_persons is None else num_persons
        integer(self.num_persons, 1, 1000, "num_persons", self.path)
        self.classes = class_names(self.labels, classes, self.path)
        self.pictures = all("img_shape" in e for e in entries)
        if normalise and not self.pictures:
            raise ValueError(f"{path}: expected img_shape in all annotations to normalise by")
        self.splits = self._splits(content)
        self.sides = sides(self.splits)

    def _content(self) -> Any:
        return _load(self.path, Path(self.path).stat().st_mtime_ns)

    def _annotations(self, content: Any) -> list:
        if isinstance(content, dict):
            content = item(content, "annotations", self.path)
        if not isinstance(content, list):
            raise ValueError(f"{self.path}: expected a list of annotations, got {short(content)}")
        return content

    def _splits(self, content: Any) -> dict[str, tuple[str, ...]]:
        splits = content.get("split", {}) if isinstance(content, dict) else {}
        if not isinstance(splits, dict) or not all(
            isinstance(names, (list, tuple)) for names in splits.values()
        ):
            raise ValueError(f"{self.path}: expected lists of names in split, got {short(splits)}")
        known = set(self.names)
        return {
            str(split): tuple(str(name) for name in names if str(name) in known)
            for split, names in splits.items()
        }

    def _where(self, index: int) -> str:
        return f"{self.path}, annotation {index}"

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int) -> Clip | None:
        entry, where = self._annotations(self._content())[index], self._where(index)
        dims = self.channels - self.confidence
        xyz = numbers(entry["keypoint"], (None, None, self.joints, dims), f"{where}, keypoint")
        if xyz.shape[1] == 0:
            raise ValueError(f"{where}: expected at least one frame, got keypoint {xyz.shape}")
        name = self.names[index]
        extra: dict[str, Any] = {key: side.get(name, "") for key, side in self.sides.items()}
        if self.pictures:
            height, width = _picture(entry["img_shape"], where)
            extra |= {"height": height, "width": width}
            if self.normalise:
                xyz[..., :2] /= np.float32([width, height])
        if self.confidence:
            score = item(entry, "keypoint_score", where)
            score = numbers(score, xyz.shape[:3], f"{where}, keypoint_score")
            xyz = np.concatenate([xyz, score[..., None]], axis=-1)
        if not xyz.any():
            return None
        xyz = fit_persons(xyz.swapaxes(0, 1), self.num_persons, self.confidence)
        return Clip(xyz, self.labels[index], name, *subject_and_view(name), extra)


def _shape(entry: Any, where: str) -> tuple[int, ...]:
    value = item(entry, "keypoint", where)
    if not isinstance(value, np.ndarray) or value.ndim != 4 or min(value.shape[1:]) < 1:
        raise ValueError(f"{where}: expected keypoint (M, T, V, C), got {short(value)}")
    return value.shape


def _picture(value: Any, where: str) -> tuple[int, int]:
    if not isinstance(value, (tuple, list)) or len(value) < 2:
        raise ValueError(f"{where}: expected img_shape (height, width), got {short(value)}")
    height, width = (integer(size, 1, 1 << 20, "img_shape", where) for size in value[:2])
    return height, width


@lru_cache(maxsize=1)
def _load(path: str, stamp: int) -> Any:
    return _pickle.load(path)


def _recognises(path: Path) -> bool:
    keys = (b"annotations", b"split", b"frame_dir", b"keypoint")
    starts = [s for end in (".pkl", ".pickle") for s in heads(path, end)] if path.is_file() else []
    return any(key in start for start in starts for key in keys)


register_format(Format("pyskl", "PYSKL pickle of 2-D or 3-D key points", _recognises, PYSKL))
