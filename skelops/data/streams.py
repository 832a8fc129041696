"""Input streams of skeleton networks: joints, bones, their motion, and parts of the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skelops import _check
from skelops.graph import Layout, body_part, get_layout
from skelops.ops import skeleton_streams
from skelops.ops.sample_clips import ANGLE, MOTION, MOTION_MEAN, NATIVE, SCORE_MEAN


@dataclass(frozen=True)
class Streams:
    """Streams as :func:`skelops.sample_clips` and :func:`skelops.skeleton_streams` take them.

    Args:
        parent: (S, V") int64, per stream the joint to subtract; -1 for none.
        kinds: S sums of the kinds of :func:`skelops.sample_clips`.
        part: (V",) int64, joints to return; None for all.
        names: S names, for messages.
    """

    parent: Tensor
    kinds: tuple[int, ...]
    part: Tensor | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.kinds)

    def __call__(self, x: Tensor) -> Tensor:
        """These streams of clips (N, C, T, V, M), see :func:`skelops.skeleton_streams`."""
        return skeleton_streams(x, self.parent, self.kinds, part=self.part)

    def to(self, device: torch.device | str) -> Streams:
        """The tables on another device."""
        part = None if self.part is None else self.part.to(device)
        return replace(self, parent=self.parent.to(device), part=part)


STREAMS = ("joint", "bone", "joint_motion", "bone_motion", "skip", "skip_motion", "angle")


def make_streams(
    names: Sequence[str] | str,
    layout: str | Layout,
    *,
    parents: Sequence[int] | str | None = None,
    skip_parents: Sequence[int] | None = None,
    root: int | bool | None = None,
    part: Sequence[int] | str | None = None,
    native_motion: bool = False,
    mean_scores: bool = False,
) -> Streams:
    """Streams of a joint layout.

    Args:
        names: any of "joint", "bone", "joint_motion", "bone_motion", "skip", "skip_motion"
            (the joint minus the one two links up) and "angle" (angles between a bone and the axes,
            radians; Song et al., EfficientGCN, TPAMI 2022).
        layout: joint layout.
        parents: (V,) parents of the bones; -1 keeps the joint itself. Default: those of the layout.
            "graph" for those of its graph, with roots that stay themselves (Hyper-GCN).
        skip_parents: (V,) joints that "skip" subtracts. Default: the parent of the parent, none
            next to the root (ACLNet, BRL).
        root: "joint" becomes relative to this joint, which itself stays as it is (Hyper-GCN);
            "joint_motion" does not. True for the root of the layout's graph.
        part: joints to return, or "body", "hand" or "leg": the joints and bones of that part, see
            :func:`skelops.graph.body_part` (PSUMNet).
        native_motion: take motion between neighbouring frames of the clip, before it is resampled
            (PYSKL, BRL, ACLNet).
        mean_scores: the confidence of a bone is the mean of those of its ends, that of motion the
            mean of those of both frames, zero in the last one (PYSKL), instead of their difference.

    Raises:
        ValueError: unknown name, or tables that do not fit the layout.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names or ("",):
        if name not in STREAMS:
            raise _check.fail("make_streams", f"streams of {STREAMS}", repr(name))
    layout = get_layout(layout)
    V, own = layout.num_joints, list(layout.parents)
    roots = [v for v, parent in enumerate(layout.graph_parents) if v == parent]
    if parents == "graph":
        parents = [-1 if v in roots else parent for v, parent in enumerate(layout.graph_parents)]
    root = roots[0] if root is True else root
    if isinstance(part, str):
        cut = body_part(layout, part)
        part = cut.joints
        for v, p in zip(part, cut.layout.parents, strict=True):
            own[v] = part[p]
    bone = _table("parents", own if parents is None else parents, V)
    skip = [v if p < 0 or bone[p] in (p, -1) else bone[p] for v, p in enumerate(bone)]
    skip = _table("skip_parents", skip if skip_parents is None else skip_parents, V)
    for what, joints in (("root", [] if root is None else [root]), ("part", part or [])):
        if not all(0 <= v < V for v in joints):
            raise _check.fail("make_streams", f"{what} in 0..{V - 1}", joints)
    none = [-1] * V
    relative = none if root is None else [-1 if v == root else root for v in range(V)]
    tables = {"joint": relative, "bone": bone, "skip": skip, "angle": bone}
    motion = {"joint_motion": none, "bone_motion": bone, "skip_motion": skip}
    rows, kinds = [], []
    for name in names:
        rows.append(motion[name] if name in motion else tables[name])
        kind = SCORE_MEAN * mean_scores + ANGLE * (name == "angle")
        if name in motion:
            kind += (NATIVE if native_motion else MOTION) + MOTION_MEAN * mean_scores
        kinds.append(kind)
    parent = torch.tensor(rows).view(len(rows), V)
    if part is None:
        return Streams(parent, tuple(kinds), None, names)
    index = torch.tensor(part)
    return Streams(parent[:, index], tuple(kinds), index, names)


def _table(name: str, parents: Sequence[int], V: int) -> list[int]:
    if len(parents) != V or not all(-1 <= p < V for p in parents):
        raise _check.fail("make_streams", f"{name} of {V} joints in -1..{V - 1}", list(parents))
    return list(parents)
