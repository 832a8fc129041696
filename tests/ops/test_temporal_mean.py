"""temporal_mean: what the mathematics demands of it, and how it refuses."""

import re

import pytest
import torch

from skelops import temporal_mean


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_mean_of_a_constant(dtype):
    x = torch.randn(2, 3, 1, 5).to(dtype)
    torch.testing.assert_close(temporal_mean(x.expand(2, 3, 64, 5)), x[:, :, 0])


def test_frames_may_be_shuffled():
    x = torch.randn(2, 3, 13, 5, dtype=torch.float64)
    torch.testing.assert_close(temporal_mean(x[:, :, torch.randperm(13)]), temporal_mean(x))


def test_mean_of_halves():
    x = torch.randn(2, 3, 12, 5, dtype=torch.float64)
    halves = (temporal_mean(x[:, :, :6]) + temporal_mean(x[:, :, 6:])) / 2
    torch.testing.assert_close(temporal_mean(x), halves)


def test_half_types_do_not_overflow():
    x = torch.full((1, 1, 64, 3), 6e4, dtype=torch.float16)
    assert torch.equal(temporal_mean(x), x[:, :, 0])


def test_gradient_is_a_broadcast():
    x = torch.randn(2, 3, 13, 5, requires_grad=True)
    (g,) = torch.autograd.grad(temporal_mean(x).sum(), x)
    assert g.untyped_storage().nbytes() <= 2 * 3 * 5 * 4
    torch.testing.assert_close(g, torch.full_like(g, 1 / 13))


def test_nan_stays_in_its_joint():
    x = torch.zeros(2, 3, 4, 5)
    x[0, 1, 2, 3] = float("nan")
    expected = torch.zeros(2, 3, 5, dtype=torch.bool)
    expected[0, 1, 3] = True
    assert torch.equal(temporal_mean(x).isnan(), expected)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 0), (2, 3, 1, 5)])
def test_degenerate_sizes(shape):
    x = torch.randn(shape, requires_grad=True)
    y = temporal_mean(x)
    assert y.shape == (shape[0], shape[1], shape[3])
    assert torch.autograd.grad(y.sum(), x)[0].shape == shape


@pytest.mark.parametrize(
    "x, error, message",
    [
        (torch.ones(2, 3, 4), ValueError, "x of shape (N, C, T, V), got (2, 3, 4)"),
        (torch.ones(2, 3, 0, 5), ValueError, "x with at least one frame, got (2, 3, 0, 5)"),
        (torch.ones(2, 3, 4, 5).bool(), TypeError, "x of a floating dtype, got torch.bool"),
        ("clip", TypeError, "x to be a tensor, got str"),
    ],
)
def test_bad_input(x, error, message):
    with pytest.raises(error, match="^" + re.escape(f"temporal_mean: expected {message}")):
        temporal_mean(x)
