"""What pose estimators write: json of COCO, AlphaPose, MMPose, OpenPose, MediaPipe, and arrays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import (
    FileClips,
    archive_keys,
    array_axes,
    fit_persons,
    has_key,
    heads,
    integer,
    item,
    items,
    layout_of,
    numbers,
    open_array,
    place_frames,
    read_json,
    seen_most,
    short,
    some_files,
)
from skelops.graph import get_layout

_LAYOUTS = {17: "coco17", 18: "openpose18", 25: "openpose25", 33: "mediapipe33"}
_AXES = ("TVC", "TMVC", "MTVC")
_LAST_FRAME = 1 << 40


class Person(NamedTuple):
    """A person in a frame: number of the frame, of the track or place in it, (V, C) points."""

    frame: int
    track: int
    points: np.ndarray


class _Estimates:
    """Clips that are one file (or directory of frames) each, as numbered persons in frames."""

    confidence = True

    def __init__(
        self,
        path: str | Path,
        layout: str | None = None,
        num_persons: int = 2,
        labels: str | Path | None = None,
        fps: float | None = None,
    ) -> None:
        self.num_persons = integer(num_persons, 1, 1000, "num_persons", str(path))
        self.fps = fps
        self.clips = FileClips(path, self.find(Path(path)), labels)
        self.classes = self.clips.classes
        first = next((p for f in self.clips.files for p in self.read(Path(f))[1]), None)
        if first is None:
            raise ValueError(f"{path}: expected a person in some clip, got none")
        self.layout = layout_of(len(first.points), layout, _LAYOUTS, str(path))
        self.shape = first.points.shape
        self.channels = self.shape[1]

    @staticmethod
    def find(path: Path) -> Iterable[Path]:
        """Files (or directories of frames) that are a clip each."""
        return _files(path, ".json")

    @staticmethod
    def read(file: Path) -> tuple[list[int], list[Person]]:
        """Numbers of the frames of a clip, and the persons in them."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.clips)

    def load(self, index: int) -> Clip | None:
        file = self.clips.files[index]
        frames, persons = self.read(Path(file))
        if not frames:
            raise ValueError(f"{file}: expected at least one frame, got none")
        for person in persons:
            if person.points.shape != self.shape:
                raise ValueError(
                    f"{file}: expected points {self.shape} in frame {person.frame}, got "
                    f"{person.points.shape}"
                )
        if not any(person.points.any() for person in persons):
            return None
        tracks = _tracks(file, frames, persons, self.num_persons)
        return Clip(tracks, self.clips.labels[index], self.clips.names[index])


def _tracks(file: str, frames: list[int], persons: list[Person], num_persons: int) -> np.ndarray:
    """The ``num_persons`` tracks with the highest sum of scores, (T, num_persons, V, C)."""
    place, span = place_frames(frames, file)
    at = dict(zip(frames, place.tolist(), strict=True))
    weight: Counter[int] = Counter()
    for person in persons:
        weight[person.track] += float(person.points[:, -1].sum())
    tracks = list(weight)
    kept = {tracks[i]: m for m, i in enumerate(seen_most(list(weight.values()), num_persons))}
    xyz = np.zeros((span, num_persons, *persons[0].points.shape), np.float32)
    seen = set()
    for person in persons:
        if (person.frame, person.track) in seen:
            raise ValueError(
                f"{file}: expected one person of track {person.track} in frame {person.frame}, got "
                f"two"
            )
        seen.add((person.frame, person.track))
        if person.track in kept:
            xyz[at[person.frame], kept[person.track]] = person.points
    return xyz


def _files(path: str | Path, ending: str) -> list[Path]:
    return list(Path(path).rglob(f"*{ending}")) if Path(path).is_dir() else [Path(path)]


def _track(record: dict, keys: Sequence[str], place: int, where: str) -> int:
    """The track that a record tells; without, negative: its place among the persons of a frame."""
    for key in keys:
        value = record.get(key)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if value is not None and value != -1 and value != []:
            return integer(value, 0, 1 << 60, key, where)
    return -1 - place


