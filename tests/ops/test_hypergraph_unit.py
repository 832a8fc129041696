"""hypergraph_unit: that it is the convolution and the tail of a block, and how it refuses."""

import re

import pytest
import torch

from skelops import bn_act_add, hypergraph_conv, hypergraph_unit

F64 = torch.float64


def inputs(N=3, C=8, T=5, V=7, Q=3, K=4, dtype=F64):
    return {
        "x": torch.randn(N, C, T, V, dtype=dtype),
        "A": torch.randn(N, K, V, V + Q, dtype=dtype) / V,
        "weight": torch.randn(C, C // K, dtype=dtype),
        "bias": torch.randn(C, dtype=dtype),
        "virtual": torch.randn(Q, C, dtype=dtype),
        "norm_weight": torch.rand(C, dtype=dtype) + 0.5,
        "norm_bias": torch.randn(C, dtype=dtype),
    }


def statistics(C=8):
    return torch.randn(C, dtype=F64), torch.rand(C, dtype=F64) + 0.5


def composed(x, A, weight, bias, virtual, norm_weight, norm_bias, mean, var, residual, training):
    z = hypergraph_conv(x, A, weight, bias, virtual)
    r = x if residual else None
    return bn_act_add(z, norm_weight, norm_bias, mean, var, r, training=training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_is_the_convolution_and_the_tail(residual, training):
    leaves = {name: t.requires_grad_() for name, t in inputs().items()}
    grad, (mean, var) = torch.randn(3, 8, 5, 7, dtype=F64), statistics()
    ours, theirs = (mean.clone(), var.clone()), (mean.clone(), var.clone())
    y = hypergraph_unit(**leaves, running_mean=ours[0], running_var=ours[1], residual=residual,
                        training=training)  # fmt: skip
    expected = composed(*leaves.values(), *theirs, residual, training)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[0], mean) != training
    found, wanted = (torch.autograd.grad(t, leaves.values(), grad) for t in (y, expected))
    for g, e in zip(found, wanted, strict=True):
        torch.testing.assert_close(g, e)


def test_result_is_not_kept_for_the_backward():
    leaves = {name: t.requires_grad_() for name, t in inputs().items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = hypergraph_unit(**leaves, residual=True, training=True)
    assert len(kept) > len(leaves)
    assert all(t.data_ptr() != y.data_ptr() for t in kept)


BAD = [
    (dict(x=torch.ones(3, 8, 7)), ValueError, "x of shape (N, C, T, V), got (3, 8, 7)"),
    (dict(weight=torch.ones(12, 8)), ValueError, "weight of shape (C', C/K) with C/K=2, got"),
    (dict(weight=torch.ones(12, 2), bias=None), ValueError, "weight of C'=8 rows, as many as x"),
    (dict(norm_weight=torch.ones(4)), ValueError, "norm_weight of shape (C') with C'=8, got (4,)"),
    (dict(norm_bias=3.0), TypeError, "norm_bias to be a tensor, got float"),
    (dict(running_mean=torch.ones(8)), ValueError, "running_mean and running_var or neither"),
    (dict(training=False), ValueError, "running_mean and running_var outside training, got None"),
    (
        dict(x=torch.ones(1, 8, 1, 1), A=torch.ones(4, 1, 4)),
        ValueError,
        "x with more than one value per channel in training, got (1, 8, 1, 1)",
    ),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = inputs(dtype=torch.float32) | {"residual": True, "training": True} | change
    with pytest.raises(error, match="^" + re.escape(f"hypergraph_unit: expected {message}")):
        hypergraph_unit(**arguments)
