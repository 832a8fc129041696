"""Dynamics as a user would run it today: plain PyTorch, joint by joint or dense, and Pinocchio.

The formulas are independent of skelops; only the description of the human is shared.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.case import PINOCCHIO, Arguments, Case, Draw, Variant
from skelops.dynamics import Body, Tree

GRAVITY = (0.0, 0.0, -9.81)
# de Leva, 1996, males: share of the mass, of the length to the centre of mass, radii of gyration,
# length in m; here for 73 kg.
SEGMENTS = {
    "pelvis": (0.1117, 0.6115, (0.615, 0.551, 0.587), 0.1457),
    "middle": (0.1633, 0.4502, (0.482, 0.383, 0.468), 0.2155),
    "upper": (0.1596, 0.2999, (0.716, 0.454, 0.659), 0.1707),
    "head": (0.0694, 0.5002, (0.303, 0.315, 0.261), 0.2429),
    "arm": (0.0271, 0.5772, (0.285, 0.269, 0.158), 0.2817),
    "forearm": (0.0162, 0.4574, (0.276, 0.265, 0.121), 0.2689),
    "hand": (0.0061, 0.79, (0.628, 0.513, 0.401), 0.0862),
    "thigh": (0.1416, 0.4095, (0.329, 0.329, 0.149), 0.4222),
    "shank": (0.0433, 0.4395, (0.251, 0.246, 0.102), 0.434),
    "foot": (0.0137, 0.4415, (0.257, 0.245, 0.124), 0.2581),
}
UP, DOWN = 1, -1


@cache
def human() -> Tree:
    """16 segments, 51 degrees of freedom: a free root, all other joints balls."""

    def body(name: str, parent: str | None, offset: Sequence[float], way: int) -> Body:
        share, com, radii, length = SEGMENTS[name.split("_")[0]]
        mass = 73 * share
        inertia = [mass * (r * length) ** 2 for r in radii]
        joint = "ball" if parent else "free"
        return Body(name, parent, joint, offset, mass, (0, 0, way * com * length), inertia)

    length = {name: values[3] for name, values in SEGMENTS.items()}
    bodies = [body("pelvis", None, (0, 0, 0), UP)]
    bodies.append(body("middle", "pelvis", (0, 0, length["pelvis"]), UP))
    bodies.append(body("upper", "middle", (0, 0, length["middle"]), UP))
    bodies.append(body("head", "upper", (0, 0, length["upper"] + 0.07), UP))
    for side, y in (("left", 0.22), ("right", -0.22)):
        chain, above, offset = ("arm", "forearm", "hand"), "upper", (0, y, 0.154)
        for name in chain:
            bodies.append(body(f"{name}_{side}", above, offset, DOWN))
            above, offset = f"{name}_{side}", (0, 0, -length[name])
    for side, y in (("left", 0.087), ("right", -0.087)):
        above, offset = "pelvis", (0, y, 0)
        for name in ("thigh", "shank", "foot"):
            bodies.append(body(f"{name}_{side}", above, offset, DOWN))
            above, offset = f"{name}_{side}", (0, 0, -length[name])
    return Tree.from_bodies(bodies)


def motion(draw: Draw, B: int, *names: str) -> Arguments:
    """Coordinates away from gimbal lock, and vectors beside them."""
    n = len(human())
    vectors = {name: draw.normal(B, n) for name in names}
    with torch.no_grad():
        q = 0.7 * draw.normal(B, n).tanh()
    return {"q": q.requires_grad_(), **vectors}


# Formulas.


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.cross(a, b)


def _rotation(axis: Tensor, angle: Tensor) -> Tensor:
    K = torch.linalg.cross(axis.expand(3, 3), torch.eye(3).to(axis)).mT
    s, c = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3).to(axis) + s * K + (1 - c) * (K @ K)


def _inertias(tree: Tree, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m, h, I = tree.inertia.to(like).split([1, 3, 6], 1)
    xx, xy, yy, xz, yz, zz = I.unbind(1)
    return m, h, torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).view(-1, 3, 3)


def newton_euler(q: Tensor, qd: Tensor, qdd: Tensor) -> Tensor:
    """Inverse dynamics, body by body, in world axes."""
    tree = human()
    axis, offset = tree.axis.to(q), tree.offset.to(q)
    masses, moments, inertias = _inertias(tree, q)
    zero = torch.zeros(len(q), 3).to(q)
    world = (torch.eye(3).to(q).expand(len(q), 3, 3), zero, zero, zero - zero.new_tensor(GRAVITY))
    states: list[tuple[Tensor, ...]] = []
    forces, torques, arms, axes = [], [], [], []
    for i, parent in enumerate(tree.parent):
        R, w, al, a = states[parent] if parent >= 0 else world
        z, r = R @ axis[i], R @ offset[i]
        if not tree.joint[i]:
            r = r + z * q[:, i, None]
        a = a + _cross(al, r) + _cross(w, _cross(w, r))
        if tree.joint[i]:
            R = R @ _rotation(axis[i], q[:, i])
            al = al + _cross(w, z) * qd[:, i, None] + z * qdd[:, i, None]
            w = w + z * qd[:, i, None]
        else:
            a = a + 2 * _cross(w, z) * qd[:, i, None] + z * qdd[:, i, None]
        states.append((R, w, al, a))
        h, I = R @ moments[i], R @ inertias[i] @ R.mT
        forces.append(masses[i] * a + _cross(al, h) + _cross(w, _cross(w, h)))
        spin = (I @ w[..., None]).squeeze(-1)
        torques.append(_cross(h, a) + (I @ al[..., None]).squeeze(-1) + _cross(w, spin))
        arms.append(r)
        axes.append(z)
    tau = []
    for i in reversed(range(len(axes))):
        tau.append((axes[i] * (torques[i] if tree.joint[i] else forces[i])).sum(-1))
        parent = tree.parent[i]
        if parent >= 0:
            forces[parent] = forces[parent] + forces[i]
            torques[parent] = torques[parent] + torques[i] + _cross(arms[i], forces[i])
    return torch.stack(tau[::-1], 1)


def kinematics(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Origins, rotations and joint axes of all bodies."""
    tree = human()
    axis, offset = tree.axis.to(q), tree.offset.to(q)
    at: list[tuple[Tensor, Tensor]] = []
    axes = []
    for i, parent in enumerate(tree.parent):
        if parent >= 0:
            p, R = at[parent]
        else:
            p, R = torch.zeros(len(q), 3).to(q), torch.eye(3).to(q).expand(len(q), 3, 3)
        z = R @ axis[i]
        p = p + R @ offset[i]
        if tree.joint[i]:
            R = R @ _rotation(axis[i], q[:, i])
        else:
            p = p + z * q[:, i, None]
        at.append((p, R))
        axes.append(z)
    return (
        torch.stack([p for p, _ in at], 1),
        torch.stack([R for _, R in at], 1),
        torch.stack(axes, 1),
    )


