"""masked_cosine_loss: the published error, what does not count, and how it refuses."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from skelops import masked_cosine_loss


def inputs(N=3, T=4, V=5, C=6, dtype=torch.float64):
    x, y = torch.randn(N, T, V, C, dtype=dtype), torch.randn(N, T, V, C, dtype=dtype)
    return x, y, torch.rand(N, V) < 0.5


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("literal", [False, True])
def test_equals_its_equation(beta, literal):
    x, y, mask = inputs()
    x.requires_grad_(), y.requires_grad_()
    loss = masked_cosine_loss(x, y, mask, beta=beta, literal=literal)
    error = (1 - F.cosine_similarity(x, y, dim=-1)).permute(0, 2, 1)[~mask] ** beta
    expected = error.sum() / error.numel() ** (beta if literal else 1)
    torch.testing.assert_close(loss, expected)
    for a, b in zip(
        torch.autograd.grad(loss, (x, y)), torch.autograd.grad(expected, (x, y)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_lengths_do_not_matter():
    x, y, mask = inputs()
    scales = torch.rand(2, 3, 4, 5, 1, dtype=x.dtype) + 0.1
    expected = masked_cosine_loss(x, y, mask)
    torch.testing.assert_close(masked_cosine_loss(x * scales[0], y * scales[1], mask), expected)


def test_same_and_opposite_directions():
    x, _, mask = inputs()
    mask[0, 0] = False
    assert masked_cosine_loss(x, 3 * x, mask) < 1e-20
    torch.testing.assert_close(masked_cosine_loss(x, -x, mask), x.new_tensor(4.0))


def test_one_mask_equals_it_per_clip():
    x, y, mask = inputs()
    torch.testing.assert_close(
        masked_cosine_loss(x, y, mask[0]), masked_cosine_loss(x, y, mask[:1].expand(3, -1))
    )


def test_kept_joints_do_not_count():
    x, y, mask = inputs()
    expected = masked_cosine_loss(x, y, mask)
    x = x.masked_fill(mask[:, None, :, None], math.nan).requires_grad_()
    loss = masked_cosine_loss(x, y, mask)
    torch.testing.assert_close(loss.detach(), expected)
    (g,) = torch.autograd.grad(loss, x)
    assert not g.transpose(1, 2)[mask].any()


def test_zero_vectors_are_at_a_right_angle():
    x, y, mask = inputs()
    zero = torch.zeros_like(x).requires_grad_()
    loss = masked_cosine_loss(zero, y, torch.zeros_like(mask))
    assert loss == 1
    assert torch.autograd.grad(loss, zero)[0].isfinite().all()


def test_nothing_masked_is_no_loss():
    x, y, mask = inputs()
    x.requires_grad_()
    loss = masked_cosine_loss(x, y, torch.ones_like(mask))
    assert loss == 0
    assert not torch.autograd.grad(loss, x)[0].any()


BAD = [
    (dict(x=torch.ones(3, 5, 6)), ValueError, "x of shape (N, T, V, C), got (3, 5, 6)"),
    (dict(y=torch.ones(3, 4, 5, 7)), ValueError, "y of shape (N, T, V, C) with N=3, T=4, V=5, C=6"),
    (dict(y=torch.ones(3, 4, 5, 6).half()), TypeError, "y of x's dtype torch.float32, got"),
    (dict(mask=torch.ones(3, 5)), TypeError, "mask of dtype torch.bool, got torch.float32"),
    (dict(mask=torch.ones(4).bool()), ValueError, "mask of shape (V) with V=5, got (4,)"),
    (dict(mask=torch.ones(2, 5).bool()), ValueError, "mask of shape (N, V) with N=3, V=5, got"),
    (dict(beta=0.5), ValueError, "beta >= 1, got 0.5"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    x, y, mask = inputs(dtype=torch.float32)
    with pytest.raises(error, match="^" + re.escape(f"masked_cosine_loss: expected {message}")):
        masked_cosine_loss(**(dict(x=x, y=y, mask=mask) | change))
