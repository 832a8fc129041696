"""Frames and points that draws name: laws of every sampling, and the published matrices."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from skelops.data import ClipPlan, make_streams
from skelops.data import plan as p
from skelops.graph import Layout

POINT = Layout("point", parents=(0,))
lengths = st.integers(1, 400)
shares = st.floats(0, 1, exclude_max=True, width=32)


def sampled(x, frame, blend=None, affine=None, **options):
    """One person's frames (T, V, C) by a plan of one clip: (T', V, C)."""
    C = x.shape[2]
    if affine is None:
        affine = p.two_branches(torch.eye(C, C + 1)[None])
    bounds = torch.tensor([[0, len(x)]])
    streams = make_streams("joint", Layout("any", parents=tuple(range(x.shape[1]))))
    plan = ClipPlan(bounds, frame, affine, blend, **options)
    return plan.apply(x[:, None], streams, dtype=x.dtype)[0, ..., 0].permute(1, 2, 0)


# Crops and resizing


@pytest.mark.parametrize("size, frames", [(1, 8), (5, 8), (64, 64), (97, 64), (300, 52), (90, 1)])
def test_resize_is_linear_interpolation_with_half_pixel_centres(size, frames):
    x = torch.randn(size + 7, 2, 3)
    y = sampled(x, *p.resize(torch.tensor([4]), torch.tensor([size]), frames))
    flat = x[4 : 4 + size].flatten(1).T[None]
    expected = interpolate(flat, frames, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(y, expected.view(frames, 2, 3), rtol=1e-6, atol=2e-6)


def test_resize_of_a_batch_is_resize_of_each():
    start, size = torch.tensor([0, 10, 49]), torch.tensor([10, 39, 1])
    frame, blend = p.resize(start, size, 16)
    for n in range(3):
        one = p.resize(start[n : n + 1], size[n : n + 1], 16)
        assert torch.equal(frame[n], one[0][0]) and torch.equal(blend[n], one[1][0])


@given(lengths, lengths, st.integers(1, 300))
def test_resize_stays_inside_the_crop(start, size, frames):
    frame, blend = p.resize(torch.tensor([start]), torch.tensor([size]), frames)
    assert start <= frame.min() <= frame.max() < start + size
    assert 0 <= blend.min() <= blend.max() < 1
    assert ((blend == 0) | (frame < start + size - 1)).all()  # never blends past the crop
    position = frame + blend.double()
    assert (position.diff() >= 0).all()
    torch.testing.assert_close(position + position.flip(1), torch.full_like(position, 2 * start +
                               size - 1), rtol=0, atol=1e-4)  # fmt: skip


def test_published_crop_sizes():
    """min(max(floor(p L), 64), L)"""
    length = torch.tensor([200, 200, 200, 100, 64, 30, 1, 91])
    share = torch.tensor([0.5, 0.999, 1.0, 0.5, 0.5, 0.9, 0.5, 70.3 / 91]).double()
    assert p.crop_size(share, length, 64).tolist() == [100, 199, 200, 64, 64, 30, 1, 70]
    assert p.crop_size(share[:1], length[:1], 120).tolist() == [120]


def test_central_crop_drops_as_many_frames_on_both_sides():
    length = torch.arange(1, 400)
    for share in (0.95, 1.0, 0.5):
        start, size = p.central_crop(length, share)
        assert start.tolist() == [int((1 - share) * n / 2) for n in length.tolist()]
        assert torch.equal(2 * start + size, length) and (share == 1.0) == (start == 0).all()


# Frames by number


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_reflect(length, frames, data):
    padding = data.draw(st.integers(0, length))
    start = data.draw(st.integers(0, 2 * padding))
    found = p.reflect(torch.tensor([start]), torch.tensor([length]), frames, padding)
    assert found.shape == (1, frames)
    for t, f in enumerate(found[0].tolist()):
        i = t + start - padding
        mirrored = -1 - i if i < 0 else 2 * length - 1 - i if i >= length else i
        assert f == min(max(mirrored, 0), length - 1)


def test_reflect_repeats_the_edge_frames():
    found = p.reflect(torch.tensor([0, 4, 2]), torch.tensor([4, 4, 4]), 4, 2)
    assert found.tolist() == [[1, 0, 0, 1], [2, 3, 3, 2], [0, 1, 2, 3]]


@given(lengths, st.integers(1, 120), st.data())
def test_loop(length, frames, data):
    start = data.draw(st.integers(0, length - 1))
    found = p.loop(torch.tensor([start]), torch.tensor([length]), frames)[0].tolist()
    assert found == [(start + t) % length for t in range(frames)]


@given(st.integers(1, 60), st.data())
def test_skip_gaps(frames, data):
    skipped = data.draw(st.sets(st.integers(0, frames), max_size=frames - 1))
    chosen = torch.zeros(1, frames + 1, dtype=torch.bool)
    chosen[0, list(skipped)] = True
    found = p.skip_gaps(chosen, frames)[0].tolist()
    assert found == [i + sum(gap <= i for gap in skipped) for i in range(frames)]
    assert len(set(found)) == frames and max(found) < frames + len(skipped)


@given(st.integers(1, 40), st.integers(1, 10), st.data())
def test_one_per_bin(frames, times, data):
    length = data.draw(st.integers(frames, frames * (times + 1)))
    n = torch.tensor([length])
    size = p.bin_sizes(n, frames)
    assert size.sum() == length and size.max() - size.min() <= 1
    first, last = p.one_per_bin(0 * size, n)[0], p.one_per_bin(size - 1, n)[0]
    assert first[0] == 0 and last[-1] == length - 1
    assert torch.equal(last[:-1] + 1, first[1:])  # bins border on each other


# Matrices


def test_rotation_is_that_about_x_then_y_then_z():
    angles = torch.randn(4, 3, dtype=torch.float64)
    for (a, b, g), R in zip(angles, p.rotation(angles), strict=True):
        c, s = torch.cos, torch.sin
        Rx = torch.tensor([[1, 0, 0], [0, c(a), s(a)], [0, -s(a), c(a)]])
        Ry = torch.tensor([[c(b), 0, -s(b)], [0, 1, 0], [s(b), 0, c(b)]])
        Rz = torch.tensor([[c(g), s(g), 0], [-s(g), c(g), 0], [0, 0, 1]])
        torch.testing.assert_close(R, (Rz @ Ry @ Rx).double(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(R @ R.T, torch.eye(3).double())
        assert torch.linalg.det(R) > 0


def test_rotation_in_the_plane():
    R = p.rotation_2d(torch.tensor([0.0, torch.pi / 2]))
    torch.testing.assert_close(R @ torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0], [0, 1]]))


def test_published_orders_of_shear():
    s = torch.arange(6.0)[None] + 2
    assert p.shear(s, "hiclr")[0].tolist() == [[1, 2, 5], [3, 1, 6], [4, 7, 1]]
    assert p.shear(s, "halp")[0].tolist() == [[1, 2, 3], [4, 1, 5], [6, 7, 1]]


def test_homogeneous_maps_around_a_centre():
    matrix, center, x = torch.randn(2, 3, 3), torch.randn(2, 3), torch.randn(2, 3)
    y = p.homogeneous(matrix, center) @ torch.cat([x, torch.ones(2, 1)], 1)[..., None]
    torch.testing.assert_close(y, matrix @ (x - center)[..., None])
    assert p.homogeneous(torch.eye(2).double()[None]).tolist() == [[[1, 0, 0], [0, 1, 0]]]


def test_branches():
    first, second = torch.randn(2, 2, 3, 4)
    assert torch.equal(p.two_branches(first)[:, 1], first)
    both = p.two_branches(first, second)
    assert torch.equal(both[:, 0], first) and torch.equal(both[:, 1], second)


def test_gaussian_taps():
    applied = torch.tensor([True, False])
    taps = p.gaussian_taps(torch.tensor([2.0, 2.0]), applied)
    k = torch.arange(-7.0, 8)
    torch.testing.assert_close(taps[0], (-(k**2) / 8).exp())
    assert taps[0].sum() > 4  # the published filter is not normalised
    assert taps[1].tolist() == [0] * 7 + [1] + [0] * 7
    normal = p.gaussian_taps(torch.tensor([2.0, 0.1]), torch.tensor([True, True]), 9, True)
    assert normal.shape == (2, 9)
    torch.testing.assert_close(normal.sum(1), torch.ones(2))
    torch.testing.assert_close(normal[1, 4], torch.tensor(1.0))


def test_joint_flags():
    applied = torch.tensor([True, False, True])
    shared = p.joint_flags([1, 3], applied, 4, 2)
    assert shared.dtype == torch.uint8
    assert shared.tolist() == [[0, 2, 0, 2], [0] * 4, [0, 2, 0, 2]]
    own = p.joint_flags(torch.tensor([[0], [1], [2]]), applied, 4, 1)
    assert own.tolist() == [[1, 0, 0, 0], [0] * 4, [0, 0, 1, 0]]


# Plans


def test_frames_of_a_plan_count_from_the_start_of_the_clip():
    x = torch.arange(10.0).view(10, 1, 1, 1) + 1
    plan = ClipPlan(
        torch.tensor([[0, 4], [4, 10]]),
        torch.tensor([[0, 3, -1], [0, 5, -1]]),
        p.two_branches(torch.eye(1, 2).expand(2, 1, 2)),
    )
    y = plan.apply(x, make_streams("joint", POINT))
    assert y[:, 0, :, 0, 0].tolist() == [[1, 4, 0], [5, 10, 0]]


def test_a_plan_moves_whole():
    plan = ClipPlan(*torch.zeros(2, 1, 2, dtype=torch.int64), torch.zeros(1, 2, 3, 4), seed=3)
    moved = plan.to("meta")
    for f in dataclasses.fields(plan):
        before, after = getattr(plan, f.name), getattr(moved, f.name)
        assert after.is_meta if isinstance(before, torch.Tensor) else after == before
