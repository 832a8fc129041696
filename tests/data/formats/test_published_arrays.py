"""Kinetics-skeleton, PYSKL, CTR-GCN and ST-GCN: their rules, options, and content that is wrong."""

import json
import pickle

import numpy as np
import pytest

from skelops.data import open_source, read, split
from skelops.data.formats._files import sides


def person(place, score):
    return {"pose": [place, 0.25] * 18, "score": [score] * 18}


@pytest.fixture
def kinetics(make_sample):
    """Opens a directory whose only clip has these frames."""
    path = make_sample("kinetics")

    def open_frames(frames, **options):
        clip = {"data": frames, "label": "jump", "label_index": 1}
        (path / "clip.json").write_text(json.dumps(clip))
        return open_source(path, **options)

    return open_frames


def test_kinetics_takes_persons_of_each_frame_by_score(kinetics):
    people = [person(0.1, 0.2), person(0.2, 0.9), person(0.3, 0.4), person(0.4, 0.1)]
    frames = [
        {"frame_index": 4, "skeleton": people},
        {"frame_index": 6, "skeleton": people[::-1]},
        {"frame_index": 7, "skeleton": [person(0.6, 0.3)] * 5 + [person(0.7, 1)]},
    ]
    xyz = kinetics(frames).load(0).xyz
    assert xyz.shape == (4, 2, 18, 3)
    expected = [[-0.3, -0.2], [0, 0], [-0.3, -0.2], [0.1, 0.1]]
    np.testing.assert_allclose(xyz[:, :, 5, 0], expected, atol=1e-6)
    np.testing.assert_allclose(xyz[0, 0, 5], [-0.3, 0.25, 0.9], atol=1e-6)  # y points up


def test_kinetics_options_and_labels(kinetics):
    frames = [{"frame_index": 1, "skeleton": [person(0.3, 0.5) | {"score": [0.0] + [0.5] * 17}]}]
    source = kinetics(frames, num_persons=1)
    assert source.classes == ("class_0", "jump") and source.load(0).label == 1
    assert (source.load(0).xyz[0, 0, 0] == 0).all() and source.load(0).xyz[0, 0, 1, 2] == 0.5
    raw = kinetics(frames, centre=False).load(0).xyz
    np.testing.assert_allclose(raw[0, 0, 0], [0.3, 0.25, 0])
    assert raw.shape == (1, 2, 18, 3)
    assert kinetics([{"frame_index": 1, "skeleton": []}]).load(0) is None


def test_kinetics_leaves_out_clips_without_skeleton(make_sample):
    path = make_sample("kinetics")
    (path / "other.json").write_text("{}")
    entry = {"label": "run", "label_index": 0}
    table = json.loads((path.parent / "train_label.json").read_text())
    labels = path.parent / "labels.json"
    labels.write_text(json.dumps(table | {"other": entry | {"has_skeleton": False}}))
    source = open_source(path, labels=labels)
    assert len(source) == 1 and source.classes == ("run", "jump")
    labels.write_text(json.dumps(table | {"other": entry | {"label_index": 1}}))
    with pytest.raises(ValueError, match="other: expected label 'jump' of label_index 1, got 'ru"):
        open_source(path, labels=labels)
    with pytest.raises(ValueError, match=r"train_label\.json: expected key 'other'"):
        open_source(path)
    (path.parent / "train_label.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a label file .*train_label\.json"):
        open_source(path)


@pytest.mark.parametrize(
    "frames, message",
    [
        ([{"frame_index": 1, "skeleton": [{"pose": [0] * 35, "score": [1] * 18}]}],
         r"data 0, skeleton 0, pose: expected numbers \(36,\), got \(35,\)"),
        ([{"frame_index": 1, "skeleton": [{"pose": [0] * 36}]}], "expected key 'score'"),
        ([{"frame_index": i, "skeleton": [person(0.1, 1)]} for i in (1, 1)], "each frame_index"),
        ([{"frame_index": i, "skeleton": [person(0.1, 1)]} for i in (1, 10**6)], "at most 100000"),
        ([{"frame_index": 1.5, "skeleton": []}], r"expected frame_index in 0\.\.\d+, got 1\.5"),
        ([{"frame_index": 1, "skeleton": {}}], "expected a list in skeleton"),
    ],
)  # fmt: skip
def test_kinetics_damaged(kinetics, frames, message):
    with pytest.raises(ValueError, match=message):
        kinetics(frames).load(0)


@pytest.fixture
def annotations(make_sample):
    """Opens a pickle of changed annotations."""
    path = make_sample("pyskl")
    content = pickle.loads(path.read_bytes())

    def open_changed(change=None, value=None, bare=False, **options):
        if change is not None:
            content["annotations"][1][change] = value
        path.write_bytes(pickle.dumps(content["annotations"] if bare else content))
        return open_source(path, **options)

    open_changed.content = content["annotations"]
    return open_changed


