"""hyper_adjacency: its equation, what the mathematics demands of it, and how it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from skelops import hyper_adjacency
from skelops.testing.rule import rule_value

GOLDEN = Path(__file__).parents[3] / "shared/golden/cases/hypergcn_hypergraph.npz"
F64 = torch.float64


def inputs(N=2, K=3, D=4, W=7, dtype=F64):
    return dict(
        embedding=torch.randn(N, K, D, W, dtype=dtype),
        edge_weight=torch.tanh(torch.randn(N, K, W, dtype=dtype)),
        adjacency=torch.randn(K, W, W, dtype=dtype),
        alpha=torch.tensor([0.7], dtype=dtype),
    )


def only_graph(**kwargs):
    """Inputs whose result is G itself."""
    a = inputs(**kwargs)
    return a | {"adjacency": 0 * a["adjacency"], "alpha": torch.ones_like(a["alpha"])}


def incidence(embedding, topk):
    """H, edge by edge and vertex by vertex."""
    N, K, _, W = embedding.shape
    H = embedding.new_zeros(N, K, W, W)
    for n in range(N):
        for k in range(K):
            f = embedding[n, k].T
            for i in range(W):
                distances = [torch.dist(f[i], f[j]) for j in range(W)]
                nearest = sorted(range(W), key=lambda j, d=distances: (d[j].item(), j))[:topk]
                total = sum(torch.exp(-distances[j]) for j in nearest)
                for j in nearest:
                    H[n, k, i, j] = torch.exp(-distances[j]) / total
    return H


def gradients(a, **kwargs):
    leaves = {name: t.detach().clone().requires_grad_() for name, t in a.items()}
    out = hyper_adjacency(**leaves, **kwargs)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=generator, dtype=F64).to(out.dtype)
    found = torch.autograd.grad(out, list(leaves.values()), grad)
    return out.detach(), dict(zip(leaves, found, strict=True)), grad


@pytest.mark.parametrize("topk, rows", [(1, None), (3, None), (3, 5), (7, 1)])
def test_equals_its_equation(topk, rows):
    a = inputs()
    H, w = incidence(a["embedding"], topk), a["edge_weight"]
    c = H.sum(-2) + 1e-8
    r = (H * w.abs().unsqueeze(-2)).sum(-1) + 1e-8
    G = torch.einsum("nkie,nke,nkje->nkij", H, w * w / c, H) / r.unsqueeze(-1)
    expected = (a["adjacency"] + a["alpha"] * G)[..., :rows, :]
    torch.testing.assert_close(hyper_adjacency(**a, topk=topk, rows=rows), expected)


@pytest.mark.skipif(not GOLDEN.exists(), reason="golden cases are not at hand")
def test_published_implementation():
    with np.load(GOLDEN) as file:
        topk = json.loads(str(file["meta"]))["kwargs"]["k"]
        case = {name: torch.from_numpy(file[name]) for name in file.files if name != "meta"}
    feat, w = (case[f"in.{name}"].requires_grad_() for name in ("feat", "w"))
    K, W = feat.shape[1:3]
    G = hyper_adjacency(feat.mT, w, torch.zeros(K, W, W), torch.ones(1), topk=topk)
    torch.testing.assert_close(G, case["out.G"], rtol=1e-5, atol=1e-6)

    # The recorded loss also has a term in H, which is not an output here.
    offsets = feat.unsqueeze(-2) - feat.unsqueeze(-3)
    apart = ~torch.eye(W, dtype=torch.bool)
    D = torch.zeros(G.shape).masked_scatter(apart, offsets[..., apart, :].norm(dim=-1))
    nearest = D.topk(topk, largest=False).indices
    H = torch.zeros(G.shape).scatter(-1, nearest, torch.softmax(-D.gather(-1, nearest), -1))
    torch.testing.assert_close(H, case["out.H"], rtol=1e-5, atol=1e-6)
    loss = sum(
        (y * torch.from_numpy(rule_value(f"probe.{name}", y.shape))).sum()
        for name, y in (("H", H), ("G", G))
    )
    for x, name in zip(torch.autograd.grad(loss, (feat, w)), ("feat", "w"), strict=True):
        torch.testing.assert_close(x, case[f"gradin.{name}"], rtol=1e-4, atol=1e-5)


def test_rows_are_the_first_of_all():
    a = inputs(W=20)
    whole = hyper_adjacency(**a)
    torch.testing.assert_close(hyper_adjacency(**a, rows=17), whole[..., :17, :])


def test_signs_of_weights_cancel():
    a = inputs()
    flipped = a | {"edge_weight": -a["edge_weight"]}
    torch.testing.assert_close(
        hyper_adjacency(**flipped, topk=3), hyper_adjacency(**a, topk=3), rtol=0, atol=0
    )


def test_equal_weights_sum_to_their_size():
    """With all weights v, a row of G sums to v: H and its columns over c are stochastic."""
    a = only_graph(W=20)
    a["edge_weight"] = torch.full_like(a["edge_weight"], -0.3)
    total = hyper_adjacency(**a).sum(-1)
    torch.testing.assert_close(total, torch.full_like(total, 0.3), rtol=1e-6, atol=0)


def test_only_distances_matter():
    a = inputs(W=20)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=F64)).Q
    moved = a | {"embedding": turn @ a["embedding"] + torch.randn(4, 1, dtype=F64)}
    torch.testing.assert_close(hyper_adjacency(**moved), hyper_adjacency(**a))


def test_far_from_the_origin():
    """Distances are taken of differences: an offset costs no digits but those of the inputs."""
    a = inputs(W=25, dtype=torch.float32)
    far = a | {"embedding": a["embedding"] + 1000}
    exact = {name: t.double() for name, t in far.items()}
    torch.testing.assert_close(
        hyper_adjacency(**far).double(), hyper_adjacency(**exact), rtol=1e-5, atol=1e-6
    )


def test_vertices_may_be_renumbered():
    a, p = inputs(W=20), torch.randperm(20)
    renumbered = {
        "embedding": a["embedding"][..., p],
        "edge_weight": a["edge_weight"][..., p],
        "adjacency": a["adjacency"][:, p][..., p],
        "alpha": a["alpha"],
    }
    torch.testing.assert_close(
        hyper_adjacency(**renumbered), hyper_adjacency(**a)[..., p, :][..., p]
    )


def test_samples_and_heads_do_not_mix():
    a = inputs()
    expected = hyper_adjacency(**a, topk=3)
    for n in range(2):
        for k in range(3):
            alone = {name: a[name][n : n + 1, k : k + 1] for name in ("embedding", "edge_weight")}
            alone |= {"adjacency": a["adjacency"][k : k + 1], "alpha": a["alpha"]}
            found = hyper_adjacency(**alone, topk=3)
            torch.testing.assert_close(found, expected[n : n + 1, k : k + 1])


@pytest.mark.parametrize("alpha", [0.0, -0.5])
def test_strength_below_zero_switches_off(alpha):
    a = inputs() | {"alpha": torch.tensor(alpha, dtype=F64)}
    out, grads, grad = gradients(a, topk=3)
    assert torch.equal(out, a["adjacency"].expand_as(out))
    torch.testing.assert_close(grads["adjacency"], grad.sum(0))
    assert not any(grads[name].any() for name in ("embedding", "edge_weight", "alpha"))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_ties_go_to_lower_indices(dtype):
    """On a line of equal steps a vertex has two neighbours at each distance."""
    a = only_graph(N=1, K=1, D=1, W=40, dtype=dtype)
    a["embedding"][0, 0, 0] = torch.arange(40)
    for topk in (2, 4, 13):
        for i in (0, 1, 19, 39):  # the only edge with a weight shows who belongs to it
            w = a["edge_weight"].zero_()
            w[..., i] = 1
            column = hyper_adjacency(**a, topk=topk)[0, 0, :, i] > 0
            order = [sorted(range(40), key=lambda j, v=v: (abs(j - v), j)) for v in range(40)]
            members = torch.tensor([i in order[v][:topk] for v in range(40)])
            assert torch.equal(column, members & members[i])


@pytest.mark.parametrize("W", [6, 28, 40])
def test_coincident_vertices(W):
    """Where all embeddings agree, the first topk vertices are everyone's neighbours."""
    a = only_graph(W=W)
    a["embedding"] = a["embedding"][..., :1].expand(2, 3, 4, W)
    a["edge_weight"] = torch.full_like(a["edge_weight"], 0.5)
    out, grads, _ = gradients(a, topk=5)
    torch.testing.assert_close(out, torch.full_like(out, 0.5 / W))
    assert not grads["embedding"].any()
    assert all(g.isfinite().all() for g in grads.values())
    assert not grads["edge_weight"][..., 5:].any()  # edges without members


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_edges_without_weight(dtype):
    a = inputs(dtype=dtype) | {"edge_weight": torch.zeros(2, 3, 7, dtype=dtype)}
    out, grads, _ = gradients(a, topk=3)
    assert torch.equal(out, a["adjacency"].expand_as(out))
    assert all(g.isfinite().all() for g in grads.values())
    assert not grads["embedding"].any() and not grads["edge_weight"].any()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e15])
