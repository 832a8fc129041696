"""token_restore: every token at its place, and how it refuses."""

import re

import pytest
import torch

from skelops import motion_mask, token_restore


def inputs(N=3, K=4, V=5, T=3, D=6, dtype=torch.float64):
    return dict(
        z=torch.randn(N, K, D, dtype=dtype),
        mask_token=torch.randn(D, dtype=dtype),
        ids_restore=torch.rand(N, T * V).argsort(1),
        pos=torch.randn(V, D, dtype=dtype),
        temp=torch.randn(T, D, dtype=dtype),
    )


def published(z, mask_token, ids_restore, pos, temp):
    N, K, D = z.shape
    L = ids_restore.shape[1]
    y = torch.cat([z, mask_token.repeat(N, L - K, 1)], dim=1)
    y = y.gather(1, ids_restore[..., None].expand(-1, -1, D))
    return (y.view(N, len(temp), len(pos), D) + pos + temp[:, None]).flatten(1, 2)


@pytest.mark.parametrize("sizes", [{}, {"K": 0}, {"K": 15}, {"V": 1, "K": 2}, {"D": 33}, {"N": 0}])
def test_equals_concatenation_and_gather(sizes):
    args = inputs(**sizes)
    leaves = [t.requires_grad_() for t in args.values() if t.is_floating_point()]
    y, expected = token_restore(**args), published(**args)
    torch.testing.assert_close(y, expected)
    g = torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad(y, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_returns_what_was_kept():
    u = torch.rand(2, 60)
    ids_keep, mask, ids_restore = motion_mask(torch.randn(2, 48, 5, 3), u, mask_ratio=0.7)
    z, zero = torch.randn(2, 18, 8), torch.zeros(8)
    y = token_restore(z, zero, ids_restore, torch.zeros(5, 8), torch.zeros(12, 8))
    assert torch.equal(y.gather(1, ids_keep[..., None].expand(-1, -1, 8)), z)
    assert not y[~mask].any()


@pytest.mark.parametrize("masked", [-1, -(2**40), 4, 2**40])
def test_any_id_outside_stands_for_a_masked_token(masked):
    args = inputs()
    ids = args["ids_restore"]
    other = args | {"ids_restore": ids.where(ids < 4, masked)}
    torch.testing.assert_close(token_restore(**other), token_restore(**args))


def test_places_that_no_token_takes_have_no_gradient():
    args = inputs()
    args["ids_restore"][:, :] = -1
    args["ids_restore"][:, 3] = 2
    z = args["z"].requires_grad_()
    (dz,) = torch.autograd.grad(token_restore(**args).sum(), z)
    assert dz[:, 2].all() and not dz[:, [0, 1, 3]].any()


def test_nan_stays_at_its_place():
    args = inputs()
    args["z"][1, 2] = float("nan")
    y = token_restore(**args).isnan().any(-1)
    expected = torch.zeros_like(y)
    expected[1] = args["ids_restore"][1] == 2
    assert torch.equal(y, expected)


BAD = [
    (dict(z=torch.ones(3, 4)), ValueError, "z of shape (N, K, D), got (3, 4)"),
    (dict(mask_token=torch.ones(5)), ValueError, "mask_token of shape (D) with D=6, got (5,)"),
    (dict(pos=torch.ones(5, 7)), ValueError, "pos of shape (V, D) with D=6, got (5, 7)"),
    (dict(temp=torch.ones(3, 7)), ValueError, "temp of shape (T', D) with D=6, got (3, 7)"),
    (dict(temp=torch.ones(4, 6)), ValueError, "ids_restore of shape (N, L) with N=3, L=20, got"),
    (dict(pos=torch.ones(5, 6).half()), TypeError, "pos of z's dtype torch.float32, got"),
    (
        dict(ids_restore=torch.ones(3, 15).int()),
        TypeError,
        "ids_restore of dtype torch.int64, got torch.int32",
    ),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = inputs(dtype=torch.float32) | change
    with pytest.raises(error, match="^" + re.escape(f"token_restore: expected {message}")):
        token_restore(**arguments)
