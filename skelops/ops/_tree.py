"""A tree of rigid bodies as ops see it: one body per degree of freedom, parents first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skelops import _check

PRISMATIC, REVOLUTE = 0, 1
INERTIA = 10
GRAVITY = (0.0, 0.0, -9.81)

# The joints of a body, as directions that its degrees of freedom turn about or slide along.
_AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_SLIDES = tuple((PRISMATIC, axis) for axis in _AXES)
_TURNS = tuple((REVOLUTE, axis) for axis in _AXES)
JOINTS = {
    "free": _SLIDES + _TURNS,
    "point": _SLIDES,
    "ball": _TURNS,
    "universal": _TURNS[:2],
}


@dataclass(frozen=True)
class Body:
    """A rigid body and the joint that holds it.

    Attributes:
        name: unique in its tree.
        parent: name of the body that holds it; None for the world.
        joint: "free" (slides along x, y, z, then turns about them), "point" (slides only), "ball"
            (turns about x, then the new y, then the new z), "universal" (about x, then y),
            "hinge" or "slide" (one degree of freedom, about or along ``axis``).
        offset: of the joint in the parent's frame.
        mass: more than zero.
        com: centre of mass in the body's frame, whose origin is the joint.
        inertia: three principal moments about the centre of mass along the body's axes, or the
            matrix (3, 3).
        axis: of a hinge or slide.
    """

    name: str
    parent: str | None = None
    joint: str = "ball"
    offset: Sequence[float] = (0.0, 0.0, 0.0)
    mass: float = 1.0
    com: Sequence[float] = (0.0, 0.0, 0.0)
    inertia: Sequence[float] | Sequence[Sequence[float]] = (0.0, 0.0, 0.0)
    axis: Sequence[float] = (0.0, 0.0, 1.0)

    def degrees(self) -> tuple[tuple[int, Sequence[float]], ...]:
        """(kind, axis) of every degree of freedom."""
        if self.joint in ("hinge", "slide"):
            return ((REVOLUTE if self.joint == "hinge" else PRISMATIC, self.axis),)
        if self.joint not in JOINTS:
            names = ", ".join([*JOINTS, "hinge", "slide"])
            raise _check.fail("Tree", f"joint of {self.name!r} to be one of {names}", self.joint)
        return JOINTS[self.joint]


@dataclass(frozen=True, eq=False)
class Tree:
    """Bodies joined by joints of one degree of freedom each.

    ``frame_i = frame_parent * Trans(offset_i) * Rot(axis_i, q_i)`` for a revolute joint,
    ``... * Trans(axis_i q_i)`` for a prismatic one. Joints of several degrees of freedom are chains
    with massless bodies in between. Made by ``from_bodies`` or ``from_dofs``, which check it.

    Attributes:
        parent: n indices of earlier bodies; -1 for the world.
        joint: n kinds, 0 prismatic, 1 revolute.
        axis, offset: (n, 3), in the frame of the parent.
        inertia: (n, 10), ``m, m c_x, m c_y, m c_z, Ixx, Ixy, Iyy, Ixz, Iyz, Izz`` in the frame of
            the body, c its centre of mass, I about its origin: what the equations of motion are
            linear in. It may require a gradient.
    """

    parent: tuple[int, ...]
    joint: tuple[int, ...]
    axis: Tensor
    offset: Tensor
    inertia: Tensor

    def __len__(self) -> int:
        return len(self.parent)

    @classmethod
    def from_bodies(
        cls,
        bodies: Sequence[Body],
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> Tree:
        """The tree of bodies, in their order and with as many coordinates as joints have.

        Raises:
            ValueError: a name twice, a parent that is unknown, bodies in a cycle or in several
                trees, a mass that is not positive, a bone of no length.
        """
        by_name = {body.name: body for body in bodies}
        if len(by_name) < len(bodies):
            raise _check.fail("Tree", "bodies of different names", [body.name for body in bodies])
        order: dict[str, int] = {}  # name -> its last degree of freedom
        rows: list[tuple] = []
        for body in bodies:
            _check_body(body, by_name)
            if body.parent is not None and body.parent not in order:
                wanted = f"parent {body.parent!r} before {body.name!r}"
                raise _check.fail("Tree", wanted, "the reverse")
            above = -1 if body.parent is None else order[body.parent]
            degrees = body.degrees()
            for k, (kind, axis) in enumerate(degrees):
                rows.append(
                    (
                        above,
                        kind,
                        axis,
                        (0.0,) * 3 if k else body.offset,
                        body,
                        float(k + 1 < len(degrees)),
                    )
                )
                above = len(rows) - 1
            order[body.name] = above

        def tensor(values) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        if not rows:
            raise _check.fail("Tree", "at least one body", "none")
        parent, joint, axis, offset, owner, inner = zip(*rows, strict=True)
        there = 1 - tensor(inner)
        return cls.from_dofs(
            parent,
            joint,
            tensor([list(a) for a in axis]),
            tensor([list(o) for o in offset]),
            tensor([b.mass for b in owner]) * there,
            tensor([list(b.com) for b in owner]),
            torch.stack([_matrix(tensor(b.inertia)) for b in owner]) * there[:, None, None],
        )

    @classmethod
    def from_dofs(
        cls,
        parent: Sequence[int],
        joint: Sequence[int],
        axis: Tensor,
        offset: Tensor,
        mass: Tensor,
        com: Tensor,
        inertia: Tensor,
    ) -> Tree:
        """The tree of one body per degree of freedom.

        Args:
            parent: n indices; -1 for the world.
            joint: n kinds, 0 prismatic, 1 revolute.
            axis, offset: (n, 3).
            mass: (n,); zero for bodies within a joint of several degrees of freedom.
            com: (n, 3), in the frame of the body.
            inertia: (n, 3, 3) about the centre of mass.

        Raises:
            ValueError: shapes do not fit; bodies in a cycle, in several trees or before their
                parents; an axis without length; a mass below zero; a joint that moves no mass.
        """
        n = len(parent)
        _check.tensors("Tree", axis=axis, offset=offset, mass=mass, com=com, inertia=inertia)
        for name, t, dims in (
            ("axis", axis, "n 3"),
            ("offset", offset, "n 3"),
            ("mass", mass, "n"),
            ("com", com, "n 3"),
            ("inertia", inertia, "n 3 3"),
        ):
            _check.shape("Tree", name, t, dims, n=n, **{"3": 3})
        if len(joint) != n or not set(joint) <= {PRISMATIC, REVOLUTE}:
            raise _check.fail("Tree", f"{n} joints of kind 0 or 1", list(joint))
        parents = tuple(int(p) for p in parent)
        _check_parents(parents)
        _check_values(parents, axis.detach(), mass.detach())
        unit = axis.detach() / axis.detach().norm(dim=1, keepdim=True)
        # Axes of a coordinate stay exact: kernels recognise them.
        axis = torch.where(unit.abs() == 1, unit.round(), unit)
        phi = inertial_parameters(mass, com, inertia)
        return cls(parents, tuple(int(j) for j in joint), axis, offset.detach(), phi)

    def to(self, *args, **kwargs) -> Tree:
        """The tree on another device or in another dtype, as ``Tensor.to``."""
        tensors = {
            f.name: value.to(*args, **kwargs)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **tensors)  # type: ignore[arg-type]

    def with_inertia(self, inertia: Tensor) -> Tree:
        """The same joints with other inertial parameters (n, 10), for example learned ones."""
        _check.shape("Tree", "inertia", inertia, "n 10", n=len(self), **{"10": INERTIA})
        return replace(self, inertia=inertia)

    @property
    def pattern(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Rows and columns of the packed mass matrix, one entry per body and ancestor."""
        return packed_pattern(self.parent)


