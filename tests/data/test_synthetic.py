import numpy as np
import pytest
import torch

from skelops.data import Clips, split, synthetic
from skelops.graph import get_layout


@pytest.fixture(scope="module")
def clips():
    return synthetic.generate(768, seed=3)


def test_same_seed_same_clips(clips):
    again = synthetic.generate(768, seed=3)
    assert np.array_equal(again.xyz, clips.xyz)
    other = synthetic.generate(16, seed=4)
    assert not np.array_equal(other[0][:40], clips[0][:40])


def test_a_clip_depends_on_its_index_alone(clips):
    fewer = synthetic.generate(40, seed=3)
    chosen = synthetic.generate(768, seed=3, subjects=[20])
    for i in range(len(fewer)):
        assert np.array_equal(fewer[i], clips[i])
    wanted = np.flatnonzero(clips.subject == 20)
    assert len(chosen) == len(wanted)
    for k, i in enumerate(wanted):
        assert chosen.name[k] == clips.name[i]
        assert np.array_equal(chosen[k], clips[i])


def test_classes_subjects_and_views_are_balanced(clips):
    count = np.zeros((16, 24), int)
    np.add.at(count, (clips.label, clips.subject - 1), 1)
    assert (count == 2).all()
    views = np.bincount(clips.view)[1:]
    assert len(views) == 3 and views.min() == views.max()


def test_split_is_disjoint_in_subjects_and_partners(clips):
    ids = split(clips, "cross_subject", synthetic.TRAIN_SUBJECTS)
    train, test = map(clips.select, ids)
    assert set(train.subject) == set(synthetic.TRAIN_SUBJECTS)
    assert set(test.subject) == set(synthetic.TEST_SUBJECTS)
    assert len(train) == 2 * len(test) == 512
    # Limb lengths tell who is on stage: no partner of a training clip performs in a test clip.
    clean = synthetic.generate(768, seed=3, sensor=False)
    forearm = np.linalg.norm(clean.xyz[:, :, 5] - clean.xyz[:, :, 6], axis=-1).round(4)
    inside = np.repeat(np.isin(clean.subject, synthetic.TRAIN_SUBJECTS), clean.length)
    assert not (set(forearm[inside].ravel()) & set(forearm[~inside].ravel())) - {0.0}


def test_bones_are_rigid_before_noise():
    clips = synthetic.generate(64, seed=1, sensor=False)
    parents = list(get_layout("ntu25").parents)
    for i in range(len(clips)):
        bones = np.linalg.norm(clips[i] - clips[i][:, :, parents], axis=-1)
        assert np.ptp(bones, axis=0).max() < 1e-5
    height = np.ptp(clips[0][0, 0, :, 1])
    assert 1.2 < height < 2.0


def test_a_walker_moves_and_the_supporting_foot_does_not():
    clips = synthetic.generate(384, seed=1, sensor=False)
    for i in np.flatnonzero(clips.label == clips.classes.index("walk"))[:8]:
        body = clips[i][:, 0]
        moved = np.linalg.norm(body[-1, 0] - body[0, 0])
        ankles = body[:, [14, 18]]
        speed = np.linalg.norm(np.diff(ankles, axis=0), axis=-1)
        assert moved > 0.3
        assert np.median(speed.min(1)) < 0.01 and speed.max() > 0.04


def test_noise_grows_towards_the_hands():
    noisy, clean = synthetic.generate(64, seed=1), synthetic.generate(64, seed=1, sensor=False)
    seen = noisy.xyz[:, 0].any((1, 2))
    error = (noisy.xyz - clean.xyz)[seen, 0].std((0, 2))
    assert 0.003 < error[0] < error[5] < error[7] < 0.05


def test_second_person_lengths_and_dropped_frames(clips):
    pair = np.isin(clips.label, [clips.classes.index(c) for c in synthetic.TWO_PERSON])
    second = np.array([clips[i][:, 1].any() for i in range(len(clips))])
    assert np.array_equal(second, pair) and pair.mean() == 0.125
    assert clips.length.min() >= 40 and clips.length.max() <= 120
    assert len(set(clips.length)) > 40
    dropped = ~clips.xyz.any((1, 2, 3))
    assert 0.001 < dropped.mean() < 0.05
    assert all(clips[i][0, :1].any() for i in range(len(clips)))


def test_data_are_plausible_camera_coordinates(clips):
    seen = clips.xyz[:, 0].any((1, 2))
    spine = clips.xyz[seen, 0, 0]
    assert spine[:, 2].min() > 1.0 and spine[:, 2].max() < 6.0
    head, foot = clips.xyz[seen, 0, 3, 1], clips.xyz[seen, 0, 15, 1]
    assert (head > foot).all()


def test_left_is_left():
    clips = synthetic.generate(384, seed=1, sensor=False)
    first = clips.xyz[clips.offset[:-1]][(clips.view == 2) & (clips.label < 14), 0]
    assert (first[:, 4, 0] < first[:, 8, 0]).mean() > 0.97


def mean_pose(clips: Clips) -> torch.Tensor:
    present = clips.xyz.any((2, 3), keepdims=True)
    pose = (clips.xyz - clips.xyz[:, :1, :1]) * present
    frames = np.add.reduceat(present[:, 0, 0, 0].astype(float), clips.offset[:-1])
    total = np.add.reduceat(pose.reshape(len(pose), -1), clips.offset[:-1])
    return torch.from_numpy(total / frames[:, None]).double()


def test_the_mean_pose_does_not_give_the_class_away(clips):
    """A multinomial logistic regression on the root-centred mean pose stays below 60 %."""
    ids = split(clips, "cross_subject", synthetic.TRAIN_SUBJECTS)
    train, test = map(clips.select, ids)
    x, z = mean_pose(train), mean_pose(test)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x, z = (torch.nn.functional.pad((a - mean) / scale, (0, 1), value=1.0) for a in (x, z))
    y = torch.from_numpy(train.label)
    w = torch.zeros(x.shape[1], 16, dtype=torch.double, requires_grad=True)
    best = 0.0
    for decay in (1e-2, 1e-3, 1e-4):
        optimizer = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

        def loss(optimizer=optimizer, decay=decay):
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(x @ w, y) + decay * w.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        best = max(best, ((z @ w).argmax(1).numpy() == test.label).mean())
    assert 0.25 < best < 0.60


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"generate: expected num_clips >= 1, got 0"):
        synthetic.generate(0)
    with pytest.raises(ValueError, match=r"generate: expected subjects with clips, got \[99\]"):
        synthetic.generate(16, subjects=[99])
