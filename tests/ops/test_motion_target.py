"""motion_target: the published target, and how it refuses."""

import re

import pytest
import torch

from skelops import motion_target


def clips(N=2, T=12, V=5, C=3, dtype=torch.float64):
    return torch.randn(N, T, V, C, dtype=dtype)


@pytest.mark.parametrize("stride", [1, 3, 11, 12, 40])
def test_equals_its_equation(stride):
    x = clips()
    y = motion_target(x, segment=4, stride=stride, normalise=False)
    for n, t, j, v, c in ((0, 0, 0, 0, 0), (1, 2, 3, 4, 2), (1, 1, 2, 3, 1), (0, 2, 0, 2, 0)):
        frame = 4 * t + j
        inside = frame + stride < 12
        expected = x[n, frame + stride, v, c] - x[n, frame, v, c] if inside else x.new_zeros(())
        torch.testing.assert_close(y[n, t * 5 + v, j * 3 + c], expected)


def test_stride_0_gives_the_coordinates():
    x = clips()
    y = motion_target(x, segment=4, stride=0, normalise=False)
    expected = x.view(2, 3, 4, 5, 3).transpose(2, 3).reshape(2, 15, 12)
    assert torch.equal(y, expected)


def test_segments_of_one_frame_keep_the_layout():
    x = clips()
    y = motion_target(x, segment=1, normalise=False).view(x.shape)
    torch.testing.assert_close(y[:, :-1], x.diff(dim=1))
    assert not y[:, -1].any()


@pytest.mark.parametrize("stride", [0, 1, 5])
def test_tokens_are_standardised(stride):
    y = motion_target(clips(), segment=4, stride=stride)
    moving = y if stride == 0 else y[:, :5]
    torch.testing.assert_close(moving.mean(-1), torch.zeros_like(moving.mean(-1)))
    torch.testing.assert_close(moving.var(-1), torch.ones_like(moving.var(-1)), atol=1e-4, rtol=0)


def test_still_tokens_are_zero():
    x = clips()
    x[:, :, 2] = 7.0
    y = motion_target(x, segment=4).view(2, 3, 5, 12)
    assert not y[:, :, 2].any() and y[:, :, 1].all()


def test_offsets_and_scales_do_not_matter():
    x = 100 * clips()
    shifted = 3 * x + torch.randn(1, 1, 5, 3, dtype=x.dtype)
    torch.testing.assert_close(motion_target(shifted), motion_target(x), atol=1e-6, rtol=1e-6)


def test_nan_stays_in_its_tokens():
    x = clips()
    x[0, 4, 1, 0] = float("nan")
    bad = motion_target(x, segment=4).isnan().any(-1)
    expected = torch.zeros_like(bad)
    expected[0, [1, 6]] = True  # the last motion of segment 0, the first of segment 1
    assert torch.equal(bad, expected)


@pytest.mark.parametrize(
    "x, options, error, message",
    [
        (torch.ones(2, 12, 5), {}, ValueError, "x of shape (N, T, V, C), got (2, 12, 5)"),
        (torch.ones(2, 12, 5, 3).int(), {}, TypeError, "x of a floating dtype, got torch.int32"),
        (torch.ones(2, 13, 5, 3), {}, ValueError, "x whose frames fill segments of 4, got (2, 13"),
        (torch.ones(2, 12, 5, 3), {"stride": -1}, ValueError, "stride >= 0, got -1"),
        (torch.ones(2, 12, 5, 3), {"segment": 0}, ValueError, "a segment of at least one frame"),
        (torch.ones(2, 4, 5, 1), {"segment": 1}, ValueError, "tokens of several values to normal"),
    ],
)
def test_bad_input(x, options, error, message):
    with pytest.raises(error, match="^" + re.escape(f"motion_target: expected {message}")):
        motion_target(x, **options)
