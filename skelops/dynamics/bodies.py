"""Body models of joint layouts: segments with the masses of people, and their coordinates.

The pelvis moves freely (three slides, then turns about x, y, z), the chest turns about x, y, z and
every other segment about x, then y: what the positions of joints show. A body's frame has x to the
person's right, y ahead and z up; at zero the head points up and every limb straight down.

Source of masses, centres of mass, radii of gyration and lengths: de Leva, Adjustments to
Zatsiorsky-Seluyanov's segment inertia parameters, Journal of Biomechanics, 1996, Table 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check
from skelops.graph import Layout, get_layout
from skelops.ops import forward_kinematics
from skelops.ops._tree import Body, Tree

SEXES = ("male", "female")
HEIGHT = {"male": 1.741, "female": 1.735}
MASS = {"male": 73.0, "female": 61.9}
LIGHTEST = 1e-3  # share of the body's mass that every joint has at least


class Anthropometry(NamedTuple):
    """Of a segment, of men and of women: mass, centre of mass (from the start, as a share of the
    length) and radii of gyration about x, y, z as shares of the length; then the length of a man of
    1.741 m."""

    mass: tuple[float, float]
    com: tuple[float, float]
    gyration: tuple[tuple[float, float, float], tuple[float, float, float]]
    length: float


# Pelvis and chest are parts of the trunk; the chest is its upper and middle part together. The head
# is measured from the neck.
_TRUNK = (0.358, 0.384, 0.197), (0.361, 0.379, 0.182)
TABLE = {
    "trunk": Anthropometry((0.4346, 0.4257), (0.569, 0.6218), _TRUNK, 0.5155),
    "pelvis": Anthropometry(
        (0.1117, 0.1247), (0.3885, 0.508), ((0.551, 0.615, 0.587), (0.402, 0.433, 0.444)), 0.1457
    ),
    "chest": Anthropometry((0.3229, 0.301), (0.5834, 0.5834), _TRUNK, 0.3698),
    "head": Anthropometry(
        (0.0694, 0.0668), (0.5, 0.5), ((0.315, 0.303, 0.261), (0.295, 0.271, 0.261)), 0.1929
    ),
    "upper_arm": Anthropometry(
        (0.0271, 0.0255), (0.5772, 0.5754), ((0.269, 0.285, 0.158), (0.26, 0.278, 0.148)), 0.2817
    ),
    "forearm": Anthropometry(
        (0.0162, 0.0138), (0.4574, 0.4559), ((0.265, 0.276, 0.121), (0.257, 0.261, 0.094)), 0.2689
    ),
    "hand": Anthropometry(
        (0.0061, 0.0056), (0.79, 0.7474), ((0.513, 0.628, 0.401), (0.454, 0.531, 0.335)), 0.0862
    ),
    "thigh": Anthropometry(
        (0.1416, 0.1478), (0.4095, 0.3612), ((0.329, 0.329, 0.149), (0.364, 0.369, 0.162)), 0.4222
    ),
    "shank": Anthropometry(
        (0.0433, 0.0481), (0.4395, 0.4352), ((0.246, 0.251, 0.102), (0.263, 0.267, 0.092)), 0.434
    ),
    "foot": Anthropometry(
        (0.0137, 0.0129), (0.4415, 0.4014), ((0.245, 0.257, 0.124), (0.279, 0.299, 0.139)), 0.2581
    ),
}
HALF_SHOULDERS, HALF_HIPS = 0.129, 0.05  # of the height

# What layouts call the middle points; several names are averaged.
_PELVIS = (("spine_base",), ("hip_center",), ("pelvis",), ("mid_hip",), ("left_hip", "right_hip"))
_WAIST = (("spine_mid",), ("spine",))
_CHEST = (
    ("spine_shoulder",), ("shoulder_center",), ("thorax",), ("left_shoulder", "right_shoulder"),
)  # fmt: skip
_NECK = (("neck",), *_CHEST)
_HEAD = (("head",), ("nose", "left_eye", "right_eye", "left_ear", "right_ear"))
_ARM = (
    ("upper_arm", "shoulder", "elbow"),
    ("forearm", "elbow", "wrist"),
    ("hand", "wrist", "hand"),
)
_LEG = (("thigh", "hip", "knee"), ("shank", "knee", "ankle"), ("foot", "ankle", "foot"))


class Segment(NamedTuple):
    """A rigid part between two points, each the mean of some joints."""

    name: str
    kind: str  # of ``TABLE``
    parent: int
    start: tuple[int, ...]
    end: tuple[int, ...]
    across: tuple[int, int] | None  # left and right joint on its x axis; else it has no own twist


def segments(layout: str | Layout) -> tuple[Segment, ...]:
    """The segments whose ends a layout has, parents first.

    Raises:
        ValueError: it lacks the joints of trunk, head, arms or legs.
    """
    layout = get_layout(layout)
    index = {name: v for v, name in enumerate(layout.joint_names)}

    def point(choices: Sequence[tuple[str, ...]]) -> tuple[int, ...] | None:
        found = (tuple(index[n] for n in names) for names in choices if index.keys() >= set(names))
        return next(found, None)

    def pair(name: str) -> tuple[int, int] | None:
        return point([(f"left_{name}", f"right_{name}")])  # type: ignore[return-value]

    found: list[Segment] = []

    def add(name: str, kind: str, parent: int, start, end, across=None) -> int:
        if start is None or end is None:
            raise _check.fail("body_model", f"a layout with the ends of the {name}", layout.name)
        found.append(Segment(name, kind, parent, start, end, across))
        return len(found) - 1

    pelvis, waist, chest = (point(names) for names in (_PELVIS, _WAIST, _CHEST))
    if pair("hip") is None or pair("shoulder") is None:
        raise _check.fail("body_model", "a layout with hips and shoulders", layout.name)
    if waist is None:
        low = high = add("trunk", "trunk", -1, pelvis, chest, pair("hip"))
    else:
        low = add("pelvis", "pelvis", -1, pelvis, waist, pair("hip"))
        high = add("chest", "chest", low, waist, chest, pair("shoulder"))
    add("head", "head", high, point(_NECK), point(_HEAD))
    for side in ("left", "right"):
        for base, limb in ((high, _ARM), (low, _LEG)):
            above = base
            for kind, start, end in limb:
                if kind not in ("hand", "foot") or f"{side}_{end}" in index:
                    ends = (point([(f"{side}_{joint}",)]) for joint in (start, end))
                    above = add(f"{side}_{kind}", kind, above, *ends)
    return tuple(found)


@dataclass(frozen=True, eq=False)
class BodyModel:
    """A person's bodies, and the way between joints and coordinates.

    Attributes:
        layout: of the joints.
        segments: one per body.
        tree: its n coordinates are named by ``names``.
        last: of every segment, its last degree of freedom.
        owner: (V,) the segment that each joint belongs to.
        local: (V, 3) where it is in the segment's frame.
    """

    layout: Layout
    segments: tuple[Segment, ...]
    tree: Tree
    last: tuple[int, ...]
    owner: tuple[int, ...]
    local: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """Of the coordinates: "pelvis_along_x", "left_thigh_about_y", ..."""
        found = []
        for segment in self.segments:
            if segment.parent < 0:
                found += [f"{segment.name}_along_{axis}" for axis in "xyz"]
            found += [
                f"{segment.name}_about_{axis}" for axis in ("xyz" if segment.across else "xy")
            ]
        return tuple(found)

    def coordinates(self, x: Tensor) -> Tensor:
        """Joints (..., V, 3) -> coordinates (..., n) of the same directions of all segments.

        Angles are in (-pi, pi]; lengths of bones are the model's, whatever the joints'.

        Raises:
            ValueError: shapes do not fit.
        """
        _check_joints("coordinates", x, self.layout)
        values = []
        world: list[Tensor] = []
        for segment, R, origin in _frames(self.segments, x):
            local = R if segment.parent < 0 else world[segment.parent].mT @ R
            if segment.parent < 0:
                values += list(origin.unbind(-1))
            values.append(torch.atan2(-local[..., 1, 2], local[..., 2, 2]))
            values.append(torch.asin(local[..., 0, 2].clamp(-1, 1)))
            if segment.across:
                values.append(torch.atan2(-local[..., 0, 1], local[..., 0, 0]))
            world.append(R)
        return torch.stack(values, -1)

    def positions(self, q: Tensor) -> Tensor:
        """Coordinates (..., n) -> joints (..., V, 3)."""
        position, rotation = forward_kinematics(self.tree, q)
        body = [self.last[segment] for segment in self.owner]
        turned = (rotation[..., body, :, :] @ self.local.to(q)[..., None]).squeeze(-1)
        return position[..., body, :] + turned


def body_model(
    layout: str | Layout = "ntu25",
    sex: str = "male",
    *,
    height: float | None = None,
    mass: float | None = None,
    joints: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> BodyModel:
    """The bodies of an average person, or of one whose joints were recorded.

    Args:
        layout: of the joints: ``ntu25``, ``nw_ucla20``, ``h36m17``, ``coco17`` or another one with
            hips, shoulders, limbs and a head.
        sex: "male" or "female".
        height: metres, which lengths follow; default the average of the sex.
        mass: kilograms, which masses follow; default the average of the sex.
        joints: (F, V, 3) recorded ones, in metres, whose mean lengths replace those of the table;
            frames that are all zero are left out.
        dtype: of the tree.

    Raises:
        ValueError: an unknown sex, a height or mass that is not positive, a layout without the
            joints, recorded bones of no length.

    Example:
        >>> model = body_model("ntu25", "female", height=1.68, mass=60)
        >>> len(model.tree), sum(b > 0 for b in model.tree.inertia[:, 0])
        (35, 15)
    """
    layout = get_layout(layout)
    height, mass = _person(sex, height, mass)
    parts = segments(layout)
    if joints is None:
        start, length, local = _average(parts, layout, height)
    else:
        start, length, local = _measured(parts, layout, joints)
    bodies = []
    shares = [TABLE[part.kind].mass[SEXES.index(sex)] for part in parts]
    for i, part in enumerate(parts):
        table = TABLE[part.kind]
        way = 1.0 if part.across or part.kind == "head" else -1.0
        m = mass * shares[i] / sum(shares)
        spin = tuple(m * (r * length[i]) ** 2 for r in table.gyration[SEXES.index(sex)])
        bodies.append(
            Body(
                part.name,
                None if part.parent < 0 else parts[part.parent].name,
                "free" if part.parent < 0 else "ball" if part.across else "universal",
                start[i],
                m,
                (0.0, 0.0, way * table.com[SEXES.index(sex)] * length[i]),
                spin,
            )
        )
    last, count = [], 0
    for body in bodies:
        count += len(body.degrees())
        last.append(count - 1)
    tree = Tree.from_bodies(bodies, dtype=dtype)
    owner = tuple(_owners(parts, layout))
    return BodyModel(layout, parts, tree, tuple(last), owner, torch.tensor(local, dtype=dtype))


def joint_masses(layout: str | Layout, sex: str = "male", mass: float | None = None) -> Tensor:
    """Masses (V,) of joints as points, float64: every segment's, split between its ends so that it
    keeps its centre; no joint has less than a thousandth of the body. For ``point_dynamics``.

    Raises:
        ValueError: see ``body_model``.
    """
    layout = get_layout(layout)
    _, mass = _person(sex, None, mass)
    found = torch.zeros(layout.num_joints, dtype=torch.float64)
    for part in segments(layout):
        table = TABLE[part.kind]
        share, com = (column[SEXES.index(sex)] for column in (table.mass, table.com))
        for ends, weight in ((part.start, 1 - com), (part.end, com)):
            found[list(ends)] += share * weight / len(ends)
    found = (found / found.sum()).clamp(min=LIGHTEST)
    return mass * found / found.sum()


def _person(sex: str, height: float | None, mass: float | None) -> tuple[float, float]:
    if sex not in SEXES:
        raise _check.fail("body_model", f"sex in {SEXES}", repr(sex))
    height, mass = HEIGHT[sex] if height is None else height, MASS[sex] if mass is None else mass
    for name, value in (("height", height), ("mass", mass)):
        if not value > 0:
            raise _check.fail("body_model", f"{name} above zero", value)
    return height, mass


def _check_joints(op: str, x: Tensor, layout: Layout) -> None:
    if x.dim() < 2 or x.shape[-2:] != (layout.num_joints, 3):
        wanted = f"joints of shape (..., {layout.num_joints}, 3) for {layout.name}"
        raise _check.fail(op, wanted, _check.shape_text(x.shape))


def _frames(parts: Sequence[Segment], x: Tensor) -> Iterator[tuple[Segment, Tensor, Tensor]]:
    """(segment, rotation (..., 3, 3), start (..., 3)) of joints (..., V, 3), parents first."""
    world: list[Tensor] = []
    for part in parts:
        start, end = (x[..., list(ends), :].mean(-2) for ends in (part.start, part.end))
        along = F.normalize(end - start, dim=-1)
        if part.across:
            left, right = part.across
            right_ = F.normalize(x[..., right, :] - x[..., left, :], dim=-1)
            up = F.normalize(along - (along * right_).sum(-1, keepdim=True) * right_, dim=-1)
            R = torch.stack([right_, torch.linalg.cross(up, right_), up], -1)
        else:
            up = along if part.kind == "head" else -along
            R = _turned(world[part.parent], up)
        world.append(R)
        yield part, R, start


def _turned(parent: Tensor, up: Tensor) -> Tensor:
    """The parent's frame turned about x, then y, so that z points up."""
    d = (parent.mT @ up[..., None]).squeeze(-1)
    a, b = torch.atan2(-d[..., 1], d[..., 2]), torch.asin(d[..., 0].clamp(-1, 1))
    sa, ca, sb, cb = a.sin(), a.cos(), b.sin(), b.cos()
    zero = torch.zeros_like(a)
    rows = [cb, zero, sb, sa * sb, ca, -sa * cb, -ca * sb, sa, ca * cb]
    return parent @ torch.stack(rows, -1).unflatten(-1, (3, 3))


