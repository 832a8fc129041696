"""temporal_unit: the layers of which it is made; how it refuses."""

import re

import pytest
import torch
from torch import nn

from skelops import temporal_unit


def norm(channels, pieces=1):
    """Normalisations of neighbouring channels and their tensors, in the order of the op."""
    torch.manual_seed(1)
    layers = [nn.BatchNorm2d(channels // pieces).double().eval() for _ in range(pieces)]
    for bn in layers:
        for t, low in (
            (bn.weight, 0.5),
            (bn.bias, -1),
            (bn.running_mean, -1),
            (bn.running_var, 0.5),
        ):
            nn.init.uniform_(t, low, 1.5)
    names = ("weight", "bias", "running_mean", "running_var")
    return layers, [getattr(bn, name).detach() for name in names for bn in layers]


@pytest.mark.parametrize("k, stride, dilation", [(1, 1, 1), (1, 2, 1), (9, 1, 1), (5, 2, 3)])
def test_is_its_layers(k, stride, dilation):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 11, 7, dtype=torch.float64)
    pad = dilation * (k // 2)
    conv = nn.Conv2d(6, 8, (k, 1), (stride, 1), (pad, 0), (dilation, 1)).double()
    (first, second), tensors = norm(8, pieces=2)
    with torch.no_grad():
        z = conv(x)
        y = torch.cat([first(z[:, :4]), second(z[:, 4:])], 1)
        residual = torch.randn_like(y)
        found = temporal_unit(
            x, conv.weight, conv.bias, kernel_size=k, stride=stride, dilation=dilation,
            norm=tensors, residual=residual,
        )  # fmt: skip
    torch.testing.assert_close(found, (y + residual).relu())


def test_neighbouring_convolutions_are_pieces():
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    weight, bias = torch.randn(3, 4, 6).double(), torch.randn(3, 4).double()
    whole = temporal_unit(x, weight.flatten(0, 1), bias.flatten())
    assert torch.equal(temporal_unit(x, [*weight], [*bias]), whole)


def test_changed_parameters_count_at_once():
    x, weight = torch.randn(1, 4, 5, 3), torch.randn(4, 4)
    temporal_unit(x, weight, relu=False)
    weight.data.mul_(2)
    torch.testing.assert_close(
        temporal_unit(x, weight, relu=False), torch.einsum("oi,nitv->notv", weight, x)
    )


X = torch.ones(2, 3, 5, 4)
BAD = [
    (dict(x=X[0]), ValueError, "x of shape (N, C, T, V), got (3, 5, 4)"),
    (dict(x=X[:, :, :0]), ValueError, "x with a channel, a frame and a joint, got (2, 3, 0, 4)"),
    (dict(x=X.long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(x=X.clone().requires_grad_()), TypeError, "x that requires no gradient, got one that"),
    (dict(weight=torch.ones(7)), ValueError, "weight of 6 elements, got 7"),
    (dict(weight=torch.ones(6).double()), TypeError, "weight of x's dtype torch.float32, got"),
    (dict(weight=[1]), TypeError, "weight of tensors, got int"),
    (dict(bias=torch.ones(3)), ValueError, "bias of 2 elements, got 3"),
    (dict(kernel_size=2), ValueError, "an odd kernel_size, got 2"),
    (dict(stride=0), ValueError, "stride and dilation >= 1, got 0 and 1"),
    (dict(norm=[torch.ones(2)] * 3), ValueError, "norm of weights, biases, means and variances"),
    (dict(norm=[torch.ones(3)] * 4), ValueError, "norm of 2 elements, got 3"),
    (dict(norm=[torch.ones(2).half()] * 4), TypeError, "norm of x's dtype torch.float32, got"),
    (dict(residual=X), ValueError, "residual of shape (N, C, T, V) with N=2, C=2, T=5, V=4, got"),
]  # fmt: skip


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = {"x": X, "weight": torch.ones(2, 3)} | change
    with pytest.raises(error, match="^" + re.escape(f"temporal_unit: expected {message}")):
        temporal_unit(**arguments)