def test_any_scale(scale):
    a = only_graph(W=20, dtype=torch.float32)
    a["embedding"] *= scale
    out, grads, _ = gradients(a, topk=9)
    assert out.isfinite().all() and all(g.isfinite().all() for g in grads.values())


def test_vertices_far_apart_are_alone():
    a = only_graph(W=20)
    a["embedding"] *= 1e6
    expected = torch.diag_embed(a["edge_weight"].abs())
    torch.testing.assert_close(hyper_adjacency(**a), expected, rtol=1e-6, atol=1e-12)


def test_nan_stays_in_its_head():
    for W in (7, 20):
        a = inputs(W=W)
        expected = hyper_adjacency(**a, topk=5)
        a["embedding"][1, 2, 0, 4] = torch.nan
        out = hyper_adjacency(**a, topk=5)
        assert out[1, 2, 4].isnan().all()
        out[1, 2] = expected[1, 2]
        assert torch.equal(out, expected)


@pytest.mark.parametrize("sizes", [{"N": 0}, {"W": 1}, {"D": 1, "K": 1}, {"D": 0}])
def test_degenerate_sizes(sizes):
    a = inputs(**sizes)
    out, grads, _ = gradients(a, topk=1)
    assert out.shape == (a["embedding"].shape[0], *a["adjacency"].shape)
    for name, g in grads.items():
        assert g.shape == a[name].shape and g.isfinite().all()


