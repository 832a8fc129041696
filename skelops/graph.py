"""Joint layouts and the graphs made from them.

A layout names the joints of a skeleton and its bones; the adjacency of a graph convolution, the
left-right mirror and the bone modality are derived from it, never tabulated again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if isinstance(name, Layout):
        return name
    if name not in _LAYOUTS:
        raise _check.fail("get_layout", f"one of {', '.join(list_layouts())}", repr(name))
    return _LAYOUTS[name]


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
_register(
    "hand21",
    """wrist thumb_1 thumb_2 thumb_3 thumb_tip index_1 index_2 index_3 index_tip middle_1 middle_2
    middle_3 middle_tip ring_1 ring_2 ring_3 ring_tip pinky_1 pinky_2 pinky_3 pinky_tip""",
    (0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19),
    {"palm": (0,)} | {f: range(v, v + 4) for f, v in zip(_FINGERS, range(1, 21, 4), strict=True)},
)
