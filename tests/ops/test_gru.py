"""gru: PyTorch's own units, states before the first frame, and how it refuses."""

import re

import pytest
import torch

from skelops import gru, use_backend
from skelops._library import OPS
from skelops.testing.contract import available_backends

WAYS = [b for b in ("cpu", "reference") if b in available_backends(OPS["mcu_scan"])]


def layer(C=5, H=7):
    torch.manual_seed(0)
    return torch.nn.GRU(C, H, batch_first=True, bidirectional=True).double()


def weights(of):
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [torch.stack([getattr(of, f"{n}_l0{d}") for d in ("", "_reverse")]) for n in names]


@pytest.mark.parametrize("backend", WAYS)
@pytest.mark.parametrize("N, T", [(2, 9), (40, 3), (3, 1)])
def test_both_directions_of_pytorch(backend, N, T):
    stock, x = layer(), torch.randn(N, T, 5, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(2, N, 7, dtype=torch.float64, requires_grad=True)
    expected = stock(x, h0)[0]
    with use_backend(backend):
        forward = gru(x, *weights(stock), h0)[..., :7]
        backward = gru(x.flip(1), *weights(stock), h0)[..., 7:].flip(1)
    found = torch.cat([forward, backward], 2)
    torch.testing.assert_close(found, expected)
    wanted = (x, h0, *stock.parameters())
    g = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, wanted, g), torch.autograd.grad(expected, wanted, g), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", WAYS)
def test_in_autocast(backend):
    x, w = torch.randn(3, 4, 5), [t.float() for t in weights(layer())]
    exact = gru(x, *w)
    with use_backend(backend), torch.autocast("cpu", torch.bfloat16):
        found = gru(x, *w)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x": torch.zeros(2, 5)}, ValueError, "x of shape (N, T, C), got (2, 5)"),
        ({"weight_hh": torch.zeros(2, 20, 7)}, ValueError, "weight_hh of shape (S, 3*H, H)"),
        ({"weight_ih": torch.zeros(2, 21, 4)}, ValueError, "weight_ih of shape (S, 3*H, C)"),
        ({"bias_hh": torch.zeros(2, 7)}, ValueError, "bias_hh of shape (S, 3*H)"),
        ({"h0": torch.zeros(2, 3, 7)}, ValueError, "h0 of shape (S, N, H)"),
        ({"bias_ih": torch.zeros(2, 21).double()}, TypeError, "bias_ih of x's dtype"),
    ],
)
def test_bad_input(changes, error, message):
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    given = dict(zip(names, (t.float() for t in weights(layer())), strict=True))
    with pytest.raises(error, match=re.escape(f"gru: expected {message}")):
        gru(**{"x": torch.zeros(2, 4, 5)} | given | changes)