def _triples(value: Any, where: str) -> np.ndarray:
    """A flat list x, y, score, ... as (V, 3)."""
    points = numbers(value, (None,), where)
    if not len(points) or len(points) % 3:
        raise ValueError(f"{where}: expected x, y, score of each joint, got {len(points)} numbers")
    return points.reshape(-1, 3)


# COCO, AlphaPose


class CocoResults(_Estimates):
    """Results in the form of COCO, as AlphaPose and others write them: a json file per clip.

    A file is a list of ``{"image_id", "keypoints": [x, y, score] * V, "score", "idx"}``, one entry
    per person and frame. ``image_id`` is a number or ends in one, which counts the frames from the
    lowest on; else frames come in the order of their names' appearance. ``idx`` (or ``track_id``)
    tells the tracks; without, persons keep their order in each frame. Clips are
    (T, num_persons, V, 3) float32: x, y, score. Clips without a person are left out, as in all
    formats of this module.

    Args:
        path: a file, or a directory, searched with all below it.
        layout: name of the layout. Default: by the number of joints, "coco17" for 17; of 26, 133
            and 136, those of Halpe and COCO-WholeBody.
        num_persons: persons per clip; of more, those with the highest sum of scores stay.
        labels: text file of lines ``name,label`` under this heading. Default: the class of a clip
            is the directory that holds it.
        fps: frame rate in Hz, if known.

    Raises:
        FileNotFoundError: no file.
        ValueError: damaged; the message names file, entry and key.
    """

    @staticmethod
    def read(file: Path) -> tuple[list[int], list[Person]]:
        records = read_json(file, list)
        images = [item(r, "image_id", f"{file}, entry {i}") for i, r in enumerate(records)]
        for i, image in enumerate(images):
            if type(image) not in (int, str):
                raise ValueError(f"{file}, entry {i}: expected image_id, got {short(image)}")
        found = [_frame_number(str(image)) for image in images]
        order = {image: i for i, image in enumerate(dict.fromkeys(images))}
        frames = [order[image] for image in images]
        if None not in found and len(set(found)) == len(order):
            frames = [number for number in found if number is not None]
        persons, here = [], Counter[int]()
        for i, (record, frame) in enumerate(zip(records, frames, strict=True)):
            where = f"{file}, entry {i}"
            points = _triples(item(record, "keypoints", where), f"{where}, keypoints")
            track = _track(record, ("idx", "track_id"), here[frame], where)
            persons.append(Person(frame, track, points))
            here[frame] += 1
        return frames, persons


def _frame_number(name: str) -> int | None:
    """The number before the ending of a picture's name, as in ``clip_000012.jpg``."""
    match = re.fullmatch(r"(?:.*\D)?(\d{1,12})(?:\.\w+)?", name, re.DOTALL)
    return int(match[1]) if match else None


# MMPose


class MMPose(_Estimates):
    """Predictions of MMPose for a video: a json file per clip.

    A file is ``{"instance_info": [{"frame_id", "instances": [{"keypoints": [V][2 or 3],
    "keypoint_scores": [V], "track_id"}]}]}``. Clips are (T, num_persons, V, 3 or 4) float32, the
    score last.

    Args:
        path, layout, num_persons, labels, fps: as for :class:`CocoResults`.

    Raises:
        FileNotFoundError: no file.
        ValueError: damaged; the message names file, frame and key.
    """

    @staticmethod
    def read(file: Path) -> tuple[list[int], list[Person]]:
        frames, persons = [], []
        for t, record in enumerate(items(read_json(file, dict), "instance_info", str(file))):
            where = f"{file}, frame {t}"
            number = integer(item(record, "frame_id", where), 0, _LAST_FRAME, "frame_id", where)
            frames.append(number)
            for p, instance in enumerate(items(record, "instances", where)):
                at = f"{where}, instance {p}"
                points = numbers(item(instance, "keypoints", at), (None, None), f"{at}, keypoints")
                score = item(instance, "keypoint_scores", at)
                score = numbers(score, (len(points),), f"{at}, keypoint_scores")
                if points.shape[1] not in (2, 3):
                    raise ValueError(f"{at}: expected 2 or 3 coordinates, got {points.shape[1]}")
                points = np.concatenate([points, score[:, None]], axis=1)
                persons.append(Person(number, _track(instance, ("track_id",), p, at), points))
        return frames, persons


