"""graph_unit: the ops of which it is made; how it refuses."""

import re

import pytest
import torch

from skelops import bn_act_add, graph_conv, graph_unit


def arguments(N=2, C=4, D=6, T=5, V=7, K=3):
    torch.manual_seed(0)
    x, A = torch.randn(N, C, T, V), torch.randn(K, V, V) / V
    return x.double(), A.double(), torch.randn(K, D, C).double(), torch.randn(K, D).double()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_is_its_ops(after, transposed):
    x, A, weight, bias = arguments()
    norm = torch.rand(4, 6, dtype=torch.float64) + 0.5
    residual = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    z = graph_conv(x, A, weight, bias.sum(0) if after else bias, transposed=transposed)
    expected = bn_act_add(z, *norm, residual, training=False, eps=1e-2)
    found = graph_unit(
        x, A, [*weight], [*bias], bias_after=after, transposed=transposed, norm=[*norm],
        residual=residual, eps=1e-2,
    )  # fmt: skip
    torch.testing.assert_close(found, expected)


def test_a_single_bias_after_aggregation_is_added_as_it_is():
    x, A, weight, bias = arguments()
    found = graph_unit(x, A, weight, bias[0], bias_after=True, relu=False)
    torch.testing.assert_close(found, graph_conv(x, A, weight, bias[0]))


X, A, WEIGHT, _ = arguments()
BAD = [
    (dict(A=A[:, :6]), ValueError, "A of shape (K, V, V) with V=7, got (3, 6, 7)"),
    (dict(A=A[:0]), ValueError, "A with at least one subset, got (0, 7, 7)"),
    (dict(A=A.float()), TypeError, "A of x's dtype torch.float64, got torch.float32"),
    (dict(weight=WEIGHT[:, :, :3]), ValueError, "weight of 48 elements, got 54"),
    (dict(bias=WEIGHT[:, :2, 0]), ValueError, "bias of 18 elements, got 6"),
    (dict(residual=X), ValueError, "residual of shape (N, C, T, V) with N=2, C=6, T=5, V=7, got"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match="^" + re.escape(f"graph_unit: expected {message}")):
        graph_unit(**({"x": X, "A": A, "weight": WEIGHT} | change))
