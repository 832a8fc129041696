"""temporal_conv: the convolution it is, its rounding, where networks use it; bad input."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import profile

from skelops import temporal_conv
from skelops.nn import TemporalConv
from skelops.nn.convolve import convolve
from skelops.testing.threads import threads


def direct(x, weight, bias, stride=1):
    return F.conv2d(x, weight[..., None], bias, (stride, 1), (weight.shape[-1] // 2, 0))


@pytest.mark.parametrize("stride", [1, 2, 3, 6])
@pytest.mark.parametrize("k", [1, 3, 5, 7, 9, 11, 13])
@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 12, 17])
def test_is_a_convolution(k, T, stride):
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 5, T, 7), (14, 5, k), (14,))
    ]
    found, expected = temporal_conv(*inputs, stride), direct(*inputs, stride)
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad)
    )


@pytest.mark.parametrize("N, C", [(70, 5), (6, 180)])  # many slices of a batch, and few
def test_more_threads_change_no_bit(N, C):
    x, weight = torch.randn(N, C, 9, 3), (torch.randn(C, C, 9) / C).requires_grad_()
    found = []
    for count in (1, 2, 4):
        with threads(count):
            y = temporal_conv(x, weight, stride=2)
            found.append((y.detach(), *torch.autograd.grad(y.square().sum(), weight)))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    (expected,) = torch.autograd.grad(direct(x, weight, None, 2).square().sum(), weight)
    torch.testing.assert_close(found[0][1], expected, rtol=1e-4, atol=1e-4)


def test_rounding_is_of_single_precision():
    x, weight = torch.randn(4, 128, 32, 25).relu(), torch.randn(64, 128, 9) / 34
    exact = direct(x.double(), weight.double(), None)

    def error(y):
        return (y - exact).square().mean().sqrt() / exact.square().mean().sqrt()

    assert error(temporal_conv(x, weight)) < 1e-6


def test_no_samples():
    x, weight = torch.randn(0, 8, 4, 2, requires_grad=True), torch.randn(5, 8, 3).requires_grad_()
    y = temporal_conv(x, weight)
    dx, dweight = torch.autograd.grad(y.sum(), (x, weight))
    assert y.shape == (0, 5, 4, 2) and dx.shape == x.shape and (dweight == 0).all()


def ops_of(function, *args):
    with profile() as recorded, torch.no_grad():
        function(*args)
    return {event.key for event in recorded.key_averages()}


@pytest.mark.parametrize(
    "changes, shape, pays",
    [
        ({}, (8, 32, 16, 25), True),
        ({}, (8, 32, 12, 25), False),
        ({}, (1, 32, 16, 5), False),
        ({"in_channels": 16}, (8, 16, 16, 25), False),
        ({"stride": (2, 1)}, (8, 32, 31, 25), True),
        ({"stride": (2, 1)}, (8, 32, 30, 25), False),
        ({"stride": (1, 2)}, (8, 32, 16, 25), False),
        ({"padding": (3, 0)}, (8, 32, 16, 25), False),
        ({"padding_mode": "replicate"}, (8, 32, 16, 25), False),
        ({"dilation": (2, 1), "padding": (8, 0)}, (8, 32, 16, 25), False),
        ({"groups": 2}, (8, 32, 16, 25), False),
    ],
)
def test_layers_use_it_where_it_pays(changes, shape, pays):
    options = {"in_channels": 32, "out_channels": 32, "kernel_size": (9, 1), "padding": (4, 0)}
    conv, x = nn.Conv2d(**options | changes), torch.randn(shape)
    assert ("skelops::temporal_conv" in ops_of(convolve, conv, x)) == pays
    torch.testing.assert_close(convolve(conv, x), conv(x), rtol=1e-5, atol=1e-5)
    assert "skelops::temporal_conv" not in ops_of(convolve, conv.double(), x.double())


def test_the_module_of_st_gcn_uses_it():
    assert "skelops::temporal_conv" in ops_of(TemporalConv(32, 64), torch.randn(4, 32, 16, 25))


EMPTY = "x with a channel, a frame and a joint, got "
BAD = [
    (dict(x=torch.ones(1, 0, 3, 2)), ValueError, f"{EMPTY}(1, 0, 3, 2)"),
    (dict(x=torch.ones(1, 8, 0, 2)), ValueError, f"{EMPTY}(1, 8, 0, 2)"),
    (dict(x=torch.ones(1, 8, 3, 0)), ValueError, f"{EMPTY}(1, 8, 3, 0)"),
    (dict(weight=torch.ones(0, 8, 3)), ValueError, "an output channel, got (0, 8, 3)"),
    (dict(x=torch.ones(3, 8)), ValueError, "x of shape (N, C, T, V), got (3, 8)"),
    (dict(x=torch.ones(1, 8, 3, 2).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(weight=torch.ones(4, 7, 3)), ValueError, "weight of shape (C', C, k) with C=8"),
    (dict(weight=torch.ones(4, 8, 2)), ValueError, "an odd kernel, got 2"),
    (dict(stride=0), ValueError, "stride >= 1, got 0"),
    (dict(bias=torch.ones(3)), ValueError, "bias of shape (C') with C'=4, got (3,)"),
    (dict(weight=torch.ones(4, 8, 3).double()), TypeError, "weight of x's dtype torch.float32"),
]


@pytest.mark.parametrize("change, error, message", BAD, ids=[m for _, _, m in BAD])
def test_bad_input(change, error, message):
    good = dict(x=torch.ones(1, 8, 3, 2), weight=torch.ones(4, 8, 3), bias=torch.ones(4))
    with pytest.raises(error, match=re.escape(message)):
        temporal_conv(**good | change)
