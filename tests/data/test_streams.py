"""Streams against their definitions, and the published tables."""

import re

import pytest
import torch

from skelops.data import STREAMS, ClipPlan, get_transform, make_streams
from skelops.data.plan import two_branches
from skelops.graph import Layout, get_layout

NTU = get_layout("ntu25")
BONES = [1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11]
SKIP = [20, 1, 2, 20, 4, 20, 4, 5, 8, 20, 8, 9, 1, 0, 12, 13, 1, 0, 16, 17, 20, 7, 6, 11, 10]
HYPER = [*BONES[:20], -1, 7, 7, 11, 11]
ROOTED = [20] * 20 + [-1] + [20] * 4


@pytest.fixture
def x():
    """(T, M, V, C)"""
    return torch.randn(9, 2, 25, 3)


def apply(x, streams, frame=None):
    """The streams of one clip, (T, M, V, C) each."""
    T, C = len(x), x.shape[3]
    frame = torch.arange(T) if frame is None else torch.tensor(frame)
    affine = two_branches(torch.eye(C, C + 1)[None])
    y = ClipPlan(torch.tensor([[0, T]]), frame[None], affine).apply(x, streams)
    return [s.permute(1, 3, 2, 0) for s in y[0].split(C)]


def minus(x, table):
    """Each joint minus that of the table; -1 is none."""
    table = torch.tensor(table)
    return x - x[:, :, table] * (table >= 0)[:, None]


def motion(x):
    return torch.cat([x[1:] - x[:-1], torch.zeros_like(x[:1])])


def test_streams_are_what_they_are_called(x):
    j, b, jm, bm, k, km, angle = apply(x, make_streams(STREAMS, "ntu25"))
    bone, skip = minus(x, BONES), minus(x, SKIP)
    assert torch.equal(j, x) and torch.equal(b, bone) and torch.equal(k, skip)
    assert torch.equal(jm, motion(x)) and not jm[-1].any()
    for found, expected in ((bm, motion(bone)), (km, motion(skip))):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(angle.cos() * bone.norm(dim=-1, keepdim=True), bone, atol=1e-5,
                               rtol=1e-4)  # fmt: skip
    assert not angle[:, :, 20].any() and not b[:, :, 20].any()


def test_names(x):
    streams = make_streams(["bone", "joint"], NTU)
    assert len(streams) == 2 and streams.names == ("bone", "joint")
    (one,) = apply(x, make_streams("bone", "ntu25"))
    assert torch.equal(one, apply(x, streams)[0])


def test_native_motion_is_that_of_the_frames_of_the_clip(x):
    frame = [0, 4, 8, 8, 2]
    streams = make_streams(["joint_motion", "bone_motion", "joint"], "ntu25", native_motion=True)
    jm, bm, j = apply(x, streams, frame)
    assert torch.equal(jm, motion(x)[frame]) and torch.equal(j, x[frame])
    torch.testing.assert_close(bm, motion(minus(x, BONES))[frame], atol=1e-6, rtol=1e-5)


def test_the_joint_two_links_up():
    assert make_streams("skip", "ntu25").parent.tolist() == [SKIP]
    chain = Layout("chain", parents=(0, 0, 1, 2))
    assert make_streams("skip", chain).parent.tolist() == [[0, 1, 0, 1]]
    rooted = make_streams("skip", chain, parents=[-1, 0, 1, 2])
    assert rooted.parent.tolist() == [[0, 1, 0, 1]]
    given = make_streams("skip_motion", chain, skip_parents=[3, 3, 3, -1])
    assert given.parent.tolist() == [[3, 3, 3, -1]]


def test_hyper_gcn_is_relative_to_a_joint_that_stays_absolute(x):
    streams = get_transform("hyper_gcn").streams(["joint", "bone", "joint_motion"], "ntu25")
    assert streams.parent.tolist() == [ROOTED, HYPER, [-1] * 25]
    j, b, jm = apply(x, streams)
    assert torch.equal(j[:, :, 20], x[:, :, 20]) and torch.equal(b[:, :, 20], x[:, :, 20])
    assert torch.equal(j[:, :, 3], x[:, :, 3] - x[:, :, 20])
    assert torch.equal(jm, motion(x))  # of the absolute joints
    streams = get_transform("hyper_gcn").streams(["joint", "bone"], "nw_ucla20")
    parents = get_layout("nw_ucla20").parents
    assert streams.parent[0].tolist() == [2, 2, -1, *[2] * 17]
    assert streams.parent[1].tolist() == [-1 if v == 2 else p for v, p in enumerate(parents)]


