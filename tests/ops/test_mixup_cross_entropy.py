"""mixup_cross_entropy: what the mathematics demands of it, and how it refuses."""

import re

import pytest
import torch
from torch.nn.functional import cross_entropy

import skelops
from skelops import mixup_cross_entropy

OP = torch.ops.skelops.mixup_cross_entropy


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(13, 7, dtype=torch.float64, generator=generator).requires_grad_()
    a, b = torch.randint(7, (2, 13), generator=generator)
    return z, a, b, torch.rand(7, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_label_is_the_cross_entropy_of_torch(batch, backend, smoothing, weighted):
    z, a, _, w = batch
    options = {"weight": w if weighted else None, "label_smoothing": smoothing}
    expected = cross_entropy(z, a, **options)
    with skelops.use_backend(backend):
        found = mixup_cross_entropy(z, a, **options)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(x, z)[0] for x in (found, expected)))


def test_a_pair_is_the_mean_of_two(batch):
    z, a, b, w = batch
    mix = torch.tensor(0.64, dtype=torch.float64)
    expected = 0.64 * cross_entropy(z, a, w) + 0.36 * cross_entropy(z, b, w)
    torch.testing.assert_close(mixup_cross_entropy(z, a, b, mix, weight=w), expected)
    torch.testing.assert_close(mixup_cross_entropy(z, a, b, 0.64, weight=w), expected)
    each = mix.expand(13)
    torch.testing.assert_close(mixup_cross_entropy(z, a, b, each, weight=w), expected)


def test_shares_belong_to_their_samples(batch):
    z, a, b, _ = batch
    mix = torch.rand(13, dtype=torch.float64)
    each = [
        m * cross_entropy(row, y) + (1 - m) * cross_entropy(row, other)
        for row, y, other, m in zip(z, a, b, mix, strict=True)
    ]
    torch.testing.assert_close(mixup_cross_entropy(z, a, b, mix), torch.stack(each).mean())


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_label_outside_counts_nothing(batch, backend, smoothing):
    z, a, _, w = batch
    wrong = a.clone()
    wrong[::3] = torch.tensor([-1, 7, -100, 2**62, 8])
    kept = (wrong == a).nonzero()[:, 0]
    expected = cross_entropy(z[kept], a[kept], w, label_smoothing=smoothing)
    with skelops.use_backend(backend):
        found = OP(z, wrong, None, None, w, smoothing)[0]
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(x, z)[0] for x in (found, expected)))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_weight_is_no_loss(batch, backend):
    z, a, b, w = batch
    with skelops.use_backend(backend):
        for loss in (
            mixup_cross_entropy(z, a, weight=0 * w, label_smoothing=0.1),
            mixup_cross_entropy(z[:0], a[:0]),
            mixup_cross_entropy(z, a, b, 0.3, weight=0 * w),
        ):
            assert loss == 0
            assert not torch.autograd.grad(loss, z)[0].any()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_masked_and_extreme_logits(backend):
    z = torch.tensor([[-float("inf"), 0.0, 1.0], [3e4, -3e4, 0.0]], requires_grad=True)
    a = torch.tensor([2, 1])
    with skelops.use_backend(backend):
        loss = mixup_cross_entropy(z, a)
        torch.testing.assert_close(loss, cross_entropy(z, a))
        assert torch.autograd.grad(loss, z)[0].isfinite().all()


def test_precision():
    z, a = torch.randn(5, 3).bfloat16(), torch.zeros(5, dtype=torch.int64)
    assert mixup_cross_entropy(z, a).dtype == torch.float32
    assert mixup_cross_entropy(z, a, a, 0.5, weight=torch.ones(3)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert mixup_cross_entropy(z.float(), a).dtype == torch.float32


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"logits": torch.zeros(2, 3, 4)}, ValueError, "logits of shape (N, K), got (2, 3, 4)"),
        ({"logits": torch.zeros(2, 0)}, ValueError, "logits of at least one class, got (2, 0)"),
        ({"logits": torch.zeros(2, 3).long()}, TypeError, "logits of a floating dtype"),
        ({"label": torch.zeros(2)}, TypeError, "label of dtype torch.int64, got torch.float32"),
        ({"label": torch.zeros(3).long()}, ValueError, "label of shape (N) with N=2, got (3,)"),
        ({"label": torch.tensor([0, 3])}, ValueError, "label in 0..2, got 3"),
        ({"label_b": torch.tensor([-1, 0])}, ValueError, "label_b in 0..2, got -1"),
        ({"label_b": None}, ValueError, "label_b together with mix, got one of them"),
        ({"mix": torch.zeros(3)}, ValueError, "mix of shape (N) with N=2, got (3,)"),
        ({"mix": torch.zeros(2).double()}, TypeError, "mix of dtype torch.float32"),
        ({"weight": torch.zeros(2)}, ValueError, "weight of shape (K) with K=3, got (2,)"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing in [0, 1], got 1.5"),
    ],
)
def test_refusals(changes, error, message):
    label = torch.zeros(2, dtype=torch.int64)
    given = {"logits": torch.zeros(2, 3), "label": label, "label_b": label, "mix": 0.5}
    with pytest.raises(error, match=re.escape(f"mixup_cross_entropy: expected {message}")):
        mixup_cross_entropy(**(given | changes))
