"""narrow_ffn: PyTorch's feed-forward, its dropout, and how it refuses."""

import math
import re

import pytest
import torch
from torch import nn

from skelops import narrow_ffn
from skelops.ops._dropout import LEVELS, kept


def inputs(N=5, C=6, H=150):
    first, second = nn.Linear(C, H), nn.Linear(H, C)
    return [torch.randn(N, C), first.weight, first.bias, second.weight, second.bias]


def test_it_is_the_feed_forward_of_a_transformer():
    x, *weights = inputs(N=70)
    y = torch.nn.functional.linear(x, *weights[:2]).relu()
    torch.testing.assert_close(
        narrow_ffn(x, *weights), torch.nn.functional.linear(y, *weights[2:]), rtol=1e-5, atol=1e-5
    )


def test_leading_axes():
    x, *weights = inputs(N=24)
    y = narrow_ffn(x, *weights)
    assert torch.equal(narrow_ffn(x.view(2, 3, 4, 6), *weights), y.view(2, 3, 4, 6))
    assert torch.equal(narrow_ffn(x[0], *weights), narrow_ffn(x[:1], *weights)[0])


def test_dropout_is_that_of_the_seed():
    x, *weights = inputs()
    a, b = (torch.tensor([s]) for s in (3, 4))
    y = narrow_ffn(x, *weights, dropout=0.5, seed=a)
    assert torch.equal(y, narrow_ffn(x, *weights, dropout=0.5, seed=a))
    assert not torch.equal(y, narrow_ffn(x, *weights, dropout=0.5, seed=b))
    # a row keeps its units whatever rows follow
    assert torch.equal(y[:2], narrow_ffn(x[:2], *weights, dropout=0.5, seed=a))


def test_the_backward_drops_the_same_units():
    x, w1, b1, w2, b2 = inputs(N=70)
    seed, dropped = torch.tensor([5]), round(0.3 * LEVELS)
    y = narrow_ffn(x, w1, b1, w2, b2, dropout=0.3, seed=seed)
    g = torch.randn_like(y)
    found = torch.autograd.grad(y, (w1, b1, w2), g)
    mask = kept(seed, 70, 150, dropped)
    h = torch.nn.functional.linear(x, w1, b1).relu() * mask * (LEVELS / (LEVELS - dropped))
    expected = torch.autograd.grad(torch.nn.functional.linear(h, w2, b2), (w1, b1, w2), g)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_torch_draws_the_seed():
    x, *weights = inputs()
    torch.manual_seed(0)
    first, second = (narrow_ffn(x, *weights, dropout=0.5) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(narrow_ffn(x, *weights, dropout=0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_of_dropped_units(p):
    mask = kept(torch.tensor([0]), 300, 1000, round(p * LEVELS)).float()
    assert mask.mean().item() == pytest.approx(1 - p, abs=0.005)
    assert mask.mean(0).std() < 2 * math.sqrt(p * (1 - p) / 300)


def test_nan_passes_the_rectifier():
    x, *weights = inputs()
    x[2, 1] = math.nan
    y = narrow_ffn(x, *weights)
    assert y[2].isnan().all() and not y[[0, 1, 3, 4]].isnan().any()


BAD = [
    (dict(x=torch.ones(5, 7)), ValueError, "w1 of shape (H, C) with C=7, got (150, 6)"),
    (dict(x=torch.tensor(1.0)), ValueError, "x of shape (..., C), got ()"),
    (dict(b1=torch.ones(149)), ValueError, "b1 of shape (H) with H=150, got (149,)"),
    (dict(w2=torch.ones(150, 6)), ValueError, "w2 of shape (C, H) with C=6, H=150, got (150, 6)"),
    (dict(b2=torch.ones(6).half()), TypeError, "b2 of x's dtype torch.float32, got"),
    (dict(x=torch.ones(5, 6).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(dropout=1.0), ValueError, "dropout in [0, 1), got 1.0"),
    (dict(dropout=0.1, seed=3), TypeError, "seed to be a tensor, got int"),
    (dict(dropout=0.1, seed=torch.ones(1)), TypeError, "seed of dtype torch.int64, got"),
    (dict(dropout=0.1, seed=torch.arange(2)), ValueError, "seed of shape (1), got (2,)"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    x, w1, b1, w2, b2 = inputs()
    with pytest.raises(error, match="^" + re.escape(f"narrow_ffn: expected {message}")):
        narrow_ffn(**(dict(x=x, w1=w1, b1=b1, w2=w2, b2=b2) | change))
