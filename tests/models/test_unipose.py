"""UniPose: cameras, rendered bodies, weak losses, networks, and a training whose error falls."""

import csv

import pytest
import torch

from skelops.camera import Camera
from skelops.data.capsules import render, sample_cloud
from skelops.models.unipose import (
    ITOP15,
    LiftPose,
    PointPose,
    bone_lengths,
    motion_loss,
    ray_distance,
    ray_loss,
    surface_loss,
    symmetry_loss,
    to_crop,
    to_space,
    trusted,
    weak_loss,
)
from skelops.train import unipose

CAMERA = Camera(50.0, 60.0, 15.5, 12.5)
SMALL = dict(blocks=(1, 1, 1, 1), width=8, tower_width=16)


def bodies(*shape):
    torch.manual_seed(0)
    return torch.randn(*shape, 15, 3, dtype=torch.float64) * 0.3 + torch.tensor([0, 0, 3.0])


def test_camera_there_and_back():
    points = bodies(4)
    pixels, front = CAMERA.project(points)
    assert front.all()
    ray = CAMERA.rays(pixels)
    torch.testing.assert_close(ray * points.norm(dim=-1, keepdim=True), points)
    each = Camera(
        torch.full((4,), 50.0), torch.full((4,), 60.0), 15.5 * torch.ones(4), torch.full((4,), 12.5)
    )
    torch.testing.assert_close(each.project(points)[0], pixels)


def test_behind_the_camera_and_without_depth():
    pixels, front = CAMERA.project(torch.tensor([[1, 1, 0], [1, 1, -2], [1, 1, 2.0]]))
    assert front.tolist() == [False, False, True] and pixels.isfinite().all()
    depth = torch.tensor([[[0, -1, torch.nan, torch.inf, 2]]])
    points, valid = CAMERA.unproject(depth)
    assert valid.flatten().tolist() == [False] * 4 + [True]
    assert points.isfinite().all() and points[0, 0, 4, 2] == 2


def test_render_a_ball_and_a_cylinder():
    joints = torch.tensor([[[0, 0, 2.0], [0, 0, 2.0], [-3, 0.5, 3], [3, 0.5, 3]]])
    image = render(joints, [(0, 1), (2, 3)], [0.2, 0.1], Camera(50.0, 50.0, 15.0, 15.0), (31, 31))
    assert image.depth[0, 15, 15] == pytest.approx(1.8, abs=1e-5)
    assert image.bone[0, 15, 15] == 0 and image.shade[0, 15, 15] == pytest.approx(1, abs=1e-5)
    row = image.bone[0] == 1
    assert row.any(1).nonzero().flatten().tolist() == [22, 23, 24, 25] and row[23].all()
    assert image.bone[0, 0, 0] == -1 and image.depth[0, 0, 0] == 0
    cloud = sample_cloud(image.depth, Camera(50.0, 50.0, 15.0, 15.0), 300, torch.rand(1, 31, 31))
    ball, rod = (cloud[0] - joints[0, 0]).norm(dim=1), (cloud[0] - joints[0, 2])[:, 1:].norm(dim=1)
    assert torch.minimum((ball - 0.2).abs(), (rod - 0.1).abs()).max() < 1e-4


def test_render_refuses():
    with pytest.raises(ValueError, match="1 radii above zero"):
        render(torch.zeros(1, 2, 3), [(0, 1)], [0.0], CAMERA, (8, 8))
    with pytest.raises(ValueError, match="bones between 2 joints"):
        render(torch.zeros(1, 2, 3), [(0, 2)], [0.1], CAMERA, (8, 8))
    with pytest.raises(ValueError, match="a depth in every map"):
        sample_cloud(torch.zeros(1, 8, 8), CAMERA, 4, torch.rand(1, 8, 8))


def test_rays_do_not_know_depth():
    joints = bodies(2)
    pixels, _ = CAMERA.project(joints)
    assert ray_distance(joints * 1.7, pixels, CAMERA).max() < 1e-5
    moved = joints + torch.tensor([0.3, 0, 0])
    assert ray_loss(moved, pixels, torch.ones(2, 15), CAMERA) > 0.1
    assert ray_loss(moved, pixels, torch.zeros(2, 15), CAMERA) == 0
    assert trusted(joints, pixels, CAMERA).all() and not trusted(moved, pixels, CAMERA).any()