def _owners(parts: Sequence[Segment], layout: Layout) -> list[int]:
    """The segment that every joint belongs to: the one that starts there, or ends there, or that of
    the next joint on the way to the root."""
    found: dict[int, int] = {}
    for i, part in enumerate(parts):
        found |= dict.fromkeys(part.end, i) if len(part.end) == 1 or part.kind == "head" else {}
    for i, part in enumerate(parts):
        found |= dict.fromkeys(part.start, i) if len(part.start) == 1 else {}

    def owner(joint: int) -> int:
        while joint not in found and layout.parents[joint] != joint:
            joint = layout.parents[joint]
        return found.get(joint, 0)

    return [owner(joint) for joint in range(layout.num_joints)]


def _average(
    parts: Sequence[Segment], layout: Layout, height: float
) -> tuple[list[list[float]], list[float], list[list[float]]]:
    """Starts in the parents' frames, lengths, and joints in their owners' frames, by the table."""
    scale = height / HEIGHT["male"]
    length = [TABLE[part.kind].length * scale for part in parts]
    start = []
    for part in parts:
        side = -1 if part.name.startswith("left") else 1
        if part.parent < 0:
            start.append([0.0, 0.0, 0.0])
        elif part.kind == "upper_arm":
            start.append([side * HALF_SHOULDERS * height, 0.0, length[part.parent]])
        elif part.kind == "thigh":
            start.append([side * HALF_HIPS * height, 0.0, 0.0])
        else:
            up = 1 if parts[part.parent].across else -1
            start.append([0.0, 0.0, up * length[part.parent]])
    local = []
    for joint, owner in enumerate(_owners(parts, layout)):
        part = parts[owner]
        up = 1 if part.across or part.kind == "head" else -1
        local.append([0.0, 0.0, 0.0 if part.start == (joint,) else up * length[owner]])
    return start, length, local


