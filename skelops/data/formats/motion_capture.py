"""Motion capture: BVH by forward kinematics, C3D markers through the package ``c3d``.

BVH is parsed here: of the packages that do forward kinematics one pins a 12 MB geometry library to
one release and walks joint by joint through Python objects, the other needs matplotlib.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import FileClips, numbers, readable
from skelops.data.formats._text import Lines, named
from skelops.graph import Layout, get_layout, list_layouts, register_layout

_AXES = {b"X": 0, b"Y": 1, b"Z": 2}
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "inches": 0.0254}
_MAX_JOINTS = 10_000


class Motion(NamedTuple):
    """A recording: joint ``names`` and ``parents``, a root being its own; positions (T, V, 3)."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    xyz: np.ndarray
    fps: float


class _Recordings:
    """Files of one skeleton each, which all have the joints of the first."""

    num_persons = 1
    channels = 3
    confidence = False
    ending: str

    def __init__(
        self,
        path: str | Path,
        layout: str | None = None,
        scale: float | None = None,
        labels: str | Path | None = None,
    ) -> None:
        path = Path(path)
        found = path.rglob(f"*{self.ending}") if path.is_dir() else [path]
        self.clips, self.scale = FileClips(path, found, labels), scale
        self.classes = self.clips.classes
        first = self._read(self.clips.files[0])
        self.names, self.fps = first.names, first.fps
        self.layout = layout or Path(self.clips.files[0]).stem
        if layout is not None and layout in list_layouts():
            if get_layout(layout).num_joints != len(first.names):
                raise ValueError(
                    f"{path}: expected the {get_layout(layout).num_joints} joints of layout "
                    f"{layout}, got {len(first.names)}"
                )
            return
        made = Layout(self.layout, first.parents, first.names)
        if self.layout in list_layouts() and get_layout(self.layout) != made:
            raise ValueError(
                f"{path}: expected a new name in option layout, got {self.layout!r}, which is known"
            )
        register_layout(made)

    def _read(self, file: str) -> Motion:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.clips)

    def load(self, index: int) -> Clip:
        file = self.clips.files[index]
        motion = self._read(file)
        if motion.names != self.names:
            raise ValueError(
                f"{file}: expected the joints of {self.clips.files[0]}, got {len(motion.names)} "
                f"of other names"
            )
        xyz = numbers(motion.xyz[:, None], (None, 1, len(self.names), 3), file)
        name = self.clips.names[index]
        return Clip(xyz, self.clips.labels[index], name, extra={"fps": motion.fps})


class BVH(_Recordings):
    """Clips of BVH files: positions of all joints and end sites, (T, 1, V, 3) float32.

    Positions follow from the offsets and angles of the file; where a joint has position channels,
    they replace its offset. The class of a clip is the directory that holds it; ``extra["fps"]``
    is its frame rate, ``fps`` that of the first clip. All files have the joints of the first.

    The layout made from the hierarchy is registered in this process. A store keeps its name alone:
    register it again, by opening the recordings, before a store of them is used for more.

    Args:
        path: a file, or a directory, searched with all below it.
        layout: name for the layout, or of a registered one with so many joints. Default: the
            name of the first file.
        scale: metres per unit of the files; 0.01 if None.
        labels: text file of lines ``name,label`` under this heading.

    Raises:
        FileNotFoundError: no file.
        ValueError: damaged; the message names file and line.
    """

    ending = ".bvh"

    def _read(self, file: str) -> Motion:
        motion = named(file, parse_bvh, Path(file).read_bytes())
        return motion._replace(xyz=motion.xyz * (0.01 if self.scale is None else self.scale))


class C3D(_Recordings):
    """Clips of C3D files: positions of all markers, (T, 1, V, 3) float32, zero where not seen.

    Markers have no bones: the layout made from their names, with which all files agree, has none.
    It is registered, classes are made and ``fps`` is told as for :class:`BVH`. Needs the package
    ``c3d`` (``pip install skelops[data]``), which is Python throughout: a damaged file cannot end
    the process.

    Args:
        path: a file, or a directory, searched with all below it.
        layout: name for the layout, or of a registered one with so many joints. Default: the
            name of the first file.
        scale: metres per unit. Default: by the unit that the file tells.
        labels: text file of lines ``name,label`` under this heading.

    Raises:
        FileNotFoundError: no file.
        ImportError: the package is not installed.
        ValueError: damaged; the message names the file.
    """

    ending = ".c3d"

    def _read(self, file: str) -> Motion:
        import c3d

        with warnings.catch_warnings(), readable(file, "a C3D file"), open(file, "rb") as opened:
            warnings.simplefilter("ignore")
            reader = c3d.Reader(opened)
            used, rate = int(reader.point_used), float(reader.point_rate)
            names = tuple(str(label).strip() for label in reader.point_labels[:used])
            if not 1 <= used == len(set(names)) or not 0 < rate < 1e6:
                raise ValueError(f"{used} points at {rate} Hz of {len(set(names))} labels")
            unit = "" if self.scale else str(reader.get("POINT").get_string("UNITS")).strip()
            frames = [points for _, points, _ in reader.read_frames(copy=True)]
            missing = int(reader.last_frame) - int(reader.first_frame) + 1 - len(frames)
            if missing or not frames:
                raise ValueError(f"{len(frames)} frames, {missing} short")
        scale = self.scale or _METRES.get(unit)
        if scale is None:
            raise ValueError(f"{file}: expected a unit in {sorted(_METRES)}, got {unit!r}")
        points = np.stack(frames)
        xyz = np.where(points[..., 3:4] < 0, 0, points[..., :3].astype(np.float64) * scale)
        return Motion(names, tuple(range(used)), xyz, rate)


# BVH


