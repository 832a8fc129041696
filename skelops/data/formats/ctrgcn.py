"""CTR-GCN: .npz archives of padded clips, train and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import (
    archive_keys,
    class_names,
    has_key,
    integer,
    numbers,
    open_array,
)
from skelops.graph import get_layout

SPLITS = ("train", "test")


class CTRGCN:
    """The clips of an archive that CTR-GCN's preparation of NTU RGB+D writes.

    ``x_train`` and ``x_test`` are (N, T, M * V * 3), person by person and padded with zero frames,
    ``y_train`` and ``y_test`` (N, K) one-hot. As in the published feeder, the length of a clip is
    the number of its frames whose coordinates do not sum to zero; clips of length 0 are left out.
    Clips are (length, M, V, 3) float32, named "train_0", ..., "test_0", ... as there;
    ``extra["split"]`` tells them apart.

    An archive that is not compressed is memory-mapped; of a compressed one each reading process
    holds ``x_train`` and ``x_test`` in memory.

    Args:
        path: the archive.
        layout: name of the layout.
        num_persons: M.
        classes: class names. Default: "class_0", "class_1", ...

    Attributes:
        splits: names of the clips of "train" and "test".

    Raises:
        ValueError: damaged, or arrays of other shapes; the message names file and key.

    Source: Chen, Zhang, Yuan, Li, Deng, Hu, *Channel-wise Topology Refinement Graph Convolution for
    Skeleton-Based Action Recognition*, ICCV 2021.
    """

    channels = 3
    confidence = False
    fps = 30.0

    def __init__(
        self,
        path: str | Path,
        layout: str = "ntu25",
        num_persons: int = 2,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.path, self.layout = str(path), layout
        self.num_persons = integer(num_persons, 1, 1000, "num_persons", "CTRGCN")
        self.joints = get_layout(layout).num_joints
        keys = archive_keys(path)
        self.labels: list[int] = []
        self.splits: dict[str, tuple[str, ...]] = {}
        count = 0
        for split in SPLITS:
            if f"x_{split}" in keys:
                labels, columns = self._labels(split)
                self.splits[split] = tuple(f"{split}_{i}" for i in range(len(labels)))
                self.labels += labels
                count = max(count, columns)
        if not self.labels:
            raise ValueError(f"{path}: expected clips in x_train or x_test, got {sorted(keys)}")
        self.classes = class_names([count - 1], classes, self.path)

    def _labels(self, split: str) -> tuple[list[int], int]:
        x, y = (open_array(self.path, f"{key}_{split}") for key in "xy")
        width = self.num_persons * self.joints * 3
        if x.ndim != 3 or x.shape[2] != width:
            raise ValueError(f"{self.path}: expected x_{split} (N, T, {width}), got {x.shape}")
        if y.ndim != 2 or len(y) != len(x) or y.dtype.kind not in "biuf":
            raise ValueError(
                f"{self.path}: expected y_{split} ({len(x)}, K), got {y.dtype} {y.shape}"
            )
        for i in np.flatnonzero(((y != 0) & (y != 1)).any(1) | (y.sum(1) != 1))[:1]:
            raise ValueError(f"{self.path}: expected one-hot rows, got another in y_{split} {i}")
        return y.argmax(1).tolist(), y.shape[1]

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, index: int) -> Clip | None:
        split, row = "train", index
        if index >= len(self.splits.get("train", ())):
            split, row = "test", index - len(self.splits.get("train", ()))
        name = self.splits[split][row]
        padded = open_array(self.path, f"x_{split}")[row]
        padded = numbers(padded, (None, None), f"{self.path}, {name}")
        length = np.count_nonzero(padded.sum(1))
        xyz = padded[:length].reshape(length, self.num_persons, self.joints, 3)
        return Clip(xyz, self.labels[index], name, extra={"split": split}) if length else None


def _recognises(path: Path) -> bool:
    return path.is_file() and has_key(path, "x_train", "x_test")


register_format(Format("ctrgcn", "CTR-GCN .npz of padded clips", _recognises, CTRGCN))
