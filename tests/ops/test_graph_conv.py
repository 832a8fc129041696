"""graph_conv: what the mathematics demands of it, and how it refuses."""

import re

import pytest
import torch

import skelops
from skelops import graph_conv


def inputs(N=2, C=4, D=6, T=5, V=7, K=3, dtype=torch.float64):
    x = torch.randn(N, C, T, V, dtype=dtype)
    A = torch.randn(K, V, V, dtype=dtype) / V
    weight, bias = torch.randn(K, D, C, dtype=dtype), torch.randn(K, D, dtype=dtype)
    return x, A, weight, bias


def identity(K=1, V=7, dtype=torch.float64):
    return torch.eye(V, dtype=dtype).expand(K, V, V)


def test_equals_its_equation():
    x, A, weight, bias = inputs(N=1, C=2, D=2, T=2, V=3, K=2)
    z = graph_conv(x, A, weight, bias)
    n, c, t, u = 0, 1, 1, 2
    expected = sum(
        A[k, u, v] * (weight[k, c] @ x[n, :, t, v] + bias[k, c]) for k in range(2) for v in range(3)
    )
    torch.testing.assert_close(z[n, c, t, u], expected)


def test_identity_graph_is_the_feature_transform():
    x, _, weight, bias = inputs(K=1)
    z = graph_conv(x, identity(), weight, bias)
    expected = torch.nn.functional.conv2d(x, weight[0, :, :, None, None], bias[0])
    torch.testing.assert_close(z, expected)


