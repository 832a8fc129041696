"""temporal_shift: which channel shows which frame; bad input."""

import re

import pytest
import torch

from skelops import temporal_shift
from skelops._library import OPS


def test_which_channel_shows_which_frame():
    frame = torch.arange(1.0, 6).view(1, 1, 5, 1, 1).expand(2, 9, 5, 3, 2)
    y = temporal_shift(frame, 4)[0, :, :, 0, 0].tolist()
    assert y[:2] == [[2, 3, 4, 5, 0]] * 2
    assert y[2:4] == [[0, 1, 2, 3, 4]] * 2
    assert y[4:] == [[1, 2, 3, 4, 5]] * 5


@pytest.mark.parametrize("shape", [(2, 9, 5, 4), (2, 8, 1, 3, 3), (1, 4, 7)])
def test_backward_moves_the_other_way(shape):
    x, g = torch.randn(2, *shape).requires_grad_().unbind()
    (dx,) = torch.autograd.grad(temporal_shift(x, 4), x, g)
    assert torch.equal(dx, OPS["temporal_shift"](g, shape[1] // 4, True))
    torch.testing.assert_close((dx * x).sum(), (g * temporal_shift(x, 4)).sum())


def test_few_channels_stay():
    x = torch.randn(2, 3, 5)
    assert torch.equal(temporal_shift(x, 4), x)


@pytest.mark.parametrize("shape", [(0, 8, 4, 2), (2, 0, 4), (2, 8, 0, 3), (2, 8, 3, 0)])
def test_degenerate_sizes(shape):
    assert temporal_shift(torch.randn(shape)).shape == shape


BAD = [
    (dict(x=torch.ones(3, 4)), ValueError, "x of shape (N, C, T, ...), got (3, 4)"),
    (dict(x=torch.ones(1, 8, 3).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(fold_div=1), ValueError, "fold_div of at least 2, got 1"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(x=torch.ones(1, 8, 3, 2)) | change
    with pytest.raises(error, match="^" + re.escape(f"temporal_shift: expected {message}")):
        temporal_shift(**arguments)