class _Joint(NamedTuple):
    name: str
    parent: int
    offset: list[float]
    channels: list[tuple[int, bool]]  # axis, and whether it is a rotation


def parse_bvh(data: bytes) -> Motion:
    """Positions of all joints and end sites of the text of a BVH file, in its units.

    An end site is named after its joint, with ``_end``.

    Raises:
        ValueError: damaged text; the message names the line.
    """
    lines = Lines(data)
    tokens = _tokens(lines)
    joints: list[_Joint] = []
    _expect(lines, tokens, b"HIERARCHY")
    _expect(lines, tokens, b"ROOT")
    _joint(lines, tokens, joints)
    names = tuple(joint.name for joint in joints)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"expected each joint once, got {twice!r:.80} twice")
    _expect(lines, tokens, b"MOTION")
    _expect(lines, tokens, b"Frames:")
    count = _number(lines, tokens)
    for word in (b"Frame", b"Time:"):
        _expect(lines, tokens, word)
    seconds = _number(lines, tokens)
    if not (1e-6 < seconds < 1e6 and 1 <= count < 1e12 and count == int(count)):
        raise lines.error("at least one frame and the seconds of a frame")
    width = sum(len(joint.channels) for joint in joints)
    rows = []
    while lines.number < len(lines.lines):
        if found := lines.next():
            rows.append(lines.numbers(found, width, f"the {width} numbers of a frame"))
    if len(rows) != count:
        raise lines.error(f"{int(count)} frames, not {len(rows)}")
    motion = np.array(rows, np.float64).reshape(len(rows), width)
    with np.errstate(all="ignore"):
        xyz = _positions(joints, motion)
    parents = tuple(max(joint.parent, 0) for joint in joints)
    return Motion(names, parents, xyz, 1 / seconds)


def _tokens(lines: Lines) -> Iterator[bytes]:
    while lines.number < len(lines.lines):
        yield from lines.next()


def _expect(lines: Lines, tokens: Iterator[bytes], *words: bytes) -> bytes:
    token = next(tokens, b"")
    if token not in words:
        raise lines.error(" or ".join(word.decode() for word in words))
    return token


def _number(lines: Lines, tokens: Iterator[bytes]) -> float:
    (value,) = lines.numbers([next(tokens, b"")], 1, "a number")
    return value


def _joint(lines: Lines, tokens: Iterator[bytes], joints: list[_Joint]) -> None:
    """The root and all below it, after the word ROOT; a stack holds the joints that are open."""
    opened: list[int] = []
    word = b"ROOT"
    while True:
        if word == b"}":
            opened.pop()
            if not opened:
                return
        else:
            opened.append(_declare(lines, tokens, joints, word, opened[-1] if opened else -1))
        ends = joints[opened[-1]].name.endswith("_end") and not joints[opened[-1]].channels
        words = (b"}",) if ends else (b"JOINT", b"End", b"}")
        word = _expect(lines, tokens, *words)


def _declare(
    lines: Lines, tokens: Iterator[bytes], joints: list[_Joint], word: bytes, parent: int
) -> int:
    """Read the name, offset and channels of a joint; returns its index."""
    if word == b"End":
        _expect(lines, tokens, b"Site")
        name = f"{joints[parent].name}_end"
    else:
        name = next(tokens, b"").decode("utf-8", "replace")
    _expect(lines, tokens, b"{")
    _expect(lines, tokens, b"OFFSET")
    offset = [_number(lines, tokens) for _ in range(3)]
    channels = []
    if word != b"End":
        _expect(lines, tokens, b"CHANNELS")
        count = _number(lines, tokens)
        if count not in range(7):
            raise lines.error("0 to 6 channels")
        for _ in range(int(count)):
            channel = next(tokens, b"")
            if channel[:1] not in _AXES or channel[1:] not in (b"rotation", b"position"):
                raise lines.error("a channel such as Xrotation")
            channels.append((_AXES[channel[:1]], channel[1:] == b"rotation"))
    if len(joints) == _MAX_JOINTS:
        raise lines.error(f"at most {_MAX_JOINTS} joints")
    joints.append(_Joint(name, parent, offset, channels))
    return len(joints) - 1


def _positions(joints: list[_Joint], motion: np.ndarray) -> np.ndarray:
    frames, column = len(motion), 0
    xyz = np.zeros((frames, len(joints), 3))
    turn: list[np.ndarray] = []
    for v, joint in enumerate(joints):
        place = np.tile(joint.offset, (frames, 1))
        rotation = np.tile(np.eye(3), (frames, 1, 1))
        for axis, rotates in joint.channels:
            if rotates:
                rotation = rotation @ _rotation(axis, np.radians(motion[:, column]))
            else:
                place[:, axis] = motion[:, column]
            column += 1
        if joint.parent >= 0:
            place = xyz[:, joint.parent] + (turn[joint.parent] @ place[..., None])[..., 0]
            rotation = turn[joint.parent] @ rotation
        xyz[:, v] = place
        turn.append(rotation)
    return xyz


def _rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """Right-handed rotations (T, 3, 3) about a coordinate axis."""
    matrix = np.zeros((len(angle), 3, 3))
    y, z = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, y, y] = matrix[:, z, z] = np.cos(angle)
    matrix[:, z, y] = np.sin(angle)
    matrix[:, y, z] = -np.sin(angle)
    return matrix


def _of(ending: str) -> Any:
    def recognises(path: Path) -> bool:
        if path.is_dir():
            return next(path.rglob(f"*{ending}"), None) is not None
        return path.suffix == ending

    return recognises


register_format(Format("bvh", "BVH motion capture", _of(".bvh"), BVH))
register_format(Format("c3d", "C3D motion capture (package c3d)", _of(".c3d"), C3D))
