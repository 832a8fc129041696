"""Dynamics: rigid bodies by Pinocchio, point masses by definition, LaDy, PhysMoP, FineTec."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from skelops import dynamics, ops
from skelops.dynamics.coordinates import Frame, rotation_coordinates
from skelops.graph import get_layout
from skelops.models import load_published
from skelops.models.finetec import part_motion
from skelops.models.phys_mop import PhysMoP
from skelops.nn.lagrangian import LagrangianNetwork
from skelops.ops.lagrange_tau import mass_factor
from skelops.testing.replay import ANY, Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options
from skelops.testing.rule import rule_value

STATE = ("q", "qd", "qdd", "tau")
LADY, PHYSMOP = "HaoyuJi/LaDy", "zhangy76/PhysMoP"


def probe(name: str, like: Tensor) -> Tensor:
    return torch.from_numpy(rule_value(f"probe.{name}", like.shape)).to(like)


# Trees and points: what a case has tells its kind.


def tree_terms(tree: dynamics.Tree, q, qd, qdd, tau, gravity) -> dict[str, Tensor]:
    M, bias, g = dynamics.lagrange_terms(tree, q, qd, gravity)
    position, rotation = ops.forward_kinematics(tree, q)
    return {
        "M": M,
        "bias": bias,
        "gravity": g,
        "C": dynamics.coriolis_matrix(tree, q, qd),
        "tau_id": ops.inverse_dynamics(tree, q, qd, qdd, gravity),
        "qdd_fd": ops.forward_dynamics(tree, q, qd, tau, gravity),
        "kinetic": dynamics.kinetic_energy(tree, q, qd),
        "potential": dynamics.potential_energy(tree, q, gravity),
        "com": dynamics.center_of_mass(tree, q),
        "pos": position,
        "rot": rotation,
    }


def rigid_bodies(case: Case) -> Replay:
    names = case.meta["input_names"]

    def unpack(inputs: Sequence[Tensor]) -> tuple[dynamics.Tree, dict[str, Tensor]]:
        given = dict(zip(names, inputs, strict=True))
        joints = ("axis", "offset", "mass", "com", "inertia")
        kinds = [given[name].tolist() for name in ("parent", "jtype")]
        return dynamics.Tree.from_dofs(*kinds, *(given[name] for name in joints)), given

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        tree, given = unpack(inputs)
        state = (given[name] for name in ("q", "qd", "qdd", "tau", "gravity"))
        terms = tree_terms(tree, *state)
        return tuple(terms[name] for name in case.meta["output_names"])

    def gradients(*inputs: Tensor) -> dict[str, Tensor]:
        tree, given = unpack(inputs)
        q, qd, qdd, tau = (given[name].detach().requires_grad_() for name in STATE)
        force = ops.inverse_dynamics(tree, q, qd, qdd, given["gravity"])
        found = torch.autograd.grad((force * probe("tau", force)).sum(), (q, qd, qdd))
        named = dict(zip(("id_q", "id_qd", "id_qdd"), found, strict=True))
        named["id_phi"] = torch.stack(
            [per_frame(tree, given, t, probe("tau", force)) for t in range(len(q))]
        )
        out = ops.forward_dynamics(tree, q, qd, tau, given["gravity"])
        found = torch.autograd.grad((out * probe("qdd", out)).sum(), (q, qd, tau))
        return named | dict(zip(("fd_q", "fd_qd", "fd_tau"), found, strict=True))

    def per_frame(tree: dynamics.Tree, given: Mapping, t: int, weight: Tensor) -> Tensor:
        inertia = tree.inertia.detach().requires_grad_()
        state = (given[name][t].detach() for name in STATE[:3])
        force = ops.inverse_dynamics(tree.with_inertia(inertia), *state, given["gravity"])
        return torch.autograd.grad((force * weight[t]).sum(), inertia)[0]

    return Replay(call, gradients=gradients)


def points(case: Case) -> Replay:
    names = case.meta["input_names"]
    moving = ("x", "v", "force", "mass")

    def run(given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        tensors = (given[name] for name in moving)
        return ops.point_dynamics(*tensors, given["parent"].tolist(), int(given["root"]))

    def call(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return run(dict(zip(names, inputs, strict=True)))

    def gradients(*inputs: Tensor) -> dict[str, Tensor]:
        given = dict(zip(names, inputs, strict=True))
        leaves = {name: given[name].detach().requires_grad_() for name in moving}
        acceleration, _ = run(given | leaves)
        loss = (acceleration * probe("xdd", acceleration)).sum()
        return dict(zip(moving, torch.autograd.grad(loss, leaves.values()), strict=True))

    return Replay(call, gradients=gradients)


def mechanics(case: Case) -> Replay:
    names = set(case.meta["input_names"])
    if {"jtype", *STATE} <= names:
        return rigid_bodies(case)
    if {"parent", "root", "x", "v", "force", "mass"} <= names:
        return points(case)
    raise NotUnderstood(f"mechanics of {sorted(names)}")


for _source in ("pinocchio", "definition"):
    replays(_source, ANY)(mechanics)


# LaDy.


@replays(LADY, "NeuralDynamicsModule")
def learned_forces(case: Case) -> Replay:
    options = Options(case.kwargs)
    dof = options.take("dof")
    hidden, friction = options.take("hidden_size", 128), options.take("use_F", True)
    options.expect()
    network = LagrangianNetwork(dof, hidden, friction)
    keys = tuple(
        (rf"^{ours}\.", f"net_{theirs}.mlp.")
        for ours, theirs in zip(("mass", "coriolis", "gravity", "friction"), "MCGF", strict=True)
    )

    def call(q: Tensor) -> tuple[Tensor, ...]:
        qd = dynamics.velocity(q, first="value")
        found = network(q, qd, dynamics.acceleration(q, first="value"))
        L = mass_factor(found.lower, dof)
        named = {"tau_hat": found.tau, "M": L @ L.mT, "G": found.gravity, "q_dot": qd}
        named["F"] = torch.zeros_like(q) if found.friction is None else found.friction
        return tuple(named[name] for name in case.meta["output_names"])

    return Replay(call, network, keys)


@replays(LADY, "EnergyConsistencyLoss")
def energy_loss(case: Case) -> Replay:
    # The step counts from one; the case says how far it was.
    weight = warm_up(case)

    def call(M: Tensor, G: Tensor, friction: Tensor, tau: Tensor, qd: Tensor) -> Tensor:
        kinetic = (qd[..., None, :] @ M @ qd[..., None]).squeeze((-1, -2)) / 2
        return dynamics.energy_consistency_loss(kinetic, tau, G, friction, qd, weight)

    def gradients(*inputs: Tensor) -> dict[str, Tensor]:
        leaves = [x.detach().requires_grad_() for x in inputs]
        found = torch.autograd.grad(call(*leaves), leaves)
        return dict(zip(case.meta["input_names"], found, strict=True))

    return Replay(call, gradients=gradients)


def warm_up(case: Case) -> float:
    """Weight of the loss: the note gives the warm-up's length and the counter before the call."""
    length = re.search(r"warmup_steps=(\d+)", case.meta["note"] or "")
    before = re.search(r"counter stood at (\d+)", case.meta["note"] or "")
    steps = int(length[1]) if length else case.kwargs.get("warmup_steps", 2000)
    return min(1.0, (int(before[1]) + 1 if before else 1) / steps)


