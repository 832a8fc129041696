"""Published and custom splits of clips, as index arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skelops.data.clips import Clips

NTU60_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
NTU120_SUBJECTS = (
    *NTU60_SUBJECTS, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83,
    84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """Whose clips train: those whose group (subject, view or setup) passes ``train``."""

    group: str
    train: Callable[[np.ndarray], np.ndarray]
    classes: int | None = None  # a published protocol: only labels below this take part


def _among(*groups: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda group: np.isin(group, groups)


def _odd(group: np.ndarray) -> np.ndarray:
    return np.equal(group % 2, 1)


def _even(group: np.ndarray) -> np.ndarray:
    return np.equal(group % 2, 0)


GENERAL = {
    "cross_subject": Protocol("subject", _odd),
    "cross_view": Protocol("view", _among(1, 2)),
    "cross_setup": Protocol("setup", _even),
}
PUBLISHED = {
    "ntu60_xsub": Protocol("subject", _among(*NTU60_SUBJECTS), 60),
    "ntu60_xview": Protocol("view", _among(2, 3), 60),
    "ntu120_xsub": Protocol("subject", _among(*NTU120_SUBJECTS), 120),
    "ntu120_xset": Protocol("setup", _even, 120),
    "nw_ucla": Protocol("view", _among(1, 2), 10),
    "ui_prmd": Protocol("subject", _odd),
}
PROTOCOLS = (*GENERAL, *PUBLISHED, "random")


def split(
    clips: Clips,
    protocol: str = "cross_subject",
    train: Iterable[int] | None = None,
    *,
    share: float = 0.8,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and test clips that share no subject (no view, no setup).

    ===================  ============================================================
    protocol             trains on
    ===================  ============================================================
    ``cross_subject``    subjects ``train``, by default the odd ones
    ``cross_view``       views ``train``, by default 1 and 2
    ``cross_setup``      setups ``train`` of ``extra["setup"]``, by default the even ones
    ``ntu60_xsub``       the 20 published subjects, of the classes 1 to 60
    ``ntu60_xview``      cameras 2 and 3, of the classes 1 to 60
    ``ntu120_xsub``      the 53 published subjects
    ``ntu120_xset``      even setups
    ``nw_ucla``          views 1 and 2
    ``ui_prmd``          odd subjects
    ``extra:<key>``      clips whose ``extra[<key>]`` is "train"; "test" ones are tested
    ``random``           ``share`` of each class, drawn with ``seed``
    ===================  ============================================================

    Args:
        clips: what to split.
        protocol: a name of the table. ``extra:<key>`` replays the lists that came with a data set,
            such as those of PKU-MMD, where the reader keeps them.
        train: the groups to train on, for the first three.
        share: part of the clips to train on, in (0, 1), for "random".
        seed: for "random".

    Returns:
        train, test: int64 indices in rising order; see :meth:`Clips.select`.

    Raises:
        ValueError: unknown protocol, too few classes for it, an argument that it does not take, or
            one side would be empty.

    Source: Shahroudy, Liu, Ng, Wang, CVPR 2016 (NTU RGB+D); Liu, Shahroudy, Perez, Wang, Duan,
    Kot, TPAMI 2019 (NTU RGB+D 120); Wang, Nie, Xia, Wu, Zhu, CVPR 2014 (NW-UCLA). UI-PRMD has no
    official split; odd against even subjects is the usual one.
    """
    if protocol not in PROTOCOLS and not protocol.startswith("extra:"):
        raise ValueError(
            f"split: expected protocol in {(*PROTOCOLS, 'extra:<key>')}, got {protocol!r}"
        )
    if train is not None and protocol not in GENERAL:
        raise ValueError(f"split: expected groups to train on for {tuple(GENERAL)} only, got them "
                         f"for {protocol!r}")  # fmt: skip
    if protocol == "random":
        return _random(clips.label, share, seed)
    if protocol.startswith("extra:"):
        group = _extra(clips, protocol.removeprefix("extra:"))
        ids = np.flatnonzero(group == "train"), np.flatnonzero(group == "test")
    else:
        rule = (GENERAL | PUBLISHED)[protocol]
        if rule.classes is not None and clips.num_classes < rule.classes:
            raise ValueError(f"split: expected the {rule.classes} classes of {protocol}, "
                             f"got {clips.num_classes}")  # fmt: skip
        group = _extra(clips, "setup") if rule.group == "setup" else getattr(clips, rule.group)
        inside = rule.train(group) if train is None else np.isin(group, list(train))
        takes_part = clips.label < (rule.classes or clips.num_classes)
        ids = np.flatnonzero(inside & takes_part), np.flatnonzero(~inside & takes_part)
    if not len(ids[0]) or not len(ids[1]):
        raise ValueError(
            f"split: expected clips on both sides of {protocol}, got {len(ids[0])} to train on and "
            f"{len(ids[1])} to test, of the groups {np.unique(group).tolist()}"
        )
    return ids


def _extra(clips: Clips, key: str) -> np.ndarray:
    if key not in clips.extra:
        raise ValueError(f"split: expected {key!r} in extra, got {sorted(clips.extra)}")
    return clips.extra[key]


def _random(label: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < share < 1:
        raise ValueError(f"split: expected share in (0, 1), got {share}")
    rng, inside = np.random.default_rng(seed), np.zeros(len(label), bool)
    for c in np.unique(label):
        members = rng.permutation(np.flatnonzero(label == c))
        most = max(len(members) - 1, 1)  # keeps one to test where there are two
        inside[members[: min(max(round(share * len(members)), 1), most)]] = True
    if inside.all():
        raise ValueError("split: expected a class of two clips or more, got none")
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def save_split(path: str | Path, train: np.ndarray, test: np.ndarray, clips: Clips) -> None:
    """Write a split as an .npz of plain arrays, bound to its clips by their identity.

    Args:
        path: the file, replaced if it is there.
        train: indices to train on.
        test: indices to test.
        clips: what they index.

    Raises:
        ValueError: indices out of range, repeated or on both sides.
    """
    ids = {"train": np.asarray(train, np.int64), "test": np.asarray(test, np.int64)}
    _check(path, clips, **ids)
    with Path(path).open("wb") as file:
        np.savez_compressed(file, identity=np.array(clips.identity), **ids)


def load_split(path: str | Path, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    """Read what :func:`save_split` wrote; no pickle is ever loaded.

    Args:
        path: the file.
        clips: the clips that were split, in memory or on disk.

    Returns:
        train, test: int64 indices.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a damaged file, the split of other clips, or indices that do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("train", "test", "identity")}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a split file, got {error}") from error
    if str(arrays["identity"]) != clips.identity:
        raise ValueError(f"{path}: expected a split of the clips {clips.identity[:16]}, got one of "
                         f"{str(arrays['identity'])[:16]}")  # fmt: skip
    _check(path, clips, arrays["train"], arrays["test"])
    return arrays["train"], arrays["test"]


def _check(path: str | Path, clips: Clips, train: np.ndarray, test: np.ndarray) -> None:
    ids = np.concatenate([train, test])
    if ids.dtype != np.int64 or ids.ndim != 1:
        raise ValueError(f"{path}: expected indices (N,) int64, got {ids.dtype} {ids.shape}")
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(clips):
        raise ValueError(f"{path}: expected indices in 0..{len(clips) - 1}, got {ids.min()}.."
                         f"{ids.max()}")  # fmt: skip
    seen, count = np.unique(ids, return_counts=True)
    for i in seen[count > 1][:1]:
        raise ValueError(f"{path}: expected every clip on one side, got {clips.where(i)} twice")
