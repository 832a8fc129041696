"""Pictures of skeletons: geometry, what the sensors share, and batches of them."""

import re

import pytest
import torch

from skelops.data import RenderedDataset, render, synthetic
from skelops.data.render import EXTENT, FAR, MODALITIES, RADIUS
from skelops.graph import Layout
from skelops.train import SkeletonDataModule

BONE = Layout("bone", parents=(0, 0))


def bone(a, b, T=1):
    """(1, 3, T, 2, 1)"""
    return torch.tensor([a, b]).T[None, :, None, :, None].expand(1, 3, T, 2, 1).clone()


def test_a_bone_stands_where_its_joints_are():
    x = bone((-0.6, 0.3, 0.5), (0.6, 0.3, 0.5))
    shown = render(x, BONE, size=48)
    depth = shown["depth"][0, 0, 0]
    rows, columns = (depth > 0).nonzero().T
    centre = EXTENT - (rows + 0.5) * 2 * EXTENT / 48
    assert ((centre - 0.3).abs() < RADIUS + 1e-5).all()
    width = (columns.max() - columns.min() + 1) * 2 * EXTENT / 48
    assert abs(width - 1.2 - 2 * RADIUS) < 0.1
    nearest = FAR - 0.5 + RADIUS
    assert depth.max() <= nearest and depth.max() == pytest.approx(nearest, abs=0.02)
    place = shown["keypoints"][0, :, 0, :, 0]
    torch.testing.assert_close(place[0], torch.tensor([-0.5, 0.5]))
    torch.testing.assert_close(place[1], torch.tensor([-0.25, -0.25]))
    assert place[2].tolist() == [1, 1]


def test_nearer_bones_hide_others():
    x = torch.cat([bone((-0.5, 0, 1.0), (0.5, 0, 1.0)), bone((0.0, -0.5, 0), (0.0, 0.5, 0))], 4)
    x = x + 1e-3  # all zero is absent
    both, front = render(x, BONE), render(x[..., 1:], BONE)
    seen = front["depth"] > 0
    assert torch.equal(both["depth"][seen], front["depth"][seen])
    assert (both["depth"] > 0).sum() > seen.sum()


def test_absent_persons_are_not_shown():
    x = torch.cat([bone((-0.5, 0.1, 1.0), (0.5, 0.1, 1.0)), torch.zeros(1, 3, 1, 2, 1)], 4)
    shown, alone = render(x, BONE), render(x[..., :1], BONE)
    for name in ("rgb", "depth", "infrared"):
        assert torch.equal(shown[name], alone[name])
    assert not shown["keypoints"][:, 2, :, :, 1].any()


def test_sensors_agree_and_frames_are_apart():
    clips = synthetic.generate(16)
    x = torch.from_numpy(clips.xyz[:8].copy()).permute(3, 0, 2, 1)[None]
    x = x - x[:, :, :1, :1, :1] * (x != 0).any(1, keepdim=True)
    shown = render(x, size=24)
    assert list(shown) == list(MODALITIES) and shown["rgb"].shape == (1, 3, 8, 24, 24)
    body = shown["depth"] > 0
    assert 0.02 < body.float().mean() < 0.5
    assert not shown["infrared"][~body].any()
    assert (
        shown["rgb"].amin(1, keepdim=True)[~body] == shown["rgb"].amax(1, keepdim=True)[~body]
    ).all()
    assert shown["rgb"].amin() >= 0 and shown["rgb"].amax() <= 1
    torch.testing.assert_close(render(x[:, :, 3:4], size=24)["rgb"], shown["rgb"][:, :, 3:4])


def test_a_picture_is_the_middle_of_a_larger_one():
    clips = synthetic.generate(16)
    x = torch.from_numpy(clips.xyz[:4].copy()).permute(3, 0, 2, 1)[None]
    x = x - x[:, :, :1, :1, :1] * (x != 0).any(1, keepdim=True)
    small = render(x, size=32, extent=0.5, modalities=("depth", "rgb"))
    large = render(x, size=128, extent=2.0, modalities=("depth", "rgb"))
    assert (large["depth"] > 0).sum() > (small["depth"] > 0).sum()  # some is outside
    for name, shown in small.items():
        assert torch.equal(shown, large[name][..., 48:80, 48:80])


def test_what_is_outside_or_nowhere_is_not_shown():
    x = torch.cat([bone((9.0, 0, 0), (9.5, 0, 0)), bone((0.0, -9.0, 0), (0.0, -8.0, 0))], 4)
    assert not render(x, BONE)["depth"].any()
    x[0, 0, 0, 0, 0] = torch.nan
    assert not render(x, BONE)["depth"].any()


def test_batches():
    data = SkeletonDataModule(
        modalities=["rgb", "keypoints"], image_size=16, window=4, batch_size=4, num_clips=32,
        train_groups=[1],
    )  # fmt: skip
    x, y, clip = next(iter(data.train_dataloader()))
    assert x["rgb"].shape == (4, 3, 4, 16, 16) and x["keypoints"].shape == (4, 3, 4, 25, 2)
    assert y.shape == clip.shape == (4,)
    dataset = data.dataset(train=False)
    one = dataset[3]
    assert torch.equal(one.x["rgb"], dataset.__getitems__([2, 3]).x["rgb"][1])


def test_bad_sensors():
    clips, options = synthetic.generate(16), {"image_size": 16, "index": [0, 5]}
    names = ("rgb", "skeleton", "keypoints")
    good = RenderedDataset(clips, modalities=names, **options)
    bad = RenderedDataset(
        clips, modalities=names, degrade={"rgb": 0.5, "keypoints": 0.25}, **options
    )
    (clean, *_), (x, *_) = good.__getitems__([0, 1]), bad.__getitems__([0, 1])
    noise = x["rgb"] - clean["rgb"]
    assert abs(noise.mean()) < 0.01 and noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert abs((noise[0] * noise[1]).mean()) < 0.01
    assert torch.equal(x["skeleton"], clean["skeleton"])
    kept = x["keypoints"][:, 2] == 1
    assert torch.equal(x["keypoints"], clean["keypoints"] * kept[:, None])
    assert kept.float().mean() / clean["keypoints"][:, 2].mean() == pytest.approx(0.75, abs=0.02)
    again = bad.__getitems__([1])[0]
    assert all(torch.equal(again[name][0], x[name][1]) for name in names)


def test_bad_input():
    with pytest.raises(ValueError, match=re.escape("render: expected x of shape (N, 3, T, V, M)")):
        render(torch.ones(1, 3, 2, 20, 1))
    with pytest.raises(ValueError, match=r"render: expected modalities of rgb, .*, got 'sound'"):
        render(torch.ones(1, 3, 2, 25, 1), modalities=["sound"])
    clips = synthetic.generate(16)
    with pytest.raises(ValueError, match="RenderedDataset: expected the stream joint, got"):
        RenderedDataset(clips, streams="bone", modalities=["rgb"])
    with pytest.raises(ValueError, match="RenderedDataset: expected degrade of rgb, got 'depth'"):
        RenderedDataset(clips, modalities=["rgb"], degrade={"depth": 1})
    with pytest.raises(ValueError, match=r"degrade of keypoints in \[0, 1\], got 1.5"):
        RenderedDataset(clips, modalities=["keypoints"], degrade={"keypoints": 1.5})
    with pytest.raises(ValueError, match="RenderedDataset: expected modalities of"):
        RenderedDataset(clips, modalities=["sound"])
