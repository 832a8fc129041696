"""ctr_graph_conv: what the mathematics demands of it, and how it refuses."""

import re

import pytest
import torch

from skelops import ctr_graph_conv, graph_conv


def inputs(N=2, C=4, D=6, R=3, T=5, V=7, K=3, dtype=torch.float64):
    def normal(*shape):
        return torch.randn(shape, dtype=dtype)

    return dict(
        x=normal(N, C, T, V),
        A=normal(K, V, V) / V,
        p=normal(N, K, R, V),
        q=normal(N, K, R, V),
        alpha=normal(1),
        weight4=normal(K, D, R),
        bias4=normal(K, D),
        weight=normal(K, D, C),
        bias=normal(K, D),
    )


def dense_form(D=6, **sizes):
    """Arguments without weight4: S itself refines the channels."""
    a = inputs(D=D, R=D, **sizes)
    return a | {"weight4": None, "bias4": None}


@pytest.mark.parametrize("transposed", [False, True])
def test_equals_its_equation(transposed):
    a = inputs()
    S = torch.tanh(a["p"][..., :, None] - a["q"][..., None, :])
    G = torch.zeros(2, 3, 6, 7, 7, dtype=torch.float64)
    for k in range(3):
        for c in range(6):
            refined = sum(a["weight4"][k, c, r] * S[:, k, r] for r in range(3)) + a["bias4"][k, c]
            G[:, k, c] = a["alpha"] * refined + a["A"][k]
    f = torch.einsum("nitv,kci->nkctv", a["x"], a["weight"]) + a["bias"][:, :, None, None]
    G = G.mT if transposed else G
    expected = (f.unsqueeze(-2) * G.unsqueeze(3)).sum((1, -1))
    torch.testing.assert_close(ctr_graph_conv(**a, transposed=transposed), expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_dense_form_equals_its_equation(transposed):
    a = dense_form()
    G = a["alpha"] * torch.tanh(a["p"][..., :, None] - a["q"][..., None, :])
    G = G + a["A"][:, None]
    f = torch.einsum("nitv,kci->nkctv", a["x"], a["weight"]) + a["bias"][:, :, None, None]
    expected = (f.unsqueeze(-2) * (G.mT if transposed else G).unsqueeze(3)).sum((1, -1))
    torch.testing.assert_close(ctr_graph_conv(**a, transposed=transposed), expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_without_refinement_is_graph_conv(transposed):
    a = inputs() | {"alpha": torch.zeros(1, dtype=torch.float64)}
    torch.testing.assert_close(
        ctr_graph_conv(**a, transposed=transposed),
        graph_conv(a["x"], a["A"], a["weight"], a["bias"], transposed=transposed),
    )


def test_equal_embeddings_add_only_the_offset():
    a = inputs(V=5)
    a["p"] = a["q"] = a["p"][..., :1].expand_as(a["p"])
    expected = 0
    for k in range(3):
        for c in range(6):
            A = (a["A"][k] + a["alpha"] * a["bias4"][k, c])[None]
            z = graph_conv(
                a["x"], A, a["weight"][k : k + 1, c : c + 1], a["bias"][k : k + 1, c : c + 1]
            )
            expected = expected + torch.nn.functional.pad(z, (0, 0, 0, 0, c, 5 - c))
    torch.testing.assert_close(ctr_graph_conv(**a), expected)


def test_saturated_relations():
    """Far apart, tanh is a sign: the graph no longer depends on the embeddings."""
    a = inputs()
    near = ctr_graph_conv(**a | {"p": a["p"] + 1e3})
    far = ctr_graph_conv(**a | {"p": a["p"] + 1e30})
    assert near.isfinite().all()
    torch.testing.assert_close(near, far)


@pytest.mark.parametrize("transposed", [False, True])
def test_joints_may_be_renumbered(transposed):
    a = inputs()
    p = torch.randperm(7)
    renumbered = a | {"A": a["A"][:, p][:, :, p]} | {n: a[n][..., p] for n in ("x", "p", "q")}
    torch.testing.assert_close(
        ctr_graph_conv(**renumbered, transposed=transposed),
        ctr_graph_conv(**a, transposed=transposed)[..., p],
    )


def test_sides_are_transposes():
    """Swapping p and q flips the sign of S and transposes it."""
    a = inputs()
    swapped = a | {"A": a["A"].mT, "p": -a["q"], "q": -a["p"]}
    torch.testing.assert_close(ctr_graph_conv(**a, transposed=True), ctr_graph_conv(**swapped))


def test_is_linear_in_features():
    a = inputs() | {"bias": None}
    y = torch.randn_like(a["x"])
    torch.testing.assert_close(
        ctr_graph_conv(**a | {"x": 2 * a["x"] - 3 * y}),
        2 * ctr_graph_conv(**a) - 3 * ctr_graph_conv(**a | {"x": y}),
    )


def test_transform_outside_equals_inside():
    a = inputs()
    f = torch.einsum("nctv,kdc->nkdtv", a["x"], a["weight"]) + a["bias"][:, :, None, None]
    outside = a | {"x": f.flatten(1, 2), "weight": None, "bias": None}
    torch.testing.assert_close(ctr_graph_conv(**outside), ctr_graph_conv(**a))


def test_subsets_sum_up():
    a = inputs()
    each = []
    for k in range(3):
        one = {n: a[n][k : k + 1] for n in ("A", "weight4", "bias4", "weight", "bias")}
        one |= {n: a[n][:, k : k + 1] for n in ("p", "q")}
        each.append(ctr_graph_conv(**a | one))
    torch.testing.assert_close(ctr_graph_conv(**a), sum(each))


def test_samples_do_not_mix():
    a = inputs(N=3)
    alone = [ctr_graph_conv(**a | {n: a[n][i : i + 1] for n in ("x", "p", "q")}) for i in range(3)]
    torch.testing.assert_close(ctr_graph_conv(**a), torch.cat(alone))


def test_absent_person_is_zero_without_bias():
    a = inputs() | {"bias": None}
    for name in ("x", "p", "q"):
        a[name][1] = 0
    assert not ctr_graph_conv(**a)[1].any()


def test_alpha_may_be_a_scalar():
    a = inputs()
    torch.testing.assert_close(ctr_graph_conv(**a | {"alpha": a["alpha"][0]}), ctr_graph_conv(**a))


def test_nan_in_the_graph_reaches_its_joint_only():
    a = inputs()
    a["A"][1, 2, 5] = float("nan")
    for transposed, joint in ((False, 2), (True, 5)):
        z = ctr_graph_conv(**a, transposed=transposed)
        touched = (torch.arange(7) == joint).expand(z.shape)
        assert torch.equal(z.isnan(), touched)


@pytest.mark.parametrize("sizes", [{"N": 0}, {"T": 0}, {"V": 1, "T": 1}, {"R": 1, "K": 1}])
def test_degenerate_sizes(sizes):
    a = {n: t.requires_grad_() for n, t in inputs(**sizes).items()}
    z = ctr_graph_conv(**a)
    assert z.shape == (sizes.get("N", 2), 6, sizes.get("T", 5), sizes.get("V", 7))
    tensors = list(a.values())
    for t, g in zip(tensors, torch.autograd.grad(z.sum(), tensors), strict=True):
        assert g.shape == t.shape and g.isfinite().all()


def test_inference_mode():
    a = inputs()
    a["A"].requires_grad_()
    with torch.inference_mode():
        z = ctr_graph_conv(**a)
    assert torch.equal(z, ctr_graph_conv(**a))


BAD = [
    (dict(x=torch.ones(4, 5, 7)), ValueError, "x of shape (N, C, T, V), got (4, 5, 7)"),
    (dict(x=torch.ones(2, 4, 5, 0)), ValueError, "x with at least one joint, got (2, 4, 5, 0)"),
    (dict(x=torch.ones(2, 4, 5, 7).int()), TypeError, "x of a floating dtype, got torch.int32"),
    (dict(A=torch.ones(3, 8, 8)), ValueError, "A of shape (K, V, V) with V=7, got (3, 8, 8)"),
    (dict(A=torch.ones(0, 7, 7)), ValueError, "A with at least one subset, got (0, 7, 7)"),
    (dict(p=torch.ones(2, 3, 7)), ValueError, "p of shape (N, K, R, V) with N=2, K=3, V=7, got"),
    (dict(p=torch.ones(1, 3, 3, 7)), ValueError, "p of shape (N, K, R, V) with N=2, K=3, V=7, got"),
    (
        dict(q=torch.ones(2, 3, 4, 7)),
        ValueError,
        "q of shape (N, K, R, V) with N=2, K=3, R=3, V=7, got (2, 3, 4, 7)",
    ),
    (dict(q=torch.ones(2, 3, 3, 7).half()), TypeError, "q of x's dtype torch.float32, got"),
    (dict(alpha=torch.ones(3)), ValueError, "alpha with one element, got (3,)"),
    (dict(alpha=0.5), TypeError, "alpha to be a tensor, got float"),
    (dict(alpha=torch.ones(1, device="meta")), ValueError, "alpha on x's device cpu, got meta"),
    (
        dict(weight4=torch.ones(3, 6, 4)),
        ValueError,
        "weight4 of shape (K, C', R) with K=3, C'=6, R=3, got (3, 6, 4)",
    ),
    (
        dict(weight4=None, bias4=None),
        ValueError,
        "p of shape (N, K, C', V) with C'=6 without weight4, got (2, 3, 3, 7)",
    ),
    (
        dict(weight4=None, p=torch.ones(2, 3, 6, 7), q=torch.ones(2, 3, 6, 7)),
        ValueError,
        "bias4 only together with weight4, got bias4 alone",
    ),
    (dict(bias4=torch.ones(6)), ValueError, "bias4 of shape (K, C') with K=3, C'=6, got (6,)"),
    (dict(weight=torch.ones(3, 6, 5)), ValueError, "weight of shape (K, C', C) with K=3, C=4, got"),
    (
        dict(weight=None),
        ValueError,
        "x with K * C' channels for A of K=3 subsets, got (2, 4, 5, 7)",
    ),
    (dict(bias=torch.ones(6)), ValueError, "bias of shape (K, C') with K=3, C'=6, got (6,)"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match="^" + re.escape(f"ctr_graph_conv: expected {message}")):
        ctr_graph_conv(**inputs(dtype=torch.float32) | change)
