"""Long-tailed sets, and samplers and weights that make up for them."""

from collections import Counter

import numpy as np
import pytest
import torch

from skelops.data import (
    BalancedSampler,
    ClipDataset,
    ClipLoader,
    action_aware_weights,
    class_balanced_weights,
    class_counts,
    class_groups,
    long_tail,
    long_tail_counts,
    split,
    synthetic,
    tail_multipliers,
)

COUNT = [60, 40, 20, 9, 7, 4]


@pytest.fixture(scope="module")
def clips():
    return synthetic.generate(384, seed=0)  # 24 clips of each of 16 classes


def tailed(clips, **options):
    index = long_tail(clips, np.arange(len(clips)), 24, 0.1)
    return ClipDataset(clips, "none", index=index, train=True, **options)


def test_published_counts():
    assert long_tail_counts(600, 0.01, 60)[:3] == [600, 554, 513]
    assert long_tail_counts(600, 0.01, 60)[-1] == 6
    assert long_tail_counts(100, 0.1, 10) == [100, 77, 59, 46, 35, 27, 21, 16, 12, 10]
    assert long_tail_counts(5, 0.5, 1) == [5]


def test_a_long_tail_is_a_part(clips):
    index = split(clips, "random", share=0.7)[0]
    found = long_tail(clips, index, 12, 0.1, seed=1)
    assert class_counts(clips.label[found], 16) == long_tail_counts(12, 0.1, 16)
    assert set(found) <= set(index) and (np.diff(found) > 0).all()
    assert np.array_equal(found, long_tail(clips, index, 12, 0.1, seed=1))
    assert not np.array_equal(found, long_tail(clips, index, 12, 0.1, seed=2))


def test_a_class_with_too_few_clips_keeps_all(clips):
    found = long_tail(clips, np.arange(len(clips)), 100, 0.5)
    assert class_counts(clips.label[found], 16) == [24] * 16