def dense_mass(q: Tensor) -> Tensor:
    """Sum of J^T I J over the bodies that have a mass."""
    tree = human()
    p, R, z = kinematics(q)
    masses, moments, inertias = _inertias(tree, q)
    n = len(tree)
    above = torch.zeros(n, n, dtype=torch.bool)
    for i, parent in enumerate(tree.parent):
        above[i] = above[parent] if parent >= 0 else False
        above[i, i] = True
    turns = torch.tensor(tree.joint, dtype=torch.bool)
    M = 0
    for i in torch.nonzero(tree.inertia[:, 0]).flatten().tolist():
        mask = (above[i] & turns).to(q)[:, None]
        Jw = z * mask
        arm = p[:, i, None] - p
        Jv = torch.linalg.cross(Jw, arm) + z * (above[i] & ~turns).to(q)[:, None]
        h, I = (R[:, i] @ moments[i])[:, None], R[:, i] @ inertias[i] @ R[:, i].mT
        momentum = masses[i] * Jv + torch.linalg.cross(Jw, h.expand_as(Jw))
        spin = Jw @ I + torch.linalg.cross(h.expand_as(Jv), Jv)
        M = M + Jv @ momentum.mT + Jw @ spin.mT
    return M


def dense_forward(q: Tensor, qd: Tensor, tau: Tensor) -> Tensor:
    bias = newton_euler(q, qd, torch.zeros_like(q))
    return torch.linalg.solve(dense_mass(q), tau - bias)


# Pinocchio, frame by frame.


class PinocchioVariant(Variant):
    """``call(pinocchio, model, data, *frame)`` -> the frame's result, in double precision."""

    def __init__(self, call: Callable, args: Arguments):
        import pinocchio

        self.pin, self.call, self.parameters = pinocchio, call, []
        tree = human()
        self.model = pinocchio.Model()
        joints: list[int] = []
        kinds = {
            (0, 0): pinocchio.JointModelPX, (0, 1): pinocchio.JointModelPY,
            (0, 2): pinocchio.JointModelPZ, (1, 0): pinocchio.JointModelRX,
            (1, 1): pinocchio.JointModelRY, (1, 2): pinocchio.JointModelRZ,
        }  # fmt: skip
        masses, moments, inertias = (t.numpy() for t in _inertias(tree, tree.inertia))
        for i, parent in enumerate(tree.parent):
            place = pinocchio.SE3(np.eye(3), tree.offset[i].numpy())
            kind = kinds[tree.joint[i], int(tree.axis[i].argmax())]()
            above = joints[parent] if parent >= 0 else 0
            joints.append(self.model.addJoint(above, kind, place, f"joint {i}"))
            m = masses[i].item()
            if m:
                c = moments[i] / m
                about = inertias[i] - m * (c @ c * np.eye(3) - np.outer(c, c))
                inertia = pinocchio.Inertia(m, c, about)
                self.model.appendBodyToJoint(joints[-1], inertia, pinocchio.SE3.Identity())
        self.model.gravity.linear = np.array(GRAVITY)
        self.data = self.model.createData()
        self.frames = list(zip(*(t.detach().double().numpy() for t in args.values()), strict=True))

    def run(self) -> list[np.ndarray]:
        return [self.call(self.pin, self.model, self.data, *frame) for frame in self.frames]

    def outcome(self) -> dict[str, Tensor]:
        found = (np.array(self.call(self.pin, self.model, self.data, *f)) for f in self.frames)
        return {"output": torch.from_numpy(np.stack(list(found)))}


@dataclass(frozen=True)
class BodyCase(Case):
    """Dynamics of the human; with ``engine``, forward only and against Pinocchio as well."""

    engine: Callable | None = None

    @property
    def peers(self) -> tuple[str, ...]:  # type: ignore[override]
        installed = importlib.util.find_spec("pinocchio") is not None
        return ("eager", PINOCCHIO) if self.engine and installed else ("eager", "compile")

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        others = [name for name in against if name != PINOCCHIO]
        made = super().variants(direction, others, device, dtype)
        if PINOCCHIO in against:
            args = self.draw(Draw(device, dtype), **self.sizes)
            made[PINOCCHIO] = PinocchioVariant(self.engine, args)
        return made

    def small(self) -> BodyCase:
        return self.resized(B=3)


def body_case(name: str, **options) -> BodyCase:
    sizes = options.pop("sizes", {"B": 4096})
    case = BodyCase(name, sizes, activations=("q", "qd", "qdd", "tau"), slack=10.0, **options)
    return replace(case, gpu={"B": 65536}, quick={"B": 256})