def inertial_parameters(mass: Tensor, com: Tensor, inertia: Tensor) -> Tensor:
    """Mass (n,), centre of mass (n, 3), inertia (n, 3, 3) about it -> (n, 10), see ``Tree``."""
    square = com.square().sum(-1)[:, None, None] * torch.eye(3).to(com)
    about_origin = inertia + mass[:, None, None] * (square - com[:, :, None] * com[:, None, :])
    xx, xy, xz, _, yy, yz, _, _, zz = about_origin.flatten(1).unbind(1)
    return torch.cat(
        [mass[:, None], mass[:, None] * com, torch.stack([xx, xy, yy, xz, yz, zz], 1)], 1
    )


def _matrix(inertia: Tensor) -> Tensor:
    return inertia.diag() if inertia.dim() == 1 else inertia


def _check_body(body: Body, by_name: dict[str, Body]) -> None:
    name = body.name
    if body.parent is not None and body.parent not in by_name:
        raise _check.fail("Tree", f"parent of {name!r} among the bodies", repr(body.parent))
    above, seen = body, {name}
    while above.parent is not None and above.parent in by_name:
        above = by_name[above.parent]
        if above.name in seen:
            raise _check.fail("Tree", "bodies without a cycle", f"{name!r} among its ancestors")
        seen.add(above.name)
    if not body.mass > 0:
        raise _check.fail("Tree", f"mass of {name!r} above zero", body.mass)
    if body.parent is not None and not any(body.offset):
        raise _check.fail("Tree", f"a bone from {body.parent!r} to {name!r}", "length zero")


