"""hypergraph_conv: what the mathematics demands of it, and how it refuses."""

import re

import pytest
import torch

from skelops import graph_conv, hypergraph_conv

F64 = torch.float64


def inputs(N=2, C=8, D=12, T=5, V=7, Q=3, K=4, dtype=F64):
    return (
        torch.randn(N, C, T, V, dtype=dtype),
        torch.randn(N, K, V, V + Q, dtype=dtype) / V,
        torch.randn(D, C // K, dtype=dtype),
        torch.randn(D, dtype=dtype),
        torch.randn(Q, C, dtype=dtype) if Q else None,
    )


def concatenated(x, A, weight, bias, virtual):
    """As published: virtual joints behind every frame, rows of all joints, a slice."""
    (N, _, T, V), K, Q = x.shape, A.shape[1], len(virtual)
    table = virtual.T[None, :, None].expand(N, -1, T, -1)
    A = torch.cat([A, torch.randn(N, K, Q, V + Q, dtype=A.dtype)], 2)
    x = torch.cat([x, table], -1)
    f = torch.nn.functional.conv2d(x, weight[:, :, None, None], bias, groups=K)
    y = torch.einsum("nkuv,nkctv->nkctu", A, f.unflatten(1, (K, -1)))
    return y.flatten(1, 2)[..., :V]


@pytest.mark.parametrize("D", [4, 8, 20])
def test_equals_the_concatenated_form(D):
    args = inputs(D=D)
    torch.testing.assert_close(hypergraph_conv(*args), concatenated(*args))
    leaves = [t.requires_grad_() for t in args]
    grad = torch.randn(2, D, 5, 7, dtype=F64)
    found, expected = (
        torch.autograd.grad(f(*leaves), leaves, grad) for f in (hypergraph_conv, concatenated)
    )
    for g, e in zip(found, expected, strict=True):
        torch.testing.assert_close(g, e)


def test_equals_its_equation():
    x, A, weight, bias, virtual = inputs()
    y = hypergraph_conv(x, A, weight, bias, virtual)
    n, k, c, t, u = 1, 2, 1, 3, 4
    row = k * 3 + c
    joints = torch.cat([x[n, 4:6, t].T, virtual[:, 4:6]])
    features = joints @ weight[row] + bias[row]
    torch.testing.assert_close(y[n, row, t, u], A[n, k, u] @ features)


def test_one_head_without_virtual_joints_is_graph_conv():
    x, A, weight, bias, _ = inputs(Q=0, K=1)
    torch.testing.assert_close(
        hypergraph_conv(x, A, weight, bias), graph_conv(x, A, weight[None], bias[None])
    )


def test_heads_do_not_mix():
    x, A, weight, bias, virtual = inputs()
    y = hypergraph_conv(x, A, weight, bias, virtual)
    for k in range(4):
        i, c = slice(2 * k, 2 * k + 2), slice(3 * k, 3 * k + 3)
        head = hypergraph_conv(x[:, i], A[:, k : k + 1], weight[c], bias[c], virtual[:, i])
        torch.testing.assert_close(y[:, c], head)


def test_virtual_joints_are_a_bias():
    """Their share is the same in all frames, and does not depend on x."""
    x, A, weight, bias, virtual = inputs()
    share = hypergraph_conv(x, A, weight, bias, virtual) - hypergraph_conv(
        x, A[..., :7], weight, bias
    )
    torch.testing.assert_close(share, share[:, :, :1].expand_as(share))
    other = hypergraph_conv(torch.zeros_like(x), A, weight, None, virtual)
    torch.testing.assert_close(
        hypergraph_conv(x, A, weight, None, virtual) - hypergraph_conv(x, A[..., :7], weight), other
    )


def test_no_virtual_joints_in_either_form():
    x, A, weight, bias, _ = inputs(Q=0)
    none = hypergraph_conv(x, A, weight, bias)
    torch.testing.assert_close(hypergraph_conv(x, A, weight, bias, x.new_empty(0, 8)), none)


def test_shared_graph_equals_it_per_sample():
    x, A, weight, bias, virtual = inputs()
    A = A[0]
    torch.testing.assert_close(
        hypergraph_conv(x, A, weight, bias, virtual),
        hypergraph_conv(x, A.expand(2, *A.shape), weight, bias, virtual),
    )


def test_joints_may_be_renumbered():
    x, A, weight, bias, virtual = inputs()
    p = torch.randperm(7)
    columns = torch.cat([p, torch.tensor([8, 9, 7])])
    y = hypergraph_conv(x, A, weight, bias, virtual)
    renumbered = hypergraph_conv(
        x[..., p], A[:, :, p][..., columns], weight, bias, virtual[[1, 2, 0]]
    )
    torch.testing.assert_close(renumbered, y[..., p])


def test_nan_in_the_graph_reaches_its_joint_only():
    x, A, weight, bias, virtual = inputs()
    A[0, 1, 2, 5] = float("nan")
    y = hypergraph_conv(x, A, weight, bias, virtual)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[0, 3:6, :, 2] = True
    assert torch.equal(y.isnan(), expected)


@pytest.mark.parametrize("sizes", [{"N": 0}, {"T": 0}, {"V": 1, "T": 1}, {"D": 4}])
def test_degenerate_sizes(sizes):
    tensors = [t.requires_grad_() for t in inputs(**sizes)]
    y = hypergraph_conv(*tensors)
    assert y.shape == (sizes.get("N", 2), sizes.get("D", 12), sizes.get("T", 5), sizes.get("V", 7))
    for t, g in zip(tensors, torch.autograd.grad(y.sum(), tensors), strict=True):
        assert g.shape == t.shape and g.isfinite().all()


def test_inference_mode():
    args = inputs()
    args[1].requires_grad_()
    expected = hypergraph_conv(*args)
    with torch.inference_mode():
        y = hypergraph_conv(*args)
    assert not y.requires_grad
    assert torch.equal(y, expected)


BAD = [
    (dict(x=torch.ones(2, 8, 7)), ValueError, "x of shape (N, C, T, V), got (2, 8, 7)"),
    (dict(x=torch.ones(2, 8, 5, 0)), ValueError, "x with at least one joint, got (2, 8, 5, 0)"),
    (
        dict(x=torch.ones(2, 8, 5, 6)),
        ValueError,
        "A of shape (N, K, V, V+Q) with N=2, V=6, V+Q=9, got (2, 4, 7, 10)",
    ),
    (dict(x=torch.ones(2, 8, 5, 7).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(x=None), TypeError, "x to be a tensor, got NoneType"),
    (dict(A=torch.ones(7, 10)), ValueError, "A of shape (K, V, V+Q) with V=7, V+Q=10, got (7, 10)"),
    (dict(A=torch.ones(2, 4, 10, 10)), ValueError, "A of shape (N, K, V, V+Q) with N=2, V=7, V+Q"),
    (dict(A=torch.ones(3, 4, 7, 10)), ValueError, "A of shape (N, K, V, V+Q) with N=2, V=7, V+Q"),
    (dict(A=torch.ones(0, 7, 10)), ValueError, "A of K heads that divide C=8, got (0, 7, 10)"),
    (dict(A=torch.ones(3, 7, 10)), ValueError, "A of K heads that divide C=8, got (3, 7, 10)"),
    (dict(A=torch.ones(4, 7, 10).double()), TypeError, "A of x's dtype torch.float32, got"),
    (dict(A=torch.ones(4, 7, 10, device="meta")), ValueError, "A on x's device cpu, got meta"),
    (dict(weight=3.0), TypeError, "weight to be a tensor, got float"),
    (dict(weight=torch.ones(12, 8)), ValueError, "weight of shape (C', C/K) with C/K=2, got"),
    (
        dict(weight=torch.ones(10, 2)),
        ValueError,
        "weight of C' rows divisible by K=4, got (10, 2)",
    ),
    (dict(bias=torch.ones(8)), ValueError, "bias of shape (C') with C'=12, got (8,)"),
    (dict(bias=torch.ones(12).half()), TypeError, "bias of x's dtype torch.float32, got"),
    (dict(virtual=torch.ones(3, 2)), ValueError, "virtual of shape (Q, C) with C=8, got (3, 2)"),
    (dict(virtual=None), ValueError, "A of shape (N, K, V, V+Q) with N=2, V=7, V+Q=7, got"),
    (dict(virtual=torch.ones(2, 8)), ValueError, "A of shape (N, K, V, V+Q) with N=2, V=7, V+Q=9"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    names = ("x", "A", "weight", "bias", "virtual")
    arguments = dict(zip(names, inputs(dtype=torch.float32), strict=True)) | change
    with pytest.raises(error, match="^" + re.escape(f"hypergraph_conv: expected {message}")):
        hypergraph_conv(**arguments)
