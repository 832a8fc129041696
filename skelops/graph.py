"""Joint layouts and the graphs made from them.

A layout names the joints of a skeleton and its bones; the adjacency of a graph convolution, the
left-right mirror and the bone modality are derived from it, never tabulated again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from skelops import _check

_KINDS = ("spatial", "stgcn_spatial", "binary", "identity")
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")
_LAYOUTS: dict[str, Layout] = {}


@dataclass(frozen=True)
class Layout:
    """Joints of a skeleton and the tree of its bones.

    Args:
        name: as registered and as shown in errors.
        parents: parent of every joint; a root is its own parent.
        joint_names: one per joint, or empty.
        left_right: pairs (left, right) of joints that mirror each other; if empty, those whose
            names differ in these words only.
        center: the joint that ``stgcn_spatial`` measures distances from; the root if None.
        parts: joints of every body part.
        graph_parents: parents of the published graph where it differs from the bones, as in PYSKL
            and Hyper-GCN; the same if empty.
        extra_edges: further undirected graph edges, which a tree cannot hold.

    Raises:
        ValueError: a parent, pair or edge that is not a joint; sizes that differ.

    Example:
        >>> arm = Layout("arm", parents=(0, 0, 1))
        >>> arm.adjacency("spatial").shape
        torch.Size([3, 3, 3])
    """

    name: str
    parents: tuple[int, ...]
    joint_names: tuple[str, ...] = ()
    left_right: tuple[tuple[int, int], ...] = ()
    center: int | None = None
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    graph_parents: tuple[int, ...] = ()
    extra_edges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        V = len(self.parents)
        names = self.joint_names or tuple(f"joint_{v}" for v in range(V))
        graph_parents = self.graph_parents or self.parents
        for what, length in (("joint_names", len(names)), ("graph_parents", len(graph_parents))):
            if length != V:
                raise _check.fail(f"Layout {self.name}", f"{V} {what}", length)
        index = {name: v for v, name in enumerate(names)}
        left_right = self.left_right or tuple(
            (v, index[name.replace("left", "right")])
            for v, name in enumerate(names)
            if "left" in name and name.replace("left", "right") in index
        )
        roots = [v for v, parent in enumerate(self.parents) if parent == v]
        center = self.center if self.center is not None else next(iter(roots), 0)
        used = {center, *self.parents, *graph_parents}
        used.update(v for pair in (*left_right, *self.extra_edges) for v in pair)
        used.update(v for joints in self.parts.values() for v in joints)
        if not used <= set(range(V)):
            wrong = sorted(used - set(range(V)))
            raise _check.fail(f"Layout {self.name}", f"joints 0 to {V - 1}", wrong)
        tables = {"joint_names": names, "parents": self.parents, "graph_parents": graph_parents}
        tables |= {"left_right": left_right, "extra_edges": self.extra_edges}
        for name, value in tables.items():
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "center", center)

    @classmethod
    def from_edges(
        cls, name: str, edges: Iterable[tuple[int, int]], num_joints: int | None = None,
        center: int = 0,
    ) -> Layout:  # fmt: skip
        """Layout of an undirected edge list: bones point to the centre; cycles are kept as edges.

        Args:
            name: of the layout.
            edges: pairs of joints, in any order.
            num_joints: the largest joint plus one if None.
            center: root of the bones.
        """
        edges = [(u, v) for u, v in edges]
        V = num_joints if num_joints is not None else 1 + max(v for edge in edges for v in edge)
        parents, left = list(range(V)), list(edges)
        for start in (center, *range(V)):
            reached = {start}
            queue = [start] if parents[start] == start else []
            for u in queue:
                for edge in [e for e in left if u in e]:
                    left.remove(edge)
                    v = edge[1] if edge[0] == u else edge[0]
                    if v not in reached:
                        reached.add(v)
                        queue.append(v)
                        parents[v] = u
        tree = {frozenset(pair) for pair in enumerate(parents)}
        rest = {(min(e), max(e)) for e in edges if frozenset(e) not in tree}
        return cls(name, tuple(parents), center=center, extra_edges=tuple(sorted(rest)))

    @property
    def num_joints(self) -> int:
        return len(self.parents)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(joint, parent) of every joint but the roots."""
        return tuple((v, parent) for v, parent in enumerate(self.parents) if parent != v)

    @property
    def mirror(self) -> tuple[int, ...]:
        """Joint that takes the place of each joint when left and right are exchanged."""
        order = list(range(self.num_joints))
        for left, right in self.left_right:
            order[left], order[right] = right, left
        return tuple(order)

    def adjacency(
        self,
        kind: str = "spatial",
        dtype: torch.dtype = torch.float32,
        *,
        parents: Sequence[int] | None = None,
    ) -> Tensor:
        r"""Adjacency of a graph convolution, (K, V, V).

        With the links :math:`E_{p(v), v} = 1` of all joints and n(.) division by column sums:

        - "spatial": identity, inward n(E), outward n(E^T); K = 3 (2s-AGCN, CTR-GCN, ST-GCN++).
        - "stgcn_spatial": n(I + E + E^T) split into the diagonal, neighbours not closer to the
          centre and neighbours closer to it; K = 3. As published, distances to the centre beyond
          one hop count as infinite, so that nearly all neighbours fall into the second subset.
        - "binary": I + E + E^T, K = 1; "identity": I, K = 1.

        ``graph_conv(x, A)`` gathers over the columns of this matrix (CTR-GCN),
        ``graph_conv(x, A, transposed=True)`` over its rows (PYSKL, 2s-AGCN).

        Args:
            kind: one of the above.
            dtype: of the result.
            parents: another tree than ``parents``, e.g. ``layout.graph_parents``.

        Raises:
            ValueError: an unknown kind.

        Source: Yan et al., ST-GCN, AAAI 2018, section 3.3; Shi et al., 2s-AGCN, CVPR 2019.
        """
        if kind not in _KINDS:
            raise _check.fail("adjacency", f"kind one of {', '.join(_KINDS)}", repr(kind))
        identity = torch.eye(self.num_joints, dtype=torch.float64)
        inward = self._links(parents)
        if kind == "identity":
            A = identity[None]
        elif kind == "binary":
            A = (identity + inward + inward.T).clamp(max=1)[None]
        elif kind == "spatial":
            A = torch.stack([identity, _normalise(inward), _normalise(inward.T)])
        else:
            neighbours = (identity + inward + inward.T).clamp(max=1)
            A, off = _normalise(neighbours), 1 - identity
            hops = torch.where(neighbours[self.center] > 0, 1.0, float("inf"))
            hops[self.center] = 0
            closer = (hops[:, None] < hops[None, :]).to(A.dtype)
            A = torch.stack([A * identity, A * off * (1 - closer), A * off * closer])
        return A.to(dtype)

    def incidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Body parts as hyperedges: (V, E) of 0 and 1, a column per entry of ``parts``."""
        H = torch.zeros(self.num_joints, len(self.parts), dtype=dtype)
        for e, joints in enumerate(self.parts.values()):
            H[list(joints), e] = 1
        return H

    def hop_distances(self, parents: Sequence[int] | None = None) -> Tensor:
        """Edges between every two joints, (V, V) float32; infinite where none connect them."""
        link = self._links(parents)
        link = (link + link.T) > 0
        hops = torch.full_like(link, float("inf"), dtype=torch.float32).fill_diagonal_(0)
        reached = torch.eye(self.num_joints, dtype=torch.bool)
        for hop in range(1, self.num_joints):
            reached = (reached.float() @ link.float() > 0) | reached
            hops[reached & hops.isinf()] = hop
        return hops

    def _links(self, parents: Sequence[int] | None) -> Tensor:
        parents = self.parents if parents is None else parents
        if len(parents) != self.num_joints:
            what = f"parents of {self.num_joints} joints"
            raise _check.fail(f"Layout {self.name}", what, len(parents))
        E = torch.zeros(self.num_joints, self.num_joints, dtype=torch.float64)
        for v, parent in (*enumerate(parents), *self.extra_edges):
            E[parent, v] = float(parent != v)
        return E


def _normalise(A: Tensor) -> Tensor:
    """Columns divided by their sums; empty columns stay zero."""
    total = A.sum(0)
    return A / torch.where(total > 0, total, 1.0)


def register_layout(layout: Layout) -> Layout:
    """Make a layout known by its name, replacing a former one; returns it."""
    _LAYOUTS[layout.name] = layout
    return layout


def list_layouts() -> list[str]:
    """Names of all registered layouts."""
    return sorted(_LAYOUTS)


def get_layout(name: str | Layout) -> Layout:
    """The layout of that name; a layout is returned as it is.

    Args:
        name: a registered one, or one with a part of it as in "ntu25_hand", see ``body_part``.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if isinstance(name, Layout):
        return name
    if name in _LAYOUTS:
        return _LAYOUTS[name]
    whole, _, part = name.rpartition("_")
    if whole in _LAYOUTS and part in BODY_PARTS:
        return body_part(whole, part).layout
    raise _check.fail("get_layout", f"one of {', '.join(list_layouts())}", repr(name))


