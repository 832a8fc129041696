"""NW-UCLA: the json files that the CTR-GCN line of code publishes (``all_sqe``)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import heads, integer, item, numbers, read_json

CLASSES = (
    "pick up with one hand", "pick up with two hands", "drop trash", "walk around", "sit down",
    "stand up", "donning", "doffing", "throw", "carry",
)  # fmt: skip
_NAME = re.compile(r"a(\d{2})_s(\d{2})_e(\d{2})_v(\d{2})")


class NWUCLA:
    """NW-UCLA clips, in the order of their file names.

    Each file is ``{"file_name": "a01_s01_e00_v01", "skeletons": [T][20][3], "label": 1..10}``:
    action, subject, repetition and view are in the name, labels become 0-based. Clips are
    (T, 1, 20, 3) float32, metres; ``extra["rep"]`` is the repetition.

    Args:
        path: a directory of json files, or one file.

    Raises:
        FileNotFoundError: no json file.

    Source: Wang, Nie, Xia, Wu, Zhu, *Cross-view Action Modeling, Learning and Recognition*,
    CVPR 2014.
    """

    layout = "nw_ucla20"
    classes = CLASSES
    num_persons = 1
    channels = 3
    confidence = False
    fps = None

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.files = sorted(map(str, path.glob("*.json"))) if path.is_dir() else [str(path)]
        if not self.files:
            raise FileNotFoundError(f"{path}: expected json files, got none")

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Clip:
        file = self.files[index]
        record = read_json(file, dict)
        name, frames, label = (item(record, k, file) for k in ("file_name", "skeletons", "label"))
        match = _NAME.fullmatch(str(name))
        if match is None:
            raise ValueError(f"{file}: expected file_name like a01_s01_e00_v01, got {name!r:.80}")
        label = integer(label, 1, len(CLASSES), "label", file)
        if not isinstance(frames, list) or not frames:
            raise ValueError(
                f"{file}: expected at least one frame in skeletons, got {frames!r:.80}"
            )
        poses = [numbers(f, (20, 3), f"{file}, frame {t}") for t, f in enumerate(frames)]
        _, subject, rep, view = (int(group) for group in match.groups())
        return Clip(np.stack(poses)[:, None], label - 1, str(name), subject, view, {"rep": rep})


def _recognises(path: Path) -> bool:
    keys = (b'"file_name"', b'"skeletons"')
    return any(any(key in start for key in keys) for start in heads(path, ".json"))


register_format(Format("nw_ucla", "NW-UCLA json files (all_sqe)", _recognises, NWUCLA))
