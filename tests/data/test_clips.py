import numpy as np
import pytest

from skelops.data import Clips, split


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
    assert clips.offset.tolist() == [0, 3, 4, 8]
    assert np.array_equal(clips[1], clips.xyz[3:4])
    assert np.array_equal(clips[-1], clips.xyz[4:])
    with pytest.raises(IndexError):
        clips[3]


def test_select_keeps_order_and_every_field():
    clips = make()
    chosen = clips.select(np.array([2, 0]))
    assert np.array_equal(chosen[0], clips[2]) and np.array_equal(chosen[1], clips[0])
    assert chosen.subject.tolist() == [3, 1] and chosen.extra["rep"].tolist() == [20, 0]
    assert np.array_equal(clips.select(np.array([False, True, False]))[0], clips[1])
    chosen.xyz[:] = 0
    assert clips.xyz.all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"length": (3, 1, 5)}, r"lengths that sum to the 8 frames of xyz, got a sum of 9"),
        ({"length": (3, 0, 5)}, r"at least one frame per clip, got 0 in clip 1 \(1\)"),
        ({"label": (0, 2, 1)}, r"labels in 0\.\.1, got 2 in clip 1"),
        ({"label": (0, 1)}, r"label with one entry for each of 3 clips, got shape \(2,\)"),
        ({"extra": {"rep": np.zeros(2)}}, r"rep with one entry for each of 3 clips"),
        ({"xyz": np.zeros((8, 4, 3))}, r"xyz of shape \(F, M, V, C\), got \(8, 4, 3\)"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(ValueError, match="Clips: expected " + message):
        wrong = {"xyz": np.ones((8, 2, 4, 3), np.float32)} | changes
        make(**({"length": (3, 1, 4)} | wrong))


def test_not_a_number_is_located():
    xyz = np.ones((8, 2, 4, 3), np.float32)
    xyz[5, 1, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"nan in clip 2 \(2\), frame 1, person 1, joint 2"):
        make(xyz=xyz)


def test_splits():
    clips = make(length=(1,) * 6, view=np.array([1, 2, 3, 1, 2, 3]))
    train, test = split(clips, "cross_view")
    assert set(train.view) == {1, 2} and set(test.view) == {3}
    train, test = split(clips, "cross_subject")
    assert train.subject.tolist() == [1, 3, 5] and test.subject.tolist() == [2, 4, 6]
    train, test = split(clips, "cross_subject", [6])
    assert train.subject.tolist() == [6]
    with pytest.raises(ValueError, match=r"split: expected protocol in .*, got 'random'"):
        split(clips, "random")
    with pytest.raises(ValueError, match=r"clips on both sides of cross_subject, got 0 to train"):
        split(clips, "cross_subject", [7])
