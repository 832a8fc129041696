"""forward_dynamics: what mechanics demands of it, against other engines, and how it refuses."""

import re

import numpy as np
import pytest
import torch

from skelops import forward_dynamics, inverse_dynamics, mass_matrix
from skelops.dynamics import Body, Tree, kinetic_energy, potential_energy

G = 9.81


def random_tree(n, seed, branching=True):
    """Bodies of any joints, axes and inertias, depth first as Pinocchio needs them."""
    random = np.random.default_rng(seed)
    names = ["ball", "hinge", "slide", "universal"]
    bodies = [Body("b0", None, "free", (0, 0, 0), 3.0, random.normal(0, 0.1, 3), (0.3, 0.2, 0.25))]
    path, count = ["b0"], 6
    while count < n:
        i = len(bodies)
        if branching and random.random() < 0.4:
            del path[1 + random.integers(len(path)) :]
        joint = names[random.integers(len(names))]
        root = random.normal(0, 0.15, (3, 3))
        spread = root @ root.T + 0.03 * np.eye(3)  # of the mass: any such makes an inertia
        axis = random.normal(0, 1, 3) if i % 2 else np.eye(3)[i % 3]
        body = Body(
            f"b{i}",
            path[-1],
            joint,
            random.normal(0, 0.3, 3),
            0.5 + random.random(),
            random.normal(0, 0.1, 3),
            np.trace(spread) * np.eye(3) - spread,
            axis,
        )
        bodies.append(body)
        path.append(body.name)
        count += len(body.degrees())
    return Tree.from_bodies(bodies)


def state(tree, *batch, seed=1):
    """Coordinates, with all turns away from gimbal lock, and two random vectors."""
    random = torch.Generator().manual_seed(seed)
    shape = (*batch, len(tree))
    q, qd, u = (torch.randn(shape, dtype=torch.float64, generator=random) for _ in range(3))
    return 0.7 * q.tanh(), qd, u


def test_solves_the_equations_of_motion():
    tree = random_tree(20, 0)
    q, qd, tau = state(tree, 7)
    qdd = forward_dynamics(tree, q, qd, tau)
    residual = tau - inverse_dynamics(tree, q, qd)
    expected = torch.linalg.solve(mass_matrix(tree, q), residual)
    torch.testing.assert_close(qdd, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_methods_agree(dtype):
    """Without mass matrix or by its factors; accelerations of half types take float32."""
    tree = random_tree(20, 0)
    wrench = torch.randn(7, len(tree), 6, dtype=torch.float64)
    given = [t.to(dtype) for t in (*state(tree, 7), wrench)]
    found = []
    for method in ("articulated", "cholesky"):
        q, qd, tau, w, inertia = (t.clone().requires_grad_() for t in (*given, tree.inertia))
        heavy = tree.with_inertia(inertia)
        qdd = forward_dynamics(heavy, q, qd, tau, wrench=w, method=method)
        (qdd * torch.linspace(-1, 1, qdd.numel()).view_as(qdd).to(dtype)).sum().backward()
        found.append([qdd, *(t.grad for t in (q, qd, tau, w, inertia))])
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 4e-3}[dtype]
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * one.abs().max().item())


def test_at_rest_without_gravity_it_is_the_inverse_mass_matrix():
    tree = random_tree(12, 1)
    q, _, _ = state(tree, 1)
    columns = forward_dynamics(tree, q, None, torch.eye(len(tree)).double(), gravity=None)
    inverse = torch.linalg.inv(mass_matrix(tree, q)[0])
    torch.testing.assert_close(columns, inverse, rtol=1e-9, atol=1e-9)


def test_free_fall():
    tree = random_tree(20, 2)
    q, _, _ = state(tree, 5)
    qdd = forward_dynamics(tree, q, None, torch.zeros_like(q))
    expected = torch.zeros_like(q)
    expected[:, 2] = -G
    torch.testing.assert_close(qdd, expected, rtol=0, atol=1e-9)