def test_groups_are_thirds_by_frequency():
    assert class_groups(COUNT).tolist() == [0, 0, 1, 1, 2, 2]
    assert class_groups([1, 9, 5, 7, 3, 8, 2, 6, 4, 0]).tolist() == [2, 0, 1, 0, 2, 0, 2, 1, 1, 2]
    assert class_groups([5, 5, 5, 5]).tolist() == [0, 1, 2, 2]
    assert class_groups([3]).tolist() == [0]
    groups = class_groups(long_tail_counts(100, 0.1, 10)).tolist()
    assert [c for c in range(10) if groups[c] == 2] == list(range(2 * (10 // 3), 10))


def test_tail_classes_are_shown_as_often_as_the_largest():
    multiplier = tail_multipliers(COUNT)
    assert multiplier[:4] == [1] * 4
    assert [m * n for m, n in zip(multiplier[4:], COUNT[4:], strict=True)] == [60, 60]


def test_balanced_weights():
    weight = class_balanced_weights(COUNT)
    assert weight.sum() == pytest.approx(6) and (weight.diff() > 0).all()
    flipped = class_balanced_weights(COUNT, flipped=True)
    assert (flipped - 1).abs().max() < 0.01
    assert torch.equal(class_balanced_weights([7, 7, 7]), torch.ones(3))


def test_weights_by_epoch():
    def by_epoch(**options):
        found = {}
        for epoch in range(24):
            weight = action_aware_weights(COUNT, epoch, **options)
            if torch.equal(weight, torch.ones(6)):
                found[epoch] = "ones"
            else:
                found[epoch] = "balanced" if (weight.max() > 2) else "flat"
        return [found[epoch] for epoch in range(24)]

    published, intended = by_epoch(), by_epoch(published=False)
    assert published[:19] == intended[:19] == ["ones"] * 19
    assert published[19:] == ["balanced", "flat", "balanced", "flat", "balanced"]
    assert intended[19:] == ["balanced"] * 5
    assert by_epoch(start=2)[:4] == ["ones", "ones", "balanced", "flat"]


@pytest.mark.parametrize("function", [class_balanced_weights, tail_multipliers])
def test_a_class_without_clips_is_named(function, clips):
    with pytest.raises(ValueError, match="training clips of every class, got none of class 1"):
        function([3, 0, 2])
    with pytest.raises(ValueError, match=r"action_aware_weights: .* got none of class 2"):
        action_aware_weights([3, 1, 0], 0)
    without = np.flatnonzero(clips.label != 3)
    with pytest.raises(ValueError, match=r"long_tail: .* none of class 3 \(raise hand\)"):
        long_tail(clips, without, 24, 0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((100, 0.0, 10), r"factor in \(0, 1\], got 0.0"),
        ((100, 1.5, 10), r"factor in \(0, 1\], got 1.5"),
        ((5, 0.1, 10), "at least one clip of class 9, got 5 x 0.1"),
    ],
)
def test_bad_profiles(arguments, message):
    with pytest.raises(ValueError, match=f"long_tail: expected {message}"):
        long_tail_counts(*arguments)


def test_balanced_draws(clips):
    dataset = tailed(clips, repeat=3)
    count = class_counts(clips.label[dataset.index.numpy()], 16)
    multiplier = tail_multipliers(count)
    sampler = BalancedSampler(dataset, multiplier)
    draws = list(sampler)
    assert len(draws) == len(set(draws)) == len(sampler) == sum(sampler.class_draws())
    clip = dataset.index[torch.tensor(draws) % len(dataset.index)]
    label = clips.label[clip.numpy()]
    for c, (n, m) in enumerate(zip(count, multiplier, strict=True)):
        whole, rest = int(3 * m), int(3 * m % 1 * n)
        assert (label == c).sum() == whole * n + rest == sampler.class_draws()[c]
        times = Counter(clip.numpy()[label == c].tolist()).values()
        assert set(times) <= {whole, whole + 1}
        assert sum(t == whole + 1 for t in times) == rest


def test_epochs_of_balanced_draws_differ_and_repeat(clips):
    dataset = tailed(clips)
    multiplier = np.linspace(0.4, 3.7, 16).tolist()

    def epoch(number, **options):
        sampler = BalancedSampler(dataset, multiplier, **options)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(1) == epoch(1) and not set(epoch(0)) & set(epoch(1))
    ordered = epoch(1, shuffle=False)
    assert ordered != epoch(1) and sorted(ordered) == sorted(epoch(1))
    members = [{d % len(dataset.index) for d in epoch(e)} for e in (0, 1)]
    assert members[0] != members[1]  # classes that are shown in part


def test_ranks_share_balanced_draws(clips):
    dataset, multiplier = tailed(clips), [1.5] * 16
    whole = list(BalancedSampler(dataset, multiplier))
    parts = [list(BalancedSampler(dataset, multiplier, 2, r)) for r in range(2)]
    assert len(parts[0]) == len(parts[1])
    assert [d for pair in zip(*parts, strict=True) for d in pair][: len(whole)] == whole


def test_a_balanced_loader_goes_on_where_it_stopped(clips):
    dataset = tailed(clips, seed=3)

    def loader():
        return ClipLoader(dataset, 8, multiplier=tail_multipliers([24 - c for c in range(16)]))

    through = loader()
    batches = [batch.clip.tolist() for batch in through]
    assert len(batches) == len(through)
    halted = loader()
    seen = []
    for batch in halted:
        seen.append(batch.clip.tolist())
        if len(seen) == 3:
            break
    resumed = loader()
    resumed.load_state_dict(halted.state_dict())
    assert seen + [batch.clip.tolist() for batch in resumed] == batches


@pytest.mark.parametrize(
    "multiplier, message",
    [
        ([1.0] * 15, r"16 multipliers >= 0, got \[1.0, "),
        ([-1.0] * 16, r"16 multipliers >= 0, got \[-1.0, "),
        ([0.0] * 16, "something to draw, got 0"),
    ],
)
def test_bad_multipliers(clips, multiplier, message):
    with pytest.raises(ValueError, match=f"BalancedSampler: expected {message}"):
        BalancedSampler(tailed(clips), multiplier)
