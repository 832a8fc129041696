"""x3d_block: the layers of which it is made; bad input."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops import temporal_shift, x3d_block


def arguments(C=8, hidden=18, outputs=8, T=4, size=(7, 6), squeeze=True, shortcut=False):
    torch.manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, dtype=torch.float64)

    return dict(
        x=draw(2, C, T, *size),
        expand=draw(hidden, C), expand_bias=draw(hidden),
        depthwise=draw(hidden, 3, 3), depthwise_bias=draw(hidden),
        project=draw(outputs, hidden), bias=draw(outputs),
        shortcut=draw(outputs, C) if shortcut else None,
        squeeze=(draw(5, hidden), draw(5), draw(hidden, 5), draw(hidden)) if squeeze else None,
    )  # fmt: skip


def layers(a, fold_div, stride):
    def pointwise(x, weight, bias=None, stride=1):
        return F.conv3d(x, weight[:, :, None, None, None], bias, (1, stride, stride))

    y = torch.relu(pointwise(temporal_shift(a["x"], fold_div), a["expand"], a["expand_bias"]))
    taps = a["depthwise"][:, None, None]
    y = F.conv3d(y, taps, a["depthwise_bias"], (1, stride, stride), (0, 1, 1), groups=taps.shape[0])
    if a["squeeze"] is not None:
        w1, b1, w2, b2 = a["squeeze"]
        small = torch.relu(pointwise(y.mean((2, 3, 4), keepdim=True), w1, b1))
        y = y * torch.sigmoid(pointwise(small, w2, b2))
    y = pointwise(y * torch.sigmoid(y), a["project"], a["bias"])
    shortcut = a["shortcut"]
    return torch.relu(
        y + (a["x"] if shortcut is None else pointwise(a["x"], shortcut, None, stride))
    )


@pytest.mark.parametrize("squeeze", [True, False])
@pytest.mark.parametrize(
    "stride, options",
    [
        (1, {}),
        (1, dict(size=(80, 61), hidden=40)),
        (2, dict(shortcut=True, outputs=12, size=(9, 8))),
        (2, dict(shortcut=True, outputs=3, hidden=80, size=(70, 65), T=2)),
        (3, dict(shortcut=True, size=(8, 1), T=1)),
    ],
)
def test_is_its_layers(stride, options, squeeze):
    a = arguments(squeeze=squeeze, **options)
    torch.testing.assert_close(
        x3d_block(**a, fold_div=4, stride=stride), layers(a, 4, stride), rtol=1e-10, atol=1e-10
    )


def test_frames_on_their_own_do_not_depend_on_their_neighbours():
    a = arguments(T=9, squeeze=False)
    whole = x3d_block(**a)  # one in eight channels shifts each way
    a["x"] = a["x"][:, :, 2:7]
    torch.testing.assert_close(x3d_block(**a)[:, :, 1:-1], whole[:, :, 3:6])


@pytest.mark.parametrize("shape", [(0, 8, 4, 7, 6), (2, 8, 0, 7, 6), (2, 8, 4, 0, 6)])
def test_nothing_in_nothing_out(shape):
    a = arguments() | {"x": torch.randn(shape, dtype=torch.float64)}
    assert x3d_block(**a).shape == shape


BAD = [
    (dict(x=torch.ones(2, 8, 4).double()), {}, ValueError, "x of shape (N, C, T, H, W), got"),
    (dict(expand=torch.ones(18, 7).double()), {}, ValueError, "expand of shape (H, C) with H=18"),
    (dict(depthwise=torch.ones(18, 3, 1).double()), {}, ValueError, "depthwise of shape (H, 3, 3)"),
    (dict(project=torch.ones(8, 17).double()), {}, ValueError, "project of shape (C', H) with"),
    (dict(bias=torch.ones(8)), {}, TypeError, "bias of x's dtype torch.float64, got torch.float32"),
    ({}, dict(fold_div=1), ValueError, "fold_div of at least 2, got 1"),
    ({}, dict(stride=0), ValueError, "stride of at least 1, got 0"),
    ({}, dict(stride=2), ValueError, "a shortcut to a result of another size than x, got none"),
    (
        dict(squeeze=(torch.ones(5, 18), torch.ones(5), torch.ones(18, 4), torch.ones(18))), {},
        TypeError, "squeeze of x's dtype torch.float64, got torch.float32",
    ),
    (
        dict(x=torch.ones(2, 8, 4, 7, 6).double().requires_grad_()), {}, TypeError,
        "x that requires no gradient, got one that does",
    ),
]  # fmt: skip


@pytest.mark.parametrize("change, options, error, message", BAD)
def test_bad_input(change, options, error, message):
    with pytest.raises(error, match="^" + re.escape(f"x3d_block: expected {message}")):
        x3d_block(**(arguments() | change), **options)
