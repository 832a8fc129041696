"""Readers of recorded clips: NW-UCLA json files and packed .npz archives."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from skelops.data.clips import Clips
from skelops.graph import get_layout, list_layouts

NW_UCLA_CLASSES = (
    "pick up with one hand", "pick up with two hands", "drop trash", "walk around", "sit down",
    "stand up", "donning", "doffing", "throw", "carry",
)  # fmt: skip
_NW_UCLA_NAME = re.compile(r"a(\d+)_s(\d+)_e(\d+)_v(\d+)")


def read(path: str | Path) -> Clips:
    """Read recorded clips, choosing the reader by what the path holds.

    Args:
        path: a directory of NW-UCLA json files, one such file, or a packed .npz archive.

    Returns:
        The clips.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the content is of no known format, truncated or damaged; the message names file
            and place. Nothing on disk is changed.
    """
    path = Path(path)
    if path.is_dir():
        return read_nw_ucla(path)
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK"):
        return read_npz(path)
    if head.lstrip().startswith(b"{"):
        return read_nw_ucla(path)
    raise ValueError(
        f"{path}: expected a directory, a json object or a zip archive, got "
        f"{f'a file that starts with {head[:8]!r}' if head else 'an empty file'}"
    )


def read_nw_ucla(path: str | Path) -> Clips:
    """Read NW-UCLA clips as the CTR-GCN line of code publishes them (``all_sqe``).

    Each file is ``{"file_name": "a01_s01_e00_v01", "skeletons": [T][20][3], "label": 1..10}``:
    action, subject, repetition and view are in the name, labels become 0-based.

    Args:
        path: a directory of json files, read in the order of their names, or one file.

    Returns:
        Clips of layout "nw_ucla20" with M = 1, metres; ``extra["rep"]`` is the repetition.

    Raises:
        FileNotFoundError: no json file.
        ValueError: a file is damaged; the message names it and the place.

    Source: Wang, Nie, Xia, Wu, Zhu, *Cross-view Action Modeling, Learning and Recognition*,
    CVPR 2014.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path}: expected json files, got none")
    xyz, label, names, numbers = zip(*map(_nw_ucla_clip, files), strict=True)
    _, subject, rep, view = np.array(numbers).T
    return Clips(
        np.concatenate(xyz)[:, None],
        np.array([len(x) for x in xyz]),
        np.array(label),
        NW_UCLA_CLASSES,
        layout="nw_ucla20",
        name=np.array(names),
        subject=subject,
        view=view,
        extra={"rep": rep},
    )


def _nw_ucla_clip(file: Path) -> tuple[np.ndarray, int, str, list[int]]:
    text = file.read_bytes()
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{file}: expected json, got {error.msg} at {place}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected json in UTF-8, got byte {error.start}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{file}: expected a json object, got {type(record).__name__}")
    for key in ("file_name", "skeletons", "label"):
        if key not in record:
            raise ValueError(f"{file}: expected key {key!r}, got {sorted(record)}")
    name, frames, label = str(record["file_name"]), record["skeletons"], record["label"]
    match = _NW_UCLA_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{file}: expected file_name like a01_s01_e00_v01, got {name!r}")
    if type(label) is not int or not 1 <= label <= len(NW_UCLA_CLASSES):
        raise ValueError(f"{file}: expected label in 1..{len(NW_UCLA_CLASSES)}, got {label!r}")
    if not isinstance(frames, list) or not frames:
        raise ValueError(f"{file}: expected at least one frame in skeletons, got {frames!r}")
    xyz = np.zeros((len(frames), 20, 3), np.float32)
    for t, frame in enumerate(frames):
        try:
            pose = np.array(frame, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{file}: expected numbers (20, 3) in frame {t}, got {error}"
            ) from error
        if pose.shape != (20, 3):
            raise ValueError(f"{file}: expected (20, 3) in frame {t}, got {pose.shape}")
        if not np.isfinite(pose).all():
            joint = int(np.argwhere(~np.isfinite(pose))[0, 0])
            raise ValueError(
                f"{file}: expected finite coordinates, got {pose[joint].tolist()} in frame {t}, "
                f"joint {joint}"
            )
        xyz[t] = pose
    return xyz, label - 1, name, [int(g) for g in match.groups()]


