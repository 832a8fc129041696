"""Published preparations of whole clips, done once when a store is made.

A clip is an array (T, M, V, C); persons who are missing in a frame are all zero there. What can be
done per batch (centring, alignment, unit box) is part of :class:`skelops.data.ClipTransform`;
here are the steps that drop, fill or resample frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from skelops import _check
from skelops.data import plan
from skelops.data.formats._base import Clip, Source
from skelops.data.transform import alignment, middle, shoulders
from skelops.graph import get_layout


def drop_empty(xyz: np.ndarray) -> np.ndarray:
    """Frames in which the leading person is seen; that person comes first.

    The leading person is the one of the first two who is seen in more frames, the first one on a
    tie.

    Args:
        xyz: (T, M, V, C).

    Returns:
        (T', M, V, C) copy; all frames if nobody is ever seen.

    Source: PreNormalize3D of PYSKL (Duan et al., ACM MM 2022).
    """
    seen = ~np.isclose(xyz, 0).all((2, 3))
    if not seen.any():
        return xyz.copy()
    if xyz.shape[1] > 1 and seen[:, 0].sum() < seen[:, 1].sum():
        swap = [1, 0, *range(2, xyz.shape[1])]
        xyz, seen = xyz[:, swap], seen[:, swap]
    return xyz[seen[:, 0]]


def loop_missing(xyz: np.ndarray) -> np.ndarray:
    """Each person's clip moved to its first seen frame and repeated after its last one.

    Args:
        xyz: (T, M, V, C).

    Returns:
        (T, M, V, C) copy; persons who are never seen stay zero.

    Source: pre_normalization of 2s-AGCN (Shi et al., CVPR 2019) and HaLP (Shah et al., CVPR 2023).
    """
    xyz = xyz.copy()
    for m in range(xyz.shape[1]):
        person = xyz[:, m]
        seen = person.any((1, 2))
        if not seen.any():
            continue
        if not seen[0]:
            kept = person[seen]
            person[:] = 0
            person[: len(kept)] = kept
        stop = int(np.flatnonzero(person.any((1, 2)))[-1]) + 1
        person[stop:] = person[np.arange(len(person) - stop) % stop]
    return xyz


def center(xyz: np.ndarray, joint: int, *, per_frame: bool = False) -> np.ndarray:
    """Subtract a joint of the first person from all joints that are not at the origin.

    Args:
        xyz: (T, M, V, C).
        joint: which joint.
        per_frame: subtract its place in the same frame instead of that in the first one.
    """
    origin = xyz[:, :1, joint : joint + 1] if per_frame else xyz[:1, :1, joint : joint + 1]
    return np.where((xyz != 0).any(-1, keepdims=True), xyz - origin, 0).astype(xyz.dtype)


def align(xyz: np.ndarray, layout: str) -> np.ndarray:
    """Rotate the clip so that its first spine points along +z and its first shoulders along +x.

    Args:
        xyz: (T, M, V, 3).
        layout: joint layout.

    Raises:
        ValueError: the layout names no spine or shoulders.
    """
    pose = torch.from_numpy(xyz[:1, 0].astype(np.float64))
    turn = alignment(pose, get_layout(layout))
    return (xyz @ turn[0].numpy().T).astype(xyz.dtype)


def pyskl(xyz: np.ndarray, layout: str, *, align_spine: bool = True) -> np.ndarray:
    """Drop frames without the leading person, centre on its first spine, align (PYSKL, BRL).

    Args:
        xyz: (T, M, V, 3).
        layout: joint layout.
        align_spine: False as ACLNet has it.
    """
    xyz = center(drop_empty(xyz), middle(get_layout(layout)))
    return align(xyz, layout) if align_spine else xyz


def halp(xyz: np.ndarray, layout: str) -> np.ndarray:
    """Fill empty frames by looping, centre every frame on the spine of person 0, align (HaLP)."""
    spine = middle(get_layout(layout))
    return align(center(loop_missing(xyz), spine, per_frame=True), layout)


def hiclr(
    xyz: np.ndarray,
    layout: str = "ntu25",
    frames: int | None = 50,
    relative: bool = True,
    turn: bool = True,
) -> np.ndarray:
    """Joints relative to the upper spine, resampled, each frame turned to the camera (HiCLR).

    Every person and frame is rotated about y so that the shoulder line lies along x: by
    arccos(v_x / (|v| + 1e-4)) for the line v without its y part, negated for all frames of a person
    if its z parts do not sum to a negative number.

    Args:
        xyz: (T, M, V, 3); frames after the last one that shows joint 0 of person 0 do not count.
        layout: joint layout with shoulders.
        frames: T of the result; None leaves the frames as they are.
        relative: relative to the upper spine of the same frame and person.
        turn: turned to the camera.
    """
    joints = get_layout(layout)
    names = joints.joint_names
    root = names.index("spine_shoulder") if "spine_shoulder" in names else middle(joints)
    x = torch.from_numpy(xyz - xyz[:, :, root : root + 1] if relative else xyz)
    if frames is not None:
        length = max(int(xyz[:, 0, 0].any(-1).sum()), 1)
        low, weight = plan.resize(torch.tensor([0]), torch.tensor([length]), frames)
        high = (low[0] + 1).clamp(max=length - 1)
        x = torch.lerp(x[low[0]], x[high], weight[0][:, None, None, None].to(x))
    if not turn:
        return x.numpy()
    right, left = shoulders(joints)
    across = x[:, :, right] - x[:, :, left]  # (T, M, 3)
    across[..., 1] = 0
    angle = (across[..., 0] / (across.norm(dim=-1) + 1e-4)).acos()
    angle = torch.where(across[..., 2].sum(0) >= 0, -angle, angle)[..., None]
    c, s = angle.cos(), angle.sin()
    turned = [c * x[..., 0] - s * x[..., 2], x[..., 1], s * x[..., 0] + c * x[..., 2]]
    return torch.stack(turned, dim=-1).numpy()


PREPARATIONS: dict[str, Callable[..., np.ndarray]] = {
    "pyskl": pyskl,
    "halp": halp,
    "hiclr": hiclr,
}


@dataclass(frozen=True)
class Prepared:
    """A source whose clips are prepared as they are loaded.

    Args:
        source: any source.
        preparation: name in :data:`PREPARATIONS`.

    Raises:
        ValueError: unknown name.
    """

    source: Source
    preparation: str

    def __post_init__(self) -> None:
        if self.preparation not in PREPARATIONS:
            expected = f"preparation in {', '.join(PREPARATIONS)}"
            raise _check.fail("Prepared", expected, repr(self.preparation))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def load(self, index: int) -> Clip | None:
        clip = self.source.load(index)
        if clip is None:
            return None
        prepare = PREPARATIONS[self.preparation]
        return replace(clip, xyz=prepare(clip.xyz, self.source.layout).astype(np.float32))
