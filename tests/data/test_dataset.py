import numpy as np
import pytest
import torch

from skelops.data import ClipDataset, loader, synthetic
from skelops.data.dataset import uniform


@pytest.fixture(scope="module")
def clips():
    return synthetic.generate(24)


def test_batches(clips):
    data = ClipDataset(clips, window=20, train=True)
    batches = list(loader(data, 10))
    assert [tuple(x.shape) for x, _ in batches] == [(10, 3, 20, 25, 2)] * 2  # the rest is dropped
    assert batches[0][0].dtype == torch.float32 and batches[0][1].dtype == torch.int64
    test = list(loader(ClipDataset(clips, window=20), 10))
    assert sum(len(y) for _, y in test) == 24
    assert torch.cat([y for _, y in test]).tolist() == clips.label.tolist()


def test_a_batch_is_its_samples(clips):
    for modality in ("joint", "bone_motion"):
        data = ClipDataset(clips, 20, modality, train=True)
        x, y = data.__getitems__([5, 0, 29])
        for i, draw in enumerate((5, 0, 29)):
            assert torch.equal(x[i], data[draw][0]) and y[i] == data[draw][1]
        assert y[2] == clips.label[5]


def test_replay(clips):
    data = ClipDataset(clips, 20, train=True, seed=1)
    same, other = ClipDataset(clips, 20, train=True, seed=1), ClipDataset(clips, 20, train=True)
    assert torch.equal(data[3][0], same[3][0])
    assert not torch.equal(data[3][0], other[3][0])
    assert not torch.equal(data[3][0], data[3 + 24][0])  # the next epoch draws anew


def test_epochs_differ_and_workers_do_not(clips):
    data = ClipDataset(clips, 20, train=True)
    one, two = loader(data, 8), loader(data, 8, num_workers=2)
    first = list(one)
    for (x, y), (u, v) in zip(first, two, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)
    one.sampler.set_epoch(1)
    assert sorted(one.sampler) == list(range(24, 48))  # draws go on counting
    second = list(one)
    assert sorted(torch.cat([y for _, y in second]).tolist()) == sorted(clips.label.tolist())
    assert not torch.equal(first[0][0], second[0][0])


def test_repeat_and_ranks(clips):
    data = ClipDataset(clips, 20, train=True, repeat=5)
    assert len(data) == 120
    ranks = [set(loader(data, 8, num_replicas=2, rank=r).sampler) for r in range(2)]
    assert len(ranks[0] | ranks[1]) == 120 and not ranks[0] & ranks[1]


def test_centred_on_the_spine_and_missing_persons_stay_zero(clips):
    x, y = ClipDataset(clips, 20).__getitems__(range(16))
    assert x[:, :, 0, 1, 0].abs().max() < 0.25
    pair = torch.tensor([clips.classes[k] in synthetic.TWO_PERSON for k in y])
    assert torch.equal(x[..., 1].flatten(1).any(1), pair)


def test_uniform_numbers():
    u = uniform(0, np.arange(20000), 5)
    assert u.min() >= 0 and u.max() < 1
    assert np.allclose(u.mean(0), 0.5, atol=0.01) and np.allclose(u.var(0), 1 / 12, atol=0.005)
    assert np.abs(np.corrcoef(u.T) - np.eye(5)).max() < 0.03
    assert np.abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03
    assert np.array_equal(uniform(0, np.array([7]), 5)[0], u[7])
    assert not np.array_equal(uniform(1, np.array([7]), 5)[0], u[7])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"modality": "angle"}, "expected modality in"),
        ({"window": 0}, "expected window >= 1, got 0"),
        ({"repeat": 0}, "expected repeat >= 1, got 0"),
    ],
)
def test_bad_arguments(clips, arguments, message):
    with pytest.raises(ValueError, match="ClipDataset: " + message):
        ClipDataset(clips, **arguments)