def test_joints_lie_behind_the_surface():
    z = torch.tensor([[[0, 0, 2.1]]])
    assert surface_loss(z, torch.tensor([[2.0]])) == 0
    assert surface_loss(z, torch.tensor([[2.2]])) > 0 and surface_loss(z, torch.tensor([[1.8]])) > 0
    assert surface_loss(z, torch.tensor([[0.0]])) == 0


def test_symmetry_and_motion():
    left = bodies(1)
    mirrored = left.clone()
    for l, r in ITOP15.left_right:
        mirrored[:, r] = left[:, l] * torch.tensor([-1, 1, 1])
    middle = [v for v in range(15) if not any(v in pair for pair in ITOP15.left_right)]
    mirrored[:, middle, 0] = 0
    assert symmetry_loss(mirrored, ITOP15) < 1e-9 < symmetry_loss(left, ITOP15)
    steady = left[:, None] + torch.arange(4, dtype=torch.float64)[None, :, None, None] * 0.1
    assert motion_loss(steady, ITOP15) < 1e-9 < motion_loss(bodies(1, 4), ITOP15)
    assert bone_lengths(left, ITOP15)[0].shape == (1, 14)
    with pytest.raises(ValueError, match="motion_loss: expected at least 3 frames, got 2"):
        motion_loss(steady[:, :2], ITOP15)


def test_gradients_are_finite_where_all_is_right():
    joints = bodies(1, 1).expand(1, 3, -1, -1).clone().requires_grad_()
    pixels, _ = CAMERA.project(joints.detach())
    loss = weak_loss(joints, pixels, torch.ones(1, 3, 15), joints[..., 2].detach(), CAMERA)
    loss.backward()
    assert joints.grad.isfinite().all()


def test_crop_and_space():
    joints, origin = bodies(3), torch.tensor([2.9, 3.0, 3.1])
    crop = to_crop(joints, CAMERA, origin, 32.0, 16.0)
    torch.testing.assert_close(to_space(crop, CAMERA, origin, 32.0, 16.0), joints)


def test_points_move_with_the_cloud():
    model = PointPose(num_joints=7, centers=(16, 4), radii=(0.5, 1.0), k=8, width=8).eval()
    cloud = torch.randn(2, 60, 3)
    shift = torch.tensor([0.5, -1, 2.0])
    with torch.no_grad():
        found = model(cloud)
        assert found.shape == (2, 7, 3)
        torch.testing.assert_close(model(cloud + shift), found + shift, rtol=1e-3, atol=1e-3)


def test_points_see_an_image():
    model = PointPose(5, (16, 4), (0.5, 1.0), 8, 8, image_channels=6)
    cloud, maps = torch.randn(2, 60, 3) * 0.3 + torch.tensor([0, 0, 3.0]), torch.randn(2, 6, 25, 31)
    model(cloud, CAMERA, maps.requires_grad_()).square().sum().backward()
    assert maps.grad.any()


@pytest.mark.parametrize("anchors, count", [("grid", 12), ("joint", 5), ("both", 17)])
def test_anchors_of_images(anchors, count):
    model = LiftPose(5, 1, anchors, **SMALL)
    found = model(torch.randn(2, 1, 32, 32), torch.rand(2, 5, 2) * 31)
    assert found.logits.shape == (2, count, 5) and found.joints().shape == (2, 5, 3)
    found.joints().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_lifting_refuses():
    with pytest.raises(ValueError, match="anchors 'grid', 'joint' or 'both'"):
        LiftPose(5, 1, "none")
    with pytest.raises(ValueError, match=r"an image \(N, 1, H, H\)"):
        LiftPose(5, 1, **SMALL)(torch.zeros(2, 1, 32, 48))
    with pytest.raises(ValueError, match="pixels of detected joints"):
        LiftPose(5, 1, "joint", **SMALL)(torch.zeros(2, 1, 32, 32))


def test_a_training(tmp_path):
    options = ["--out", str(tmp_path), "--clips", "16", "--test_clips", "16", "--steps", "3"]
    options += ["--per_clip", "1"]
    assert unipose.main(options) == 0
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert {row["stage"] for row in rows} == {"cloud", "depth", "rgb"}
    cloud = [float(row["test_mpjpe_mm"]) for row in rows if row["stage"] == "cloud"]
    assert cloud[-1] < cloud[0]
    assert {path.name for path in tmp_path.glob("*.pt")} == {"cloud.pt", "depth.pt", "rgb.pt"}
