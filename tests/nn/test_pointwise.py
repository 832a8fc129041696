"""pointwise_conv: the module's own result and gradients, by products."""

import pytest
import torch
from torch import nn

from skelops.nn.pointwise import pointwise_conv


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_convolution(stride, bias):
    conv = nn.Conv2d(6, 10, 1, stride=(stride, 1), bias=bias)
    x = torch.randn(3, 6, 7, 5, requires_grad=True)
    leaves = [x, *conv.parameters()]
    expected, y = conv(x), pointwise_conv(conv, x)
    torch.testing.assert_close(y, expected)
    grad = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(t, leaves, grad) for t in (y, expected))
    for g, e in zip(found, wanted, strict=True):
        torch.testing.assert_close(g, e)


def test_does_not_call_a_plain_convolution():
    conv = nn.Conv2d(4, 4, 1)
    calls = []
    conv.register_forward_hook(lambda *_: calls.append(1))
    pointwise_conv(conv, torch.randn(2, 4, 3, 5))
    assert not calls


@pytest.mark.parametrize(
    "conv, x",
    [
        (nn.Conv2d(4, 4, (3, 1), padding=(1, 0)), torch.randn(2, 4, 3, 5)),
        (nn.Conv2d(4, 4, 1, groups=2), torch.randn(2, 4, 3, 5)),
        (nn.Conv2d(4, 4, 1).double(), torch.randn(2, 4, 3, 5, dtype=torch.float64)),
        (nn.Identity(), torch.randn(2, 4, 3, 5)),
    ],
)
def test_calls_what_is_not_one(conv, x):
    assert torch.equal(pointwise_conv(conv, x), conv(x))
