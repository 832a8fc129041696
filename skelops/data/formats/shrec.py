"""SHREC'17 track and DHG 14/28: hand gestures in text files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import sides
from skelops.data.formats._text import FLOAT32_MAX, Lines, named

GESTURES = (
    "grab", "tap", "expand", "pinch", "rotation clockwise", "rotation counter-clockwise",
    "swipe right", "swipe left", "swipe up", "swipe down", "swipe x", "swipe +", "swipe v",
    "shake",
)  # fmt: skip
FINGERS = ("one finger", "whole hand")
LISTS = {"train": "train_gestures.txt", "test": "test_gestures.txt"}

_CLIPS = "gesture_*/finger_*/subject_*/essai_*/skeleton*_world.txt"
_NUMBERS = 66  # 22 joints x (x, y, z)
_NAME = re.compile(r"gesture_(\d{1,2})/finger_(\d)/subject_(\d{1,3})/essai_(\d{1,3})")


class HandGestures:
    """The clips of SHREC'17 (``skeletons_world.txt``) or DHG 14/28 (``skeleton_world.txt``).

    A clip is ``gesture_g/finger_f/subject_s/essai_e/skeletons_world.txt``, a line of 22 joints x
    (x, y, z) per frame; empty lines count for nothing. Clips are (T, 1, 22, 3) float32, metres,
    named by their directories; ``extra`` holds ``finger`` and ``trial`` and, with the lists,
    ``split``, "train" or "test".

    Args:
        path: directory of the ``gesture_*`` directories.
        num_classes: 14 gestures, or 28 that tell one finger and the whole hand apart: class
            2 (g - 1) + f - 1, as published.

    Attributes:
        splits: names of the clips of "train" and "test" that are there, of the lists
            ``train_gestures.txt`` and ``test_gestures.txt`` of SHREC'17, else empty.

    Raises:
        FileNotFoundError: no clip.
        ValueError: a directory or a line of a list is not as published; the message names it.

    Source: De Smedt, Wannous, Vandeborre, Guerry, Le Saux, Filliat, *SHREC'17 Track: 3D Hand
    Gesture Recognition Using a Depth and Skeletal Dataset*, 3DOR 2017; De Smedt, Wannous,
    Vandeborre, *Skeleton-Based Dynamic Hand Gesture Recognition*, CVPR workshops 2016.
    """

    layout = "shrec22"
    num_persons = 1
    channels = 3
    confidence = False
    fps = 30.0

    def __init__(self, path: str | Path, num_classes: int = 14) -> None:
        if num_classes not in (14, 28):
            raise ValueError(f"HandGestures: expected num_classes 14 or 28, got {num_classes!r}")
        root = Path(path)
        files = {f.parent.relative_to(root).as_posix(): str(f) for f in sorted(root.glob(_CLIPS))}
        if not files:
            raise FileNotFoundError(f"{path}: expected {_CLIPS}, got none")
        self.classes = GESTURES
        if num_classes == 28:
            self.classes = tuple(f"{g}, {f}" for g in GESTURES for f in FINGERS)
        self.files = sorted((_numbers(root, name), name, file) for name, file in files.items())
        self.splits = {
            split: _listed(root / file, set(files))
            for split, file in LISTS.items()
            if (root / file).is_file()
        }
        self.sides = sides(self.splits)

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Clip:
        (gesture, finger, subject, trial), name, file = self.files[index]
        xyz = named(file, _read, Path(file).read_bytes())
        label = gesture - 1
        if len(self.classes) == 28:
            label = 2 * label + finger - 1
        extra = {key: side.get(name, "") for key, side in self.sides.items()}
        return Clip(xyz, label, name, subject, 1, {"finger": finger, "trial": trial, **extra})


def _numbers(root: Path, name: str) -> tuple[int, int, int, int]:
    match = _NAME.fullmatch(name)
    gesture, finger, subject, trial = map(int, match.groups()) if match else (0, 0, 0, 0)
    if not (1 <= gesture <= len(GESTURES) and 1 <= finger <= len(FINGERS) and subject):
        raise ValueError(
            f"{root / name}: expected gesture_1..14/finger_1..2/subject_1../essai_*, got {name}"
        )
    return gesture, finger, subject, trial


def _read(data: bytes) -> np.ndarray:
    lines, frames = Lines(data), []
    while lines.number < len(lines.lines):
        if tokens := lines.next():
            frame = lines.numbers(tokens, _NUMBERS, "66 numbers")
            if not all(abs(x) <= FLOAT32_MAX for x in frame):
                raise lines.error("66 finite numbers")
            frames.append(frame)
    if not frames:
        raise lines.error("at least one frame")
    return np.array(frames, np.float32).reshape(-1, 1, 22, 3)


def _listed(path: Path, present: set[str]) -> tuple[str, ...]:
    """Clips of a list; a line is gesture, finger, subject, trial, two labels and the length."""
    lines, names = Lines(path.read_bytes()), []
    while lines.number < len(lines.lines):
        if tokens := lines.next():
            if len(tokens) < 4 or not all(t.isdigit() and len(t) < 9 for t in tokens[:4]):
                raise ValueError(f"{path}: {lines.error('gesture, finger, subject, trial')}")
            g, f, s, e = map(int, tokens[:4])
            names.append(f"gesture_{g}/finger_{f}/subject_{s}/essai_{e}")
    return tuple(name for name in names if name in present)


def _recognises(path: Path) -> bool:
    return path.is_dir() and next(path.glob(_CLIPS), None) is not None


register_format(Format("shrec", "SHREC'17 and DHG 14/28 hand gestures", _recognises, HandGestures))