# OpenPose


class OpenPose(_Estimates):
    """Output of OpenPose: a directory per clip with a json file per frame, in order of their names.

    A file is ``{"people": [{"pose_keypoints_2d": [x, y, score] * V, "person_id"}]}``. Clips are
    (T, num_persons, V, 3) float32. The class of a clip is the directory that holds its directory.

    Args:
        path: directory of the frames of one clip, or a directory above those of clips.
        layout, num_persons, labels, fps: as for :class:`CocoResults`; 25 joints are "openpose25",
            18 "openpose18".

    Raises:
        FileNotFoundError: no file.
        ValueError: damaged; the message names file, person and key.
    """

    @staticmethod
    def find(path: Path) -> Iterable[Path]:
        return {file.parent for file in path.rglob("*.json")}

    @staticmethod
    def read(directory: Path) -> tuple[list[int], list[Person]]:
        files, persons = sorted(directory.glob("*.json")), []
        for frame, file in enumerate(files):
            for p, person in enumerate(items(read_json(file, dict), "people", str(file))):
                where = f"{file}, person {p}"
                key = "pose_keypoints_2d"
                points = _triples(item(person, key, where), f"{where}, {key}")
                persons.append(Person(frame, _track(person, ("person_id",), p, where), points))
        return list(range(len(files))), persons


# MediaPipe


class MediaPipe(_Estimates):
    """Landmarks of MediaPipe Pose: a json file per clip.

    A file is a list of frames; a frame is a list of 33 ``{"x", "y", "z", "visibility"}``, a list of
    such lists, one per person, or empty. Clips are (T, num_persons, 33, 4) float32, the visibility
    as score. Arrays (T, 33, 3 or 4) are read by :class:`Arrays`.

    Args:
        path, layout, num_persons, labels, fps: as for :class:`CocoResults`.

    Raises:
        FileNotFoundError: no file.
        ValueError: damaged; the message names file, frame and key.
    """

    @staticmethod
    def read(file: Path) -> tuple[list[int], list[Person]]:
        content, persons = read_json(file, list), []
        keys = ("x", "y", "z", "visibility")
        for t, frame in enumerate(content):
            where = f"{file}, frame {t}"
            if not isinstance(frame, list):
                raise ValueError(f"{where}: expected a list of landmarks, got {short(frame)}")
            people = [frame] if frame and isinstance(frame[0], dict) else frame
            for p, landmarks in enumerate(people):
                at = f"{where}, person {p}"
                if not isinstance(landmarks, list):
                    raise ValueError(f"{at}: expected a list of landmarks, got {short(landmarks)}")
                points = [
                    [item(mark, key, f"{at}, landmark {v}") for key in keys]
                    for v, mark in enumerate(landmarks)
                ]
                persons.append(Person(t, -1 - p, numbers(points, (33, 4), at)))
        return list(range(len(content))), persons


# Arrays