BAD = [
    (dict(embedding=torch.ones(2, 3, 7)), ValueError, "embedding of shape (N, K, D, W), got"),
    (dict(embedding=torch.ones(2, 3, 4, 7).int()), TypeError, "embedding of a floating dtype, got"),
    (
        dict(edge_weight=torch.ones(2, 3, 8)),
        ValueError,
        "edge_weight of shape (N, K, W) with N=2, K=3, W=7, got (2, 3, 8)",
    ),
    (dict(edge_weight=torch.ones(2, 3, 7).half()), TypeError, "edge_weight of embedding's dtype"),
    (
        dict(adjacency=torch.ones(7, 7)),
        ValueError,
        "adjacency of shape (K, W, W) with K=3, W=7, got (7, 7)",
    ),
    (
        dict(adjacency=torch.ones(3, 7, 7, device="meta")),
        ValueError,
        "adjacency on embedding's device cpu, got meta",
    ),
    (dict(alpha=torch.ones(3)), ValueError, "alpha with one element, got (3,)"),
    (dict(alpha=0.5), TypeError, "alpha to be a tensor, got float"),
    (dict(topk=8), ValueError, "topk from 1 to W=7 vertices, got 8"),
    (dict(topk=0), ValueError, "topk from 1 to W=7 vertices, got 0"),
    (dict(rows=8), ValueError, "rows from 1 to W=7 vertices, got 8"),
    (dict(rows=0), ValueError, "rows from 1 to W=7 vertices, got 0"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = inputs(dtype=torch.float32) | {"topk": 3} | change
    with pytest.raises(error, match="^" + re.escape(f"hyper_adjacency: expected {message}")):
        hyper_adjacency(**arguments)


def test_more_neighbours_than_vertices_by_default():
    with pytest.raises(ValueError, match="topk from 1 to W=7 vertices, got 9"):
        hyper_adjacency(**inputs())
