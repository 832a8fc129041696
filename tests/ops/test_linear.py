"""linear: which product runs, layers on top of it, and how it refuses."""

import importlib
import re

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import profile

from skelops import linear, nn

module = importlib.import_module("skelops.ops.linear")


def run_ops(function, *args):
    with profile() as recorded:
        function(*args)
    return {event.key for event in recorded.key_averages()}


@pytest.mark.parametrize("pays", [True, False])
def test_the_faster_product_runs(monkeypatch, pays):
    monkeypatch.setattr(module, "FASTER_HERE", pays)
    x, w = torch.randn(module.MIN_ROWS, 8), torch.randn(5, 8)
    assert ("skelops::linear" in run_ops(linear, x, w)) == pays
    assert "skelops::linear" not in run_ops(linear, x[1:], w)
    assert "skelops::linear" not in run_ops(linear, x.bfloat16(), w.bfloat16())


@pytest.mark.parametrize(
    "vendor, isa, mkl, pays",
    [
        ("AuthenticAMD", "v4", True, True),
        ("GenuineIntel", "v4", True, False),
        ("AuthenticAMD", "v3", True, False),
        ("AuthenticAMD", "v4", False, False),
    ],
)
def test_where_it_pays(monkeypatch, vendor, isa, mkl, pays):
    monkeypatch.setattr("skelops._build.cpu_vendor", lambda: vendor)
    monkeypatch.setattr("skelops._build.cpu_isa", lambda: isa)
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: mkl)
    assert module.faster_here() == pays


@pytest.mark.parametrize("shape", [(40, 16), (2, 3, 50, 16), (0, 16)])
def test_a_layer(monkeypatch, shape):
    monkeypatch.setattr(module, "FASTER_HERE", True)
    layer, x = nn.Linear(16, 24), torch.randn(shape)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x": torch.tensor(1.0)}, ValueError, "x of shape (..., C), got ()"),
        ({"weight": torch.randn(5, 3)}, ValueError, "weight of shape (D, C) with C=4"),
        ({"bias": torch.randn(4)}, ValueError, "bias of shape (D) with D=5"),
        ({"weight": torch.randn(5, 4).double()}, TypeError, "weight of x's dtype"),
    ],
)
def test_bad_input(changes, error, message):
    given = {"x": torch.randn(2, 4), "weight": torch.randn(5, 4), "bias": torch.randn(5)} | changes
    with pytest.raises(error, match=re.escape(f"linear: expected {message}")):
        linear(**given)