class Arrays:
    """Plain arrays: a .npy file per clip, or .npz archives with a clip per array.

    A clip of an archive is named ``file/key``. Arrays that are not compressed are memory-mapped.

    Args:
        path: a file, or a directory, searched with all below it.
        axes: of the arrays: "TVC", "TMVC" or "MTVC" (frames, persons, joints, channels). Default:
            "TVC" or "TMVC" by the number of axes.
        layout: name of the layout. Default: the only one with so many joints.
        confidence: the last channel is a score. Default: where there are 4 channels.
        num_persons: persons per clip; of more, those with the highest sum of scores stay, without
            scores those who are seen in most frames. Default: 1 for "TVC", else 2.
        labels, fps: as for :class:`CocoResults`, the labels by file.

    Raises:
        FileNotFoundError: no file.
        ValueError: damaged, or shapes that do not fit; the message names file and key.
    """

    def __init__(
        self,
        path: str | Path,
        axes: str | None = None,
        layout: str | None = None,
        confidence: bool | None = None,
        num_persons: int | None = None,
        labels: str | Path | None = None,
        fps: float | None = None,
    ) -> None:
        if axes not in (None, *_AXES):
            raise ValueError(f"Arrays: expected axes in {_AXES}, got {axes!r}")
        files = FileClips(path, [*_files(path, ".npy"), *_files(path, ".npz")], labels)
        self.classes, self.fps = files.classes, fps
        self.clips: list[tuple[str, str | None, str, int]] = []
        for file, name, label in zip(files.files, files.names, files.labels, strict=True):
            if file.endswith(".npz"):
                keys = archive_keys(file)
                self.clips += [(file, key, f"{name}/{key}", label) for key in keys]
            else:
                self.clips.append((file, None, name, label))
        if not self.clips:
            raise ValueError(f"{path}: expected at least one array, got none")
        self.axes = axes
        first = self._open(0)
        self.axes = axes or ("TVC" if first.ndim == 3 else "TMVC")
        if first.ndim != len(self.axes):
            raise ValueError(f"{path}: expected arrays {' or '.join(_AXES)}, got {first.shape}")
        joints, self.channels = first.shape[-2:]
        self.layout = layout_of(joints, layout, {}, str(path))
        self.confidence = self.channels == 4 if confidence is None else confidence
        if self.channels <= self.confidence:
            raise ValueError(f"{path}: expected coordinates, got {first.shape}")
        default = 1 if self.axes == "TVC" else 2
        self.num_persons = default if num_persons is None else num_persons
        integer(self.num_persons, 1, 1000, "num_persons", str(path))

    def _open(self, index: int) -> np.ndarray:
        file, key, _, _ = self.clips[index]
        return open_array(file, key)

    def __len__(self) -> int:
        return len(self.clips)

    def load(self, index: int) -> Clip | None:
        file, key, name, label = self.clips[index]
        where = file if key is None else f"{file}, key {key!r}"
        joints = get_layout(self.layout).num_joints
        shape = (*[None] * (len(self.axes) - 2), joints, self.channels)
        xyz = numbers(self._open(index), shape, where)
        xyz = {"TVC": xyz[:, None], "TMVC": xyz, "MTVC": xyz.swapaxes(0, 1)}[self.axes]
        if not len(xyz):
            raise ValueError(f"{where}: expected at least one frame, got {xyz.shape}")
        if not xyz.any():
            return None
        return Clip(fit_persons(xyz, self.num_persons, self.confidence), label, name)


# What a path holds


def _holds(*alternatives: tuple[bytes, ...]) -> Callable[[Path], bool]:
    """Whether all keys of an alternative stand at the start of a json file."""

    def recognises(path: Path) -> bool:
        return any(
            all(b'"%b"' % key in start for key in keys)
            for start in heads(path, ".json")
            for keys in alternatives
        )

    return recognises


def _is_mediapipe(path: Path) -> bool:
    landmark = re.compile(rb'\s*\[[\[\s\],]*\{[^{]*"visibility"')
    return any(landmark.match(start) for start in heads(path, ".json"))


def _is_openpose(path: Path) -> bool:
    return path.is_dir() and _holds((b"people",))(path)


def _is_arrays(path: Path) -> bool:
    archives = some_files(path, ".npz")
    if archives and not any(has_key(f, "xyz", "x_train", "x_test") for f in archives):
        return True
    return not {3, 4}.isdisjoint(array_axes(path))


register_format(
    Format(
        "coco_results",
        "COCO results json, as of AlphaPose",
        _holds((b"image_id", b"keypoints")),
        CocoResults,
    )
)
register_format(
    Format(
        "mmpose", "MMPose predictions json", _holds((b"instance_info",), (b"meta_info",)), MMPose
    )
)
register_format(Format("openpose", "OpenPose directories of json", _is_openpose, OpenPose))
register_format(Format("mediapipe", "MediaPipe Pose landmarks json", _is_mediapipe, MediaPipe))
register_format(Format("arrays", "plain .npy or .npz arrays, a clip each", _is_arrays, Arrays))