# Bones as (joint, parent), and the joints of the body's own directions.
# fmt: off
LAYOUTS = {
    "PKU": (
        (0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 6, 11, 10),
        Frame(0, 1, 12, 16), 2, 3,
    ),
    "LARA": (
        (0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 9, 11, 12, 13, 9, 15, 16, 17), Frame(0, 9, 1, 5), 1, 3,
    ),
    "MCFS": (
        (1, 8, 1, 2, 3, 1, 5, 6, 8, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11),
        Frame(8, 1, 9, 12), 1, 2,
    ),
    "TCG": (
        (16, 9, 2, 9, 7, 3, 5, 8, 2, 0, 9, 14, 10, 12, 15, 2, 2), Frame(2, 16, 15, 8), 1, 3,
    ),
}
# fmt: on


def coordinates(case: Case) -> Replay:
    name = case.meta["class"].split("'")[1].split("-")[0]
    parents, frame, persons, D = LAYOUTS[name]

    def call(x: Tensor) -> Tensor:
        """(N, persons x D, V, T) -> (N persons, T, d)."""
        x = x[:, -persons * D :].unflatten(1, (persons, D)).flatten(0, 1).permute(0, 3, 2, 1)
        return rotation_coordinates(x.contiguous(), parents, frame)

    return Replay(call)


