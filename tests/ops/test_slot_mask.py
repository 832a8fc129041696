"""slot_mask: which slots become zero, where gradients go, and how it refuses."""

import math
import re

import pytest
import torch

from skelops import slot_mask


def inputs(N=3, T=7, V=5, C=2):
    return torch.randn(N, T, V, C), torch.rand(N, T * V)


def test_the_least_are_zero():
    x, u = inputs()
    y, mask = slot_mask(x, u, mask_ratio=0.4)
    assert ((~mask).flatten(1).sum(1) == 14).all()
    flat = mask.flatten(1)
    assert (u.where(~flat, -1).amax(1) < u.where(flat, 2).amin(1)).all()
    assert torch.equal(y, x * mask[..., None])


def test_a_recorded_permutation_replays():
    x, _ = inputs(N=2)
    permutation = torch.stack([torch.randperm(35) for _ in range(2)])
    _, mask = slot_mask(x, permutation.argsort(1).float(), mask_ratio=0.3)
    removed = torch.zeros(2, 35, dtype=torch.bool).scatter(1, permutation[:, :10], True)
    assert torch.equal(mask.flatten(1), ~removed)


@pytest.mark.parametrize("ratio, masked", [(0.0, 0), (1e-6, 1), (1.0, 35), (0.3, 10)])
def test_counts(ratio, masked):
    x, u = inputs()
    _, mask = slot_mask(x, u, mask_ratio=ratio)
    assert ((~mask).flatten(1).sum(1) == masked).all()


def test_masked_values_are_zero_even_if_not_finite():
    x, u = inputs()
    _, mask = slot_mask(x, u)
    x[~mask] = math.nan
    y, _ = slot_mask(x, u)
    assert y.isfinite().all() and not y[~mask].any()


def test_gradient_reaches_kept_slots_only():
    x, u = inputs()
    x.requires_grad_()
    y, mask = slot_mask(x, u)
    assert not mask.requires_grad
    g = torch.randn_like(y)
    g[~mask] = math.nan
    (dx,) = torch.autograd.grad(y, x, g)
    assert torch.equal(dx, g.where(mask[..., None], 0))


def test_ties_and_nan_in_the_noise():
    x, u = inputs(N=1)
    u[:] = 0.5
    u[0, :3] = math.nan
    _, mask = slot_mask(x, u, mask_ratio=0.3)
    assert (~mask).flatten().nonzero().flatten().tolist() == list(range(3, 13))


BAD = [
    (dict(x=torch.ones(3, 7, 5)), ValueError, "x of shape (N, T, V, C), got (3, 7, 5)"),
    (dict(x="clip"), TypeError, "x to be a tensor, got str"),
    (dict(noise=torch.rand(3, 34)), ValueError, "noise of shape (N, L) with N=3, L=35, got"),
    (dict(noise=torch.ones(3, 35).long()), TypeError, "noise of a floating dtype, got torch.int64"),
    (dict(mask_ratio=-0.1), ValueError, "mask_ratio in [0, 1], got -0.1"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    x, noise = inputs()
    with pytest.raises(error, match="^" + re.escape(f"slot_mask: expected {message}")):
        slot_mask(**(dict(x=x, noise=noise) | change))
