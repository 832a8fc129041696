"""ST-GCN and 2s-AGCN: .npy arrays of padded clips with pickled labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skelops.data import _pickle
from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import (
    MAX_CLASSES,
    array_axes,
    class_names,
    integer,
    layout_of,
    numbers,
    open_array,
    short,
    sides,
    subject_and_view,
    unique_names,
)

_LAYOUTS = {17: "coco17", 18: "openpose18", 20: "nw_ucla20", 25: "ntu25"}
_FLAT = ("coco17", "openpose18")  # x, y and score
_ENDINGS = ("_data", "_data_joint")


class STGCN:
    """The clips of arrays (N, C, T, V, M), memory-mapped, and their pickled labels.

    ``train_data.npy`` or ``train_data_joint.npy`` goes with ``train_label.pkl``, which holds
    (names, labels). Clips are (T, M, V, C) float32 without the zero frames at their end; those that
    are all zero are left out. Performer and camera are those of NTU RGB+D names; ``extra["split"]``
    is "train" for clips of ``train_data``, "test" for those of ``val_data``.

    Args:
        path: an array, or a directory with arrays ``*_data.npy`` or ``*_data_joint.npy``, such as
            those for training and for validation.
        labels: label file of one array. Default: as above.
        layout: name of the layout. Default: by the number of joints.
        classes: class names. Default: "class_0", "class_1", ...
        confidence: the last channel is a score. Default: for 17 and 18 joints.

    Attributes:
        splits: names of the clips of each array, by what stands before ``_data`` in its name.

    Raises:
        FileNotFoundError: no array, or no label file.
        ValueError: damaged, or array and labels disagree; the message names the file.

    Source: Yan, Xiong, Lin, *ST-GCN*, AAAI 2018; Shi, Zhang, Cheng, Lu, *2s-AGCN*, CVPR 2019.
    """

    fps = 30.0

    def __init__(
        self,
        path: str | Path,
        labels: str | Path | None = None,
        layout: str | None = None,
        classes: Sequence[str] | None = None,
        confidence: bool | None = None,
    ) -> None:
        path = Path(path)
        files = [path] if path.is_file() else _arrays(path)
        if not files:
            raise FileNotFoundError(f"{path}: expected *_data.npy or *_data_joint.npy, got none")
        if labels is not None and len(files) > 1:
            raise ValueError(f"{path}: expected one array to go with labels, got {len(files)}")
        self.files = [str(file) for file in files]
        self.rows: list[tuple[int, int]] = []
        self.splits: dict[str, tuple[str, ...]] = {}
        self.labels: list[int] = []
        names: list[str] = []
        shapes = set()
        for i, file in enumerate(files):
            split = file.stem.split("_data")[0]
            array = open_array(file)
            if array.ndim != 5 or min(array.shape[1:]) < 1 or array.dtype.kind != "f":
                raise ValueError(
                    f"{file}: expected floating (N, C, T, V, M), got {array.dtype} {array.shape}"
                )
            beside = Path(labels or file.with_name(f"{split}_label.pkl"))
            found, label = _labels(beside, len(array))
            self.splits[split] = tuple(found)
            self.rows += [(i, row) for row in range(len(array))]
            self.labels += label
            names += found
            shapes.add((array.shape[1], *array.shape[3:]))
        if len(shapes) > 1:
            raise ValueError(f"{path}: expected arrays of one (C, V, M), got {sorted(shapes)}")
        self.names = unique_names(names, path)
        self.sides = sides(self.splits)
        self.channels, joints, self.num_persons = shapes.pop()
        self.layout = layout_of(joints, layout, _LAYOUTS, str(path))
        self.confidence = self.layout in _FLAT if confidence is None else confidence
        self.classes = class_names(self.labels, classes, str(path))

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Clip | None:
        file, row = self.rows[index]
        name = self.names[index]
        padded = open_array(self.files[file])[row]
        padded = numbers(padded, padded.shape, f"{self.files[file]}, clip {row} ({name})")
        seen = np.flatnonzero(padded.any((0, 2, 3)))
        if not len(seen):
            return None
        xyz = np.ascontiguousarray(padded[:, : seen[-1] + 1].transpose(1, 3, 2, 0))
        extra = {key: side.get(name, "") for key, side in self.sides.items()}
        return Clip(xyz, self.labels[index], name, *subject_and_view(name), extra)


def _labels(path: Path, clips: int) -> tuple[list[str], list[int]]:
    content = _pickle.load(path)
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise ValueError(f"{path}: expected (names, labels), got {short(content)}")
    for value in content:
        if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != clips:
            raise ValueError(
                f"{path}: expected names and labels of {clips} clips, got {short(value)}"
            )
    names = [str(name).removesuffix(".skeleton") for name in content[0]]
    return names, [
        integer(label, 0, MAX_CLASSES, f"label of clip {i}", str(path))
        for i, label in enumerate(content[1])
    ]


def _arrays(path: Path) -> list[Path]:
    return sorted(file for file in path.glob("*.npy") if file.stem.endswith(_ENDINGS))


def _recognises(path: Path) -> bool:
    return 5 in array_axes(path)


register_format(Format("stgcn", "ST-GCN and 2s-AGCN .npy with .pkl labels", _recognises, STGCN))
