"""st_attention: what each structure means, and how it refuses."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops import st_attention
from skelops.graph import get_layout

N, T, V, H, D = 2, 6, 5, 2, 4
L = T * V
FRAME, JOINT = torch.arange(L) // V, torch.arange(L) % V


def packed(*rows, dtype=torch.float64, heads=H, width=D):
    return torch.randn(*(rows or (N, L)), 3 * heads * width, dtype=dtype)


def split(qkv):
    return qkv.unflatten(-1, (3, H, D)).movedim(-3, 0).transpose(-3, -2)


def masked(qkv, kept=None, bias=0.0):
    """Eager attention under an (L, L) mask."""
    q, k, v = split(qkv)
    scores = q @ k.mT * D**-0.5 + bias
    if kept is not None:
        scores = scores.masked_fill(~kept, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2)


def test_is_scaled_dot_product_attention():
    qkv = packed()
    q, k, v = split(qkv)
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(st_attention(qkv, H), expected)


@pytest.mark.parametrize("width", [1, 2, 3, 32, 48, 50, 64, 75, 128])
@pytest.mark.parametrize("length", [1, 13, 300])
def test_any_head_width_and_length(width, length):
    qkv = packed(1, length, heads=1, width=width).requires_grad_()
    q, k, v = qkv.chunk(3, -1)
    expected = F.scaled_dot_product_attention(q, k, v)
    got = st_attention(qkv, 1)
    torch.testing.assert_close(got, expected)
    g = torch.randn_like(got)
    grads = (torch.autograd.grad(y, qkv, g)[0] for y in (got, expected))
    torch.testing.assert_close(*grads)


NEAR = (JOINT[:, None] - JOINT).abs() <= 1
LAG = FRAME[:, None] - FRAME
STRUCTURES = {
    "frame": (dict(within="frame"), LAG == 0),
    "joint": (dict(within="joint"), JOINT[:, None] == JOINT),
    "window": (dict(window=2), LAG.abs() <= 2),
    "hops": (dict(pairs=NEAR[:V, :V]), NEAR),
    "hops and window": (dict(pairs=NEAR[:V, :V], window=1), NEAR & (LAG.abs() <= 1)),
    "hops within frames": (dict(pairs=NEAR[:V, :V], within="frame"), NEAR & (LAG == 0)),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("biased", [False, True])
def test_structure_equals_its_mask(structure, biased):
    options, kept = STRUCTURES[structure]
    qkv, bias = packed().requires_grad_(), 0.0
    leaves = [qkv]
    if biased:
        B = torch.randn(H, V, V, dtype=qkv.dtype, requires_grad=True)
        R = torch.randn(H, 7, dtype=qkv.dtype, requires_grad=True)
        bias = B[:, JOINT[:, None], JOINT] + R[:, LAG.clamp(-3, 3) + 3]
        options = options | dict(joint_bias=B, lag_bias=R)
        leaves += [B, R]
    got, expected = st_attention(qkv, H, joints=V, **options), masked(qkv, kept, bias)
    torch.testing.assert_close(got, expected)
    g = torch.randn_like(got)
    grads = (torch.autograd.grad(y, leaves, g) for y in (got, expected))
    torch.testing.assert_close(*grads)


def test_layout_gives_the_pairs():
    near = get_layout("coco17").hop_distances() <= 2
    qkv = packed(1, 17)
    torch.testing.assert_close(st_attention(qkv, H, joints=17, pairs=near), masked(qkv, near))


@pytest.mark.parametrize("order", ["ascending", "random"])
def test_kept_tokens_keep_their_places(order):
    """The kept tokens attend as they do among all, when the dropped ones are masked."""
    qkv = packed(1, L)
    kept = torch.randperm(L)[:11]
    kept = kept.sort().values if order == "ascending" else kept
    options = dict(joints=V, window=2, lag_bias=torch.randn(H, 5, dtype=qkv.dtype))
    alone = st_attention(qkv[:, kept], H, tokens=kept[None], **options)
    mask = torch.zeros(1, L, dtype=torch.bool)
    mask[:, kept] = True
    among = st_attention(qkv, H, key_mask=mask, **options)
    torch.testing.assert_close(alone, among[:, kept])


@pytest.mark.parametrize("options", [{}, {"within": "frame"}, {"within": "joint"}, {"window": 1}])
def test_ragged_equals_every_sequence_alone(options):
    lengths = [2 * V, 0, V, 4 * V]
    qkv = packed(sum(lengths)).requires_grad_()
    cu = torch.tensor([0, *lengths]).cumsum(0)
    got = st_attention(qkv, H, joints=V, cu_seqlens=cu, max_len=max(lengths), **options)
    alone = [st_attention(x[None], H, joints=V, **options)[0] for x in qkv.split(lengths)]
    torch.testing.assert_close(got, torch.cat(alone))
    g = torch.randn_like(got)
    grads = (torch.autograd.grad(y, qkv, g)[0] for y in (got, torch.cat(alone)))
    torch.testing.assert_close(*grads)


def test_rows_behind_the_last_sequence_are_zero():
    qkv = packed(8).requires_grad_()
    y = st_attention(qkv, H, cu_seqlens=torch.tensor([0, 3, 5]), max_len=3)
    (grad,) = torch.autograd.grad(y.sum(), qkv)
    assert y[:5].any() and not y[5:].any() and not grad[5:].any()


def test_padding_equals_the_shorter_sequence():
    qkv = packed(1, L)
    mask = torch.arange(L)[None] < 12
    padded = st_attention(qkv, H, key_mask=mask)
    torch.testing.assert_close(padded[:, :12], st_attention(qkv[:, :12], H))


def test_a_query_without_keys_gives_zero_and_passes_nothing():
    qkv = packed().requires_grad_()
    mask = torch.ones(N, L, dtype=torch.bool)
    mask[0] = False
    y = st_attention(qkv, H, key_mask=mask)
    (grad,) = torch.autograd.grad(y.square().sum() + y.sum(), qkv)
    assert not y[0].any() and not grad[0].any()
    assert y.isfinite().all() and grad.isfinite().all() and grad[1].any()


@pytest.mark.parametrize("scale", [0.0, -1.3])
def test_any_scale(scale):
    qkv = packed()
    q, k, v = split(qkv)
    expected = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)
    torch.testing.assert_close(st_attention(qkv, H, scale=scale), expected)


BAD = [
    (dict(qkv=torch.ones(2, 24)), ValueError, "qkv of shape (N, L, 3*H*D), got (2, 24)"),
    (dict(qkv=torch.ones(2, 5, 25)), ValueError, "qkv of 3 * H * D channels with H=2, got"),
    (dict(qkv=torch.ones(2, 5, 24).long()), TypeError, "qkv of a floating dtype, got torch.int64"),
    (dict(heads=0), ValueError, "heads >= 1, got 0"),
    (dict(joints=0), ValueError, "joints >= 1, got 0"),
    (dict(within="row"), ValueError, "within None, 'frame' or 'joint', got 'row'"),
    (dict(window=-1), ValueError, "window >= 0 or None, got -1"),
    (dict(pairs=torch.ones(3, 3)), TypeError, "pairs of boolean dtype, got torch.float32"),
    (
        dict(pairs=torch.ones(3, 3) > 0),
        ValueError,
        "pairs of shape (V, V) with V=5, got (3, 3)",
    ),
    (dict(tokens=torch.ones(2, 10)), TypeError, "tokens of integer dtype, got torch.float32"),
    (
        dict(tokens=torch.ones(2, 9).int()),
        ValueError,
        "tokens of shape (N, L) with N=2, L=10, got (2, 9)",
    ),
    (dict(key_mask=torch.ones(2, 10)), TypeError, "key_mask of boolean dtype, got torch.float32"),
    (dict(key_mask=[True]), TypeError, "key_mask to be a tensor, got list"),
    (dict(max_len=3), ValueError, "max_len only with cu_seqlens, got 3"),
    (
        dict(qkv=torch.ones(10, 24), cu_seqlens=torch.tensor([0, 10])),
        ValueError,
        "cu_seqlens (S + 1,) together with max_len >= 0, got (2,) and None",
    ),
    (
        dict(joint_bias=torch.ones(2, 5, 4)),
        ValueError,
        "joint_bias of shape (H, V, V) with H=2, V=5, got (2, 5, 4)",
    ),
    (dict(lag_bias=torch.ones(2, 4)), ValueError, "lag_bias of an odd number of lags, got 4"),
    (dict(lag_bias=torch.ones(2, 5).half()), TypeError, "lag_bias of qkv's dtype torch.float32"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(qkv=torch.ones(2, 10, 24), heads=2, joints=5) | change
    with pytest.raises(error, match="^" + re.escape(f"st_attention: expected {message}")):
        st_attention(**arguments)


@pytest.mark.parametrize("cu", [[0, 7, 5], [1, 10], [0, 11]])
def test_sequences_outside_the_rows(cu):
    with pytest.raises(RuntimeError, match="cu_seqlens ascending"):
        st_attention(packed(10), H, cu_seqlens=torch.tensor(cu), max_len=10)