def test_energy_is_conserved_for_ten_seconds():
    """A pendulum of three balls with slides, let go: classical Runge-Kutta at 2 kHz."""
    bodies = [
        Body(
            "a",
            None,
            "hinge",
            mass=1.0,
            com=(0, 0, -0.4),
            inertia=(0.05, 0.05, 0.02),
            axis=(0, 1, 0),
        )
    ]
    bodies += [
        Body("b", "a", "universal", (0, 0, -0.8), 0.7, (0, 0.1, -0.3), (0.04, 0.05, 0.03)),
        Body("c", "a", "hinge", (0.2, 0, -0.5), 0.5, (0, 0, -0.2), (0.02, 0.02, 0.02), (1, 2, 1)),
    ]  # fmt: skip
    tree = Tree.from_bodies(bodies)
    q = torch.tensor([[0.6, 0.3, -0.4, 0.8]], dtype=torch.float64)
    qd, tau, dt = torch.zeros_like(q), torch.zeros_like(q), 5e-4

    def energy():
        return (kinetic_energy(tree, q, qd) + potential_energy(tree, q)).item()

    size = abs(potential_energy(tree, q).item())
    first = energy()
    for _ in range(20_000):
        k1 = forward_dynamics(tree, q, qd, tau)
        v2 = qd + dt / 2 * k1
        k2 = forward_dynamics(tree, q + dt / 2 * qd, v2, tau)
        v3 = qd + dt / 2 * k2
        k3 = forward_dynamics(tree, q + dt / 2 * v2, v3, tau)
        v4 = qd + dt * k3
        k4 = forward_dynamics(tree, q + dt * v3, v4, tau)
        q = q + dt / 6 * (qd + 2 * v2 + 2 * v3 + v4)
        qd = qd + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    assert abs(energy() - first) <= 1e-6 * size


@pytest.mark.parametrize("seed", range(3))
def test_single_precision(seed):
    tree = random_tree(40, seed)
    q, qd, tau = state(tree, 16)
    exact = forward_dynamics(tree, q, qd, tau)
    found = forward_dynamics(tree, q.float(), qd.float(), tau.float()).double()
    assert (found - exact).abs().max() <= 1e-4 * exact.abs().max()


@pytest.mark.parametrize("backward", [False, True])
def test_a_frame_does_not_depend_on_others(backward):
    tree = random_tree(15, 3)
    tensors = [t.requires_grad_() for t in state(tree, 19)]
    qdd = forward_dynamics(tree, *tensors)
    if not backward:
        for i in (0, 7, 18):
            alone = forward_dynamics(tree, *(t[i : i + 1] for t in tensors))
            torch.testing.assert_close(alone[0], qdd[i], rtol=1e-12, atol=1e-12)
        return
    for g in torch.autograd.grad(qdd[5].sum(), tensors):
        assert g[5].any() and not g[:5].any() and not g[6:].any()


# Other engines.


def pinocchio_model(pin, tree):
    model = pin.Model()
    joints = []
    for i, parent in enumerate(tree.parent):
        axis = tree.axis[i].numpy()
        kind = (pin.JointModelRevoluteUnaligned if tree.joint[i] else
                pin.JointModelPrismaticUnaligned)  # fmt: skip
        place = pin.SE3(np.eye(3), tree.offset[i].numpy())
        above = joints[parent] if parent >= 0 else 0
        joints.append(model.addJoint(above, kind(axis), place, f"j{i}"))
        m, h, (xx, xy, yy, xz, yz, zz) = tree.inertia[i].split([1, 3, 6])
        if m > 0:
            com = (h / m).numpy()
            origin = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            about = origin - m.item() * (com @ com * np.eye(3) - np.outer(com, com))
            body = pin.Inertia(m.item(), com, about)
            model.appendBodyToJoint(joints[-1], body, pin.SE3.Identity())
    model.gravity.linear = np.array([0, 0, -G])
    return model


