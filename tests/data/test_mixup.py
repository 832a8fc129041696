"""Partial mix-up: who is mixed with whom, and what becomes of it."""

import pytest
import torch

from skelops import mixup_cross_entropy
from skelops.data import PartialMixUp
from skelops.data.mixup import lower_body
from skelops.graph import Layout

COUNT = [100, 50, 20, 10]
LOWER = (0, *range(12, 20))
UPPER = (*range(1, 12), *range(20, 25))


def batch(N=8, V=25, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 3, 4, V, 2, generator=generator)
    return x, torch.randint(4, (N,), generator=generator)


def mix(x, y, chosen, partner, **options):
    module = PartialMixUp(COUNT, "ntu25", **options)
    return module(x, y, torch.tensor(chosen), torch.tensor(partner))


def test_lower_bodies():
    assert lower_body("ntu25") == lower_body("nw_ucla20") == LOWER
    assert lower_body("ui_prmd22") == (0, *range(14, 22))
    assert lower_body("coco17") == tuple(range(11, 17))
    with pytest.raises(ValueError, match="expected a layout with legs, got hand21"):
        lower_body("hand21")
    with pytest.raises(ValueError, match="expected a layout with legs, got arm"):
        PartialMixUp(COUNT, Layout("arm", (0, 0, 1)))


def test_as_published_joints_are_reordered():
    x, y = batch()
    found = mix(x, y, [2], [5])
    assert torch.equal(found.x[2, :, :, :16], x[2][:, :, list(UPPER)])
    assert torch.equal(found.x[2, :, :, 16:], x[5][:, :, list(LOWER)])
    others = [i for i in range(8) if i != 2]
    assert torch.equal(found.x[others], x[others])
    assert found.label is y and found.label_b[2] == y[5]
    assert torch.equal(found.label_b[others], y[others])


def test_corrected_joints_stay_in_place():
    x, y = batch()
    found = mix(x, y, [2], [5], published=False)
    assert torch.equal(found.x[2][:, :, list(UPPER)], x[2][:, :, list(UPPER)])
    assert torch.equal(found.x[2][:, :, list(LOWER)], x[5][:, :, list(LOWER)])
    assert found.mix.shape == (8,) and (found.mix[[0, 1, 3, 4, 5, 6, 7]] == 1).all()


def test_as_published_the_next_of_a_mixed_sample_is_passed_over():
    x, y = batch()
    found = mix(x, y, [3, 2, 4, 7], [0, 1, 6])
    changed = (found.x != x).flatten(1).any(1).nonzero()[:, 0].tolist()
    assert changed == [2, 4, 7]
    corrected = mix(x, y, [3, 2, 4, 7], [0, 1, 6, 5], published=False)
    changed = (corrected.x != x).flatten(1).any(1).nonzero()[:, 0].tolist()
    assert changed == [2, 3, 4, 7]


def test_shares():
    x, _ = batch()
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    chosen, partner = [0, 2, 4, 6], [3, 1, 5, 7]  # 100:10, 20:50, 100:50, 20:10
    assert mix(x, y, chosen, partner).mix == torch.tensor(0.64)  # that of the last one
    assert mix(x, y, chosen[:1], partner[:1]).mix == 0
    assert mix(x, y, [3], [0]).mix == 1
    each = mix(x, y, chosen, partner, published=False, alpha=0.6).mix
    torch.testing.assert_close(each[chosen], torch.tensor([0.0, 0.6, 0.6, 0.6]))
    assert mix(x, y, [3], [0], imbalance=None).mix == torch.tensor(0.64)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("N, ratio", [(1, 1.0), (2, 1.0), (15, 1 / 16), (16, 1 / 16), (33, 0.9)])
def test_draws(N, ratio, published):
    x, y = batch(N)
    module = PartialMixUp(COUNT, "ntu25", ratio=ratio, published=published)
    noise = torch.rand(2 * N, generator=torch.Generator().manual_seed(1))
    chosen, partner = module.draw(noise)
    assert len(chosen) == len(set(chosen.tolist())) == int(ratio * N)
    assert len(partner) <= len(chosen)
    found = module(x, y, chosen, partner)
    assert found.x.shape == x.shape and found.x.isfinite().all()
    logits = torch.randn(N, 4, requires_grad=True)
    loss = mixup_cross_entropy(logits, found.label, found.label_b, found.mix)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    if N == 1:  # nobody to mix with
        assert torch.equal(found.x, x) and len(partner) == 0
        torch.testing.assert_close(loss, mixup_cross_entropy(logits, y))


def test_partners_are_others_and_evenly_drawn():
    module = PartialMixUp(COUNT, "ntu25", ratio=0.25)
    seen = torch.zeros(8, 8)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        chosen, partner = module.draw(torch.rand(16, generator=generator))
        mixed = sorted(chosen.tolist())
        if mixed[1] != mixed[0] + 1:
            seen[mixed, partner] += 1
    assert not seen.diag().any()
    assert (seen.sum(0) > 20).all() and (seen.sum(1) > 20).all()


def test_the_batch_is_not_changed():
    x, y = batch()
    before = x.clone()
    mix(x, y, [1, 4], [0, 3])
    assert torch.equal(x, before)


@pytest.mark.parametrize("options", [{"ratio": 1.5}, {"alpha": -0.1}])
def test_bad_numbers(options):
    with pytest.raises(ValueError, match=r"PartialMixUp: expected \w+ in \[0, 1\], got"):
        PartialMixUp(COUNT, "ntu25", **options)