def test_identity_subsets_sum_up():
    x, _, weight, _ = inputs()
    torch.testing.assert_close(
        graph_conv(x, identity(3), weight), graph_conv(x, identity(), weight.sum(0, keepdim=True))
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_joints_may_be_renumbered(transposed):
    x, A, weight, bias = inputs()
    p = torch.randperm(7)
    z = graph_conv(x, A, weight, bias, transposed=transposed)
    renumbered = graph_conv(x[..., p], A[:, p][:, :, p], weight, bias, transposed=transposed)
    torch.testing.assert_close(renumbered, z[..., p])


def test_sides_are_transposes():
    x, A, weight, bias = inputs()
    torch.testing.assert_close(
        graph_conv(x, A, weight, bias, transposed=True), graph_conv(x, A.mT, weight, bias)
    )


def test_is_linear():
    x, A, weight, _ = inputs()
    y = torch.randn_like(x)
    torch.testing.assert_close(
        graph_conv(2 * x - 3 * y, A, weight),
        2 * graph_conv(x, A, weight) - 3 * graph_conv(y, A, weight),
    )
    torch.testing.assert_close(graph_conv(x, 2 * A, weight), 2 * graph_conv(x, A, weight))


def test_aggregation_and_transform_commute():
    x, A, weight, _ = inputs()
    aggregated = [graph_conv(x, a[None]) for a in A]
    expected = sum(
        torch.einsum("nctv,dc->ndtv", y, w) for y, w in zip(aggregated, weight, strict=True)
    )
    torch.testing.assert_close(graph_conv(x, A, weight), expected)


def test_transform_outside_equals_inside():
    x, A, weight, bias = inputs()
    features = torch.einsum("nctv,kdc->nkdtv", x, weight) + bias[:, :, None, None]
    torch.testing.assert_close(
        graph_conv(features.flatten(1, 2), A), graph_conv(x, A, weight, bias)
    )


def test_the_two_biases():
    x, A, weight, bias = inputs()
    plain = graph_conv(x, A, weight)
    torch.testing.assert_close(graph_conv(x, A, weight, bias[0]), plain + bias[0][:, None, None])
    spread = torch.einsum("kuv,kd->du", A, bias)
    torch.testing.assert_close(graph_conv(x, A, weight, bias), plain + spread[:, None])


@pytest.mark.parametrize("transposed", [False, True])
def test_shared_graph_equals_it_per_sample(transposed):
    x, A, weight, bias = inputs()
    torch.testing.assert_close(
        graph_conv(x, A.expand(2, *A.shape), weight, bias, transposed=transposed),
        graph_conv(x, A, weight, bias, transposed=transposed),
    )


def test_samples_do_not_mix():
    x, A, weight, bias = inputs(N=3)
    A = torch.randn(3, *A.shape, dtype=A.dtype)
    alone = [graph_conv(x[i : i + 1], A[i : i + 1], weight, bias) for i in range(3)]
    torch.testing.assert_close(graph_conv(x, A, weight, bias), torch.cat(alone))


def test_absent_person_leaves_only_the_bias():
    x, A, weight, bias = inputs()
    x[1] = 0
    assert not graph_conv(x, A, weight)[1].any()
    torch.testing.assert_close(graph_conv(x, A, weight)[0], graph_conv(x[:1], A, weight)[0])
    z = graph_conv(x, A, weight, bias)[1]
    torch.testing.assert_close(z, torch.einsum("kuv,kd->du", A, bias)[:, None].expand(z.shape))


@pytest.mark.parametrize("backend", ["default", "reference"])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_nan_in_the_graph_reaches_its_joint_only(backend, per_sample, transposed, sparse):
    x, A, weight, bias = inputs()
    if sparse:
        A = A * torch.eye(7, dtype=A.dtype)
    A = A.expand(2, *A.shape).clone() if per_sample else A.clone()
    A[..., 1, 2, 5] = float("nan")

    def run():
        return graph_conv(x, A, weight, bias, transposed=transposed)

    if backend == "default":
        z = run()
    else:
        with skelops.use_backend(backend):
            z = run()
    touched = torch.zeros(7, dtype=torch.bool)
    touched[5 if transposed else 2] = True
    assert torch.equal(z.isnan(), touched.expand(z.shape))


def test_nan_feature_reaches_only_connected_joints():
    x, _, weight, _ = inputs(K=1)
    x[0, 0, 0, 3] = float("nan")
    with skelops.use_backend("reference"):
        everywhere = graph_conv(x, identity(), weight).isnan()
    here = graph_conv(x, identity(), weight).isnan()
    assert here[0, :, 0, 3].all()
    assert not (here & ~everywhere).any()


@pytest.mark.parametrize("sizes", [{"N": 0}, {"T": 0}, {"V": 1, "T": 1}, {"D": 1, "K": 1}])
def test_degenerate_sizes(sizes):
    tensors = [t.requires_grad_() for t in inputs(**sizes)]
    z = graph_conv(*tensors)
    assert z.shape == (sizes.get("N", 2), sizes.get("D", 6), sizes.get("T", 5), sizes.get("V", 7))
    for t, g in zip(tensors, torch.autograd.grad(z.sum(), tensors), strict=True):
        assert g.shape == t.shape and g.isfinite().all()


def test_inference_mode():
    x, A, weight, bias = inputs()
    A.requires_grad_()
    expected = graph_conv(x, A, weight, bias)
    with torch.inference_mode():
        z = graph_conv(x, A, weight, bias)
    assert not z.requires_grad
    assert torch.equal(z, expected)


BAD = [
    (dict(x=torch.ones(2, 4, 7)), ValueError, "x of shape (N, C, T, V), got (2, 4, 7)"),
    (dict(x=torch.ones(2, 4, 5, 0)), ValueError, "x with at least one joint, got (2, 4, 5, 0)"),
    (dict(x=torch.ones(2, 4, 5, 6)), ValueError, "A of shape (K, V, V) with V=6, got (3, 7, 7)"),
    (dict(x=torch.ones(2, 5, 5, 7)), ValueError, "weight of shape (K, C', C) with K=3, C=5, got"),
    (dict(x=torch.ones(2, 4, 5, 7).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(x=[[1.0]]), TypeError, "x to be a tensor, got list"),
    (dict(x=None), TypeError, "x to be a tensor, got NoneType"),
    (dict(A=torch.ones(7, 7)), ValueError, "A of shape (K, V, V) with V=7, got (7, 7)"),
    (dict(A=torch.ones(3, 7, 6)), ValueError, "A of shape (K, V, V) with V=7, got (3, 7, 6)"),
    (dict(A=torch.ones(0, 7, 7)), ValueError, "A with at least one subset, got (0, 7, 7)"),
    (
        dict(A=torch.ones(3, 3, 7, 7)),
        ValueError,
        "A of shape (N, K, V, V) with N=2, V=7, got (3, 3, 7, 7)",
    ),
    (dict(A=torch.ones(3, 7, 7).double()), TypeError, "A of x's dtype torch.float32, got"),
    (dict(A=torch.ones(3, 7, 7, device="meta")), ValueError, "A on x's device cpu, got meta"),
    (dict(A=3.0), TypeError, "A to be a tensor, got float"),
    (dict(weight=torch.ones(6, 4)), ValueError, "weight of shape (K, C', C) with K=3, C=4, got"),
    (dict(weight=torch.ones(2, 6, 4)), ValueError, "weight of shape (K, C', C) with K=3, C=4"),
    (
        dict(weight=None),
        ValueError,
        "x with K * C' channels for A of K=3 subsets, got (2, 4, 5, 7)",
    ),
    (dict(bias=torch.ones(5)), ValueError, "bias of shape (C') with C'=6, got (5,)"),
    (dict(bias=torch.ones(2, 6)), ValueError, "bias of shape (K, C') with K=3, C'=6, got (2, 6)"),
    (dict(bias=torch.ones(3, 6).half()), TypeError, "bias of x's dtype torch.float32, got"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    x, A, weight, bias = inputs(dtype=torch.float32)
    arguments = dict(x=x, A=A, weight=weight, bias=bias) | change
    with pytest.raises(error, match="^" + re.escape(f"graph_conv: expected {message}")):
        graph_conv(**arguments)
