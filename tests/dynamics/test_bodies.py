"""Body models, their coordinates, masses of joints, derivatives and torques of clips."""

import math

import numpy as np
import pytest
import torch

from skelops import dynamics
from skelops.dynamics import body_model, derivatives, joint_masses, torques
from skelops.dynamics.torques import unwrapped
from skelops.graph import Layout, get_layout

LAYOUTS = {"ntu25": 35, "nw_ucla20": 35, "h36m17": 27, "coco17": 24}


def posed(model, T=6, size=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = size * torch.randn(T, len(model.tree), generator=generator, dtype=torch.float64)
    return q, model.positions(q)


@pytest.mark.parametrize("sex", ["male", "female"])
@pytest.mark.parametrize("layout, n", LAYOUTS.items())
def test_people(layout, n, sex):
    model = body_model(layout, sex, height=1.8, mass=80)
    assert len(model.tree) == len(model.names) == n
    assert model.tree.inertia[:, 0].sum().item() == pytest.approx(80)
    q, x = posed(model)
    torch.testing.assert_close(model.coordinates(x), q)
    taller = body_model(layout, sex, height=0.9, mass=80)
    torch.testing.assert_close(taller.positions(0 * q), model.positions(0 * q) / 2)
    torch.testing.assert_close(taller.tree.inertia[:, 4:], model.tree.inertia[:, 4:] / 4)
    masses = joint_masses(layout, sex, 80)
    assert masses.sum().item() == pytest.approx(80) and masses.min() >= 0.079
    mirror = list(get_layout(layout).mirror)
    torch.testing.assert_close(masses, masses[mirror])


@pytest.mark.parametrize("sex, radius", [("male", 0.329), ("female", 0.364)])
def test_a_thigh_turns_as_published(sex, radius):
    model = body_model("ntu25", sex, height=1.741)
    name = [part.name for part in model.segments].index("left_thigh")
    m, h, inertia = model.tree.inertia[model.last[name]].split([1, 3, 6])
    about_center = inertia[0] - h.square().sum() / m  # x stands across the thigh
    assert about_center.item() == pytest.approx(m.item() * (radius * 0.4222) ** 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recorded_lengths(layout):
    q, x = posed(body_model(layout, height=1.5))
    model = body_model(layout, joints=torch.cat([x, 0 * x]))
    torch.testing.assert_close(model.positions(model.coordinates(x)), x)
    torch.testing.assert_close(model.coordinates(x), q)


def test_upright_at_zero():
    model = body_model("ntu25")
    x = model.positions(torch.zeros(len(model.tree), dtype=torch.float64))
    place = get_layout("ntu25").joint_names.index
    names = ("head", "right_hip", "right_foot", "left_wrist")
    head, hip, foot, wrist = (x[place(name)] for name in names)
    assert head[2] > 0.5 and foot[2] < -0.9 and hip[0] > 0 > wrist[0]
    q = torch.zeros(len(model.tree), dtype=torch.float64)
    q[model.names.index("right_shank_about_x")] = -math.pi / 2  # a bent knee points back
    moved = model.positions(q)[place("right_ankle")]
    assert moved[1] < -0.4


def test_masses_keep_the_center_of_a_person_in_one_pose():
    model = body_model("nw_ucla20")
    x = model.positions(torch.zeros(len(model.tree), dtype=torch.float64))
    masses = joint_masses("nw_ucla20")
    center = (masses[:, None] * x).sum(0) / masses.sum()
    exact = dynamics.center_of_mass(model.tree, torch.zeros(len(model.tree)).double())
    torch.testing.assert_close(center, exact, rtol=0, atol=0.02)


def test_a_model_of_points_agrees_with_rigid_bones():
    """Accelerations of point masses keep the lengths of the bones."""
    layout = get_layout("nw_ucla20")
    _, x = posed(body_model(layout))
    v, force = torch.randn(2, *x.shape, dtype=torch.float64)
    a, _ = dynamics.point_dynamics(x, v, force, joint_masses(layout), layout.parents, layout.center)
    for joint, parent in layout.bones:
        e, ed, edd = (t[:, joint] - t[:, parent] for t in (x, v, a))
        torch.testing.assert_close((e * edd).sum(-1), -(ed * ed).sum(-1))


@pytest.mark.parametrize("T, window", [(3, 9), (5, 5), (30, 9)])
def test_derivatives_of_polynomials_are_exact(T, window):
    t = torch.arange(T, dtype=torch.float64) / 30
    degree = min(3, min(T, window) - 1)
    q = torch.stack([t**degree, 2 - t], 1)
    found = derivatives(q, 30, window)
    torch.testing.assert_close(found.q, q)
    first = torch.stack([degree * t ** (degree - 1), -torch.ones(T).double()], 1)
    torch.testing.assert_close(found.qd, first)
    second = degree * (degree - 1) * t ** (degree - 2)
    torch.testing.assert_close(found.qdd[:, 0], second)


def test_angles_go_on():
    turn = torch.linspace(0, 20, 50, dtype=torch.float64)
    wrapped = torch.atan2(turn.sin(), turn.cos())
    q = torch.stack([wrapped, wrapped], 1)
    torch.testing.assert_close(unwrapped(q, [True, False]), torch.stack([turn, wrapped], 1))


def test_standing_still_takes_the_weight_only():
    model = body_model("ntu25", mass=80)
    q = torch.zeros(len(model.tree), dtype=torch.float64)
    x = model.positions(q).expand(12, -1, -1)
    # The camera looks along -z, y up.
    x = torch.stack([x[..., 0], x[..., 2], -x[..., 1]], -1)
    found = torques(x.numpy(), 30, mass=80)
    assert found.model.names[:3] == tuple(f"pelvis_along_{axis}" for axis in "xyz")
    expected = torch.tensor([0, 80 * 9.81, 0], dtype=torch.float64).expand(12, 3)
    torch.testing.assert_close(found.tau[:, :3], expected, rtol=1e-9, atol=1e-6)
    assert found.motion.qdd.abs().max() < 1e-8
    knee = found.model.names.index("left_shank_about_x")
    assert found.tau[:, knee].abs().max() < 1e-6  # the shank hangs straight down


def test_a_swinging_arm():
    """The elbow's torque is that of inverse dynamics at the exact derivatives."""
    model = body_model("ntu25")
    t = torch.arange(60, dtype=torch.float64) / 1000
    elbow = model.names.index("right_forearm_about_x")
    motion = torch.zeros(3, 60, len(model.tree), dtype=torch.float64)
    motion[:, :, elbow] = torch.stack([(6 * t).sin(), 6 * (6 * t).cos(), -36 * (6 * t).sin()])
    gravity = (0.0, 0.0, -9.81)
    found = torques(model.positions(motion[0]), 1000, gravity=gravity, model=model)
    expected = dynamics.inverse_dynamics(model.tree, *motion, gravity)
    error = (found.tau - expected)[4:-4, elbow].abs().max() / expected[:, elbow].abs().max()
    assert error < 1e-3


@pytest.mark.parametrize("call, message", [
    (lambda x: body_model("ntu25", "other"), r"body_model: expected sex in"),
    (lambda x: body_model("ntu25", height=0), r"body_model: expected height above zero, got 0"),
    (lambda x: body_model("ntu25", mass=-1), r"body_model: expected mass above zero, got -1"),
    (lambda x: body_model(Layout("arm", (0, 0, 1))), r"expected a layout with hips and shoulders"),
    (lambda x: body_model("ntu25", joints=0 * x), r"expected recorded joints, got none but zeros"),
    (lambda x: body_model("ntu25", joints=x[:, :1].expand_as(x)), r"a pelvis of some length"),
    (lambda x: body_model("ntu25").coordinates(x[:, :7]), r"coordinates: expected joints of shape"),
    (lambda x: torques(x, 0), r"torques: expected fps above zero, got 0"),
    (lambda x: torques(x[:2], 30), r"torques: expected at least 3 frames, got 2"),
    (lambda x: torques(x[:, :5], 30), r"torques: expected a clip \(T, 25, 3\) for ntu25"),
    (lambda x: torques(x * (torch.arange(6) != 2)[:, None, None], 30), r"got frames \[2\] without"),
    (lambda x: derivatives(x[:2, 0], 30), r"derivatives: expected 3 or more frames"),
    (lambda x: derivatives(x[:, 0], -1), r"derivatives: expected fps above zero, got -1"),
])  # fmt: skip
def test_bad_input(call, message):
    x = posed(body_model("ntu25"))[1]
    with pytest.raises(ValueError, match=message):
        call(x)


def test_singular_poses_are_finite():
    layout = get_layout("ntu25")
    x = np.tile(np.arange(25.0)[:, None], (4, 1, 3)) + 1  # all joints on a line
    found = torques(x, 30, layout)
    assert found.tau.isfinite().all()
