"""The ragged clip container that every reader returns, and its published splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

_UNSET: Any = None  # becomes the documented default


@dataclass(frozen=True)
class Clips:
    """N skeleton clips of one joint layout, stored end to end without padding.

    Args:
        xyz: (F, M, V, C) float32, coordinates of all F = sum(length) frames, metres for 3-D data.
            A person who was not detected in a frame is all zero there.
        length: (N,) int64, frames per clip, each at least 1.
        label: (N,) int64, class per clip, an index into ``classes``.
        classes: class names.
        layout: name of the joint layout, see :func:`skelops.graph.get_layout`.
        name: (N,) str, clip names. Default: the clip's index.
        subject: (N,) int64, 1-based performer. Default: 1.
        view: (N,) int64, 1-based camera. Default: 1.
        fps: frame rate in Hz, None if unknown.
        extra: further per-clip arrays of length N, by name.

    Raises:
        ValueError: shapes disagree, lengths do not sum to F, labels are out of range or coordinates
            are not finite; the message names the clip.

    Example:
        >>> from skelops.data import synthetic
        >>> clips = synthetic.generate(16)
        >>> clips[3].shape[1:]  # (T, M, V, C) of clip 3
        (2, 25, 3)
    """

    xyz: np.ndarray
    length: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]
    layout: str
    name: np.ndarray = _UNSET
    subject: np.ndarray = _UNSET
    view: np.ndarray = _UNSET
    fps: float | None = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.length)
        ones = np.ones(n, np.int64)
        fill = {
            "xyz": np.asarray(self.xyz, np.float32),
            "length": np.asarray(self.length, np.int64),
            "label": np.asarray(self.label, np.int64),
            "classes": tuple(str(c) for c in self.classes),
            "name": np.arange(n).astype(str) if self.name is None else np.asarray(self.name, str),
            "subject": ones if self.subject is None else np.asarray(self.subject, np.int64),
            "view": ones if self.view is None else np.asarray(self.view, np.int64),
            "extra": {key: np.asarray(value) for key, value in self.extra.items()},
        }
        for key, value in fill.items():
            object.__setattr__(self, key, value)
        self._check()

    def _check(self) -> None:
        n, frames = len(self), int(self.length.sum())
        if self.xyz.ndim != 4:
            raise _fail("xyz of shape (F, M, V, C)", self.xyz.shape)
        per_clip = {k: getattr(self, k) for k in ("length", "label", "name", "subject", "view")}
        for key, value in {**per_clip, **self.extra}.items():
            if value.shape[:1] != (n,):
                raise _fail(f"{key} with one entry for each of {n} clips", f"shape {value.shape}")
        for i in np.flatnonzero(self.length < 1)[:1]:
            raise _fail("at least one frame per clip", f"{self.length[i]} in {self.where(i)}")
        if frames != len(self.xyz):
            expected = f"lengths that sum to the {len(self.xyz)} frames of xyz"
            raise _fail(expected, f"a sum of {frames}")
        for i in np.flatnonzero((self.label < 0) | (self.label >= len(self.classes)))[:1]:
            got = f"{self.label[i]} in {self.where(i)}"
            raise _fail(f"labels in 0..{len(self.classes) - 1}", got)
        for frame, person, joint, axis in np.argwhere(~np.isfinite(self.xyz))[:1]:
            clip = int(np.searchsorted(self.offset, frame, side="right")) - 1
            place = f"frame {frame - self.offset[clip]}, person {person}, joint {joint}"
            got = f"{self.xyz[frame, person, joint, axis]} in {self.where(clip)}, {place}"
            raise _fail("finite coordinates", got)

    def where(self, clip: int) -> str:
        """How messages name a clip: its index and its name."""
        return f"clip {int(clip)} ({self.name[clip]})"

    def __len__(self) -> int:
        return len(self.length)

    def __getitem__(self, clip: int) -> np.ndarray:
        """Coordinates (T, M, V, C) of one clip, a view."""
        stop = self.offset[range(len(self))[clip] + 1]
        return self.xyz[stop - self.length[clip] : stop]

    @property
    def offset(self) -> np.ndarray:
        """(N + 1,) int64: clip i holds the frames offset[i] to offset[i + 1] of ``xyz``."""
        return np.concatenate([[0], np.cumsum(self.length)])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def num_persons(self) -> int:
        return self.xyz.shape[1]

    @property
    def num_joints(self) -> int:
        return self.xyz.shape[2]

    def select(self, index: np.ndarray) -> Clips:
        """The clips of an integer index or boolean mask (N,), in that order, as a copy."""
        index = np.arange(len(self))[index]
        length = self.length[index]
        shift = self.offset[index] - np.concatenate([[0], np.cumsum(length)[:-1]])
        per_clip = {k: getattr(self, k)[index] for k in ("label", "name", "subject", "view")}
        return replace(
            self,
            xyz=self.xyz[np.arange(length.sum()) + np.repeat(shift, length)],
            length=length,
            extra={key: value[index] for key, value in self.extra.items()},
            **per_clip,
        )


def _fail(expected: str, got: object) -> ValueError:
    return ValueError(f"Clips: expected {expected}, got {got}")


PROTOCOLS = ("cross_subject", "cross_view")


def split(
    clips: Clips, protocol: str = "cross_subject", train: Iterable[int] | None = None
) -> tuple[Clips, Clips]:
    """Train and test clips that share no subject (or no view).

    Args:
        clips: what to split.
        protocol: "cross_subject" or "cross_view".
        train: subjects (views) to train on; the others are tested. Default: odd subjects; views 1
            and 2, the protocol of NW-UCLA (Wang, Nie, Xia, Wu, Zhu, CVPR 2014).

    Returns:
        The training and the test clips.

    Raises:
        ValueError: unknown protocol, or one side would be empty.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"split: expected protocol in {PROTOCOLS}, got {protocol!r}")
    group = clips.subject if protocol == "cross_subject" else clips.view
    if train is not None:
        inside = np.isin(group, list(train))
    elif protocol == "cross_subject":
        inside = np.equal(group % 2, 1)
    else:
        inside = np.isin(group, (1, 2))
    if inside.all() or not inside.any():
        raise ValueError(
            f"split: expected clips on both sides of {protocol}, got {int(inside.sum())} to train "
            f"on and {int((~inside).sum())} to test, of the groups {np.unique(group).tolist()}"
        )
    return clips.select(inside), clips.select(~inside)