def _check_parents(parent: Sequence[int]) -> None:
    for i, p in enumerate(parent):
        if not -1 <= p < len(parent):
            raise _check.fail("Tree", f"parent of body {i} from -1 to {len(parent) - 1}", p)
        seen, above = {i}, p
        while above >= 0:
            if above in seen:
                raise _check.fail("Tree", "bodies without a cycle", f"body {i} in or below one")
            seen.add(above)
            above = parent[above]
        if p >= i:
            raise _check.fail("Tree", f"parent of body {i} before it", p)
    roots = [i for i, p in enumerate(parent) if p < 0]
    if len(roots) != 1:
        raise _check.fail("Tree", "one connected tree", f"roots {roots}")


def _check_values(parent: Sequence[int], axis: Tensor, mass: Tensor) -> None:
    for i, length in enumerate(axis.norm(dim=1).tolist()):
        if not length > 0:
            raise _check.fail("Tree", f"axis of body {i} of some length", length)
    masses = mass.tolist()
    beyond = list(masses)
    for i in reversed(range(len(parent))):
        if not masses[i] >= 0:
            raise _check.fail("Tree", f"mass of body {i} not below zero", masses[i])
        if beyond[i] == 0:
            raise _check.fail("Tree", f"mass beyond joint {i}", "none")
        if parent[i] >= 0:
            beyond[parent[i]] += beyond[i]