BODY_PARTS = ("body", "hand", "leg")


@dataclass(frozen=True)
class BodyPart:
    """Joints of a skeleton that form a skeleton of their own.

    Args:
        joints: the joints of the whole, in the order of the part.
        layout: bones and graph of the part, joints counted within it.
    """

    joints: tuple[int, ...]
    layout: Layout


def body_part(layout: str | Layout, part: str) -> BodyPart:
    """A part of a skeleton as PSUMNet sees it: the body, both arms with hands, or both legs.

    Those of ntu25 and ntu_x67, and the hand of shrec22, are as published. With other layouts the
    body is everything, and the two arms (or legs) hang on the joint where they meet; joints whose
    parent does not belong to the part hang on their nearest ancestor that does, or on its first
    joint. A layout of a hand has no other part.

    Args:
        layout: of the whole skeleton.
        part: "body", "hand" or "leg".

    Returns:
        BodyPart, its layout named as in "ntu25_hand".

    Raises:
        ValueError: an unknown part, or one that the layout does not have.

    Source: Trivedi and Sarvadevabhatla, PSUMNet, ECCVW 2022, section 3.2.
    """
    layout = get_layout(layout)
    if part not in BODY_PARTS:
        raise _check.fail("body_part", f"part in {BODY_PARTS}", repr(part))
    if (layout.name, part) in _PUBLISHED_PARTS:
        return _PUBLISHED_PARTS[layout.name, part]
    if {"body": "torso", "hand": "palm"}.get(part) in layout.parts:
        whole = replace(layout, name=f"{layout.name}_{part}")
        return BodyPart(tuple(range(layout.num_joints)), whole)
    limbs = [f"{side}_{'leg' if part == 'leg' else 'arm'}" for side in ("left", "right")]
    if part == "body" or not layout.parts.keys() >= set(limbs):
        has = ", ".join(layout.parts) or "no parts"
        raise _check.fail("body_part", f"a layout with the part {part}", f"{layout.name} ({has})")
    left, right = (layout.parts[limb] for limb in limbs)
    root = next(v for v in _ancestors(layout, left[0]) if v in _ancestors(layout, right[0]))
    return _cut(layout, part, (root, *left, *right))