def test_pyskl(annotations):
    source = annotations()
    assert source.layout == "coco17" and source.num_persons == 2 and source.confidence
    assert source.splits == {"train": ("clip_0",), "val": ("clip_1",)}
    clip, original = source.load(1), annotations.content[1]
    assert np.array_equal(clip.xyz[..., :2], original["keypoint"].swapaxes(0, 1))
    assert np.array_equal(clip.xyz[..., 2], original["keypoint_score"].swapaxes(0, 1))
    assert clip.extra == {"height": 240, "width": 320, "split": "test"}
    assert not source.load(0).xyz[:, 1].any()  # one person alone
    scaled = annotations(normalise=True).load(1).xyz
    np.testing.assert_allclose(scaled[..., :2] * [320, 240], clip.xyz[..., :2], rtol=1e-6)
    bare = annotations(bare=True, layout="h36m17", classes=["sit", "run", "jump"])
    assert bare.layout == "h36m17" and bare.classes[2] == "jump" and bare.splits == {}


def test_pyskl_keeps_the_surest_persons(annotations):
    points = np.arange(3)[:, None, None, None] + np.ones((3, 3, 17, 2), np.float32)
    annotations("keypoint", points)
    score = np.full((3, 3, 17), 0.5, np.float32)
    score[2] = 0.9
    clip = annotations("keypoint_score", score, num_persons=2).load(1)
    assert clip.xyz[:, :, 0, 0].tolist() == [[1, 3]] * 3
    assert annotations().num_persons == 3
    assert annotations("keypoint", points * 0).load(1).xyz[..., 2].any()
    assert annotations("keypoint_score", score * 0).load(1) is None


@pytest.mark.parametrize(
    "change, value, message",
    [
        ("keypoint", np.zeros((1, 3, 17)), r"annotation 1: expected keypoint \(M, T, V, C\), got"),
        ("keypoint", np.zeros((1, 0, 17, 2)), r"annotation 1: expected keypoint \(M, T, V, C\)"),
        ("keypoint", np.zeros((1, 3, 18, 2)), r"keypoint: expected numbers \(any, any, 17, 2\)"),
        ("keypoint", np.full((1, 3, 17, 2), np.nan), "keypoint: expected finite coordinates"),
        ("keypoint", [[1]], "expected keypoint"),
        ("keypoint_score", np.zeros((2, 3, 16)), r"keypoint_score: expected numbers \(2, 3, 17\)"),
        ("label", -1, r"annotation 1: expected label in 0\.\.\d+, got -1"),
        ("label", 1.0, r"annotation 1: expected label in 0\.\.\d+, got 1\.0"),
        ("label", 10**9, r"annotation 1: expected label in 0\.\.\d+"),
        ("frame_dir", "clip_0", "expected unique names, got 'clip_0' as clips 0 and 1"),
        ("img_shape", (0, 5), r"annotation 1: expected img_shape in 1\.\."),
        ("img_shape", 7, r"annotation 1: expected img_shape \(height, width\), got 7"),
    ],
)
def test_pyskl_damaged(annotations, change, value, message):
    with pytest.raises(ValueError, match=message):
        annotations(change, value).load(1)


def test_pyskl_is_never_executed(tmp_path):
    class Program:
        def __reduce__(self):
            return print, ("executed",)

    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"annotations": [Program()]}))
    with pytest.raises(ValueError, match=r"a\.pkl: expected a pickle of plain data, got .*print"):
        read(path)
    path.write_bytes(pickle.dumps({"annotations": []}))
    with pytest.raises(ValueError, match="expected annotations, got none"):
        read(path)


def test_ctrgcn(make_sample):
    path = make_sample("ctrgcn")
    clips, source = read(path), open_source(path)
    archive = np.load(path)
    assert clips.name.tolist() == ["train_0", "train_1", "test_0"]
    assert clips.length.tolist() == [3, 4, 3] and clips.label.tolist() == [0, 2, 0]
    assert clips.classes == ("class_0", "class_1", "class_2")
    assert source.splits == {"train": ("train_0", "train_1"), "test": ("test_0",)}
    assert clips.extra["split"].tolist() == ["train", "train", "test"]
    assert np.array_equal(clips[1][2, 1, 4], archive["x_train"][1, 2, 75 + 12 : 75 + 15])
    with pytest.raises(ValueError, match=r"expected x_train \(N, T, 120\), got \(2, 4, 150\)"):
        open_source(path, layout="nw_ucla20")


