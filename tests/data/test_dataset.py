"""Batches: what they hold, and that a draw gives the same sample wherever it is made."""

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from skelops.data import (
    TRANSFORMS,
    Batch,
    ClipDataset,
    ClipLoader,
    Clips,
    ClipTransform,
    DrawSampler,
    synthetic,
)
from skelops.graph import conversion
from skelops.testing.threads import threads

EVERYTHING = ClipTransform(
    frames=16, shortest=16, rotation=0.3, scale=0.1, shift=0.2, shear=0.5, corrupt=9, flip=0.5,
    time_flip=0.5, axis_mask=0.3, noise=0.05, blur=(0.1, 2.0), part_drop=0.3, joint_drop=0.5,
)  # fmt: skip
SMALL = ClipTransform(frames=8, shortest=8, rotation=0.3)
STREAMS = ["joint", "bone", "joint_motion"]


@pytest.fixture(scope="module")
def clips():
    return synthetic.generate(24)


@pytest.fixture(scope="module")
def stored(clips, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "synthetic.clips"
    clips.save(path)
    return Clips.open(path)


def equal(batches, others):
    for a, b in zip(batches, others, strict=True):
        assert all(map(torch.equal, a, b))
    return True


# What a batch holds


def test_batches(clips):
    loader = ClipLoader(ClipDataset(clips, SMALL, STREAMS, train=True), 10)
    batches = list(loader)
    assert len(loader) == len(batches) == 2  # the rest is dropped
    for x, y, clip in batches:
        assert x.shape == (10, 9, 8, 25, 2) and x.dtype == torch.float32
        assert y.dtype == clip.dtype == torch.int64
        assert y.tolist() == clips.label[clip].tolist()
    test = ClipLoader(ClipDataset(clips, SMALL), 10)
    assert [len(batch.x) for batch in test] == [10, 10, 4]
    assert torch.cat([batch.clip for batch in test]).tolist() == list(range(24))
    whole = ClipLoader(ClipDataset(clips, SMALL, train=True))
    assert [len(batch.x) for batch in whole] == [24]  # the only one is kept


def test_one_sample(clips):
    data = ClipDataset(clips, SMALL, train=True)
    assert len(data) == 24 and isinstance(data[3], Batch)
    x, y, clip = data[3 + 24]
    assert x.shape == (3, 8, 25, 2) and y == clips.label[3] and clip == 3
    assert [int(sample.clip) for sample in data] == list(range(24))


def test_some_of_the_clips(clips):
    index = np.array([20, 3, 7])
    data = ClipDataset(clips, SMALL, index=index, train=True, repeat=4)
    assert len(data) == 12
    batch = data.__getitems__(range(12))
    assert batch.clip.tolist() == [20, 3, 7] * 4
    whole = ClipDataset(clips.select(index), SMALL, train=True)
    assert torch.equal(whole.__getitems__(range(12)).x, batch.x)
    assert len({sample.numpy().tobytes() for sample in batch.x}) == 12
    small = ClipDataset(clips, SMALL, index=index.astype(np.uint8))
    assert small.__getitems__(range(3)).clip.tolist() == [20, 3, 7]


def test_missing_persons_stay_zero_and_the_spine_is_the_origin(clips):
    x, y, _ = ClipDataset(clips, "ctr_gcn").__getitems__(range(24))
    assert x[:, :, 0, 1, 0].abs().max() < 0.25
    pair = torch.tensor([clips.classes[k] in synthetic.TWO_PERSON for k in y])
    assert torch.equal(x[..., 1].flatten(1).any(1), pair) and 0 < pair.sum() < 24


def test_test_samples_are_the_clips(clips):
    transform = ClipTransform(frames=120, sampling="pad", center=False)
    x = ClipDataset(clips, transform).__getitems__(range(24)).x
    for i in range(24):
        n = int(clips.length[i])
        assert torch.equal(x[i, :, :n], torch.from_numpy(clips[i]).permute(3, 0, 2, 1))
        assert not x[i, :, n:].any()


def test_ten_samples_of_every_clip(clips):
    transform = ClipTransform(sampling="uniform", frames=8, num_clips=10)
    data = ClipDataset(clips, transform)
    batches = list(ClipLoader(data, 64))
    clip = torch.cat([batch.clip for batch in batches])
    assert len(data) == 240 and clip.tolist() == np.repeat(np.arange(24), 10).tolist()
    x = torch.cat([batch.x for batch in batches]).view(24, 10, -1)
    assert all(len(samples.unique(dim=0)) == 10 for samples in x)
    assert len(ClipDataset(clips, transform, train=True)) == 24


def test_views_are_independent(clips):
    data = ClipDataset(clips, EVERYTHING, ["joint", "bone"], train=True, views=3)
    x = data.__getitems__(range(24)).x
    assert x.shape == (24, 3, 6, 16, 25, 2)
    first = ClipDataset(clips, EVERYTHING, ["joint", "bone"], train=True)
    assert torch.equal(x[:, 0], first.__getitems__(range(24)).x)
    assert (x[:, 0] != x[:, 1]).flatten(1).any(1).all()
    assert (x[:, 1] != x[:, 2]).flatten(1).any(1).all()
    assert ClipDataset(clips, EVERYTHING, views=3).__getitems__([0]).x.dim() == 5


def test_views_have_noise_of_their_own(clips):
    noisy = ClipTransform(frames=8, sampling="pad", noise=0.1, noise_p=1.0)
    x = ClipDataset(clips, noisy, train=True, views=2).__getitems__(range(24)).x
    difference = (x[:, 0] - x[:, 1]).std()
    assert abs(difference - 0.1 * 2**0.5) < 0.01


@pytest.mark.parametrize("layout", ["nw_ucla20", "coco17", "h36m17"])
def test_conversion_on_the_way_is_conversion_before(clips, layout):
    index, weight = conversion("ntu25", layout)
    converted = (clips.xyz[..., index.numpy(), :] * weight.numpy()[..., None]).sum(-2)
    before = Clips(converted, clips.length, clips.label, clips.classes, layout)
    transform = ClipTransform(frames=16, center=False, rotation=0.3, flip=0.5, shift=0.1,
                              part_drop=0.5)  # fmt: skip
    given = {"streams": ["joint", "bone", "skip"], "train": True}
    x = ClipDataset(clips, transform, layout=layout, **given).__getitems__(range(48)).x
    y = ClipDataset(before, transform, **given).__getitems__(range(48)).x
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_the_layout_of_the_clips_needs_no_conversion(clips):
    x = ClipDataset(clips, SMALL, layout="ntu25").__getitems__(range(4)).x
    assert torch.equal(x, ClipDataset(clips, SMALL).__getitems__(range(4)).x)


def test_parts_and_dtype(clips):
    plain = ClipDataset(clips, SMALL, STREAMS).__getitems__(range(8)).x
    part = ClipDataset(clips, SMALL, STREAMS, part=[7, 6, 5]).__getitems__(range(8)).x
    assert torch.equal(part, plain[:, :, :, [7, 6, 5]])
    half = ClipDataset(clips, SMALL, STREAMS, dtype=torch.bfloat16).__getitems__(range(8)).x
    assert torch.equal(half, plain.bfloat16())


def test_scores_of_pose_estimators():
    xyz = np.random.default_rng(0).random((50, 1, 17, 3), np.float32)
    clips = Clips(xyz, [20, 30], [0, 1], ("a", "b"), "coco17", confidence=True)
    transform = ClipTransform(frames=20, sampling="window", center=False, rotation=0.3, noise=0.1)
    x = ClipDataset(clips, transform, train=True).__getitems__([0]).x
    score = torch.from_numpy(xyz[:20, 0, :, 2])
    assert torch.equal(x[0, 2, :, :, 0], score)
    assert not torch.equal(x[0, 0, :, :, 0], torch.from_numpy(xyz[:20, 0, :, 0]))


# The same draw, the same sample


@pytest.mark.parametrize("transform", [EVERYTHING, *TRANSFORMS], ids=lambda t: str(t)[:13])
def test_a_sample_does_not_depend_on_its_batch(clips, transform):
    data = ClipDataset(clips, transform, ["joint", "bone"], train=True, views=2)
    draws = [5, 0, 29, 10**6, 5, 100]
    x, y, clip = data.__getitems__(draws)
    for i, draw in enumerate(draws):
        alone = data[draw]
        assert torch.equal(alone.x, x[i]) and alone.y == y[i] and alone.clip == clip[i]
    assert torch.equal(data.__getitems__(draws[::-1]).x, x.flip(0))
    assert torch.equal(x[0], x[4]) and clip.tolist() == [5, 0, 5, 10**6 % 24, 5, 4]


def test_threads(clips):
    data = ClipDataset(clips, EVERYTHING, STREAMS, train=True)
    found = []
    for count in (1, 2, 5):
        with threads(count):
            found.append(data.__getitems__(range(64)).x)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_batch_sizes(clips):
    data = ClipDataset(clips, EVERYTHING, train=True)
    sizes = [ClipLoader(data, size, drop_last=False) for size in (1, 5, 24)]
    found = [torch.cat([batch.x for batch in loader]) for loader in sizes]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_store_on_disk_gives_the_same_batches(clips, stored):
    for train in (True, False):
        memory = ClipDataset(clips, EVERYTHING, STREAMS, train=train)
        disk = ClipDataset(stored, EVERYTHING, STREAMS, train=train)
        assert equal([memory.__getitems__(range(48))], [disk.__getitems__(range(48))])
    assert not stored.xyz.flags.owndata and not stored.xyz.flags.writeable


def test_a_half_precision_store_gives_nearly_the_same_batches(clips, tmp_path):
    Clips(clips.xyz.astype(np.float16), clips.length, clips.label, clips.classes, "ntu25").save(
        tmp_path / "half.clips"
    )
    half = Clips.open(tmp_path / "half.clips")
    assert half.xyz.dtype == np.float16
    x = ClipDataset(clips, "ctr_gcn", STREAMS, train=True).__getitems__(range(48)).x
    y = ClipDataset(half, "ctr_gcn", STREAMS, train=True).__getitems__(range(48)).x
    assert y.dtype == torch.float32
    torch.testing.assert_close(x, y, rtol=0, atol=0.006)  # metres, at up to 4 m
    assert (x - y).abs().mean() < 5e-4


@pytest.mark.parametrize("method, count", [("fork", 2), ("spawn", 1)])
def test_workers(clips, stored, method, count):
    source = stored if method == "spawn" else clips
    alone = ClipLoader(ClipDataset(clips, EVERYTHING, train=True), 8)
    workers = ClipLoader(ClipDataset(source, EVERYTHING, train=True), 8, num_workers=count)
    workers.multiprocessing_context = method
    assert equal(workers, alone)


def test_a_pickled_dataset_is_the_same(clips, stored):
    for source in (clips, stored):
        data = ClipDataset(source, EVERYTHING, STREAMS, train=True, seed=4)
        text = pickle.dumps(data)
        assert equal([pickle.loads(text).__getitems__(range(8))], [data.__getitems__(range(8))])
    assert len(text) < 0.1 * clips.xyz.nbytes  # a store travels as its path


def test_seeds(clips):
    def x(**options):
        return ClipDataset(clips, SMALL, train=True, **options).__getitems__(range(24)).x

    assert torch.equal(x(seed=3), x(seed=3))
    assert (x(seed=3) != x(seed=4)).flatten(1).any(1).all()


# Epochs, ranks, and going on


def epoch(loader, number):
    loader.sampler.set_epoch(number)
    return list(loader)


def test_epochs_differ_and_replay(clips):
    data = ClipDataset(clips, SMALL, train=True)
    loader = ClipLoader(data, 8)
    first, second = epoch(loader, 0), epoch(loader, 1)
    assert equal(first, epoch(loader, 0)) and equal(second, epoch(ClipLoader(data, 8), 1))
    for batches in (first, second):
        assert sorted(torch.cat([batch.clip for batch in batches]).tolist()) == list(range(24))
    assert [b.clip.tolist() for b in first] != [b.clip.tolist() for b in second]
    both = {sample.numpy().tobytes() for batch in first + second for sample in batch.x}
    assert len(both) == 48  # every draw is new
    assert sorted(loader.sampler) == list(range(24))
    loader.sampler.set_epoch(3)
    assert sorted(loader.sampler) == list(range(72, 96))
    other = ClipLoader(ClipDataset(clips, SMALL, train=True, seed=1), 8)
    assert list(other.sampler) != epoch(loader, 0) and list(other.sampler) != list(range(24))


@pytest.mark.parametrize("transform", [SMALL, replace(SMALL, missing="severe", num_clips=2)])
def test_test_epochs_are_all_the_same(clips, transform):
    loader = ClipLoader(ClipDataset(clips, transform), 10)
    assert equal(epoch(loader, 0), epoch(loader, 5))


def test_shuffling_can_be_chosen(clips):
    still = ClipLoader(ClipDataset(clips, SMALL, train=True), 8, shuffle=False)
    assert list(still.sampler) == list(range(24))
    mixed = ClipLoader(ClipDataset(clips, SMALL), 8, shuffle=True, drop_last=True)
    assert list(mixed.sampler) != list(range(24)) and len(mixed) == 3


@pytest.mark.parametrize("train", [True, False])
def test_two_ranks_share_the_batches_of_one_process(clips, train):
    data = ClipDataset(clips, EVERYTHING, train=train)
    whole = ClipLoader(data, 8)
    ranks = [ClipLoader(data, 4, num_replicas=2, rank=r) for r in range(2)]
    for number in (0, 3):
        parts = zip(*(epoch(rank, number) for rank in ranks), strict=True)
        for batch, halves in zip(epoch(whole, number), parts, strict=True):
            for rank, half in enumerate(halves):
                assert all(torch.equal(a[rank::2], b) for a, b in zip(batch, half, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_in_mid_epoch(clips, workers):
    def fresh():
        return ClipLoader(ClipDataset(clips, EVERYTHING, train=True), 4, num_workers=workers)

    through = epoch(fresh(), 2), epoch(fresh(), 3)
    for done in range(6) if not workers else (2,):
        loader = fresh()
        loader.sampler.set_epoch(2)
        batches = iter(loader)
        for _ in range(done):
            next(batches)
        state = loader.state_dict()
        assert state == {"epoch": 2, "batch": done}
        resumed = fresh()
        resumed.load_state_dict(state)
        rest = list(resumed)
        assert equal(rest, through[0][done:])
        assert resumed.state_dict() == {"epoch": 2, "batch": 0}
        assert equal(epoch(resumed, 3), through[1])


def test_a_state_counts_from_the_start_of_the_epoch(clips):
    loader = ClipLoader(ClipDataset(clips, SMALL, train=True), 4)
    loader.load_state_dict({"epoch": 1, "batch": 2})
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 1, "batch": 3}


@pytest.mark.parametrize("done", [2, 6])
def test_the_epoch_after_a_state_is_whole(clips, done):
    """Also where the state is that of an epoch that was cut short, or of its last batch."""
    loader = ClipLoader(ClipDataset(clips, SMALL, train=True), 4)
    loader.load_state_dict({"epoch": 1, "batch": done})
    assert equal(epoch(loader, 2), epoch(ClipLoader(loader.dataset, 4), 2))


def test_another_loader_with_the_sampler(clips):
    data = ClipDataset(clips, EVERYTHING, train=True, seed=2)
    sampler = DrawSampler(data, 1, 0, seed=2)
    other = DataLoader(data, 8, sampler=sampler, collate_fn=lambda batch: batch)
    assert equal(other, ClipLoader(data, 8))


# Refusals


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"repeat": 0}, ValueError, "ClipDataset: expected repeat >= 1, got 0"),
        ({"views": 0}, ValueError, "ClipDataset: expected views >= 1, got 0"),
        ({"index": [3, 24, 25]}, ValueError, "ClipDataset: expected index in 0..23, got 24"),
        ({"index": [-1]}, ValueError, "ClipDataset: expected index in 0..23, got -1"),
        (
            {"index": [[0, 1]]},
            ValueError,
            "ClipDataset: expected index of shape (N), got (1, 2)",
        ),
        (
            {"index": np.ones(24, bool)},
            TypeError,
            "ClipDataset: expected index of integers, got torch.bool",
        ),
        ({"index": [0.5]}, TypeError, "ClipDataset: expected index of integers, got torch.float"),
        ({"transform": "ctr"}, ValueError, "get_transform: expected one of none, ctr_gcn"),
        ({"streams": "velocity"}, ValueError, "make_streams: expected streams of ('joint'"),
        ({"layout": "ntu26"}, ValueError, "get_layout: expected one of "),
        ({"part": [25]}, ValueError, "make_streams: expected part in 0..24, got [25]"),
    ],
)
def test_dataset_refuses(clips, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ClipDataset(clips, **options)


def test_loader_refuses(clips):
    data = ClipDataset(clips, SMALL)
    with pytest.raises(ValueError, match=r"ClipLoader: expected batch_size >= 1, got 0"):
        ClipLoader(data, 0)
    empty = ClipDataset(clips, SMALL, index=np.zeros(0, np.int64))
    assert empty.__getitems__([]).x.shape == (0, 3, 8, 25, 2)
    with pytest.raises(ValueError, match=r"ClipLoader: expected at least one clip, got 0"):
        ClipLoader(empty, 8)