def _ancestors(layout: Layout, joint: int) -> list[int]:
    """The joints that a joint hangs on in the graph, nearest first."""
    found: list[int] = []
    while layout.graph_parents[joint] not in (joint, *found):
        joint = layout.graph_parents[joint]
        found.append(joint)
    return found


def _cut(
    layout: Layout,
    part: str,
    joints: Sequence[int],
    changed: Mapping[int, int] | None = None,
    extra_edges: Iterable[tuple[int, int]] = (),
) -> BodyPart:
    """A part with the bones of the whole but for ``changed``; both in the joints of the whole."""
    place = {v: i for i, v in enumerate(joints)}
    up = {v: next((u for u in _ancestors(layout, v) if u in place), joints[0]) for v in joints}
    up |= changed or {}
    return BodyPart(
        tuple(joints),
        Layout(
            f"{layout.name}_{part}",
            tuple(place[up[v]] for v in joints),
            tuple(layout.joint_names[v] for v in joints),
            extra_edges=tuple((place[v], place[u]) for v, u in extra_edges),
        ),
    )


# Names under which layouts list the same point of the body.
_SAME = {
    **dict.fromkeys(("spine_base", "hip_center", "pelvis", "hip", "waist"), "mid_hip"),
    **dict.fromkeys(("shoulder_center", "spine_shoulder", "thorax", "chest"), "mid_shoulder"),
    **dict.fromkeys(("spine", "mid_trunk", "spine_2"), "spine_mid"),
}
# Points that are the mean of others, the first that a layout can give; of limbs, those of the left.
_MEANS: dict[str, tuple[tuple[str, ...], ...]] = {
    "mid_hip": (("left_hip", "right_hip"),),
    "mid_shoulder": (("left_shoulder", "right_shoulder"),),
    "spine_mid": (("mid_hip", "mid_shoulder"),),
    "spine_1": (("mid_hip", "spine_mid"),),
    "spine_3": (("spine_mid", "mid_shoulder"),),
    "neck": (("mid_shoulder", "head"),),
    "head": (("left_ear", "right_ear"), ("left_eye", "right_eye"), ("nose",)),
    "nose": (("left_eye", "right_eye"), ("head",)),
    "left_eye": (("left_eye_inner", "left_eye_outer"),),
    "left_eye_inner": (("left_eye",),),
    "left_eye_outer": (("left_eye",),),
    "left_collar": (("mid_shoulder", "left_shoulder"),),
    "left_hand": (("left_index", "left_pinky"),),
    "left_index": (("left_hand",),),
    "left_pinky": (("left_hand",),),
    "left_foot": (("left_big_toe", "left_small_toe"), ("left_foot_index",)),
    "left_foot_index": (("left_big_toe",), ("left_foot",)),
    "left_big_toe": (("left_foot_index",), ("left_foot",)),
    "left_small_toe": (("left_foot_index",), ("left_foot",)),
}