def _measured(
    parts: Sequence[Segment], layout: Layout, joints: Tensor
) -> tuple[list[list[float]], list[float], list[list[float]]]:
    """As ``_average``, of recorded joints."""
    _check_joints("body_model", joints, layout)
    x = joints.detach().double().reshape(-1, layout.num_joints, 3)
    x = x[(x != 0).flatten(1).any(1)]
    if not len(x):
        raise _check.fail("body_model", "recorded joints", "none but zeros")
    start, length = [], []
    world: list[Tensor] = []
    origins: list[Tensor] = []
    for part, R, origin in _frames(parts, x):
        bone = (x[:, list(part.end)].mean(1) - origin).norm(dim=1).mean().item()
        if not bone > 0:
            raise _check.fail("body_model", f"a {part.name} of some length", bone)
        length.append(bone)
        if part.parent < 0:
            start.append([0.0, 0.0, 0.0])
        else:
            away = origin - origins[part.parent]
            start.append((world[part.parent].mT @ away[..., None])[..., 0].mean(0).tolist())
        world.append(R)
        origins.append(origin)
    local = []
    for joint, owner in enumerate(_owners(parts, layout)):
        away = x[:, joint] - origins[owner]
        local.append((world[owner].mT @ away[..., None])[..., 0].mean(0).tolist())
    return start, length, local
