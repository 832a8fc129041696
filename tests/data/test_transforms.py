import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from skelops.data import transforms

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "cases"


def golden(name):
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        pytest.skip("published results are not at hand (../shared/golden)")
    case = np.load(path, allow_pickle=False)
    return json.loads(str(case["meta"])), case


def test_crop_and_resize_as_published():
    meta, case = golden("feeder_crop_resize_train")
    frames = torch.from_numpy(case["in.x"]).permute(1, 3, 2, 0)  # (C, T, V, M) -> (T, M, V, C)
    length = torch.tensor([meta["kwargs"]["valid_frame_num"]])
    span = length - 70 + 1
    noise = torch.tensor([[case["in.u"][0], (case["in.bias"][0] + 0.5) / span.item()]])
    start, size = transforms.train_crop(length, noise, tuple(meta["kwargs"]["p_interval"]))
    assert size.item() == 70 and start.item() == case["in.bias"][0]
    y = transforms.resize(frames, start, size, meta["kwargs"]["window"])
    torch.testing.assert_close(
        y[0].permute(3, 0, 2, 1), torch.from_numpy(case["out.y"]), rtol=1e-5, atol=1e-6
    )


def test_rotation_as_published():
    _, case = golden("feeder_random_rot")
    x = torch.from_numpy(case["in.x"]).permute(1, 3, 2, 0)[None]
    y = transforms.rotate(x, torch.from_numpy(case["in.angles"])[None])
    torch.testing.assert_close(
        y[0].permute(3, 0, 2, 1), torch.from_numpy(case["out.y"]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("size, window", [(1, 8), (5, 8), (64, 64), (97, 64), (300, 52)])
def test_resize_is_linear_interpolation_with_half_pixel_centres(size, window):
    x = torch.randn(size + 7, 2, 3, dtype=torch.float64)
    y = transforms.resize(x, torch.tensor([4]), torch.tensor([size]), window)
    flat = x[4 : 4 + size].flatten(1).T[None]
    expected = interpolate(flat, window, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(y[0], expected.view(window, 2, 3))


def test_resize_of_a_batch_is_resize_of_each():
    x = torch.randn(50, 1, 4, 3)
    start, size = torch.tensor([0, 10, 49]), torch.tensor([10, 39, 1])
    y = transforms.resize(x, start, size, 16)
    for i in range(3):
        crop = x[start[i] : start[i] + size[i]]
        one = transforms.resize(crop, torch.tensor([0]), size[i : i + 1], 16)
        assert torch.equal(y[i], one[0])


def test_train_crop_stays_inside_and_reaches_both_ends():
    length = torch.tensor([100, 64, 30, 1, 200])
    low = transforms.train_crop(length, torch.zeros(5, 2))
    high = transforms.train_crop(length, torch.full((5, 2), 1 - 1e-9, dtype=torch.float64))
    assert low[1].tolist() == [64, 64, 30, 1, 100]
    assert high[1].tolist() == [99, 64, 30, 1, 199]
    assert low[0].tolist() == [0] * 5
    assert (high[0] + high[1] == length).all()


def test_test_crop_is_central():
    length = torch.arange(1, 400)
    start, size = transforms.test_crop(length)
    assert start.tolist() == [int((1 - 0.95) * n / 2) for n in length.tolist()]
    assert (2 * start + size == length).all() and (size >= 1).all()


def test_rotation_keeps_lengths_and_zeros():
    x = torch.randn(3, 5, 2, 4, 3)
    x[:, :, 1] = 0
    y = transforms.rotate(x, torch.rand(3, 3))
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert not y[:, :, 1].any()
    assert torch.equal(transforms.rotate(x, torch.zeros(3, 3)), x)


def test_modalities():
    x = torch.randn(2, 6, 2, 4, 3)
    parents = (0, 0, 1, 1)
    bone = transforms.modality(x, "bone", parents)
    assert torch.equal(bone[..., 3, :], x[..., 3, :] - x[..., 1, :]) and not bone[..., 0, :].any()
    motion = transforms.modality(x, "bone_motion", parents)
    assert torch.equal(motion[:, :-1], bone[:, 1:] - bone[:, :-1]) and not motion[:, -1].any()
    assert transforms.modality(x, "joint", parents) is x
    with pytest.raises(ValueError, match=r"modality: expected kind in .*, got 'angle'"):
        transforms.modality(x, "angle", parents)
    with pytest.raises(ValueError, match=r"modality: expected parents of the 4 joints, got 3"):
        transforms.modality(x, "bone", (0, 0, 1))


def test_center_uses_the_first_frame_with_person_0():
    xyz = np.random.default_rng(0).normal(size=(9, 2, 4, 3)).astype(np.float32)
    xyz[0:2, 0] = 0  # clip 0: person 0 appears in frame 2
    xyz[4:9, 0] = 0  # clip 1: person 0 never appears
    y = transforms.center(xyz, np.array([4, 5]), 1)
    np.testing.assert_array_equal(y[2, 0, 1], 0)
    np.testing.assert_allclose(y[0:4, 1], xyz[0:4, 1] - xyz[2, 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(y[4:], xyz[4:])
    assert not y[0:2, 0].any()


def test_unit_box_ignores_absent_persons():
    x = torch.randn(3, 5, 2, 4, 3) + 7
    x[:, :, 1] = 0
    y = transforms.unit_box(x)
    assert not y[:, :, 1].any()
    torch.testing.assert_close(y[:, :, 0].amin((1, 2)), -torch.ones(3, 3))
    torch.testing.assert_close(y[:, :, 0].amax((1, 2)), torch.ones(3, 3))
    assert not transforms.unit_box(torch.zeros(1, 2, 1, 4, 3)).isnan().any()