def conversion(
    source: str | Layout, target: str | Layout, *, strict: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Joints of one layout as weighted means of the joints of another.

    With the result, ``xyz`` (..., V_source, C) becomes (..., V_target, C) by
    :math:`y_v = \sum_k w_{vk} x_{i(v, k)}`, that is
    ``(xyz[..., index, :] * weight[..., None]).sum(-2)``.

    Joints of the same name are taken over, whatever their layouts mean exactly by it: a head may be
    the centre or the top of the head. The middle of the hips or shoulders, the spine, neck, head,
    nose, collars, hands and feet are means of their neighbours where the source lacks them. Every
    other joint, such as the tip of a hand or an ear of ``ntu25``, gets the place of its nearest
    ancestor in the graph of the target that can be told.

    Args:
        source: layout of the data, or its name.
        target: layout wanted, or its name.
        strict: raise where a joint would get the place of its ancestor.

    Returns:
        index (V_target, K) int64 and weight (V_target, K) float32, K the largest number of joints
        that one is the mean of. Weights sum to 1; unused places have index and weight 0.

    Raises:
        ValueError: an unknown layout, or joints that the source does not tell; the message lists
            them.

    Example:
        >>> index, weight = conversion("coco17", "h36m17")
        >>> index[0].tolist(), weight[0].tolist()  # the pelvis is the middle of the hips
        ([11, 12, 0, 0], [0.5, 0.5, 0.0, 0.0])
    """
    source, target = get_layout(source), get_layout(target)
    given = {_meaning(source, v): {v: 1.0} for v in reversed(range(source.num_joints))}
    lost, rows = [], []
    for v, name in enumerate(target.joint_names):
        u = v
        while (row := _point(_meaning(target, u), given)) is None and target.graph_parents[u] != u:
            u = target.graph_parents[u]
        if row is None or (strict and u != v):
            lost.append(name)
        rows.append(row or {})
    if lost:
        raise _check.fail("conversion", f"joints that {source.name} tells", ", ".join(lost))
    K = max(map(len, rows))
    index = torch.zeros(len(rows), K, dtype=torch.int64)
    weight = torch.zeros(len(rows), K)
    for v, row in enumerate(rows):
        index[v, : len(row)] = torch.tensor(list(row))
        weight[v, : len(row)] = torch.tensor(list(row.values()))
    return index, weight


def _meaning(layout: Layout, joint: int) -> str:
    """Point of the body; a neck that the shoulders hang on is the middle between them."""
    name = layout.joint_names[joint]
    if name == "neck" and "left_shoulder" in layout.joint_names:
        shoulder = layout.joint_names.index("left_shoulder")
        if layout.graph_parents[shoulder] == joint:
            return "mid_shoulder"
    return _SAME.get(name, name)


def _point(
    name: str, given: Mapping[str, dict[int, float]], asked: tuple[str, ...] = ()
) -> dict[int, float] | None:
    """Joints and weights whose mean is a point of the body, None if it cannot be told."""
    if name in given:
        return given[name]
    side = "right_" if name.startswith("right_") else "left_"
    for mean in () if name in asked else _MEANS.get(name.replace(side, "left_", 1), ()):
        rows = [_point(n.replace("left_", side, 1), given, (*asked, name)) for n in mean]
        if None not in rows:
            total: dict[int, float] = {}
            for joint, weight in (item for row in rows if row for item in row.items()):
                total[joint] = total.get(joint, 0.0) + weight / len(rows)
            return total
    return None


def _register(
    name: str,
    joints: str,
    parents: Sequence[int],
    parts: Mapping[str, Iterable[int]],
    graph_parents: Sequence[int] = (),
    center: int | None = None,
) -> None:
    register_layout(
        Layout(
            name,
            tuple(parents),
            tuple(joints.split()),
            center=center,
            parts={part: tuple(members) for part, members in parts.items()},
            graph_parents=tuple(graph_parents),
        )
    )


def _register_links(
    name: str,
    center: int,
    links: str,
    joints: str = "",
    left_right: tuple[tuple[int, int], ...] = (),
) -> None:
    """Register links "1,2 1,3" of joints counted from 1, as they are published."""
    edges = [(int(u) - 1, int(v) - 1) for u, v in (link.split(",") for link in links.split())]
    layout = Layout.from_edges(name, edges, len(joints.split()) or None, center)
    register_layout(replace(layout, joint_names=tuple(joints.split()), left_right=left_right))


def _body(
    torso: Iterable[int],
    left_arm: Iterable[int],
    right_arm: Iterable[int],
    left_leg: Iterable[int],
    right_leg: Iterable[int],
) -> dict[str, Iterable[int]]:
    arms = {"left_arm": left_arm, "right_arm": right_arm}
    return {"torso": torso} | arms | {"left_leg": left_leg, "right_leg": right_leg}


# Kinect v2 (NTU RGB+D, PKU-MMD). As bones the tip of a hand and its thumb chain through each other
# (22, 24); in the graphs of PYSKL and Hyper-GCN both hang on the hand (7, 11).
_NTU = (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20)
_register(
    "ntu25",
    """spine_base spine_mid neck head left_shoulder left_elbow left_wrist left_hand
    right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot
    right_hip right_knee right_ankle right_foot spine_shoulder left_hand_tip left_thumb
    right_hand_tip right_thumb""",
    (*_NTU, 22, 7, 24, 11),
    _body(
        (0, 1, 20, 2, 3),
        (4, 5, 6, 7, 21, 22),
        (8, 9, 10, 11, 23, 24),
        range(12, 16),
        range(16, 20),
    ),
    graph_parents=(*_NTU, 7, 7, 11, 11),
)
# Kinect v1 (NW-UCLA, UTKinect).
_register(
    "nw_ucla20",
    """hip_center spine shoulder_center head left_shoulder left_elbow left_wrist left_hand
    right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot
    right_hip right_knee right_ankle right_foot""",
    (1, 2, 2, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
    _body(range(4), range(4, 8), range(8, 12), range(12, 16), range(16, 20)),
)
# As bones the hips hang on the nose, in the graph on the shoulders (PYSKL).
_register(
    "coco17",
    """nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow
    right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle
    right_ankle""",
    (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 0, 0, 11, 12, 13, 14),
    _body(range(5), (5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16)),
    graph_parents=(0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
)
# COCO with the three points of the trunk that ACLNet adds, and its bones.
_register(
    "coco20",
    """nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow
    right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle
    right_ankle mid_hip mid_trunk mid_shoulder""",
    (19, 0, 0, 1, 2, 19, 19, 5, 6, 7, 8, 17, 17, 11, 12, 13, 14, 18, 19, 19),
    _body((*range(5), 17, 18, 19), (5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16)),
)
# Bones are rooted at the nose, the graph at the neck (PYSKL).
_OPENPOSE = (1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15)
_register(
    "openpose18",
    """nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist
    right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye
    right_ear left_ear""",
    (0, 0, *_OPENPOSE),
    _body((0, 1, 14, 15, 16, 17), range(5, 8), range(2, 5), range(11, 14), range(8, 11)),
    graph_parents=(1, 1, *_OPENPOSE),
    center=1,
)
_register(
    "openpose25",
    """nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip
    right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear
    left_ear left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel""",
    (1, 8, 1, 2, 3, 1, 5, 6, 8, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11),
    _body(
        (0, 1, 8, 15, 16, 17, 18),
        range(5, 8),
        range(2, 5),
        (12, 13, 14, 19, 20, 21),
        (9, 10, 11, 22, 23, 24),
    ),
    center=1,
)
_register(
    "h36m17",
    """pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax neck head
    left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist""",
    (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    _body((0, 7, 8, 9, 10), range(11, 14), range(14, 17), range(4, 7), range(1, 4)),
)
_register(
    "smpl24",
    """pelvis left_hip right_hip spine_1 left_knee right_knee spine_2 left_ankle right_ankle
    spine_3 left_foot right_foot neck left_collar right_collar head left_shoulder right_shoulder
    left_elbow right_elbow left_wrist right_wrist left_hand right_hand""",
    (0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
    _body(
        (0, 3, 6, 9, 12, 15),
        (13, 16, 18, 20, 22),
        (14, 17, 19, 21, 23),
        (1, 4, 7, 10),
        (2, 5, 8, 11),
    ),
)
_BLAZEPOSE = (0, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16)
_register(
    "mediapipe33",
    """nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer
    left_ear right_ear left_mouth right_mouth left_shoulder right_shoulder left_elbow right_elbow
    left_wrist right_wrist left_pinky right_pinky left_index right_index left_thumb right_thumb
    left_hip right_hip left_knee right_knee left_ankle right_ankle left_heel right_heel
    left_foot_index right_foot_index""",
    (*_BLAZEPOSE, 11, 12, 23, 24, 25, 26, 27, 28, 27, 28),
    _body(range(11), range(11, 23, 2), range(12, 23, 2), range(23, 33, 2), range(24, 33, 2)),
)
# Halpe (AlphaPose): COCO, then the top of the head, neck, hip and feet. The nose hangs on the neck
# as in OpenPose, the body on the hip.
_HALPE = (18, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 18, 19, 19, 24, 25, 20, 21)
_HALPE_NAMES = """nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow
    right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle
    right_ankle head neck hip left_big_toe right_big_toe left_small_toe right_small_toe left_heel
    right_heel"""
_HALPE_PARTS = _body(
    (*range(5), 17, 18, 19),
    (5, 7, 9),
    (6, 8, 10),
    (11, 13, 15, 20, 22, 24),
    (12, 14, 16, 21, 23, 25),
)
_register("halpe26", _HALPE_NAMES, (*_HALPE, 15, 16), _HALPE_PARTS, center=18)
# SHREC'17 and DHG 14/28: the thumb hangs on the wrist, the fingers on the palm.
_register(
    "shrec22",
    """wrist palm thumb_base thumb_first thumb_second thumb_tip
    index_base index_first index_second index_tip middle_base middle_first middle_second middle_tip
    ring_base ring_first ring_second ring_tip pinky_base pinky_first pinky_second pinky_tip""",
    (1, 1, 0, 2, 3, 4, 1, 6, 7, 8, 1, 10, 11, 12, 1, 14, 15, 16, 1, 18, 19, 20),
    {"palm": (0, 1)} | {f: range(v, v + 4) for f, v in zip(_FINGERS, range(2, 22, 4), strict=True)},
)
# Hand landmarks of OpenPose and MediaPipe.
_HAND = (0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)
_HAND_NAMES = """wrist thumb_1 thumb_2 thumb_3 thumb_tip index_1 index_2 index_3 index_tip middle_1
    middle_2 middle_3 middle_tip ring_1 ring_2 ring_3 ring_tip pinky_1 pinky_2 pinky_3 pinky_tip"""
_register(
    "hand21",
    _HAND_NAMES,
    _HAND,
    {"palm": (0,)} | {f: range(v, v + 4) for f, v in zip(_FINGERS, range(1, 21, 4), strict=True)},
)


def _hand(side: str, wrist: int, start: int) -> tuple[str, tuple[int, ...], dict[str, range]]:
    """Names, parents and part of a hand whose root hangs on the wrist of a body."""
    names = " ".join(f"{side}_hand_{name}" for name in _HAND_NAMES.split())
    parents = (wrist, *(start + parent for parent in _HAND[1:]))
    return names, parents, {f"{side}_hand": range(start, start + len(_HAND))}


# The 68 landmarks of a face (300-W), no bones of which are published: all hang on the nose here. A
# landmark of the left is named after the one of the right that mirrors it.
_FACE_PAIRS = {
    **{v: 16 - v for v in range(8)},  # jaw
    **{v: 43 - v for v in range(17, 22)},  # brows
    **{31: 35, 32: 34},  # nostrils
    **{36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46},  # eyes
    **{48: 54, 49: 53, 50: 52, 59: 55, 58: 56, 60: 64, 61: 63, 67: 65},  # lips
}
_FACE_NAMES = {v: f"face_{v}" for v in range(68)}
_FACE_NAMES |= {right: f"right_face_{right}" for right in _FACE_PAIRS}
_FACE_NAMES |= {left: f"left_face_{right}" for right, left in _FACE_PAIRS.items()}


def _whole_body(
    name: str, body: str, parents: Sequence[int], parts: Mapping[str, Iterable[int]]
) -> None:
    """Register a body in the order of COCO or Halpe with its face, left and right hand."""
    face = len(parents)
    left, right = _hand("left", 9, face + 68), _hand("right", 10, face + 89)
    _register(
        name,
        f"{body} {' '.join(_FACE_NAMES.values())} {left[0]} {right[0]}",
        (*parents, *[0] * 68, *left[1], *right[1]),
        {**parts, "face": range(face, face + 68), **left[2], **right[2]},
    )


# COCO-WholeBody (Jin et al., ECCV 2020): feet as in OpenPose, hung as ours on the ankles.
_whole_body(
    "coco_wholebody133",
    " ".join(_LAYOUTS["coco17"].joint_names)
    + " left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel",
    (*_LAYOUTS["coco17"].parents, 15, 17, 15, 16, 20, 16),
    _body(range(5), (5, 7, 9), (6, 8, 10), (11, 13, 15, 17, 18, 19), (12, 14, 16, 20, 21, 22)),
)
_whole_body("halpe136", _HALPE_NAMES, (*_HALPE, 15, 16), _HALPE_PARTS)
# NTU-X (PSUMNet): the body of OpenPose, then the left and the right hand.
_NTU_X = _LAYOUTS["openpose25"]
_LEFT, _RIGHT = _hand("left", 7, 25), _hand("right", 4, 46)
_register(
    "ntu_x67",
    f"{' '.join(_NTU_X.joint_names)} {_LEFT[0]} {_RIGHT[0]}",
    (*_NTU_X.parents, *_LEFT[1], *_RIGHT[1]),
    {**_NTU_X.parts, **_LEFT[2], **_RIGHT[2]},
    center=1,
)
# UI-PRMD as its Kinect v2 tells it: a joint is named after the one where the published segment
# (upper arm, forearm, hand, upper leg, lower leg, foot, toes) begins.
_register(
    "ui_prmd22",
    """waist spine chest neck head head_tip left_collar left_shoulder left_elbow left_wrist
    right_collar right_shoulder right_elbow right_wrist left_hip left_knee left_ankle left_foot
    right_hip right_knee right_ankle right_foot""",
    (0, 0, 1, 2, 3, 4, 2, 6, 7, 8, 2, 10, 11, 12, 0, 14, 15, 16, 0, 18, 19, 20),
    _body(range(6), range(6, 10), range(10, 14), range(14, 18), range(18, 22)),
)
# The conventions of MS-CLR (arXiv 2508.14889). SMPL-X leaves the eyeballs without a link; Berkeley
# MHAD names no markers, and its published mirror leaves the pairs (4, 5) and (8, 9) unswapped.
_register_links(
    "smplx42",
    9,
    """7,10 4,7 1,4 2,1 5,2 8,5 35,8 11,8 33,11 34,11 3,1 6,3 9,6 38,9 12,9 36,12 37,12 14,10 17,14
    19,17 21,19 26,21 39,21 40,21 15,10 18,15 20,18 22,20 27,22 41,22 42,22 13,10 23,13 16,23 28,16
    30,28 32,30 29,28 31,29""",
    """pelvis left_hip right_hip spine_1 left_knee right_knee spine_2 left_ankle right_ankle spine_3
    left_foot right_foot neck left_collar right_collar head left_shoulder right_shoulder left_elbow
    right_elbow left_wrist right_wrist jaw left_eyeball right_eyeball left_hand right_hand nose
    right_eye left_eye right_ear left_ear left_big_toe left_small_toe left_heel right_big_toe
    right_small_toe right_heel left_finger_1 left_finger_2 right_finger_1 right_finger_2""",
)
_register_links(
    "berkeley_mhad43",
    8,
    """1,2 1,3 4,5 4,36 5,6 5,7 7,28 8,9 8,29 9,10 9,11 11,37 12,13 12,20 13,14 14,15 15,16 16,17
    16,18 16,19 20,21 21,22 22,23 23,24 24,25 24,26 24,27 28,30 28,36 29,30 29,31 31,32 32,33 33,34
    34,35 36,38 37,38 37,39 39,40 40,41 41,42 42,43""",
    left_right=((1, 2), (3, 6), (7, 10), *((v, v + 8) for v in (*range(11, 19), *range(27, 35)))),
)

# Parts as published with PSUMNet. The legs of ntu25 are shifted by one from the left foot
# on, in the bones as in the graph, which keeps both links of that foot. In the body of NTU-X, hands
# hang on elbows and a finger on another. Bones of SHREC point towards the tips of the fingers; of
# the five that join in the wrist the last one is its bone, and all are in the graph.
_PUBLISHED_PARTS = {
    ("ntu25", "leg"): _cut(
        _LAYOUTS["ntu25"],
        "leg",
        (0, *range(12, 20)),
        {15: 0, 16: 15, 19: 19},
        extra_edges=((15, 14),),
    ),
    ("ntu_x67", "body"): _cut(
        _LAYOUTS["ntu_x67"],
        "body",
        (*range(25), 46, *range(50, 67, 4), 25, *range(29, 46, 4)),
        {1: 1, 8: 1, 46: 3, 54: 50, 25: 6},
    ),
    ("ntu_x67", "hand"): _cut(
        _LAYOUTS["ntu_x67"], "hand", (*range(2, 8), *range(46, 67), *range(25, 46))
    ),
    ("ntu_x67", "leg"): _cut(
        _LAYOUTS["ntu_x67"], "leg", (*range(8, 12), 24, 22, 23, *range(12, 15), 21, 19, 20)
    ),
    ("shrec22", "hand"): _cut(
        _LAYOUTS["shrec22"],
        "hand",
        range(22),
        {0: 17, 21: 0, **{v: v if v % 4 == 0 else v + 1 for v in range(1, 21)}},
        extra_edges=tuple((0, v) for v in (1, 5, 9, 13)),
    ),
}
