"""skeleton_streams: its definition, agreement with sample_clips, and how it refuses."""

import re

import pytest
import torch

import skelops
from skelops import skeleton_streams
from skelops.data import ClipPlan, make_streams
from skelops.data.plan import two_branches
from skelops.graph import get_layout
from skelops.ops.sample_clips import MOTION

NTU = get_layout("ntu25")
NAMES = ("joint", "bone", "joint_motion", "bone_motion", "skip", "skip_motion")
SETTINGS = [
    {},
    {"root": 20},
    {"part": (20, 4, 5, 6, 7, 21, 22)},
    {"part": (7, 5), "parents": [-1] * 25},
    {"parents": [(v + 1) % 25 for v in range(25)], "root": 0},
]


def clips(N=3, C=3, T=9, V=25, M=2, **options):
    return torch.randn(N, C, T, V, M, **options)


def sampled(x, streams):
    """The streams that sample_clips makes of clips as they are."""
    N, C, T, V, M = x.shape
    store = x.permute(0, 2, 4, 3, 1).reshape(N * T, M, V, C)
    start = torch.arange(N)[:, None] * T
    bounds = torch.cat([start, start + T], dim=1)
    affine = two_branches(torch.eye(C, C + 1)[None].expand(N, C, C + 1))
    plan = ClipPlan(bounds, torch.arange(T).expand(N, T), affine)
    return plan.apply(store, streams)


def motion(y):
    return torch.cat([y[:, :, 1:] - y[:, :, :-1], torch.zeros_like(y[:, :, :1])], dim=2)


@pytest.mark.parametrize("backend", ["default", "reference"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_the_streams_of_sample_clips(settings, backend):
    x, streams = clips(), make_streams(NAMES, NTU, **settings)
    expected = sampled(x, streams)
    if backend == "reference":
        with skelops.use_backend("reference"):
            found = streams(x)
    else:
        found = streams(x)
    assert torch.equal(found, expected)


def test_equals_its_definition():
    x = clips(dtype=torch.float64)
    rows = torch.randint(25, (3, 5))
    rows[0, 2] = -1
    part, kinds = [3, 3, 0, 24, 7], [0, MOTION, 0]
    y = skeleton_streams(x, rows, kinds, part=part).unflatten(1, (3, 3))
    for s, kind in enumerate(kinds):
        expected = x[:, :, :, part] - x[:, :, :, rows[s]] * (rows[s] >= 0)[:, None]
        assert torch.equal(y[:, s], motion(expected) if kind else expected)


def test_one_person_needs_no_axis():
    x = clips(M=1).requires_grad_()
    streams = make_streams(NAMES, NTU)
    flat = x.detach()[..., 0].requires_grad_()
    y, z = streams(x), streams(flat)
    assert torch.equal(y[..., 0], z)
    g = torch.randn_like(y)
    found = torch.autograd.grad(z, flat, g[..., 0])[0]
    assert torch.equal(torch.autograd.grad(y, x, g)[0][..., 0], found)


def test_gradient_is_the_transpose():
    streams = make_streams(NAMES, NTU, part=(20, 4, 5, 20))
    x, other = clips(dtype=torch.float64).requires_grad_(), clips(dtype=torch.float64)
    y = streams(x)
    g = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, g)
    torch.testing.assert_close((dx * other).sum(), (g * streams(other)).sum())


def test_a_joint_that_is_its_own_parent_has_no_gradient():
    x = clips().requires_grad_()
    y = skeleton_streams(x, [list(range(25))], [0])
    assert not y.any()
    assert not torch.autograd.grad(y.sum(), x)[0].any()


@pytest.mark.parametrize("backend", ["default", "reference"])
def test_nan_reaches_only_what_it_is_part_of(backend):
    x = clips()
    x[0, 0, 4, 0] = torch.nan
    streams = make_streams(["joint", "bone", "joint_motion"], NTU)
    if backend == "reference":
        with skelops.use_backend("reference"):
            y = streams(x).isnan()
    else:
        y = streams(x).isnan()
    bones = torch.tensor([v == 0 or p == 0 for v, p in enumerate(NTU.parents)])
    assert torch.equal(y[0, 0, 4, :, 0], torch.arange(25) == 0)
    assert torch.equal(y[0, 3, 4, :, 0], bones)
    assert y[0, 6, 3:5, 0].all() and y.sum() == 2 * (1 + bones.sum() + 2)
    g = torch.zeros(y.shape)
    g[0, 0, 4, 0] = torch.nan
    x = clips().requires_grad_()
    dx = torch.autograd.grad(streams(x), x, g)[0].isnan()
    assert dx[0, 0, 4, 0].all() and dx.sum() == 2


def test_autocast_rounds_the_result_only():
    x = 1000 + torch.rand(2, 3, 9, 25, 2)  # bfloat16 tells apart 4
    streams = make_streams(["bone", "joint_motion"], NTU)
    with torch.autocast("cpu", torch.bfloat16):
        y = streams(x)
    assert torch.equal(y, streams(x).bfloat16())
    assert skeleton_streams(x, [NTU.parents], [0], dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize("shape", [(0, 3, 4, 25, 2), (2, 0, 4, 25, 2), (2, 3, 0, 25, 2),
                                   (2, 3, 4, 25, 0), (1, 1, 1, 25, 1)])  # fmt: skip
def test_degenerate_sizes(shape):
    x = torch.randn(shape, requires_grad=True)
    y = make_streams(NAMES, NTU)(x)
    assert y.shape == (shape[0], 6 * shape[1], *shape[2:])
    assert torch.autograd.grad(y.sum(), x)[0].shape == shape


X = torch.ones(2, 3, 4, 5, 1)
BONES = [0, 0, 1, 2, 3]
BAD = [
    (dict(x=torch.ones(3, 4, 5)), ValueError, "x of shape (N, C, T, V, M) or (N, C, T, V), got (3"),
    (dict(x=X.long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(x="clip"), TypeError, "x to be a tensor, got str"),
    (dict(kinds=[]), ValueError, "kinds of 0 and 1 (motion), got []"),
    (dict(kinds=[2]), ValueError, "kinds of 0 and 1 (motion), got [2]"),
    (dict(parent=[[0, 0]]), ValueError, "parent of 1 rows of 5 joints, got rows of [2]"),
    (dict(parent=[BONES] * 2), ValueError, "parent of 1 rows of 5 joints, got rows of [5, 5]"),
    (dict(parent=[[0, 0, 1, 2, 5]]), ValueError, "parent in -1..4, got 5"),
    (dict(parent=[[0, 0, 1, 2, -2]]), ValueError, "parent in -1..4, got -2"),
    (dict(part=[5]), ValueError, "part of joints in 0..4, got [5]"),
    (dict(part=[]), ValueError, "part of joints in 0..4, got []"),
    (dict(part=[1, 2]), ValueError, "parent of 1 rows of 2 joints, got rows of [5]"),
    (dict(parent=torch.zeros(1, 5, device="meta")), ValueError, "parent on the host, got meta"),
    (dict(dtype=torch.int64), TypeError, "a floating dtype, got torch.int64"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(x=X, parent=[BONES], kinds=[0]) | change
    with pytest.raises(error, match="^" + re.escape(f"skeleton_streams: expected {message}")):
        skeleton_streams(**arguments)


def test_kinds_that_need_the_recording():
    streams = make_streams(["angle"], NTU)
    with pytest.raises(ValueError, match=re.escape("kinds of 0 and 1 (motion), got [4]")):
        streams(clips())
