"""masked_patch_embed: the published convolution and gather, and how it refuses."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops import masked_patch_embed


def inputs(N=3, T=12, V=5, C=3, u=4, D=6, K=4, dtype=torch.float64):
    L = T // u * V
    return dict(
        x=torch.randn(N, T, V, C, dtype=dtype),
        weight=torch.randn(D, C, u, 1, dtype=dtype),
        bias=torch.randn(D, dtype=dtype),
        pos=torch.randn(V, D, dtype=dtype),
        temp=torch.randn(T // u, D, dtype=dtype),
        ids=torch.rand(N, L).argsort(1)[:, :K],
    )


def published(x, weight, bias, pos, temp, ids):
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride=(weight.shape[2], 1))
    y = (y.permute(0, 2, 3, 1) + pos + temp[:, None]).flatten(1, 2)
    return y.gather(1, ids[..., None].expand(-1, -1, y.shape[2]))


@pytest.mark.parametrize("sizes", [{}, {"u": 1, "C": 2}, {"u": 12}, {"V": 1, "K": 2}, {"K": 15}])
def test_equals_convolution_and_gather(sizes):
    args = inputs(**sizes)
    leaves = [t.requires_grad_() for t in args.values() if t.is_floating_point()]
    y, expected = masked_patch_embed(**args), published(**args)
    torch.testing.assert_close(y, expected)
    g = torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad(y, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_all_tokens_by_default():
    args = inputs()
    everyone = torch.arange(15).expand(3, -1)
    every = masked_patch_embed(**(args | {"ids": None}))
    torch.testing.assert_close(every, masked_patch_embed(**(args | {"ids": everyone})))


def test_order_is_that_of_the_ids():
    args = inputs(K=15)
    p = torch.randperm(15)
    shuffled = masked_patch_embed(**(args | {"ids": args["ids"][:, p]}))
    torch.testing.assert_close(shuffled, masked_patch_embed(**args)[:, p])


def test_places_are_optional():
    args = inputs()
    plain = masked_patch_embed(args["x"], args["weight"], ids=args["ids"])
    added = args["bias"] + args["pos"][args["ids"] % 5] + args["temp"][args["ids"] // 5]
    torch.testing.assert_close(masked_patch_embed(**args), plain + added)


def test_other_tokens_are_not_looked_at():
    args = inputs()
    kept = torch.zeros(3, 15, dtype=torch.bool).scatter(1, args["ids"], True)
    hidden = ~kept.view(3, 3, 1, 5).expand(-1, -1, 4, -1).reshape(3, 12, 5)
    broken = args["x"].masked_fill(hidden[..., None], float("nan"))
    torch.testing.assert_close(masked_patch_embed(**(args | {"x": broken})), published(**args))


def test_gradient_of_x_is_zero_elsewhere():
    args = inputs()
    x = args["x"].requires_grad_()
    (dx,) = torch.autograd.grad(masked_patch_embed(**args).sum(), x)
    frames = dx.abs().sum(-1).view(3, 3, 4, 5).sum(2).flatten(1)
    kept = torch.zeros(3, 15, dtype=torch.bool).scatter(1, args["ids"], True)
    assert torch.equal(frames > 0, kept)


@pytest.mark.parametrize("bad", [-1, 15, 2**40])
def test_ids_out_of_range(bad):
    args = inputs()
    args["ids"][1, 2] = bad
    with pytest.raises((RuntimeError, IndexError)):
        masked_patch_embed(**args)


@pytest.mark.parametrize("sizes", [{"N": 0}, {"K": 0}, {"D": 1}])
def test_degenerate_sizes(sizes):
    args = inputs(**sizes)
    y = masked_patch_embed(**args)
    assert y.shape == (sizes.get("N", 3), sizes.get("K", 4), sizes.get("D", 6))


BAD = [
    (dict(x=torch.ones(3, 12, 5)), ValueError, "x of shape (N, T, V, C), got (3, 12, 5)"),
    (dict(x=torch.ones(3, 13, 5, 3)), ValueError, "x whose frames fill segments of 4, got (3, 13"),
    (dict(x=torch.ones(3, 12, 5, 2)), ValueError, "weight of shape (D, C, u, 1) with C=2, got"),
    (dict(weight=torch.ones(6, 3, 4)), ValueError, "weight of shape (D, C, u, 1) with C=3, got"),
    (dict(weight=torch.ones(6, 3, 4, 1).half()), TypeError, "weight of x's dtype torch.float32"),
    (dict(bias=torch.ones(5)), ValueError, "bias of shape (D) with D=6, got (5,)"),
    (dict(pos=torch.ones(4, 6)), ValueError, "pos of shape (V, D) with V=5, D=6, got (4, 6)"),
    (dict(temp=torch.ones(4, 6)), ValueError, "temp of shape (T/u, D) with T/u=3, D=6, got (4, 6)"),
    (dict(ids=torch.ones(3, 4)), TypeError, "ids of dtype torch.int64, got torch.float32"),
    (dict(ids=torch.ones(2, 4).long()), ValueError, "ids of shape (N, K) with N=3, got (2, 4)"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = inputs(dtype=torch.float32) | change
    with pytest.raises(error, match="^" + re.escape(f"masked_patch_embed: expected {message}")):
        masked_patch_embed(**arguments)
