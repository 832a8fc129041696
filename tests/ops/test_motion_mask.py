"""motion_mask: published masks, what it does at the edges, and how it refuses."""

import math
import re

import pytest
import torch

from skelops import motion_mask

T, V, C, SEGMENT = 40, 5, 3, 4
L = T // SEGMENT * V


def clips(N=3, **sizes):
    shape = {"T": T, "V": V, "C": C} | sizes
    return torch.randn(N, *shape.values())


def consistent(ids_keep, mask, ids_restore):
    """The three results say the same."""
    N, L = mask.shape
    assert torch.equal(ids_restore.sort(1).values, torch.arange(L).expand(N, L))
    assert torch.equal(mask, ids_restore < ids_keep.shape[1])
    assert torch.equal(
        ids_restore.gather(1, ids_keep), torch.arange(ids_keep.shape[1]).expand_as(ids_keep)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("exact", [False, True])
def test_kept_tokens_have_the_least_keys(dtype, exact):
    x, u = clips().to(dtype), torch.rand(3, L)
    ids_keep, mask, ids_restore = motion_mask(
        x, u, mask_ratio=0.6, segment=SEGMENT, tau=0.75, exact=exact
    )
    consistent(ids_keep, mask, ids_restore)
    assert ids_keep.shape == (3, int(L * (1 - 0.6)))
    key = torch.empty(3, L, dtype=torch.float64)
    s = x.double().view(3, -1, SEGMENT, V, C)
    for n in range(3):
        motion = torch.tensor(
            [[(s[n, max(t, 1)] - s[n, max(t, 1) - 1])[:, v].abs().mean() for v in range(V)]
             for t in range(s.shape[1])]
        ).flatten()  # fmt: skip
        a = motion / (motion.max() * 0.75 + 1e-10)
        key[n] = a - (-(u[n].double() + 1e-10).log() + 1e-10).log()
    assert (key.where(mask, -math.inf).amax(1) < key.where(~mask, math.inf).amin(1)).all()
    kept = key.gather(1, ids_keep)
    if exact:
        assert (kept.diff() > 0).all()
    else:
        assert (ids_keep.diff() > 0).all()
        assert (ids_restore[~mask].view(3, -1).diff() > 0).all()


def test_both_orders_keep_the_same():
    x, u = clips(N=8), torch.rand(8, L)
    by_place, by_key = (motion_mask(x, u, exact=exact) for exact in (False, True))
    assert torch.equal(by_place[1], by_key[1])
    assert torch.equal(by_place[0], by_key[0].sort(1).values)


@pytest.mark.parametrize("tokens, kept", [(750, 74), (400, 39), (250, 24)])
def test_published_counts(tokens, kept):
    x = torch.randn(1, tokens // 25 * 4, 25, 3)
    assert motion_mask(x, torch.rand(1, tokens))[0].shape == (1, kept)


@pytest.mark.parametrize("ratio, kept", [(1.0, 0), (0.0, L), (0.99, 0)])
def test_all_or_nothing(ratio, kept):
    found = motion_mask(clips(), torch.rand(3, L), mask_ratio=ratio)
    consistent(*found)
    assert found[0].shape == (3, kept)
    assert found[1].sum() == 3 * kept


def test_moving_joints_are_masked_more_often():
    x = torch.zeros(1, T, V, C)
    x[..., 2, :] = torch.randn(T, C)
    share = motion_mask(x.expand(4000, -1, -1, -1), torch.rand(4000, L), mask_ratio=0.5)[1]
    share = share.float().view(4000, -1, V).mean((0, 1))
    assert share[2] < 0.4 and (share[[0, 1, 3, 4]] > 0.5).all()


@pytest.mark.parametrize("kind", ["absent", "frozen", "one segment"])
def test_without_motion_the_noise_decides(kind):
    x = {
        "absent": torch.zeros(2, T, V, C),
        "frozen": torch.randn(2, 1, V, C).expand(2, T, V, C),
        "one segment": torch.randn(2, T, V, C),
    }[kind]
    segment = T if kind == "one segment" else SEGMENT
    u = torch.rand(2, T // segment * V)
    found = motion_mask(x, u, mask_ratio=0.6, segment=segment)
    uniform = motion_mask(x, u, mask_ratio=0.6, segment=segment, tau=0.0)
    for a, b in zip(found, uniform, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_joints_that_are_not_finite_count_as_still(bad):
    x = clips(N=2)
    broken, still = x.clone(), x.clone()
    broken[0, :, 1] = bad
    still[0, :, 1] = 0
    u = torch.rand(2, L)
    found = motion_mask(broken, u)
    consistent(*found)
    for a, b in zip(found, motion_mask(still, u), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("exact", [False, True])
def test_equal_keys_are_taken_in_order(exact):
    u = torch.full((2, L), 0.5)
    u[:, 7] = 0.25
    ids_keep, _, _ = motion_mask(torch.zeros(2, T, V, C), u, mask_ratio=0.9, tau=0.0, exact=exact)
    expected = [7, 0, 1, 2] if exact else [0, 1, 2, 7]
    assert ids_keep.tolist() == [expected, expected]


@pytest.mark.parametrize("tau", [0.0, 0.8])
def test_noise_that_is_no_number_comes_last(tau):
    u = torch.rand(2, L)
    u[:, ::2] = math.nan
    u[:, 1] = -math.nan
    found = motion_mask(torch.zeros(2, T, V, C), u, mask_ratio=0.7, tau=tau)
    consistent(*found)
    assert not found[1][:, ::2].any() and not found[1][:, 1].any()


def test_edges_of_the_noise():
    u = torch.rand(1, L)
    u[0, 3], u[0, 4] = 0.0, 1.0
    for tau in (0.0, 0.8):
        _, mask, _ = motion_mask(torch.zeros(1, T, V, C), u, mask_ratio=0.9, tau=tau)
        assert mask[0, 3] and not mask[0, 4]


def test_clips_do_not_mix():
    x, u = clips(N=4), torch.rand(4, L)
    whole = motion_mask(x, u)
    for n in range(4):
        for a, b in zip(motion_mask(x[n : n + 1], u[n : n + 1]), whole, strict=True):
            assert torch.equal(a[0], b[n])


def test_empty_batch():
    ids_keep, mask, ids_restore = motion_mask(clips(N=0), torch.rand(0, L))
    assert ids_keep.shape == (0, 4) and mask.shape == ids_restore.shape == (0, L)


BAD = [
    (dict(x=torch.ones(3, T, V)), ValueError, "x of shape (N, T, V, C), got (3, 40, 5)"),
    (dict(x=torch.ones(3, T, V, C).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(x=torch.ones(3, 38, V, C)), ValueError, "x whose frames fill segments of 4, got (3, 38"),
    (dict(x=torch.ones(3, 0, V, C)), ValueError, "x whose frames fill segments of 4, got (3, 0"),
    (dict(x=torch.ones(3, 2, V, C)), ValueError, "x whose frames fill segments of 4, got (3, 2"),
    (dict(x=torch.ones(3, T, 0, C)), ValueError, "x with joints and channels, got (3, 40, 0, 3)"),
    (dict(x=torch.ones(3, T, V, C, requires_grad=True)), TypeError, "x that requires no gradient"),
    (dict(segment=0), ValueError, "a segment of at least one frame, got 0"),
    (dict(noise=torch.rand(3, L + 1)), ValueError, f"noise of shape (N, L) with N=3, L={L}, got"),
    (dict(noise=torch.ones(3, L).int()), TypeError, "noise of a floating dtype, got torch.int32"),
    (dict(noise=0.5), TypeError, "noise of a floating dtype, got float"),
    (dict(noise=torch.rand(3, L, device="meta")), ValueError, "noise on x's device cpu, got meta"),
    (dict(mask_ratio=1.1), ValueError, "mask_ratio in [0, 1], got 1.1"),
    (dict(mask_ratio=math.nan), ValueError, "mask_ratio in [0, 1], got nan"),
    (dict(tau=-1.0), ValueError, "tau >= 0, got -1.0"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(x=torch.ones(3, T, V, C), noise=torch.rand(3, L)) | change
    with pytest.raises(error, match="^" + re.escape(f"motion_mask: expected {message}")):
        motion_mask(**arguments)
