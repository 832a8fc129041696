"""PKU-MMD, phases I and II: text files of long recordings, cut at their labelled actions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import read_text
from skelops.data.formats._text import FLOAT32_MAX, Lines, named

PKU_MMD_CLASSES = (
    "bow", "brushing hair", "brushing teeth", "check time (from watch)", "cheer up", "clapping",
    "cross hands in front (say stop)", "drink water", "drop", "eat meal/snack", "falling",
    "giving something to other person", "hand waving", "handshaking",
    "hopping (one foot jumping)", "hugging other person", "jump up", "kicking other person",
    "kicking something", "make a phone call/answer phone", "pat on back of other person",
    "pickup", "playing with phone/tablet", "point finger at the other person",
    "pointing to something with finger", "punching/slapping other person",
    "pushing other person", "put on a hat/cap", "put something inside pocket", "reading",
    "rub two hands together", "salute", "sitting down", "standing up", "take off a hat/cap",
    "take off glasses", "take off jacket", "take out something from pocket", "taking a selfie",
    "tear up paper", "throw", "touch back (backache)", "touch chest (stomachache/heart pain)",
    "touch head (headache)", "touch neck (neckache)", "typing on a keyboard",
    "use a fan (with hand or paper)/feeling warm", "wear jacket", "wear on glasses", "wipe face",
    "writing",
)  # fmt: skip
VIEWS = {"L": 1, "M": 2, "R": 3}
LABEL_DIRECTORIES = (
    "../Train_Label_PKU_final", "../../Label/Train_Label_PKU_final", "../label", "../Label",
)  # fmt: skip

_NUMBERS = 150  # 2 bodies x 25 joints x (x, y, z)
_VIDEO = re.compile(r"(?:\d{4}|A\d{2}N\d{2})-([LMR])")
_LABEL = re.compile(rb"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*")


class Segment(NamedTuple):
    """One line of a label file: an action in the frames start to end - 1 of a video."""

    video: str
    place: int  # among the actions of the video
    line: int  # of the label file
    action: int
    start: int
    end: int
    confidence: int


class PKUMMD:
    """The labelled actions of PKU-MMD I or II.

    A recording is a text file such as ``0002-L.txt`` or ``A01N02-R.txt``; each line is a frame of
    2 bodies x 25 joints x (x, y, z), zero where there is no second body. The label file of the same
    name has a line ``action,start,end,confidence`` for each action: frames start to end - 1 from 0,
    as far as the recording goes. A clip is one such action, named ``0002-L_0`` by its place in the
    label file, in camera coordinates. Actions without anybody in sight are left out.

    ``view`` is 1, 2 or 3 for the cameras L, M and R. The files do not tell performers apart, so
    that ``subject`` is 1; the published lists do the splitting. ``extra`` holds ``confidence``, 1
    or 2, and, with the lists, ``cross_subject`` and ``cross_view``, "train" or "test".

    Args:
        path: directory of recordings, or one of them.
        labels: directory of label files. Default: ``Train_Label_PKU_final`` or ``label`` next to
            the recordings, or ``Label/Train_Label_PKU_final`` next to the directory above.
        cross_subject: the published text file whose first names, up to "Validation", train.
        cross_view: likewise for cameras.

    Raises:
        FileNotFoundError: no recording, no directory of labels, or a recording without labels.
        ValueError: the name of a recording, a line of a label file or a list is damaged; the
            message names file and line.

    Source: Liu, Hu, Li, Song, Liu, *PKU-MMD: A Large Scale Benchmark for Skeleton-Based Human
    Action Understanding*, ACM Multimedia workshop 2017, arXiv 1703.07475.
    """

    layout = "ntu25"
    classes = PKU_MMD_CLASSES
    num_persons = 2
    channels = 3
    confidence = False
    fps = 30.0

    def __init__(
        self,
        path: str | Path,
        labels: str | Path | None = None,
        cross_subject: str | Path | None = None,
        cross_view: str | Path | None = None,
    ) -> None:
        root = Path(path)
        files = [root] if root.is_file() else sorted(root.glob("*.txt"))
        if not files:
            raise FileNotFoundError(f"{path}: expected recordings in .txt files, got none")
        self.recordings = files[0].parent
        self.labels = _label_directory(self.recordings) if labels is None else Path(labels)
        for file in files:
            if _VIDEO.fullmatch(file.stem) is None:
                raise ValueError(
                    f"{file}: expected a name like 0002-L.txt or A01N02-L.txt, got {file.name}"
                )
        self.segments = [segment for file in files for segment in self._segments(file.stem)]
        lists = {"cross_subject": cross_subject, "cross_view": cross_view}
        self.training = {key: _training(file) for key, file in lists.items() if file is not None}

    def _segments(self, video: str) -> list[Segment]:
        file = self.labels / f"{video}.txt"
        lines = Lines(file.read_bytes())
        segments = []
        while lines.number < len(lines.lines):
            if not lines.next():
                continue
            match = _LABEL.fullmatch(lines.lines[lines.number - 1])
            numbers = map(int, match.groups()) if match else (0, 0, 0, 0)
            segment = Segment(video, len(segments), lines.number, *numbers)
            if segment.end <= segment.start:
                raise ValueError(f"{file}: {lines.error('action,start,end,confidence')}")
            if not 1 <= segment.action <= len(PKU_MMD_CLASSES):
                raise ValueError(f"{file}: {lines.error('an action in 1..51')}")
            segments.append(segment)
        return segments

    def __len__(self) -> int:
        return len(self.segments)

    def load(self, index: int) -> Clip | None:
        """One labelled action, or None if it has no body.

        Raises:
            ValueError: damaged content, or an action that starts after the end of the recording;
                the message names file and line.
        """
        segment = self.segments[index]
        file = self.recordings / f"{segment.video}.txt"
        xyz = named(file, _read_frames, file.read_bytes(), segment.start, segment.end)
        if not len(xyz):
            raise ValueError(
                f"{self.labels / file.name}: expected an action that starts before the end of "
                f"{file}, got frame {segment.start} at line {segment.line}"
            )
        if not xyz.any():
            return None
        sides = {
            key: "train" if segment.video in names else "test"
            for key, names in self.training.items()
        }
        return Clip(
            xyz,
            segment.action - 1,
            f"{segment.video}_{segment.place}",
            view=VIEWS[segment.video[-1]],
            extra={"confidence": segment.confidence, **sides},
        )


def _read_frames(data: bytes, start: int, end: int) -> np.ndarray:
    """The frames start to end - 1 of a recording, as far as it goes: (T, 2, 25, 3) float32."""
    lines = Lines(data)
    lines.number = start
    frames = []
    for _ in range(min(end, len(lines.lines)) - start):
        frame = lines.numbers(lines.next(), _NUMBERS, "150 numbers")
        if not all(abs(x) <= FLOAT32_MAX for x in frame):
            raise lines.error("150 numbers in the range of float32")
        frames.append(frame)
    return np.array(frames, np.float32).reshape(-1, 2, 25, 3)


def _label_directory(recordings: Path) -> Path:
    for name in LABEL_DIRECTORIES:
        if (recordings / name).is_dir():
            return recordings / name
    raise FileNotFoundError(
        f"{recordings}: expected a directory of labels at one of {', '.join(LABEL_DIRECTORIES)}, "
        f"or the option labels, got none"
    )


def _training(path: str | Path) -> frozenset[str]:
    """The names of a published list before its heading of the validation videos."""
    training, heading, _ = read_text(path).partition("Valid")
    names = frozenset(match.group() for match in _VIDEO.finditer(training))
    if not names or not heading:
        raise ValueError(f"{path}: expected training and validation videos, got {len(names)} names "
                         f"{'before' if heading else 'without'} a heading 'Valid...'")  # fmt: skip
    return names


def _recognises(path: Path) -> bool:
    file = next(path.glob("*.txt"), None) if path.is_dir() else path
    if file is None or file.suffix != ".txt" or _VIDEO.fullmatch(file.stem) is None:
        return False
    with file.open("rb") as opened:
        return len(opened.readline(1 << 14).split()) == _NUMBERS


register_format(
    Format(
        "pku_mmd",
        "PKU-MMD I and II: text recordings, cut at their labels",
        _recognises,
        PKUMMD,
    )
)
