"""mlp: the GELU over all its range, what is kept for the backward, and how it refuses."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops import mlp
from skelops.nn.transformer import MLP


def identity(width):
    """Weights of which only the GELU is left."""
    return torch.eye(width), torch.zeros(width), torch.eye(width), torch.zeros(width)


def test_gelu_and_its_slope():
    x = torch.linspace(-15, 15, 60_000).view(-1, 4).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, expected = mlp(x, *identity(4)), F.gelu(exact)
    torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=5e-7)
    slope = torch.autograd.grad(y.sum(), x)[0].double()
    wanted = torch.autograd.grad(expected.sum(), exact)[0]
    torch.testing.assert_close(slope, wanted, rtol=1e-6, atol=5e-7)


def test_numbers_that_are_none_stay():
    x = torch.tensor([[float("nan")], [float("inf")], [1e30]])
    y = mlp(x, *identity(1))[:, 0]
    assert y[0].isnan() and y[1] == float("inf") and y[2] == 1e30


def test_nothing_of_the_hidden_width_is_kept():
    layer, x = MLP(8, 512), torch.randn(100, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x).sum()
    parameters = {p.data_ptr() for p in layer.parameters()}
    assert sum(t.numel() for t in kept if t.data_ptr() not in parameters) == x.numel()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x": torch.tensor(1.0)}, ValueError, "x of shape (..., C), got ()"),
        ({"w1": torch.randn(6, 3)}, ValueError, "w1 of shape (H, C) with C=4"),
        ({"b1": torch.randn(5)}, ValueError, "b1 of shape (H) with H=6"),
        ({"w2": torch.randn(6, 4)}, ValueError, "w2 of shape (C, H) with C=4, H=6"),
        ({"b2": torch.randn(4).double()}, TypeError, "b2 of x's dtype"),
    ],
)
def test_bad_input(changes, error, message):
    shapes = {"x": (2, 4), "w1": (6, 4), "b1": (6,), "w2": (4, 6), "b2": (4,)}
    given = {name: torch.randn(shape) for name, shape in shapes.items()} | changes
    with pytest.raises(error, match=re.escape(f"mlp: expected {message}")):
        mlp(**given)