replays(LADY, ANY)(coordinates)


# PhysMoP.


@replays(PHYSMOP, "Step")
def motion_step(case: Case) -> Replay:
    options = Options(case.kwargs)
    sizes = {"dim": options.take("dim", 63), "past": options.take("hist_length", 25)}
    model = PhysMoP(**sizes, future=options.take("pred_length", 25), layers=layers_of(case.shapes))
    options.expect()
    return Replay(model.accelerate, model, model.published_keys)


def layers_of(keys) -> int:
    """Blocks of the data branch."""
    return sum(".motion_mlp.mlps." in f".{key}" and key.endswith("alpha") for key in keys)


@replays(PHYSMOP, "Regression")
def motion_rollout(case: Case) -> Replay:
    shapes = {key: tuple(shape) for key, shape in case.kwargs["keys"]}
    dim, past = shapes["motion_fc_in.weight"][0], shapes["motion_mlp.mlps.0.fc0.fc.weight"][0]
    future = shapes["fusion_net.motion_mlp_fusion_data.mlps.0.fc0.fc.weight"][0]
    model = PhysMoP(dim, past, future, layers_of(shapes))
    fill(model, shapes)

    def call(q: Tensor) -> tuple[Tensor, ...]:
        found = model(q[:, :past])
        # Of the recorded future, testing uses nothing.
        unused = torch.zeros_like(q)
        unused[:, :3] = q[:, :3]
        named = {
            "motion_pred_data": found.data,
            "motion_pred_physics_gt": unused,
            "motion_pred_physics_pred": found.physics,
            "motion_pred_fusion": found.fusion,
            "pred_q_ddot_physics_gt": torch.zeros_like(q[:, 2:]),
            "weight_t": found.weight,
        }
        return tuple(named[name] for name in case.meta["output_names"])

    return Replay(call)


def fill(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Every published entry by the rule, here named without the prefix of checkpoints."""
    state = {f"regressor.{k}": torch.from_numpy(rule_value(k, s)) for k, s in shapes.items()}
    load_published(model, state)
    model.eval()


# FineTec.


@replays("equations", "FineTec spatial grouping and acceleration estimate")
def decomposition(case: Case) -> Replay:
    parts = list(get_layout("coco17").parts.values())

    def estimate(tri: Tensor, tau: Tensor, coriolis: Tensor, gravity: Tensor) -> Tensor:
        n = tau.shape[-1]
        # The case has upper triangles, row by row.
        place = torch.zeros(n, n, dtype=torch.long)
        rows, columns = torch.triu_indices(n, n)
        place[columns, rows] = torch.arange(len(rows))
        order = place[tuple(torch.tril_indices(n, n))].to(tri.device)
        return ops.sym_packed_matvec(tri[..., order], tau) - coriolis - gravity

    def call(S: Tensor, *terms: Tensor) -> tuple[Tensor, ...]:
        S, terms = S.double(), tuple(t.double() for t in terms)
        motion = part_motion(S, parts)
        named = dict(zip(("D_avg", "region", "top2", "dynamic_mask"), motion, strict=True))
        named["velocity"] = dynamics.velocity(S, first="zero", dim=1)
        named["pseudo_acc"] = dynamics.acceleration(S, dim=1)
        named["a"] = estimate(*terms)
        return tuple(named[name] for name in case.meta["output_names"])

    def gradients(_: Tensor, *terms: Tensor) -> dict[str, Tensor]:
        leaves = [t.detach().double().requires_grad_() for t in terms]
        found = estimate(*leaves)
        grads = torch.autograd.grad((found * probe("a", found)).sum(), leaves)
        return dict(zip(case.meta["input_names"][1:], grads, strict=True))

    return Replay(call, gradients=gradients)
