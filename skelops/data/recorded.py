"""Recorded clips: videos and depth maps beside the joints, cut out around the people in them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check
from skelops.data.dataset import Batch, ClipDataset
from skelops.data.pose import COMPACT_PADDING, pose_box
from skelops.data.render import MODALITIES
from skelops.data.transform import SENSORS
from skelops.data.video import READERS, MediaError, count_frames, find_media
from skelops.ops import random_uniform

WHOLE_FRAMES = ("uniform", "sorted", "window", "pad")  # samplings that mix no frames
BOXES = ("pose", "picture")
_STREAM = SENSORS + len(MODALITIES)


class RecordedDataset(ClipDataset):
    """Clips as they were filmed: the frames that a :class:`ClipDataset` samples, of all sensors.

    x of a batch is a mapping of modalities, in step and in place with one another: "rgb"
    (N, 3, T, S, S) and "infrared" (N, 1, T, S, S) in [0, 1], "depth" (N, 1, T, S, S) in metres,
    "keypoints" (N, 3, T, V, M), x and y in [-1, 1] of the pictures and the score, "skeleton" as the
    transform leaves it. The clips hold what was found in the pictures: two coordinates in pixels,
    and a score or not; a joint at zero is missing. The size of the picture that they refer to is
    ``extra["height"]`` and ``extra["width"]`` of the clips, by default that of the first video;
    sensors of other sizes are taken to see the same.

    Args:
        args, options: of :class:`ClipDataset`; the transform decides on the frames, and has to
            sample whole ones.
        folders: where the recordings of each sensor are, see :func:`skelops.data.video.find_media`:
            for "rgb" and "infrared" a video per clip, for "depth" a folder of PNG or an npz file.
        modalities: what to show.
        image_size: S.
        box: what is cut out: "pose", the box around the joints of the sample as published for
            EPAM-Net and PYSKL, "picture", or an npz file of boxes that a detector found, "name"
            (B,) of clips and "box" (B, 4), x0, y0, x1, y1 in pixels of the key-points' picture.
        padding: share by which the box around joints is wider.
        crop: bounds of the share of the box that a training sample keeps, cut out at random.
        flip: probability that a training sample is mirrored, joints and pictures.
        skip_broken: leave out, with a warning, clips without a recording, that does not decode or
            has other frames than the joints.

    Raises:
        ValueError: as :class:`ClipDataset`; an unknown modality, or one without a folder; other
            sampling; boxes without pixels. :class:`skelops.data.video.MediaError` names clips
            whose recordings are missing, damaged or of another length, unless they are skipped.
        RuntimeError: PyAV is not installed.
    """

    def __init__(
        self,
        *args: Any,
        folders: Mapping[str, str | Path],
        modalities: Sequence[str],
        image_size: int = 224,
        box: str | Path = "pose",
        padding: float = COMPACT_PADDING,
        crop: tuple[float, float] | None = None,
        flip: float = 0.0,
        skip_broken: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        op = "RecordedDataset"
        for name in modalities:
            if name not in MODALITIES:
                raise _check.fail(op, f"modalities of {', '.join(MODALITIES)}", repr(name))
            if name in READERS and name not in folders:
                raise _check.fail(op, f"a folder of {name}", ", ".join(folders) or "none")
        if self.transform.sampling not in WHOLE_FRAMES:
            expected = f"sampling of whole frames, {', '.join(WHOLE_FRAMES)}"
            raise _check.fail(op, expected, repr(self.transform.sampling))
        if self.clips.dims != 2:
            raise _check.fail(op, "joints in pixels of two dimensions", self.clips.dims)
        if self.clips.layout != self.geometry.layout.name:
            raise _check.fail(op, f"the layout {self.clips.layout}", self.geometry.layout.name)
        if crop is not None and not 0 < crop[0] <= crop[1] <= 1:
            raise _check.fail(op, "crop of rising shares in (0, 1]", tuple(crop))
        if not 0 <= flip <= 1:
            raise _check.fail(op, "flip in [0, 1]", flip)
        self.modalities, self.image_size = tuple(modalities), image_size
        self.padding, self.crop, self.flip = padding, crop, flip
        self.skip_broken = skip_broken
        self.boxes = None if box in BOXES else self._detected(Path(box))
        self.whole_picture = box == "picture"
        self.paths = self._find(folders)

    def _find(self, folders: Mapping[str, str | Path]) -> dict[int, dict[str, Path]]:
        """Recordings of every clip; clips without are left out of the index, or refused."""
        sensors = [name for name in self.modalities if name in READERS]
        found: dict[int, dict[str, Path]] = {}
        lost: list[str] = []
        for clip in self.index.tolist():
            name = str(self.clips.name[clip])
            try:
                found[clip] = {
                    sensor: find_media(folders[sensor], name, depth=sensor == "depth")
                    for sensor in sensors
                }
            except MediaError as error:
                lost.append(str(error))
        more = f" (and of {len(lost) - 1} more clips)" if len(lost) > 1 else ""
        if lost and (not self.skip_broken or not found):
            raise MediaError(f"{lost[0]}{more}")
        if lost:
            warnings.warn(f"RecordedDataset: left out: {lost[0]}{more}", stacklevel=3)
            self.index = torch.tensor(list(found))
        return found

    def _detected(self, path: Path) -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as file:
            boxes = dict(zip(file["name"].tolist(), file["box"], strict=True))
        for clip in self.index.tolist():
            name = str(self.clips.name[clip])
            if name not in boxes:
                raise _check.fail("RecordedDataset", f"a box of clip {name} in {path}", "none")
            x0, y0, x1, y1 = boxes[name].tolist()
            if not (x1 - x0 >= 1 and y1 - y0 >= 1):
                expected = f"a box with pixels of clip {name} in {path}"
                raise _check.fail("RecordedDataset", expected, (x0, y0, x1, y1))
        return boxes

    def __getitems__(self, draws: Sequence[int] | Tensor) -> Batch:
        draw, clip = self.clips_of(draws)
        key: Any = {"train": self.train, "seed": self.seed}
        plan = self.transform.plan(self.geometry, clip, draw, **key)
        noise = random_uniform(draw, 4, seed=self.seed, stream=_STREAM)
        shown, kept = [], []
        for i, c in enumerate(clip.tolist()):
            try:
                shown.append(self._sample(c, plan.frame[i], noise[i].tolist()))
                kept.append(i)
            except MediaError as error:
                if not self.skip_broken:
                    raise
                warnings.warn(f"RecordedDataset: left out: {error}", stacklevel=2)
        if clip.numel() and not kept:
            raise MediaError("RecordedDataset: expected a clip of the batch that decodes, got none")
        x = {name: torch.stack([s[name] for s in shown]).to(self.device, self.dtype)
             for name in self.modalities if name != "skeleton"}  # fmt: skip
        if "skeleton" in self.modalities:
            x["skeleton"] = super().__getitems__(draw[kept]).x
        y = self._label[clip[kept]].to(self.device)
        return Batch(x, y, clip[kept].to(self.device))  # type: ignore[arg-type]

    def __getitem__(self, draw: int) -> Batch:
        x, y, clip = self.__getitems__([draw])
        return Batch({name: t[0] for name, t in x.items()}, y[0], clip[0])  # type: ignore

    def _sample(self, clip: int, frame: Tensor, noise: list[float]) -> dict[str, Tensor]:
        """(C, T, ...) of every modality."""
        there = frame >= 0
        index = frame.clamp(min=0).tolist()
        joints = torch.from_numpy(self.clips[clip][index].astype(np.float32))  # (T, M, V, C)
        joints = joints * there[:, None, None, None]
        images = {}
        for sensor, path in self.paths[clip].items():
            count, length = count_frames(path), int(self.clips.length[clip])
            if count != length:
                where = self.clips.where(clip)
                raise MediaError(f"{path}: expected {length} frames as of {where}, got {count}")
            images[sensor] = torch.from_numpy(READERS[sensor](path, index)).movedim(3, 1)
        size = self._picture(clip, images)
        box = self._box(clip, joints, size, noise)
        mirrored = self.train and noise[3] < self.flip
        shown = {}
        for sensor, image in images.items():
            image = _cut(image, box, size, self.image_size, smooth=sensor != "depth")
            image = image * there[:, None, None, None]
            shown[sensor] = (image.flip(-1) if mirrored else image).transpose(0, 1)
        shown["keypoints"] = self._keypoints(joints, box, mirrored)
        return shown

    def _picture(self, clip: int, images: Mapping[str, Tensor]) -> tuple[int, int]:
        """H and W of the picture that the joints refer to."""
        if {"height", "width"} <= set(self.clips.extra):
            return int(self.clips.extra["height"][clip]), int(self.clips.extra["width"][clip])
        if not images:
            expected = f"height and width of the picture of {self.clips.where(clip)}"
            raise _check.fail("RecordedDataset", expected, "none")
        H, W = next(iter(images.values())).shape[2:]
        return H, W

    def _box(
        self, clip: int, joints: Tensor, size: tuple[int, int], noise: list[float]
    ) -> tuple[float, float, float, float]:
        H, W = size
        if self.boxes is not None:
            x0, y0, x1, y1 = self.boxes[str(self.clips.name[clip])].tolist()
            x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, W), min(y1, H)
        elif self.whole_picture:
            x0, y0, x1, y1 = 0, 0, W, H
        else:
            x0, y0, x1, y1 = pose_box(joints[..., :2], size, padding=self.padding).tolist()
        if x1 - x0 < 1 or y1 - y0 < 1:
            expected = f"a box with pixels in the {W} x {H} picture of {self.clips.where(clip)}"
            raise _check.fail("RecordedDataset", expected, (x0, y0, x1, y1))
        if self.train and self.crop is not None:
            low, high = self.crop
            side = (low + (high - low) * noise[0]) ** 0.5
            w, h = side * (x1 - x0), side * (y1 - y0)
            x0, y0 = x0 + noise[1] * (x1 - x0 - w), y0 + noise[2] * (y1 - y0 - h)
            x1, y1 = x0 + w, y0 + h
        return x0, y0, x1, y1

    def _keypoints(self, joints: Tensor, box: Sequence[float], mirrored: bool) -> Tensor:
        """(T, M, V, C) pixels -> (3, T, V, M)."""
        x0, y0, x1, y1 = box
        seen = (joints[..., :2] != 0).any(-1, keepdim=True)
        score = joints[..., 2:3] * seen if self.clips.confidence else seen.to(joints.dtype)
        low, side = joints.new_tensor([x0, y0]), joints.new_tensor([x1 - x0, y1 - y0])
        at = ((joints[..., :2] - low) / side * 2 - 1) * seen
        if mirrored:
            order = list(self.geometry.layout.mirror)
            at, score = (at * at.new_tensor([-1, 1]))[:, :, order], score[:, :, order]
        return torch.cat([at, score], -1).permute(3, 0, 2, 1)


def _cut(
    image: Tensor, box: Sequence[float], size: tuple[int, int], side: int, smooth: bool
) -> Tensor:
    """(T, C, H, W) -> the pixels that a box in a picture of ``size`` touches, (T, C, S, S)."""
    H, W = image.shape[2:]
    sy, sx = H / size[0], W / size[1]
    x0, y0 = min(int(box[0] * sx), W - 1), min(int(box[1] * sy), H - 1)
    x1, y1 = max(round(box[2] * sx), x0 + 1), max(round(box[3] * sy), y0 + 1)
    part = image[:, :, y0:y1, x0:x1]
    scaled = part.float() / 255 if part.dtype == torch.uint8 else part
    if not smooth:  # a depth between two surfaces is of neither
        return F.interpolate(scaled, (side, side), mode="nearest-exact")
    return F.interpolate(scaled, (side, side), mode="bilinear", antialias=True)
