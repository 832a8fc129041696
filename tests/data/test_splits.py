import numpy as np
import pytest

from skelops.data import Clips, load_split, save_split, split
from skelops.data.splits import NTU60_SUBJECTS, NTU120_SUBJECTS


def make(n=6, classes=2, **changes):
    fields = {
        "xyz": np.ones((n, 1, 2, 3), np.float32),
        "length": np.ones(n, int),
        "label": np.arange(n) % classes,
        "classes": [f"class {i}" for i in range(classes)],
        "layout": "test",
        "subject": np.arange(n) + 1,
    }
    return Clips(**(fields | changes))


@pytest.fixture
def ntu():
    """Every subject, camera and setup of NTU RGB+D 120 with clips of classes 1, 60, 61 and 120."""
    grid = np.meshgrid(range(1, 107), range(1, 4), range(1, 33), (0, 59, 60, 119))
    subject, view, setup, label = (axis.ravel() for axis in grid)
    n = len(label)
    return make(
        n, 120, subject=subject, view=view, label=label, extra={"setup": setup}
    )  # fmt: skip


def test_general_protocols():
    clips = make(view=np.array([1, 2, 3, 1, 2, 3]), extra={"setup": np.arange(6)})
    train, test = split(clips, "cross_view")
    assert train.tolist() == [0, 1, 3, 4] and test.tolist() == [2, 5]
    train, test = split(clips, "cross_subject")
    assert clips.subject[train].tolist() == [1, 3, 5] and clips.subject[test].tolist() == [2, 4, 6]
    train, test = split(clips, "cross_subject", [6])
    assert train.tolist() == [5] and test.tolist() == [0, 1, 2, 3, 4]
    train, test = split(clips, "cross_setup")
    assert train.tolist() == [0, 2, 4] and test.tolist() == [1, 3, 5]


def test_published_subject_lists():
    assert len(NTU60_SUBJECTS) == 20 and max(NTU60_SUBJECTS) <= 40
    assert len(NTU120_SUBJECTS) == 53 and max(NTU120_SUBJECTS) <= 106
    assert list(NTU120_SUBJECTS) == sorted(set(NTU120_SUBJECTS))


@pytest.mark.parametrize(
    "protocol, field, trains, classes",
    [
        ("ntu60_xsub", "subject", set(NTU60_SUBJECTS), {0, 59}),
        ("ntu60_xview", "view", {2, 3}, {0, 59}),
        ("ntu120_xsub", "subject", set(NTU120_SUBJECTS), {0, 59, 60, 119}),
        ("ntu120_xset", "setup", set(range(2, 33, 2)), {0, 59, 60, 119}),
    ],
)
def test_ntu(ntu, protocol, field, trains, classes):
    train, test = split(ntu, protocol)
    group = ntu.extra["setup"] if field == "setup" else getattr(ntu, field)
    assert set(group[train]) == trains and set(group[test]) == set(group) - trains
    assert set(ntu.label[train]) == set(ntu.label[test]) == classes
    assert len(train) + len(test) == np.isin(ntu.label, list(classes)).sum()


def test_lists_that_came_with_the_data():
    lists = np.array(["train", "test", "", "train", "test", "test"])
    train, test = split(make(extra={"published": lists}), "extra:published")
    assert train.tolist() == [0, 3] and test.tolist() == [1, 4, 5]


def test_random_is_stratified_and_replays():
    clips = make(103, 4, label=np.minimum(np.arange(103), 3))
    train, test = split(clips, "random", share=0.7, seed=5)
    assert sorted([*train, *test]) == list(range(103))
    assert np.bincount(clips.label[train]).tolist() == [1, 1, 1, 70]
    again = split(clips, "random", share=0.7, seed=5)
    assert np.array_equal(again[0], train) and np.array_equal(again[1], test)
    assert not np.array_equal(split(clips, "random", share=0.7, seed=6)[0], train)
    assert [len(ids) for ids in split(make(4), "random", share=0.99)] == [2, 2]


@pytest.mark.parametrize(
    "protocol, arguments, message",
    [
        ("xsub", {}, r"split: expected protocol in .*, got 'xsub'"),
        ("cross_subject", {"train": [7]}, r"both sides of cross_subject, got 0 to train on and 6"),
        ("cross_view", {}, r"both sides of cross_view, got 6 to .* 0 to test, .* \[1\]"),
        ("cross_setup", {}, r"expected 'setup' in extra, got \[\]"),
        ("extra:lists", {}, r"expected 'lists' in extra, got \[\]"),
        ("ntu60_xsub", {}, r"expected the 60 classes of ntu60_xsub, got 2"),
        ("nw_ucla", {"train": [1]}, r"groups to train on for .* only, got them for 'nw_ucla'"),
        ("random", {"share": 1}, r"expected share in \(0, 1\), got 1"),
    ],
)  # fmt: skip
def test_bad_arguments(protocol, arguments, message):
    with pytest.raises(ValueError, match=message):
        split(make(), protocol, **arguments)


def test_split_file(tmp_path):
    clips, path = make(), tmp_path / "split.npz"
    save_split(path, *split(clips), clips)
    train, test = load_split(path, clips)
    assert train.tolist() == [0, 2, 4] and test.tolist() == [1, 3, 5]
    half = make(xyz=clips.xyz.astype(np.float16))
    assert np.array_equal(load_split(path, half)[0], train)
    with pytest.raises(ValueError, match=r"split\.npz: expected a split of the clips [0-9a-f]{16}"):
        load_split(path, make(7))


@pytest.mark.parametrize(
    "train, test, message",
    [
        ([0, 6], [1], r"expected indices in 0\.\.5, got 0\.\.6"),
        ([-1], [1], r"expected indices in 0\.\.5, got -1\.\.1"),
        ([0, 1], [1], r"expected every clip on one side, got clip 1 \(1\) twice"),
    ],
)
def test_split_of_wrong_indices(tmp_path, train, test, message):
    with pytest.raises(ValueError, match=message):
        save_split(tmp_path / "a.npz", train, test, make())
    assert not list(tmp_path.iterdir())


def test_damaged_split_file(tmp_path):
    clips, path = make(), tmp_path / "split.npz"
    save_split(path, *split(clips), clips)
    whole = path.read_bytes()
    for stop in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:stop])
        with pytest.raises(ValueError, match=r"split\.npz: expected a split file"):
            load_split(path, clips)
    np.savez(path, train=np.array([{}], object), test=np.array([1]), identity=clips.identity)
    with pytest.raises(ValueError, match=r"split\.npz: expected a split file"):
        load_split(path, clips)
    np.savez(path, train=np.array([0.5]), test=np.array([1]), identity=clips.identity)
    with pytest.raises(ValueError, match=r"expected indices \(N,\) int64, got float64"):
        load_split(path, clips)
