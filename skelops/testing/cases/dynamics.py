"""Cases of dynamics: trees of rigid bodies, point masses on rigid bones, learned terms."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from skelops import ops
from skelops.ops._tree import Tree
from skelops.testing.cases import Case, Draw, register, relayout

# A trunk that branches twice; then chains, as bodies with joints of several degrees of freedom are.
BRANCHING = (-1, 0, 1, 1, 3, 0)
JOINTS = (0, 1, 1, 0, 1, 1)


def _tree(draw: Draw, n: int) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...], tuple[int, ...]]:
    """Inertia, offset, axis, parent, joint: axes of the body and others, massless bodies."""
    if n <= len(BRANCHING):
        parent, joint = BRANCHING[:n], JOINTS[:n]
    else:
        limb = n // 5
        parent = tuple(i - 1 if i % limb or i < limb else min(2, i) for i in range(n))
        joint = tuple(int(i > 2) for i in range(n))
    units = torch.eye(3, dtype=torch.float64)
    axis = draw.normal(n, 3).double().cpu()
    axis = axis / axis.norm(dim=1, keepdim=True)
    axis = torch.stack([axis[i] if i % 6 == 5 else units[i % 3] for i in range(n)])
    offset = draw.normal(n, 3, scale=0.3)
    offset[1::3] = 0
    mass = 1 + draw.normal(n).double().cpu().abs()
    com = draw.normal(n, 3, scale=0.1).double().cpu()
    root = draw.normal(n, 3, 3, scale=0.1).double().cpu()
    inertia = root @ root.mT + 0.3 * torch.eye(3, dtype=torch.float64)
    inner = {i for i in range(n) if n > len(BRANCHING) and i % 3 == 1 and i in parent}
    light = torch.tensor([0.0 if i in inner else 1.0 for i in range(n)], dtype=torch.float64)
    phi = ops._tree.inertial_parameters(mass * light, com, inertia * light[:, None, None])
    place = {"dtype": draw.dtype, "device": draw.device}
    return phi.to(**place), offset, axis.to(**place), parent, joint


def _arranged(layout: str, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(t if t is None else relayout(t, layout) for t in tensors)


def _state(draw: Draw, N: int, n: int, absent: str = "", wrench: bool = False) -> list:
    q, qd, qdd = (draw.normal(N, n, scale=s) for s in (0.4, 0.5, 0.5))
    return [
        q,
        None if "qd" in absent.split() else qd,
        None if "qdd" in absent.split() else qdd,
        draw.normal(N, n, 6, scale=0.3) if wrench else None,
    ]


def dynamics(draw, N=2, n=5, absent="", wrench=False, gravity=True, layout="contiguous"):
    inertia, offset, axis, parent, joint = _tree(draw, n)
    state = _arranged(layout, *_state(draw, N, n, absent, wrench))
    g = draw.normal(3) if gravity else None
    return *state, inertia, offset, axis, g, parent, joint


def mass_matrix(draw, N=2, n=5, packed=False, layout="contiguous"):
    inertia, offset, axis, parent, joint = _tree(draw, n)
    (q,) = _arranged(layout, _state(draw, N, n)[0])
    return q, inertia, offset, axis, parent, joint, packed


def forward_kinematics(draw, N=2, n=5, layout="contiguous"):
    _, offset, axis, parent, joint = _tree(draw, n)
    (q,) = _arranged(layout, _state(draw, N, n)[0])
    return q, offset, axis, parent, joint


def _inverse_public(q, qd, qdd, wrench, inertia, offset, axis, gravity, parent, joint):
    tree = Tree(parent, joint, axis, offset, inertia)
    return ops.inverse_dynamics(tree, q, qd, qdd, gravity, wrench)


def _forward_public(q, qd, tau, wrench, inertia, offset, axis, gravity, parent, joint):
    tree = Tree(parent, joint, axis, offset, inertia)
    return ops.forward_dynamics(tree, q, qd, tau, gravity, wrench)


def _mass_public(q, inertia, offset, axis, parent, joint, packed):
    return ops.mass_matrix(Tree(parent, joint, axis, offset, inertia), q, packed=packed)


def tree_solve(draw, N=2, n=5, layout="contiguous"):
    parent = _tree(draw, n)[3]
    rows, columns = (torch.tensor(i) for i in ops._tree.packed_pattern(parent))
    packed = draw.normal(N, len(rows), scale=0.2)
    packed = packed + 4 * (rows == columns).to(packed)  # positive definite
    return *_arranged(layout, packed, draw.normal(N, n)), parent


def _solve_public(packed, force, parent):
    n = len(parent)
    vectors = packed.new_zeros(n, 3)
    return ops.tree_solve(
        Tree(parent, (1,) * n, vectors, vectors, packed.new_zeros(n, 10)), packed, force
    )


def _kinematics_public(q, offset, axis, parent, joint):
    inertia = q.new_zeros(len(parent), 10)
    return ops.forward_kinematics(Tree(parent, joint, axis, offset, inertia), q)


for op, public, absent in (
    ("inverse_dynamics", _inverse_public, "qd qdd"),
    ("forward_dynamics", _forward_public, "qd"),
):
    case = partial(Case, build=dynamics, public=public)
    register(
        op,
        case("small", small=True),
        case("small_wrench", dims=dict(n=6, wrench=True, gravity=False), small=True),
        case("small_at_rest", dims=dict(n=3, absent=absent), small=True),
        case("one_joint", dims=dict(N=3, n=1)),
        case("human", dims=dict(N=13, n=51)),
        case("human_wrench", dims=dict(N=5, n=51, wrench=True)),
        case("hand", dims=dict(N=33, n=20, gravity=False)),
        case("transposed", dims=dict(N=7, n=20, wrench=True, layout="transposed")),
        case("sliced", dims=dict(N=8, n=20, wrench=True, layout="sliced")),
        case("expanded", dims=dict(N=16, n=20, layout="expanded")),
    )

_mass = partial(Case, build=mass_matrix, public=_mass_public)
register(
    "mass_matrix",
    _mass("small", small=True),
    _mass("small_packed", dims=dict(n=6, packed=True), small=True),
    _mass("one_joint", dims=dict(N=3, n=1)),
    _mass("human", dims=dict(N=9, n=51)),
    _mass("human_packed", dims=dict(N=9, n=51, packed=True)),
    _mass("hand", dims=dict(N=33, n=20)),
    _mass("transposed", dims=dict(N=7, n=20, layout="transposed")),
    _mass("sliced", dims=dict(N=8, n=20, packed=True, layout="sliced")),
)

_solve = partial(Case, build=tree_solve, public=_solve_public)
register(
    "tree_solve",
    _solve("small", small=True),
    _solve("one_joint", dims=dict(N=3, n=1)),
    _solve("human", dims=dict(N=13, n=51)),
    _solve("hand", dims=dict(N=33, n=20)),
    _solve("transposed", dims=dict(N=7, n=20, layout="transposed")),
    _solve("sliced", dims=dict(N=8, n=20, layout="sliced")),
)

_kinematics = partial(Case, build=forward_kinematics, public=_kinematics_public)
register(
    "forward_kinematics",
    _kinematics("small", small=True),
    _kinematics("one_joint", dims=dict(N=3, n=1)),
    _kinematics("human", dims=dict(N=13, n=51)),
    _kinematics("transposed", dims=dict(N=7, n=20, layout="transposed")),
    _kinematics("sliced", dims=dict(N=8, n=20, layout="sliced")),
)


def _skeleton(V: int) -> tuple[tuple[int, ...], int]:
    """Parents in no particular order: the root is in the middle, and some follow their children."""
    root = V // 2
    return tuple(
        root if abs(j - root) <= 1 else (j + 1 if j < root else j - 2) for j in range(V)
    ), root


def point_dynamics(draw, N=2, V=5, D=3, layout="contiguous"):
    parents, root = _skeleton(V)
    v, force, shift = (draw.normal(N, V, D) for _ in range(3))
    # Bones of about unit length: a bone of no length has no direction.
    line = torch.arange(V, dtype=torch.float64)[:, None].expand(V, D)
    x = 0.2 * shift + line.to(draw.dtype).to(draw.device)
    mass = 1 + draw.normal(V).abs()
    return *_arranged(layout, x, v, force, mass), parents, root


def _point_public(x, v, force, mass, parents, root):
    return ops.point_dynamics(x, v, force, mass, parents, root)


_point = partial(Case, build=point_dynamics, public=_point_public)
register(
    "point_dynamics",
    _point("small", small=True),
    _point("small_plane", dims=dict(D=2, V=4), small=True),
    _point("one_joint", dims=dict(N=3, V=1)),
    _point("ntu", dims=dict(N=33, V=25)),
    _point("coco_plane", dims=dict(N=13, V=17, D=2)),
    _point("transposed", dims=dict(N=7, V=20, layout="transposed")),
    _point("sliced", dims=dict(N=8, V=20, D=2, layout="sliced")),
)


def sym_packed_matvec(draw, N=2, n=4, layout="contiguous"):
    return _arranged(layout, draw.normal(N, n * (n + 1) // 2), draw.normal(N, n))


_packed = partial(Case, build=sym_packed_matvec, public=ops.sym_packed_matvec)
register(
    "sym_packed_matvec",
    _packed("small", small=True),
    _packed("one", dims=dict(N=3, n=1)),
    _packed("finetec", dims=dict(N=33, n=34)),
    _packed("physmop", dims=dict(N=5, n=63)),
    _packed("transposed", dims=dict(N=7, n=20, layout="transposed")),
    _packed("sliced", dims=dict(N=8, n=20, layout="sliced")),
)


def lagrange_tau(draw, N=2, T=3, d=4, layout="contiguous"):
    return _arranged(
        layout,
        draw.normal(N, T, d * (d + 1) // 2, scale=0.5),
        draw.normal(N, T, d * (d - 1) // 2, scale=0.5),
        draw.normal(N, T, d),
        draw.normal(N, T, d),
    )


_learned = partial(Case, build=lagrange_tau, public=ops.lagrange_tau)
register(
    "lagrange_tau",
    _learned("small", small=True),
    _learned("one_coordinate", dims=dict(N=2, T=5, d=1)),
    _learned("one_frame", dims=dict(N=5, T=1, d=24)),
    _learned("plane", dims=dict(N=3, T=13, d=24)),
    _learned("space", dims=dict(N=2, T=7, d=66)),
    _learned("transposed", dims=dict(N=3, T=5, d=17, layout="transposed")),
    _learned("sliced", dims=dict(N=3, T=5, d=17, layout="sliced")),
)
