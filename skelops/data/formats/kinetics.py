"""Kinetics-skeleton: the OpenPose json files that ST-GCN publishes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import (
    MAX_CLASSES,
    class_names,
    heads,
    integer,
    item,
    items,
    numbers,
    place_frames,
    read_json,
    short,
)

_CANDIDATES = 5  # persons of a frame that the published feeder looks at


class Kinetics:
    """Kinetics-skeleton clips, in the order of their file names.

    Each file is ``{"data": [{"frame_index", "skeleton": [{"pose": [x, y, ...], "score": [...]}]}],
    "label", "label_index"}`` with 18 joints and x, y in [0, 1]. The label file is
    ``{name: {"has_skeleton", "label", "label_index"}}``. Clips are (T, num_persons, 18, 3) float32:
    x, y and score. As published, each frame holds the persons with the highest sum of scores of its
    first five, so that a person may change places between frames; clips without a skeleton are left
    out. Frames that a file leaves out are zero.

    Args:
        path: a directory of json files, or one file.
        labels: the label file. Default: ``<path>_label.json`` or ``*_label.json`` in the directory;
            one file needs none.
        num_persons: most persons of a frame.
        centre: move the origin into the middle of the picture, y up, and set joints of score 0 to
            zero, as published; else coordinates as they are.

    Raises:
        FileNotFoundError: no json file, or a directory without a label file.
        ValueError: a damaged label file.

    Source: Yan, Xiong, Lin, *Spatial Temporal Graph Convolutional Networks for Skeleton-Based
    Action Recognition*, AAAI 2018.
    """

    layout = "openpose18"
    channels = 3
    confidence = True
    fps = 30.0

    def __init__(
        self,
        path: str | Path,
        labels: str | Path | None = None,
        num_persons: int = 2,
        centre: bool = True,
    ) -> None:
        path = Path(path)
        self.num_persons = integer(num_persons, 1, _CANDIDATES, "num_persons", "Kinetics")
        self.centre = centre
        if path.is_dir():
            files = {f.stem: f for f in path.glob("*.json") if not f.stem.endswith("_label")}
            beside = path.with_name(f"{path.name}_label.json")
            found = [f for f in (beside, *path.glob("*_label.json")) if f.is_file()]
            labels = labels or next(iter(found), None)
            if labels is None:
                raise FileNotFoundError(f"{path}: expected a label file {beside}, got none")
        else:
            files = {path.stem: path}
        if not files:
            raise FileNotFoundError(f"{path}: expected json files, got none")
        table = {path.stem: read_json(path, dict)} if labels is None else read_json(labels, dict)
        where = str(labels or path)
        self.files: list[str] = []
        self.labels: list[int] = []
        names: dict[int, str] = {}
        for name in sorted(files):
            entry = item(table, name, where)
            label = integer(
                item(entry, "label_index", f"{where}, {name}"), 0, MAX_CLASSES, "label_index",
                f"{where}, {name}",
            )  # fmt: skip
            spoken = str(item(entry, "label", f"{where}, {name}"))
            if names.setdefault(label, spoken) != spoken:
                raise ValueError(
                    f"{where}, {name}: expected label {names[label]!r} of label_index {label}, got "
                    f"{spoken!r:.80}"
                )
            if entry.get("has_skeleton", True):
                self.files.append(str(files[name]))
                self.labels.append(label)
        self.classes = class_names(names, None, where, names)

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Clip | None:
        file = self.files[index]
        frames, poses = [], []
        for t, frame in enumerate(items(read_json(file, dict), "data", file)):
            where = f"{file}, data {t}"
            number = item(frame, "frame_index", where)
            frames.append(integer(number, 0, 1 << 40, "frame_index", where))
            poses.append(self._frame(items(frame, "skeleton", where), where))
        if not any(pose.any() for pose in poses):
            return None
        place, span = place_frames(frames, file)
        if len(np.unique(place)) < len(place):
            raise ValueError(f"{file}: expected each frame_index once, got one twice")
        xyz = np.zeros((span, self.num_persons, 18, 3), np.float32)
        xyz[place] = poses
        return Clip(xyz, self.labels[index], Path(file).stem)

    def _frame(self, skeletons: list, where: str) -> np.ndarray:
        people = np.zeros((_CANDIDATES, 18, 3), np.float32)
        for p, skeleton in enumerate(skeletons[:_CANDIDATES]):
            people[p, :, :2] = _flat(skeleton, "pose", 36, f"{where}, skeleton {p}").reshape(18, 2)
            people[p, :, 2] = _flat(skeleton, "score", 18, f"{where}, skeleton {p}")
        if self.centre:
            people[..., :2] = (people[..., :2] - 0.5) * (1, -1)
            people[people[..., 2] == 0, :2] = 0
        order = np.argsort(-people[..., 2].sum(1), kind="stable")
        return people[order[: self.num_persons]]


def _flat(skeleton: object, key: str, count: int, where: str) -> np.ndarray:
    value = item(skeleton, key, where)
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list in {key}, got {short(value)}")
    return numbers(value, (count,), f"{where}, {key}")


def _recognises(path: Path) -> bool:
    return any(b'"data"' in s and b'"frame_index"' in s for s in heads(path, ".json"))


register_format(Format("kinetics", "Kinetics-skeleton json files of ST-GCN", _recognises, Kinetics))
