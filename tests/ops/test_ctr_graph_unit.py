"""ctr_graph_unit: the ops of which it is made; how it refuses."""

import re

import pytest
import torch

from skelops import bn_act_add, ctr_graph_conv, ctr_graph_unit, temporal_mean

N, C, D, T, V, K, R = 2, 4, 6, 5, 7, 3, 2
SIZES = {
    "A": (K, V, V), "alpha": (1,), "embed_weight": (2, K, R, C), "embed_bias": (2, K, R),
    "weight4": (K, D, R), "bias4": (K, D), "weight": (K, D, C), "bias": (K, D),
}  # fmt: skip


def arguments():
    torch.manual_seed(0)
    sizes = {"x": (N, C, T, V), **SIZES}
    return {name: torch.randn(size, dtype=torch.float64) for name, size in sizes.items()}


@pytest.mark.parametrize("transposed", [False, True])
def test_is_its_ops(transposed):
    a = arguments()
    norm = torch.rand(4, D, dtype=torch.float64) + 0.5
    residual = torch.randn(N, D, T, V, dtype=torch.float64)
    e = torch.einsum("skrc,ncv->snkrv", a["embed_weight"], temporal_mean(a["x"]))
    p, q = e + a["embed_bias"][:, None, ..., None]
    rest = (a[name] for name in ("alpha", "weight4", "bias4", "weight", "bias"))
    z = ctr_graph_conv(a["x"], a["A"], p, q, *rest, transposed=transposed)
    expected = bn_act_add(z, *norm, residual, training=False)
    whole = ctr_graph_unit(**a, transposed=transposed, norm=[*norm], residual=residual)
    torch.testing.assert_close(whole, expected)
    pieces = {k: [*t] if k not in ("x", "A", "alpha") else t for k, t in a.items()}
    found = ctr_graph_unit(**pieces, transposed=transposed, norm=[*norm], residual=residual)
    assert torch.equal(found, whole)


BAD = [
    (dict(A=torch.ones(K, V, 6).double()), ValueError, "A of shape (K, V, V) with V=7, got"),
    (dict(alpha=torch.ones(2).double()), ValueError, "alpha of 1 elements, got 2"),
    (dict(embed_bias=torch.ones(13).double()), ValueError, "embed_bias of 12 elements, got 13"),
    (dict(embed_weight=torch.ones(47).double()), ValueError, "embed_weight of 48 elements, got 47"),
    (dict(weight4=torch.ones(35).double()), ValueError, "weight4 of 36 elements, got 35"),
    (dict(bias4=[torch.ones(9)] * 2), TypeError, "bias4 of x's dtype torch.float64, got"),
    (dict(bias=torch.ones(17).double()), ValueError, "bias of 18 elements, got 17"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match="^" + re.escape(f"ctr_graph_unit: expected {message}")):
        ctr_graph_unit(**(arguments() | change))
