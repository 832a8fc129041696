"""part_mask: rows of x or of the token, and how it refuses."""

import math
import re

import pytest
import torch

from skelops import part_mask
from skelops.graph import get_layout


def inputs(N=3, T=4, V=17, C=6):
    return torch.randn(N, T, V, C), torch.randn(C), torch.rand(N, V) < 0.6


def test_rows_are_those_of_x_or_the_token():
    x, token, mask = inputs()
    y = part_mask(x, token, mask)
    for n, t, v in ((0, 0, 0), (1, 2, 5), (2, 3, 16), (0, 1, 9)):
        assert torch.equal(y[n, t, v], x[n, t, v] if mask[n, v] else token)


def test_parts_of_a_layout():
    layout = get_layout("coco17")
    mask = torch.ones(17, dtype=torch.bool)
    mask[list(layout.parts["right_arm"])] = False
    x, token, _ = inputs()
    y = part_mask(x, token, mask)
    assert torch.equal(y[:, :, mask], x[:, :, mask])
    assert torch.equal(y[:, :, ~mask], token.expand(y[:, :, ~mask].shape))


def test_one_mask_equals_it_per_clip():
    x, token, mask = inputs()
    assert torch.equal(part_mask(x, token, mask[0]), part_mask(x, token, mask[:1].expand(3, -1)))


def test_what_is_replaced_does_not_matter():
    x, token, mask = inputs()
    broken = x.masked_fill(~mask[:, None, :, None], math.nan)
    assert torch.equal(part_mask(broken, token, mask), part_mask(x, token, mask))


def test_gradients_take_the_same_ways():
    x, token, mask = inputs()
    x.requires_grad_(), token.requires_grad_()
    y = part_mask(x, token, mask)
    g = torch.randn_like(y)
    dx, dtoken = torch.autograd.grad(y, (x, token), g)
    kept = mask[:, None, :, None].expand_as(g)
    assert torch.equal(dx, g.where(kept, 0))
    torch.testing.assert_close(dtoken, g.where(~kept, 0).sum((0, 1, 2)))


@pytest.mark.parametrize("value", [True, False])
def test_all_or_nothing(value):
    x, token, mask = inputs()
    mask = torch.full_like(mask, value)
    assert torch.equal(part_mask(x, token, mask), x if value else token.expand_as(x))


BAD = [
    (dict(x=torch.ones(3, 17, 6)), ValueError, "x of shape (N, T, V, C), got (3, 17, 6)"),
    (dict(token=torch.ones(5)), ValueError, "token of shape (C) with C=6, got (5,)"),
    (dict(token=torch.ones(6).half()), TypeError, "token of x's dtype torch.float32, got"),
    (dict(mask=torch.ones(17)), TypeError, "mask of dtype torch.bool, got torch.float32"),
    (dict(mask=[True] * 17), TypeError, "mask of dtype torch.bool, got list"),
    (dict(mask=torch.ones(16).bool()), ValueError, "mask of shape (V) with V=17, got (16,)"),
    (dict(mask=torch.ones(2, 17).bool()), ValueError, "mask of shape (N, V) with N=3, V=17, got"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    x, token, mask = inputs()
    with pytest.raises(error, match="^" + re.escape(f"part_mask: expected {message}")):
        part_mask(**(dict(x=x, token=token, mask=mask) | change))