def test_ctrgcn_length_counts_frames_that_do_not_sum_to_zero(tmp_path):
    x = np.zeros((2, 5, 150), np.float32)
    x[0, [0, 1, 3], 0] = 1
    x[0, 1, 1] = -1  # sums to zero
    np.savez(tmp_path / "a.npz", x_test=x, y_test=np.eye(2))
    source = open_source(tmp_path / "a.npz")
    assert len(source.load(0).xyz) == 2 and source.load(1) is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y_train": np.ones((2, 3))}, "one-hot rows, got another in y_train 0"),
        ({"y_train": np.zeros(2)}, r"expected y_train \(2, K\), got float64 \(2,\)"),
        ({"y_train": np.eye(3)}, r"expected y_train \(2, K\), got float64 \(3, 3\)"),
        ({"x_train": np.full((2, 4, 150), np.inf)}, "train_0: expected finite coordinates"),
        ({"x_train": np.zeros((2, 4, 150), complex)}, "key 'x_train', got ValueError: complex128"),
        ({"x_train": np.zeros((0, 4, 150)), "y_train": np.zeros((0, 3))}, "expected clips in x_tr"),
    ],
)
def test_ctrgcn_damaged(tmp_path, make_sample, changes, message):
    archive = dict(np.load(make_sample("ctrgcn")))
    arrays = {"x_train": archive["x_train"], "y_train": archive["y_train"]} | changes
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "a.npz")


def test_stgcn(make_sample):
    path = make_sample("stgcn")
    clips, array = read(path), np.load(path / "train_data.npy")
    assert clips.name.tolist() == ["S001C002P003R001A002", "S001C003P004R001A001"]
    assert clips.length.tolist() == [3, 5] and clips.label.tolist() == [1, 0]
    assert clips.view.tolist() == [2, 3] and clips.subject.tolist() == [3, 4]
    assert np.array_equal(clips[1], array[1].transpose(1, 3, 2, 0))
    assert np.array_equal(read(path / "train_data.npy").xyz, clips.xyz)
    names = (["x.skeleton", "y"], np.array([2, 0]))
    (path / "val_label.pkl").write_bytes(pickle.dumps(names))
    np.save(path / "val_data_joint.npy", array)
    source = open_source(path)
    assert source.splits == {"train": tuple(clips.name.tolist()), "val": ("x", "y")}
    assert len(source) == 4 and source.load(2).label == 2 and len(source.classes) == 3
    assert read(path).extra["split"].tolist() == ["train", "train", "test", "test"]


@pytest.mark.parametrize(
    "array, labels, message",
    [
        (np.zeros((2, 3, 4, 25)), None, r"expected floating \(N, C, T, V, M\), got float64"),
        (np.zeros((2, 3, 4, 25, 2), int), None, r"expected floating .*, got int64"),
        (np.zeros((3, 3, 4, 25, 2)), None, "expected names and labels of 3 clips"),
        (np.zeros((2, 3, 4, 23, 2)), None, "expected option layout for 23 joints, got none"),
        (np.full((2, 3, 4, 25, 2), np.nan), None, r"clip 0 \(S001C002P003R001A002\): .*finite"),
        (None, (["a", "a"], [0, 1]), "unique names, got 'a' as clips 0 and 1"),
        (None, (["a", "b"], [0, -1]), r"expected label of clip 1 in 0\.\."),
        (None, ["a", "b", "c"], r"expected \(names, labels\)"),
    ],
)
def test_stgcn_damaged(make_sample, array, labels, message):
    path = make_sample("stgcn")
    if array is not None:
        np.save(path / "train_data.npy", array)
    if labels is not None:
        (path / "train_label.pkl").write_bytes(pickle.dumps(labels))
    with pytest.raises(ValueError, match=message):
        read(path, format="stgcn")


def test_stgcn_of_key_points_has_scores(tmp_path):
    np.save(tmp_path / "val_data.npy", np.ones((1, 3, 4, 18, 1), np.float32))
    (tmp_path / "val_label.pkl").write_bytes(pickle.dumps((["clip"], [0])))
    source = open_source(tmp_path)
    assert source.layout == "openpose18" and source.confidence
    assert not open_source(tmp_path, confidence=False).confidence
    (tmp_path / "val_label.pkl").unlink()
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path)


def test_published_lists_become_protocols(make_sample):
    lists = {"xsub_train": "ab", "xsub_val": "c", "train1": "a", "test1": "b", "all": "abc"}
    assert sides(lists) == {
        "xsub": {"a": "train", "b": "train", "c": "test"},
        "split1": {"a": "train", "b": "test"},
    }
    both = {"train": "a", "val": "b", "test": "c"}
    assert sides(both) == {"split": {"a": "train", "b": "val", "c": "test"}}
    for format in ("pyskl", "ctrgcn", "shrec"):
        train, test = split(read(make_sample(format)), "extra:split")
        assert len(train) >= 1 and len(test) == 1
