"""The ragged clip container that every reader returns, in memory or memory-mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

_UNSET: Any = None  # becomes the documented default
_BLOCK = 1 << 22  # coordinates looked at in one go
PER_CLIP = ("length", "label", "name", "subject", "view")


@dataclass(frozen=True, eq=False)
class Clips:
    """N skeleton clips of one joint layout, stored end to end without padding.

    Args:
        xyz: (F, M, V, C) float16 or float32 (other numbers become float32), coordinates of all
            F = sum(length) frames, metres for 3-D data. A person who was not detected in a frame is
            all zero there.
        length: (N,) int64, frames per clip, each at least 1.
        label: (N,) int64, class per clip, an index into ``classes``.
        classes: class names.
        layout: name of the joint layout, see :func:`skelops.graph.get_layout`.
        name: (N,) str, clip names, unique. Default: the clip's index.
        subject: (N,) int64, 1-based performer. Default: 1.
        view: (N,) int64, 1-based camera. Default: 1.
        fps: frame rate in Hz, None if unknown.
        extra: further per-clip arrays of length N, by name.
        present: (F, M) bool, whether a person was detected in a frame. Default: where any of the
            person's coordinates is not zero.
        confidence: the last of the C channels is a score in [0, 1], not a coordinate.

    Raises:
        TypeError: ``xyz`` does not hold real numbers.
        ValueError: shapes disagree, lengths do not sum to F, labels are out of range, names repeat
            or coordinates are not finite; the message names the clip.

    Attributes:
        path: file of a memory-mapped store, None in memory. What :meth:`open` returns is read-only,
            was checked when it was written, and is pickled as its path.

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
    present: np.ndarray = _UNSET
    confidence: bool = False
    path: Path | None = field(default=None, init=False)
    stamp: int | None = field(default=None, init=False, repr=False)  # tells stores of a path apart

    def __post_init__(self) -> None:
        n = len(self.length)
        ones = np.ones(n, np.int64)
        xyz = np.asarray(self.xyz)
        if xyz.dtype.kind not in "biuf":
            raise TypeError(f"Clips: expected xyz of real numbers, got {xyz.dtype}")
        if xyz.ndim != 4:
            raise _fail("xyz of shape (F, M, V, C)", xyz.shape)
        if xyz.dtype not in (np.float16, np.float32):
            xyz = xyz.astype(np.float32)
        self._fill(
            xyz=xyz,
            length=np.asarray(self.length, np.int64),
            label=np.asarray(self.label, np.int64),
            classes=tuple(str(c) for c in self.classes),
            name=np.arange(n).astype(str) if self.name is None else np.asarray(self.name, str),
            subject=ones if self.subject is None else np.asarray(self.subject, np.int64),
            view=ones if self.view is None else np.asarray(self.view, np.int64),
            extra={key: np.asarray(value) for key, value in self.extra.items()},
        )
        if self.present is None:
            self._fill(present=find_present(xyz, self.dims))
        else:
            self._fill(present=np.asarray(self.present, bool))
        self._check()

    def _fill(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def _trusted(cls, **fields: Any) -> Clips:
        """Clips of fields that are known to be valid; nothing is looked at."""
        clips = object.__new__(cls)
        clips._fill(**{"path": None, "stamp": None, **fields})
        return clips

    def _check(self) -> None:
        if self.dims < 1:
            raise _fail("at least one coordinate in xyz", f"shape {self.xyz.shape}")
        if self.present.shape != self.xyz.shape[:2]:
            raise _fail(f"present of shape {self.xyz.shape[:2]}", self.present.shape)
        self.check_metadata()
        if (bad := find_not_finite(self.xyz)) is not None:
            raise _fail("finite coordinates", f"{self.xyz[bad]} in {self.place(bad)}")

    def check_metadata(self) -> None:
        """Raise the errors of the constructor, all but those about the coordinates."""
        n, frames = len(self), int(self.length.sum())
        for key, value in {**{k: getattr(self, k) for k in PER_CLIP}, **self.extra}.items():
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
        order = np.argsort(self.name, kind="stable")
        for k in np.flatnonzero(self.name[order[1:]] == self.name[order[:-1]])[:1]:
            twice = f"{self.where(order[k])} and {self.where(order[k + 1])}"
            raise _fail("unique names", f"the same for {twice}")

    def where(self, clip: int) -> str:
        """How messages name a clip: its index and its name."""
        return f"clip {int(clip)} ({self.name[clip]})"

    def place(self, index: tuple[int, ...]) -> str:
        """How messages name an element of ``xyz``, of index (frame, person, joint, channel)."""
        clip = int(np.searchsorted(self.offset, index[0], side="right")) - 1
        return f"{self.where(clip)}, {in_clip((index[0] - self.offset[clip], *index[1:]))}"

    def __len__(self) -> int:
        return len(self.length)

    def __getitem__(self, clip: int) -> np.ndarray:
        """Coordinates (T, M, V, C) of one clip, a view."""
        stop = self.offset[range(len(self))[clip] + 1]
        return self.xyz[stop - self.length[clip] : stop]

    @cached_property
    def offset(self) -> np.ndarray:
        """(N + 1,) int64: clip i holds the frames offset[i] to offset[i + 1] of ``xyz``."""
        return np.concatenate([[0], np.cumsum(self.length)])

    @cached_property
    def identity(self) -> str:
        """Digest of layout, classes, names, lengths and labels; the same in memory and on disk."""
        digest = hashlib.sha256("\0".join((self.layout, *self.classes)).encode())
        for start in range(0, len(self), 1 << 16):
            part = slice(start, start + (1 << 16))
            digest.update("\0".join(self.name[part].tolist()).encode())
            digest.update(np.stack([self.length[part], self.label[part]]).astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def num_persons(self) -> int:
        return self.xyz.shape[1]

    @property
    def num_joints(self) -> int:
        return self.xyz.shape[2]

    @property
    def dims(self) -> int:
        """Coordinates per joint: the channels without the score."""
        return self.xyz.shape[3] - self.confidence

    def select(self, index: np.ndarray) -> Clips:
        """The clips of an integer index or boolean mask (N,), in that order, as a copy in memory.

        Raises:
            ValueError: a clip is asked for twice.
        """
        index = np.arange(len(self))[index]
        seen, count = np.unique(index, return_counts=True)
        for i in seen[count > 1][:1]:
            raise ValueError(f"select: expected every clip once, got {self.where(i)} twice")
        length = self.length[index]
        shift = self.offset[index] - np.concatenate([[0], np.cumsum(length)[:-1]])
        frames = np.arange(length.sum()) + np.repeat(shift, length)
        return Clips._trusted(
            xyz=self.xyz[frames],
            present=self.present[frames],
            extra={key: value[index] for key, value in self.extra.items()},
            **{key: getattr(self, key)[index] for key in PER_CLIP},
            **{key: getattr(self, key) for key in ("classes", "layout", "fps", "confidence")},
        )

    def divide(self, key: str) -> Clips:
        """Clips whose classes are told apart by ``extra[key]`` too, e.g. movement x correctness.

        Raises:
            ValueError: no such per-clip array.
        """
        if key not in self.extra:
            raise _fail(f"key of extra, one of {sorted(self.extra)}", repr(key))
        values, which = np.unique(self.extra[key], return_inverse=True)
        kept = {name: value for name, value in self.__dict__.items() if name in _FIELDS}
        kept["classes"] = tuple(f"{c}, {key} {v}" for c in self.classes for v in values)
        kept["label"] = np.asarray(self.label) * len(values) + which.reshape(-1)
        return Clips._trusted(**kept)

    @classmethod
    def open(cls, path: str | Path) -> Clips:
        """Map a store, see :func:`skelops.data.store.open_store`."""
        from skelops.data.store import open_store

        return open_store(path)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a store, see :class:`skelops.data.store.ClipWriter` for the errors."""
        from skelops.data.store import save_store

        save_store(self, path, overwrite=overwrite)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.path is None:
            return super().__reduce_ex__(protocol)
        from skelops.data.store import reopen_store

        return reopen_store, (self.path, self.stamp)


_FIELDS = frozenset(f.name for f in fields(Clips)) - {"path", "stamp"}


def in_clip(index: tuple[int, ...]) -> str:
    """How messages name an element (frame, person, joint, channel) within its clip."""
    frame, person, joint, *_ = index
    return f"frame {frame}, person {person}, joint {joint}"


def _blocks(xyz: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(_BLOCK // max(int(np.prod(xyz.shape[1:])), 1), 1)
    return ((start, xyz[start : start + step]) for start in range(0, len(xyz), step))


def find_not_finite(xyz: np.ndarray) -> tuple[int, ...] | None:
    """Index of the first element that is not finite, None where all are."""
    for start, block in _blocks(xyz):
        finite = np.isfinite(block)
        if not finite.all():
            frame, *rest = map(int, np.unravel_index(np.argmin(finite), finite.shape))
            return (start + frame, *rest)
    return None


def find_present(xyz: np.ndarray, dims: int) -> np.ndarray:
    """(F, M) bool: where any of the first ``dims`` channels of a person is not zero."""
    present = np.zeros(xyz.shape[:2], bool)
    for start, block in _blocks(xyz):
        present[start : start + len(block)] = (block[..., :dims] != 0).any(axis=(2, 3))
    return present


def _fail(expected: str, got: object) -> ValueError:
    return ValueError(f"Clips: expected {expected}, got {got}")
