import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from skelops.data import Clips


def make(length=(3, 1, 4), **changes):
    frames = sum(length)
    fields = {
        "xyz": np.arange(frames * 2 * 4 * 3, dtype=np.float32).reshape(frames, 2, 4, 3) + 1,
        "length": length,
        "label": np.arange(len(length)) % 2,
        "classes": ("a", "b"),
        "layout": "test",
        "subject": np.arange(len(length)) + 1,
        "view": np.arange(len(length)) + 1,
        "extra": {"rep": np.arange(len(length)) * 10},
    }
    return Clips(**(fields | changes))


def test_ragged_access():
    clips = make()
    assert len(clips) == 3 and clips.num_classes == 2
    assert clips.num_persons == 2 and clips.num_joints == 4 and clips.dims == 3
    assert clips.offset.tolist() == [0, 3, 4, 8]
    assert np.array_equal(clips[1], clips.xyz[3:4])
    assert np.array_equal(clips[-1], clips.xyz[4:])
    with pytest.raises(IndexError):
        clips[3]


@pytest.mark.parametrize(
    "given, kept",
    [("f2", "f2"), ("f4", "f4"), ("f8", "f4"), (">f4", "<f4"), ("i2", "f4")],
)
def test_dtypes_of_coordinates(given, kept):
    clips = make(xyz=np.full((8, 2, 4, 3), 7, given))
    assert clips.xyz.dtype == np.dtype(kept) and (clips.xyz == 7).all()


def test_coordinates_are_real_numbers():
    with pytest.raises(TypeError, match="expected xyz of real numbers, got complex64"):
        make(xyz=np.ones((8, 2, 4, 3), np.complex64))


def test_present_is_any_coordinate_that_is_not_zero():
    xyz = np.zeros((8, 2, 4, 3), np.float32)
    xyz[2, 1, 3, 0] = 1e-9
    assert np.argwhere(make(xyz=xyz).present).tolist() == [[2, 1]]
    given = np.zeros((8, 2), bool)
    assert not make(present=given).present.any()


def test_a_score_is_no_coordinate():
    xyz = np.zeros((8, 2, 4, 3), np.float32)
    xyz[..., 2] = 1
    clips = make(xyz=xyz, confidence=True)
    assert clips.dims == 2 and not clips.present.any()
    with pytest.raises(ValueError, match="at least one coordinate"):
        make(xyz=xyz[..., 2:], confidence=True)


def test_select_keeps_order_and_every_field():
    xyz = np.arange(8 * 2 * 4 * 3).reshape(8, 2, 4, 3).astype(np.float16)
    clips = make(xyz=xyz, fps=25.0, confidence=True, present=np.arange(16).reshape(8, 2) % 3 == 0)
    chosen = clips.select(np.array([2, 0]))
    assert np.array_equal(chosen[0], clips[2]) and np.array_equal(chosen[1], clips[0])
    assert chosen.subject.tolist() == [3, 1] and chosen.extra["rep"].tolist() == [20, 0]
    assert np.array_equal(chosen.present, np.concatenate([clips.present[4:], clips.present[:3]]))
    assert chosen.name.tolist() == ["2", "0"] and chosen.fps == 25 and chosen.dims == 2
    assert chosen.xyz.dtype == np.float16 and chosen.path is None
    assert np.array_equal(clips.select(np.array([False, True, False]))[0], clips[1])
    before = clips.xyz.copy()
    chosen.xyz[:] = 0
    assert np.array_equal(clips.xyz, before)
    with pytest.raises(ValueError, match=r"select: expected every clip once, got clip 1 \(1\) twi"):
        clips.select(np.array([1, 0, 1]))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"length": (3, 1, 5)}, r"lengths that sum to the 8 frames of xyz, got a sum of 9"),
        ({"length": (3, 0, 5)}, r"at least one frame per clip, got 0 in clip 1 \(1\)"),
        ({"label": (0, 2, 1)}, r"labels in 0\.\.1, got 2 in clip 1"),
        ({"label": (0, 1)}, r"label with one entry for each of 3 clips, got shape \(2,\)"),
        ({"extra": {"rep": np.zeros(2)}}, r"rep with one entry for each of 3 clips"),
        ({"xyz": np.zeros((8, 4, 3))}, r"xyz of shape \(F, M, V, C\), got \(8, 4, 3\)"),
        ({"present": np.ones((8, 1))}, r"present of shape \(8, 2\), got \(8, 1\)"),
        ({"name": list("bab")}, r"unique names, got the same for clip 0 \(b\) and clip 2 \(b\)"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(ValueError, match="Clips: expected " + message):
        wrong = {"xyz": np.ones((8, 2, 4, 3), np.float32)} | changes
        make(**({"length": (3, 1, 4)} | wrong))


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_not_a_number_is_located(block, monkeypatch):
    monkeypatch.setattr("skelops.data.clips._BLOCK", block)
    xyz = np.ones((8, 2, 4, 3), np.float32)
    xyz[5, 1, 2, 0] = xyz[6] = np.nan
    with pytest.raises(ValueError, match=r"nan in clip 2 \(2\), frame 1, person 1, joint 2"):
        make(xyz=xyz)


def test_identity_is_that_of_the_clips_not_of_their_coordinates():
    clips = make()
    assert make(xyz=clips.xyz.astype(np.float16)).identity == clips.identity
    others = [
        clips.select(np.array([1, 0, 2])),
        clips.select(np.array([0, 1])),
        make(label=(1, 1, 1)),
        make(name=list("abc")),
        make(length=(1, 3, 4)),
        make(layout="other"),
        make(classes=("a", "c")),
    ]
    assert len({clips.identity, *(other.identity for other in others)}) == 8


@pytest.mark.parametrize("again", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy, replace])
def test_copies_in_memory(again):
    clips = make()
    other = again(clips)
    assert other.identity == clips.identity and np.array_equal(other[2], clips[2])
    assert other.path is None