@pytest.mark.parametrize("n", [6, 17, 51])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_pinocchio(n, seed):
    pin = pytest.importorskip("pinocchio", reason="pinocchio (pip install pin) is not installed")
    tree = random_tree(n, seed, branching=seed != 2)
    model = pinocchio_model(pin, tree)
    # Pinocchio numbers joints depth first.
    order = [model.joints[model.getJointId(f"j{i}")].idx_v for i in range(len(tree))]
    data = model.createData()
    q, qd, u = state(tree, 5)
    found = {
        "inverse": inverse_dynamics(tree, q, qd, u),
        "forward": forward_dynamics(tree, q, qd, u),
        "mass": mass_matrix(tree, q),
    }

    def theirs(t):
        moved = np.empty(len(tree))
        moved[order] = t.numpy()
        return moved

    for t in range(5):
        args = [theirs(x[t]) for x in (q, qd, u)]
        M = pin.crba(model, data, args[0])
        M = np.triu(M) + np.triu(M, 1).T
        expected = {
            "inverse": pin.rnea(model, data, *args)[order],
            "forward": pin.aba(model, data, *args)[order],
            "mass": M[np.ix_(order, order)],
        }
        for name, e in expected.items():
            error = np.abs(found[name][t].numpy() - e).max() / np.abs(e).max()
            assert error <= 1e-10, f"{name}: {error}"


def mujoco_xml(tree):
    children = {i: [] for i in range(-1, len(tree))}
    for i, p in enumerate(tree.parent):
        children[p].append(i)

    def text(values):
        return " ".join(repr(float(v)) for v in values)

    def element(i):
        m, h, (xx, xy, yy, xz, yz, zz) = tree.inertia[i].split([1, 3, 6])
        kind = "hinge" if tree.joint[i] else "slide"
        inside = f'<joint name="j{i}" type="{kind}" axis="{text(tree.axis[i])}"/>'
        if m > 0:
            com = (h / m).numpy()
            origin = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            I = origin - m.item() * (com @ com * np.eye(3) - np.outer(com, com))
            full = text([I[0, 0], I[1, 1], I[2, 2], I[0, 1], I[0, 2], I[1, 2]])
            inside += f'<inertial pos="{text(com)}" mass="{m.item()!r}" fullinertia="{full}"/>'
        else:
            inside += '<inertial pos="0 0 0" mass="1e-14" diaginertia="1e-14 1e-14 1e-14"/>'
        return (
            f'<body pos="{text(tree.offset[i])}">{inside}'
            + "".join(element(c) for c in children[i])
            + "</body>"
        )

    return (
        '<mujoco><compiler angle="radian" boundmass="0" boundinertia="0" balanceinertia="false"/>'
        f'<option gravity="0 0 {-G}"><flag contact="disable"/></option><worldbody>'
        + "".join(element(c) for c in children[-1])
        + "</worldbody></mujoco>"
    )


@pytest.mark.parametrize("seed", range(2))
def test_agrees_with_mujoco(seed):
    mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed")
    tree = random_tree(25, seed)
    model = mujoco.MjModel.from_xml_string(mujoco_xml(tree))
    data = mujoco.MjData(model)
    order = [model.joint(f"j{i}").dofadr[0] for i in range(len(tree))]
    q, qd, _ = state(tree, 1)
    data.qpos[order], data.qvel[order] = q[0].numpy(), qd[0].numpy()
    mujoco.mj_forward(model, data)
    bias = inverse_dynamics(tree, q, qd)[0].numpy()
    np.testing.assert_allclose(bias, data.qfrc_bias[order], rtol=0, atol=1e-9 * abs(bias).max())


def test_unknown_method():
    tree = random_tree(7, 0)
    message = "method to be one of articulated, cholesky, got lu"
    with pytest.raises(ValueError, match="^forward_dynamics: expected " + re.escape(message)):
        forward_dynamics(tree, *state(tree, 1), method="lu")


BAD = [
    (dict(tau=torch.zeros(2, 8)), ValueError, "tau of shape (..., n) with n=6, got (2, 8)"),
    (dict(tau=torch.zeros(2, 6).int()), TypeError, "tau of a floating dtype, got torch.int32"),
    (dict(qd=torch.zeros(3, 6)), ValueError, "batches that broadcast, got q (2, 6), qd (3, 6), t"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(q=torch.zeros(2, 6), qd=None, tau=torch.zeros(2, 6)) | change
    with pytest.raises(error, match="^" + re.escape(f"forward_dynamics: expected {message}")):
        forward_dynamics(random_tree(6, 0), **arguments)