@pytest.mark.parametrize(
    "part, joints, parents",
    [
        ("body", list(range(25)), BONES),
        (
            "hand",
            [20, 4, 5, 6, 7, 21, 22, 8, 9, 10, 11, 23, 24],
            [20, 20, 4, 5, 6, 7, 7, 20, 8, 9, 10, 11, 11],
        ),
        ("leg", [0, *range(12, 20)], [0, 0, 12, 13, 0, 15, 16, 17, 19]),
    ],
)
def test_psumnet_sees_parts(x, part, joints, parents):
    streams = make_streams(("joint", "bone", "joint_motion", "bone_motion"), NTU, part=part)
    assert streams.part.tolist() == joints
    j, b, jm, bm = apply(x, streams)
    bone = x[:, :, joints] - x[:, :, parents]
    assert torch.equal(j, x[:, :, joints]) and torch.equal(b, bone)
    torch.testing.assert_close(bm, motion(bone), atol=1e-6, rtol=1e-5)
    assert torch.equal(jm, motion(j))


def test_a_part_keeps_the_bones_to_joints_outside_it(x):
    (b,) = apply(x, make_streams("bone", "ntu25", part=(7, 5)))
    assert torch.equal(b, minus(x, BONES)[:, :, [7, 5]])


def test_scores_of_bones():
    x = torch.rand(4, 1, 17, 3)
    layout = get_layout("coco17")
    for mean in (False, True):
        streams = make_streams("bone", layout, mean_scores=mean)
        affine = two_branches(torch.eye(2, 3)[None])
        y = ClipPlan(torch.tensor([[0, 4]]), torch.arange(4)[None], affine).apply(x, streams)
        score, parent = x[:, 0, :, 2], x[:, 0, list(layout.parents), 2]
        expected = (score + parent) / 2 if mean else score - parent
        torch.testing.assert_close(y[0, 2, :, :, 0], expected)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("mean", [False, True])
def test_scores_of_motion(mean, native):
    """Of all frames in order, where motion before and after resampling is the same."""
    x = torch.rand(4, 1, 17, 3)
    parents = list(get_layout("coco17").parents)
    names = ["joint_motion", "bone_motion"]
    streams = make_streams(names, "coco17", mean_scores=mean, native_motion=native)
    affine = two_branches(torch.eye(2, 3)[None])
    y = ClipPlan(torch.tensor([[0, 4]]), torch.arange(4)[None], affine).apply(x, streams)
    score = x[:, 0, :, 2]
    bone = (score + score[:, parents]) / 2 if mean else score - score[:, parents]
    for found, s in zip(y[0, [2, 5], :, :, 0], (score, bone), strict=True):
        step = (s[1:] + s[:-1]) / 2 if mean else s[1:] - s[:-1]
        torch.testing.assert_close(found, torch.cat([step, 0 * s[:1]]))


def test_scores_of_resampled_motion():
    """Between frames the means of both pairs, and nothing after the last one."""
    x = torch.zeros(4, 1, 17, 3)
    x[..., 2] = torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None, None]
    streams = make_streams("joint_motion", "coco17", mean_scores=True, native_motion=True)
    frame, blend = torch.tensor([[0, 1, 2, 3, -1]]), torch.tensor([[0.5, 0.0, 0.25, 0.0, 0.0]])
    affine = two_branches(torch.eye(2, 3)[None])
    y = ClipPlan(torch.tensor([[0, 4]]), frame, affine, blend=blend).apply(x, streams)
    assert y[0, 2, :, 0, 0].tolist() == [2.25, 3.0, 4.5, 0.0, 0.0]


def test_tables_move():
    streams = make_streams(["joint", "bone"], "ntu25", part=[3, 4]).to("meta")
    assert streams.parent.is_meta and streams.part.is_meta and streams.names == ("joint", "bone")
    assert make_streams("joint", "ntu25").to("meta").part is None


@pytest.mark.parametrize(
    "names, options, message",
    [
        ("velocity", {}, "streams of ('joint', 'bone', 'joint_motion', 'bone_motion', 'skip', 's"),
        (["joint", "x"], {}, "streams of ('joint', 'bone', 'joint_motion', 'bone_motion', 'skip'"),
        ([], {}, "streams of ('joint',"),
        ("bone", {"parents": [0]}, "parents of 25 joints in -1..24, got [0]"),
        ("bone", {"parents": [25] * 25}, "parents of 25 joints in -1..24, got [25, 25"),
        ("skip", {"skip_parents": [-2] * 25}, "skip_parents of 25 joints in -1..24, got [-2, -2"),
        ("joint", {"root": 25}, "root in 0..24, got [25]"),
        ("joint", {"part": [0, -1]}, "part in 0..24, got [0, -1]"),
    ],
)
def test_refusals(names, options, message):
    with pytest.raises(ValueError, match=re.escape(f"make_streams: expected {message}")):
        make_streams(names, "ntu25", **options)


def test_unknown_part_and_layout():
    with pytest.raises(ValueError, match=r"body_part: expected part in .*, got 'foot'"):
        make_streams("joint", "ntu25", part="foot")
    with pytest.raises(ValueError, match=r"get_layout: expected one of .*, got 'ntu26'"):
        make_streams("joint", "ntu26")