def read_npz(path: str | Path) -> Clips:
    """Read a packed archive of plain arrays; no pickle is ever loaded.

    ====================  =================================================================
    key                   content
    ====================  =================================================================
    ``xyz``               (F, V, C) or (F, M, V, C) floating, all clips end to end, metres
    ``length``            (N,) frames per clip, summing to F
    ``label``             (N,) 0-based class
    ``classes``           class names
    ``name, subject``     (N,) clip name and 1-based performer
    ``parent``            (V,) parent of each joint, -1 or itself at the root
    ``view, rep, ...``    optional (N,) arrays: ``view`` is the camera, others become ``extra``
    ``layout, fps``       optional scalars: name of the joint layout, frame rate in Hz
    ``ntu25_index``       optional (25,): joints in the NTU RGB+D order
    ====================  =================================================================

    The layout is the one named, else the registered one with the same bones, else, through
    ``ntu25_index``, "ntu25".

    Args:
        path: the archive.

    Returns:
        The clips.

    Raises:
        ValueError: truncated or damaged archive, a missing key, pickled objects, or arrays that
            contradict each other; the message names file and key or clip.
    """
    path = Path(path)
    arrays = _arrays(path)
    for key in ("xyz", "length", "label", "classes", "name", "subject"):
        if key not in arrays:
            raise ValueError(f"{path}: expected key {key!r}, got {sorted(arrays)}")
    xyz = arrays.pop("xyz")
    if xyz.ndim == 3:
        xyz = xyz[:, None]
    if xyz.ndim != 4 or not np.issubdtype(xyz.dtype, np.floating):
        raise ValueError(
            f"{path}: expected floating xyz of shape (F, V, C) or (F, M, V, C), got {xyz.dtype} "
            f"{xyz.shape}"
        )
    layout, index = _layout(path, arrays, xyz.shape[2])
    fields = {k: arrays.pop(k) for k in ("length", "label", "name", "subject")}
    for key in ("length", "label", "subject"):
        if fields[key].ndim != 1 or not np.issubdtype(fields[key].dtype, np.integer):
            raise ValueError(
                f"{path}: expected integers (N,) in {key}, got {fields[key].dtype} "
                f"{fields[key].shape}"
            )
    n = len(fields["length"])
    fps = arrays.pop("fps", None)
    classes = arrays.pop("classes")
    if "view" in arrays:
        fields["view"] = arrays.pop("view")
    extra = {
        k: v for k, v in arrays.items() if v.shape[:1] == (n,) and k not in ("joints", "parent")
    }
    try:
        return Clips(
            xyz if index is None else xyz[:, :, index],
            classes=tuple(classes.tolist()),
            layout=layout,
            fps=None if fps is None else float(fps),
            extra=extra,
            **fields,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {str(error).removeprefix('Clips: ')}") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    key: Any = None
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                arrays[key] = archive[key]
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        place = "its zip directory" if key is None else f"key {key!r}"
        raise ValueError(f"{path}: expected a readable archive of arrays, got {error} in {place}") \
            from error  # fmt: skip
    return arrays


def _layout(path: Path, arrays: dict, joints: int) -> tuple[str, np.ndarray | None]:
    """Layout name, and the joint order to bring the data into it (None: as it is)."""
    named, parent = arrays.pop("layout", None), arrays.pop("parent", None)
    index = arrays.pop("ntu25_index", None)
    if named is not None:
        layout = get_layout(str(named))
        if layout.num_joints != joints:
            raise ValueError(
                f"{path}: expected the {layout.num_joints} joints of layout {layout.name}, got "
                f"{joints}"
            )
        return layout.name, None
    if parent is not None:
        if parent.shape != (joints,):
            raise ValueError(f"{path}: expected parent of shape ({joints},), got {parent.shape}")
        bones = _edges(enumerate(parent.tolist()))
        for name in list_layouts():
            layout = get_layout(name)
            if layout.num_joints == joints and _edges(layout.bones) == bones:
                return name, None
    if index is None:
        raise ValueError(
            f"{path}: expected a key 'layout', the bones of a registered layout in 'parent', or "
            f"'ntu25_index', got {joints} joints that fit none"
        )
    if index.shape != (25,) or index.min() < 0 or index.max() >= joints:
        raise ValueError(
            f"{path}: expected ntu25_index of shape (25,) in 0..{joints - 1}, got shape "
            f"{index.shape}, values up to {index.max(initial=-1)}"
        )
    return "ntu25", index


def _edges(pairs) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in pairs if pair[1] not in (-1, pair[0])}