def packed_pattern(parent: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows and columns of the entries of the mass matrix: a body and its ancestors, ascending."""
    rows, columns = [], []
    for i in range(len(parent)):
        path, j = [], i
        while j >= 0:
            path.append(j)
            j = parent[j]
        rows += [i] * len(path)
        columns += path[::-1]
    return tuple(rows), tuple(columns)


# Checks that the public functions share.


def frames(op: str, tree: Tree, **named: Tensor | None) -> tuple[torch.Size, list[Any]]:
    """Check coordinates (..., n), wrenches (..., n, 6), packed matrices (..., nnz) -> their batch,
    and (N, ...) of each.

    Missing batch axes are broadcast; all take the widest of their dtypes, under autocast too:
    half-precision coordinates would cost the digits that accelerations consist of.
    """
    given = {name: t for name, t in named.items() if t is not None}
    for name, t in given.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"{op}: expected {name} to be a tensor, got {type(t).__name__}")
        if not t.is_floating_point():
            raise TypeError(f"{op}: expected {name} of a floating dtype, got {t.dtype}")
    n = len(tree)
    (first_name, first), *_ = given.items()
    own: dict[str, tuple[int, ...]] = dict.fromkeys(given, (n,))
    if "wrench" in given:
        own["wrench"] = (n, 6)
    if "packed" in given:
        own["packed"] = (len(tree.pattern[0]),)
    for name, t in given.items():
        if t.shape[t.dim() - len(own[name]) :] != own[name] or t.dim() < len(own[name]):
            wanted = {"wrench": f"(..., n, 6) with n={n}", "packed": f"(..., {own[name][0]})"}
            expected = wanted.get(name, f"(..., n) with n={n}")
            raise _check.fail(op, f"{name} of shape {expected}", _check.shape_text(t.shape))
        if t.device != first.device:
            raise _check.fail(op, f"{name} on {first_name}'s device {first.device}", t.device)
    batches = {name: t.shape[: t.dim() - len(own[name])] for name, t in given.items()}
    try:
        batch = torch.broadcast_shapes(*batches.values())
    except RuntimeError:
        shapes = ", ".join(f"{name} {_check.shape_text(t.shape)}" for name, t in given.items())
        raise _check.fail(op, "batches that broadcast", shapes) from None
    dtype = first.dtype
    for t in given.values():
        dtype = torch.promote_types(dtype, t.dtype)
    return batch, [
        None if t is None else t.to(dtype).expand(*batch, *own[name]).reshape(-1, *own[name])
        for name, t in named.items()
    ]


def tables(tree: Tree, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inertia, offset and axis beside coordinates."""
    return tree.inertia.to(like), tree.offset.to(like), tree.axis.to(like)


def gravity_vector(gravity: Tensor | Sequence[float] | None, like: Tensor) -> Tensor | None:
    if gravity is None:
        return None
    if isinstance(gravity, Tensor):
        return gravity.to(like)
    return like.new_tensor(gravity)


def result(op_result: Tensor, batch: Sequence[int]) -> Tensor:
    """(N, ...) -> (batch, ...), in an autocast region's dtype."""
    device = op_result.device.type
    if torch.is_autocast_enabled(device) and op_result.dtype != torch.float64:
        op_result = op_result.to(torch.get_autocast_dtype(device))
    return op_result.reshape(*batch, *op_result.shape[1:])


# What the references share.


def in_full_precision(reference: Callable) -> Callable:
    """Half types are computed in float32, and so is what autocast would lower."""

    @wraps(reference)
    def run(*args):
        dtype = args[0].dtype
        wide = torch.promote_types(dtype, torch.float32)
        args = tuple(
            a.to(wide) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args
        )
        with torch.autocast(args[0].device.type, enabled=False):
            found = reference(*args)
        if isinstance(found, Tensor):
            return found.to(dtype).contiguous()
        return tuple(t.to(dtype).contiguous() for t in found)

    return run


def cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.cross(*torch.broadcast_tensors(a, b))


def matvec(m: Tensor, v: Tensor) -> Tensor:
    return (m @ v.unsqueeze(-1)).squeeze(-1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def rotation(axis: Tensor, angle: Tensor) -> Tensor:
    """Rodrigues: (3,) and (N,) -> (N, 3, 3)."""
    x, y, z = axis.unbind()
    o = torch.zeros_like(x)
    K = torch.stack([o, -z, y, z, o, -x, -y, x, o]).view(3, 3)
    s, c = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3).to(axis) + s * K + (1 - c) * (K @ K)


class Step(NamedTuple):
    """A body on the way from the root to the leaves; vectors (N, 3) in the world."""

    body: int
    parent: int
    revolute: bool
    z: Tensor
    r: Tensor  # the origin, from the parent's
    R: Tensor


def steps(
    q: Tensor, offset: Tensor, axis: Tensor, parent: Sequence[int], joint: Sequence[int]
) -> Iterator[Step]:
    """Every body after its parent."""
    rotations: list[Tensor] = []
    # Of q even if no joint turns, so that rotations always have a gradient.
    world = torch.eye(3).to(q) + 0 * q[:, :1, None]
    for i, l in enumerate(parent):
        R = rotations[l] if l >= 0 else world
        z, r = R @ axis[i], R @ offset[i]
        if joint[i] == REVOLUTE:
            R = R @ rotation(axis[i], q[:, i])
        else:
            r = r + z * q[:, i, None]
        rotations.append(R)
        yield Step(i, l, joint[i] == REVOLUTE, z, r, R)


def inertia_of(inertia: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """Mass, first moment (N, 3) and inertia (N, 3, 3) of a body in world axes."""
    m, h, I = inertia[step.body].split([1, 3, 6])
    xx, xy, yy, xz, yz, zz = I.unbind()
    I = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).view(3, 3)
    return m, step.R @ h, step.R @ I @ step.R.mT
