"""hypergraph_operator and hypergraph_propagate: the published formulas, and what has no degree."""

import re

import pytest
import torch

import skelops
from skelops import hypergraph_operator, hypergraph_propagate

F64 = torch.float64


def incidence(V=7, E=4, N=None):
    shape = (V, E) if N is None else (N, V, E)
    return (torch.rand(shape) > 0.4).to(F64)


def weights(E=4, N=None):
    return torch.rand(E if N is None else (N, E), dtype=F64) + 0.5


def covering(H):
    """No empty hyperedge, no isolated joint."""
    H = H.clone()
    H[..., 0, :] = 1
    H[..., :, 0] = 1
    return H


def test_row_is_hypergraph_conv_of_pytorch_geometric():
    """Its two scatter steps, in which an infinite inverse degree becomes 0."""
    H, w, x = incidence(), weights(), torch.randn(7, 5, dtype=F64)
    H[2] = 0
    H[:, 1] = 0
    node, edge = H.nonzero(as_tuple=True)
    D = 1 / torch.zeros(7, dtype=F64).index_add(0, node, w[edge])
    B = 1 / torch.zeros(4, dtype=F64).index_add(0, edge, torch.ones_like(w[edge]))
    D[float("inf") == D] = 0
    B[float("inf") == B] = 0
    on_edges = torch.zeros(4, 5, dtype=F64).index_add(0, edge, B[edge, None] * x[node])
    message = D[node, None] * w[edge, None] * on_edges[edge]
    expected = torch.zeros(7, 5, dtype=F64).index_add(0, node, message)
    torch.testing.assert_close(hypergraph_operator(H, w) @ x, expected)


def test_symmetric_is_hgnn():
    H, w = covering(incidence()), weights()
    Dv, De = torch.diag((H * w).sum(1) ** -0.5), torch.diag(1 / H.sum(0))
    expected = Dv @ H @ torch.diag(w) @ De @ H.T @ Dv
    theta = hypergraph_operator(H, w, normalization="symmetric")
    torch.testing.assert_close(theta, expected)
    torch.testing.assert_close(theta, theta.T)


def test_rows_of_the_random_walk_sum_to_one():
    theta = hypergraph_operator(covering(incidence(N=3)), weights(N=3))
    torch.testing.assert_close(theta.sum(-1), torch.ones(3, 7, dtype=F64))


def test_edges_of_a_graph_are_hyperedges():
    """Hyperedges of two joints: half the neighbours' random walk, half the joint itself."""
    bones = skelops.graph.get_layout("ntu25").bones
    H = torch.zeros(25, len(bones), dtype=F64)
    for e, pair in enumerate(bones):
        H[list(pair), e] = 1
    A = H @ H.T
    degree = A.diag()
    A = A - torch.diag(degree)
    expected = (torch.eye(25, dtype=F64) + A / degree[:, None]) / 2
    torch.testing.assert_close(hypergraph_operator(H), expected)


