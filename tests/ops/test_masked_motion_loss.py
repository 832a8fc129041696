"""masked_motion_loss: the published loss, what does not count, and how it refuses."""

import math
import re

import pytest
import torch

from skelops import masked_motion_loss, motion_target


def inputs(N=3, T=12, V=5, C=3, u=4, dtype=torch.float64):
    L = T // u * V
    return (
        torch.randn(N, T, V, C, dtype=dtype),
        torch.randn(N, L, u * C, dtype=dtype),
        torch.rand(N, L) < 0.3,
    )


@pytest.mark.parametrize("options", [{}, {"normalise": False}, {"stride": 0}, {"stride": 5}])
def test_is_the_mean_over_masked_tokens(options):
    x, pred, mask = inputs()
    x.requires_grad_(), pred.requires_grad_()
    loss = masked_motion_loss(x, pred, mask, **options)
    error = (pred - motion_target(x, **options)).square().mean(-1)
    expected = (error * ~mask).sum() / (~mask).sum()
    torch.testing.assert_close(loss, expected)
    for a, b in zip(
        torch.autograd.grad(loss, (x, pred)), torch.autograd.grad(expected, (x, pred)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_kept_tokens_do_not_count():
    x, pred, mask = inputs()
    expected = masked_motion_loss(x, pred, mask)
    pred[mask] = math.nan
    pred.requires_grad_()
    loss = masked_motion_loss(x, pred, mask)
    torch.testing.assert_close(loss.detach(), expected)
    (g,) = torch.autograd.grad(loss, pred)
    assert not g[mask].any() and g[~mask].all()


def test_nothing_masked_is_no_loss():
    x, pred, mask = inputs()
    pred.requires_grad_()
    loss = masked_motion_loss(x, pred, torch.ones_like(mask))
    assert loss == 0
    assert not torch.autograd.grad(loss, pred)[0].any()


def test_a_perfect_prediction():
    x, _, mask = inputs()
    assert masked_motion_loss(x, motion_target(x), mask) == 0


def test_absent_person_counts_with_target_0():
    x, pred, mask = inputs(N=1)
    expected = (pred.square().mean(-1) * ~mask).sum() / (~mask).sum()
    torch.testing.assert_close(masked_motion_loss(torch.zeros_like(x), pred, mask), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_prediction_in_half_precision(dtype):
    x, pred, mask = inputs(dtype=torch.float32)
    half = pred.to(dtype).requires_grad_()
    loss = masked_motion_loss(x, half, mask)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, masked_motion_loss(x, half.float(), mask))
    assert torch.autograd.grad(loss, half)[0].dtype == dtype


def test_autocast_casts_nothing():
    x, pred, mask = inputs(dtype=torch.float32)
    x += 1000
    expected = masked_motion_loss(x, pred, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(masked_motion_loss(x, pred, mask), expected)


BAD = [
    (dict(x=torch.ones(3, 12, 5)), ValueError, "x of shape (N, T, V, C), got (3, 12, 5)"),
    (dict(x=torch.ones(3, 10, 5, 3)), ValueError, "x whose frames fill segments of 4, got (3, 10"),
    (
        dict(pred=torch.ones(3, 15, 11)),
        ValueError,
        "pred of shape (N, L, u*C) with N=3, L=15, u*C=12, got (3, 15, 11)",
    ),
    (dict(pred=torch.ones(3, 15, 12).long()), TypeError, "pred of a floating dtype, got"),
    (dict(mask=torch.ones(3, 15)), TypeError, "mask of dtype torch.bool, got torch.float32"),
    (dict(mask=torch.ones(3, 14).bool()), ValueError, "mask of shape (N, L) with N=3, L=15, got"),
    (dict(stride=-2), ValueError, "stride >= 0, got -2"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    x, pred, mask = inputs(dtype=torch.float32)
    arguments = dict(x=x, pred=pred, mask=mask) | change
    with pytest.raises(error, match="^" + re.escape(f"masked_motion_loss: expected {message}")):
        masked_motion_loss(**arguments)
