"""affinity_contrastive_loss: the published forms, what takes part, and how it refuses."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from skelops import affinity_contrastive_loss


def inputs(N=6, K=11, D=4, classes=3):
    torch.manual_seed(0)
    f, m = (F.normalize(torch.randn(n, D, dtype=torch.float64), dim=1) for n in (N, K))
    return f, m, torch.randint(classes, (N,)), torch.randint(classes, (K,))


def test_equals_its_equation():
    f, m, y, z = inputs()
    s = f @ m.T / 0.2
    expected = []
    for n in range(len(f)):
        rest = s[n][z != y[n]].exp().sum() + 1e-3 * s[n].max().exp()
        positive = s[n][z == y[n]]
        terms = positive - ((positive - 0.1).exp() + rest).log()
        expected.append(-terms.mean() if len(terms) else s.new_tensor(0.0))
    found = affinity_contrastive_loss(f, m, y, z, None, 0.2, margin=0.1, eps=1e-3)
    torch.testing.assert_close(found, torch.stack(expected))


def test_classes_with_themselves_is_cross_entropy():
    f, m, y, _ = inputs(K=3)
    other = ~torch.eye(3, dtype=torch.bool)
    temperature = torch.tensor([0.1, 0.5, 1.0])[y]
    found = affinity_contrastive_loss(f, m, y, torch.arange(3), other, temperature)
    logits = f @ m.T / temperature[:, None].double()
    torch.testing.assert_close(found, F.cross_entropy(logits, y, reduction="none"))


def test_a_class_near_itself_counts_twice():
    f, m, y, _ = inputs(K=3)
    near = torch.eye(3, dtype=torch.bool)
    found = affinity_contrastive_loss(f, m, y, torch.arange(3), near)
    torch.testing.assert_close(found, torch.full_like(found, math.log(2)))


def test_own_rows_are_neither_positive_nor_negative():
    f, _, y, _ = inputs(classes=2)
    y[0], y[1:] = 0, 1
    found = affinity_contrastive_loss(f, f, y, y, own=True)
    assert found[0] == 0
    others = affinity_contrastive_loss(
        f[1:2], f[torch.arange(6) != 1], y[1:2], y[torch.arange(6) != 1]
    )
    torch.testing.assert_close(found[1:2], others)


def test_empty_places_and_samples_without_a_class_take_no_part():
    f, m, y, z = inputs()
    expected = affinity_contrastive_loss(f, m[z != 1], y, z[z != 1], margin=0.1)
    found = affinity_contrastive_loss(f, m, y, z.where(z != 1, -1), margin=0.1)
    torch.testing.assert_close(found, expected)
    assert not affinity_contrastive_loss(f, m, y - 3, z).any()


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_extreme_scores_are_finite(scale):
    f, m, y, z = (t.float() if t.is_floating_point() else t for t in inputs())
    f = (f * scale).requires_grad_()
    m.requires_grad_()
    loss = affinity_contrastive_loss(f, m, y, z, margin=0.1, eps=1e-6)
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), (f, m)))


def test_one_class_only_is_minus_the_margin():
    f, m, y, z = inputs(classes=1)
    f.requires_grad_()
    loss = affinity_contrastive_loss(f, m, y, z, margin=0.25)
    torch.testing.assert_close(loss, torch.full_like(loss, -0.25))
    assert not torch.autograd.grad(loss.sum(), f)[0].any()


@pytest.mark.parametrize("N, K", [(0, 5), (3, 0), (0, 0)])
def test_empty(N, K):
    f, m, y, z = inputs(N, K)
    f.requires_grad_()
    loss = affinity_contrastive_loss(f, m, y, z, eps=1e-6)
    assert loss.shape == (N,)
    assert not loss.any()
    assert torch.autograd.grad(loss.sum(), f)[0].shape == f.shape


BAD = [
    (dict(feature=torch.ones(6)), ValueError, "feature of shape (N, D), got (6,)"),
    (dict(memory=torch.ones(5, 3)), ValueError, "memory of shape (K, D) with D=4, got (5, 3)"),
    (dict(memory=torch.ones(11, 4).half()), TypeError, "memory of feature's dtype torch.float32"),
    (dict(label=torch.ones(5).long()), ValueError, "label of shape (N) with N=6, got (5,)"),
    (dict(label=torch.ones(6)), TypeError, "label of dtype torch.int64, got torch.float32"),
    (dict(affinity=torch.ones(3, 3)), TypeError, "affinity of dtype torch.bool, got"),
    (dict(affinity=torch.ones(2, 3).bool()), ValueError, "affinity of shape (Y, Y) with Y=3, got"),
    (dict(temperature=0.0), ValueError, "temperature > 0, got 0.0"),
    (dict(temperature=math.nan), ValueError, "temperature > 0, got nan"),
    (dict(temperature=torch.tensor([1.0] * 5 + [-2])), ValueError, "temperature > 0, got -2.0"),
    (dict(temperature=torch.ones(2)), ValueError, "temperature of shape (N) with N=6, got (2,)"),
    (dict(eps=-1.0), ValueError, "eps >= 0, got -1.0"),
    (dict(own=True, memory=torch.ones(5, 4), memory_label=torch.ones(5).long()), ValueError,
     "a memory of at least N=6 rows with own, got 5"),
]  # fmt: skip


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    f, m, y, z = inputs()
    good = dict(feature=f.float(), memory=m.float(), label=y, memory_label=z)
    with pytest.raises(
        error, match="^" + re.escape(f"affinity_contrastive_loss: expected {message}")
    ):
        affinity_contrastive_loss(**(good | change))