@pytest.mark.parametrize("normalization", ["row", "symmetric"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_equals_the_dense_formula(normalization, per_sample):
    N = 2 if per_sample else None
    H, w = incidence(N=N), weights(N=N)
    x, W, b = (torch.randn(s, dtype=F64) for s in ((2, 3, 5, 7), (6, 3), (6,)))
    theta = hypergraph_operator(H, w, normalization=normalization).expand(2, 7, 7)
    f = torch.einsum("nitv,ci->nctv", x, W)
    expected = torch.einsum("nuv,nctv->nctu", theta, f) + b[:, None, None]
    y = hypergraph_propagate(x, H, w, W, b, normalization=normalization)
    torch.testing.assert_close(y, expected)
    inside = torch.einsum("nuv,nctv->nctu", theta, f + b[:, None, None])
    y = hypergraph_propagate(x, H, w, W, b, normalization=normalization, aggregate_first=False)
    torch.testing.assert_close(y, inside)


@pytest.mark.parametrize("normalization", ["row", "symmetric"])
def test_without_degree_there_is_nothing_and_gradients_are_finite(normalization):
    H, w, x = covering(incidence()), weights(), torch.randn(2, 3, 5, 7, dtype=F64)
    smaller, fewer = H[:, [0, 2, 3]], w[[0, 2, 3]]
    H[:, 1] = 0
    expected = hypergraph_propagate(x, smaller, fewer, normalization=normalization)
    y = hypergraph_propagate(x, H, w, normalization=normalization)
    torch.testing.assert_close(y, expected)  # an empty hyperedge is as good as none
    H[4] = 0
    leaves = [t.requires_grad_() for t in (x, H, w)]
    y = hypergraph_propagate(*leaves, normalization=normalization)
    assert not y[..., 4].any()
    for g in torch.autograd.grad(y.square().sum(), leaves):
        assert g.isfinite().all()


@pytest.mark.parametrize("normalization", ["row", "symmetric"])
def test_gradients(normalization):
    H = (covering(incidence()) * torch.rand(7, 4, dtype=F64) + 0.1).requires_grad_()
    w = weights(N=2).requires_grad_()
    x = torch.randn(2, 3, 2, 7, dtype=F64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda *t: hypergraph_propagate(*t, normalization=normalization), (x, H, w)
    )


def test_parts_of_a_layout():
    layout = skelops.graph.get_layout("ntu25")
    H = layout.incidence()
    assert H.shape == (25, len(layout.parts)) and (H.sum(1) == 1).all()
    x = torch.randn(1, 2, 3, 25)
    y = hypergraph_propagate(x, H)
    for joints in layout.parts.values():
        mean = x[..., list(joints)].mean(-1, keepdim=True).expand(-1, -1, -1, len(joints))
        torch.testing.assert_close(y[..., list(joints)], mean)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_and_autocast(dtype):
    H, x = incidence().float(), torch.randn(2, 3, 5, 7)
    exact = hypergraph_propagate(x, H)
    y = hypergraph_propagate(x.to(dtype), H.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), exact, rtol=2e-2, atol=2e-2)
    with torch.autocast("cpu", dtype):
        assert hypergraph_operator(H).dtype == torch.float32
        y = hypergraph_propagate(x, H)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), exact, rtol=2e-2, atol=2e-2)


def test_compiles_without_breaks():
    H, w, x = incidence(), weights(), torch.randn(2, 3, 5, 7, dtype=F64)
    compiled = torch.compile(hypergraph_propagate, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, H, w), hypergraph_propagate(x, H, w))


BAD = [
    (dict(H=torch.ones(7)), ValueError, "operator: expected H of shape (V, E), got (7,)"),
    (dict(H=torch.ones(7, 4).int()), TypeError, "operator: expected H of a floating dtype"),
    (dict(H=None), TypeError, "operator: expected H to be a tensor, got NoneType"),
    (
        dict(edge_weight=torch.ones(3)),
        ValueError,
        "operator: expected edge_weight of shape (E) with E=4, got (3,)",
    ),
    (
        dict(H=torch.ones(2, 7, 4), edge_weight=torch.ones(3, 4)),
        ValueError,
        "operator: expected edge_weight of shape (N, E) with N=2, E=4, got (3, 4)",
    ),
    (dict(edge_weight=torch.ones(4).half()), TypeError, "operator: expected edge_weight of H's"),
    (
        dict(normalization="column"),
        ValueError,
        "operator: expected normalization one of row, symmetric, got 'column'",
    ),
    (dict(x=torch.ones(2, 3, 7)), ValueError, "propagate: expected x of shape (N, C, T, V), got"),
    (
        dict(x=torch.ones(2, 3, 5, 6)),
        ValueError,
        "propagate: expected H of shape (V, E) with N=2, V=6, got (7, 4)",
    ),
    (
        dict(H=torch.ones(3, 7, 4)),
        ValueError,
        "propagate: expected H of shape (N, V, E) with N=2, V=7, got (3, 7, 4)",
    ),
    (dict(x=torch.ones(2, 3, 5, 7).half()), TypeError, "propagate: expected H of x's dtype"),
    (
        dict(weight=torch.ones(6, 4)),
        ValueError,
        "propagate: expected weight of shape (C', C) with C=3, got (6, 4)",
    ),
    (
        dict(bias=torch.ones(4)),
        ValueError,
        "propagate: expected bias of shape (C') with C'=3, got (4,)",
    ),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(x=torch.ones(2, 3, 5, 7), H=torch.ones(7, 4)) | change
    with pytest.raises(error, match="^" + re.escape(f"hypergraph_{message}")):
        hypergraph_propagate(**arguments)
