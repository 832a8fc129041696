"""shift_conv: the shift and the convolution of which it is made; bad input."""

import re

import pytest
import torch
from torch.nn import functional as F

from skelops import shift_conv, temporal_shift


@pytest.mark.parametrize("shape", [(2, 9, 5, 7, 3), (1, 24, 48, 20, 20), (3, 8, 1, 4), (1, 4, 7)])
def test_is_a_shift_and_a_convolution(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, shape[1], dtype=torch.float64, requires_grad=True)
    y = shift_conv(x, weight, 4)
    expected = F.conv1d(temporal_shift(x, 4).flatten(2), weight[..., None]).view(y.shape)
    torch.testing.assert_close(y, expected)
    grad = torch.randn_like(y)
    for found, wanted in zip(
        torch.autograd.grad(y, (x, weight), grad),
        torch.autograd.grad(expected, (x, weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_values_that_no_frame_shows_get_no_gradient():
    x = torch.randn(2, 8, 5, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(shift_conv(x, torch.ones(4, 8), 4).sum(), x)
    assert (dx[:, :2, 0] == 0).all() and (dx[:, 2:4, -1] == 0).all()
    assert (dx[:, :2, 1:] == 4).all() and (dx[:, 2:4, :-1] == 4).all() and (dx[:, 4:] == 4).all()


def test_a_frame_that_is_not_finite_stays_in_its_place():
    x = torch.randn(1, 8, 6, 2)
    x[:, :, 2] = float("nan")
    y = shift_conv(x, torch.randn(3, 8), 4)
    assert y[:, :, 1:4].isnan().all() and y[:, :, [0, 4, 5]].isfinite().all()


@pytest.mark.parametrize("shape", [(0, 8, 4, 2), (2, 0, 4), (2, 8, 0, 3), (2, 8, 3, 0)])
def test_degenerate_sizes(shape):
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(5, shape[1], requires_grad=True)
    y = shift_conv(x, weight)
    assert y.shape == (shape[0], 5, *shape[2:]) and (y == 0).all()
    dx, dweight = torch.autograd.grad(y.sum(), (x, weight))
    assert dx.shape == shape and (dweight == 0).all()


BAD = [
    (dict(x=torch.ones(3, 8)), ValueError, "x of shape (N, C, T, ...), got (3, 8)"),
    (dict(x=torch.ones(1, 8, 3).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(weight=torch.ones(4, 7)), ValueError, "weight of shape (C', C) with C=8, got (4, 7)"),
    (
        dict(weight=torch.ones(4, 8).double()),
        TypeError,
        "weight of x's dtype torch.float32, got torch.float64",
    ),
    (dict(fold_div=1), ValueError, "fold_div of at least 2, got 1"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(x=torch.ones(1, 8, 3, 2), weight=torch.ones(4, 8)) | change
    with pytest.raises(error, match="^" + re.escape(f"shift_conv: expected {message}")):
        shift_conv(**arguments)
