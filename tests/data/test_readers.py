import json
from pathlib import Path

import numpy as np
import pytest

from skelops.data import read, read_npz, split

DATA = Path(__file__).parents[3] / "shared" / "data"
PARENT = [-1, 0, 1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18]


@pytest.fixture
def recorded():
    if not (DATA / "nw_ucla.npz").exists():
        pytest.skip("the recordings are not at hand (../shared/data)")
    return DATA


@pytest.fixture
def record():
    skeletons = np.random.default_rng(0).normal(size=(4, 20, 3)).round(5).tolist()
    return {"file_name": "a03_s02_e01_v03", "skeletons": skeletons, "label": 3}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "xyz": rng.normal(size=(9, 20, 3)).astype(np.float32),
        "length": np.array([4, 5]),
        "label": np.array([1, 0]),
        "classes": np.array(["sit", "stand"]),
        "name": np.array(["one", "two"]),
        "subject": np.array([1, 2]),
        "view": np.array([1, 3]),
        "rep": np.array([0, 1]),
        "parent": np.array(PARENT),
        "fps": np.array(15),
    }


def untouched(path, call, message):
    """The call raises an error that names the file, and the file stays as it is."""
    before = path.read_bytes()
    with pytest.raises((ValueError, OSError), match=message) as error:
        call(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_json_file_and_directory(tmp_path, record):
    for view in (3, 1):
        name = f"a03_s02_e01_v0{view}"
        (tmp_path / f"{name}.json").write_text(json.dumps(record | {"file_name": name}))
    clips = read(tmp_path)
    assert clips.name.tolist() == ["a03_s02_e01_v01", "a03_s02_e01_v03"]
    assert clips.layout == "nw_ucla20" and clips.xyz.shape == (8, 1, 20, 3)
    assert clips.label.tolist() == [2, 2] and clips.classes[2] == "drop trash"
    assert clips.subject.tolist() == [2, 2] and clips.view.tolist() == [1, 3]
    assert np.array_equal(clips[0][:, 0], np.array(record["skeletons"], np.float32))
    assert len(read(tmp_path / "a03_s02_e01_v01.json")) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"label": 11}, r"expected label in 1\.\.10, got 11"),
        ({"label": "3"}, r"expected label in 1\.\.10, got '3'"),
        ({"file_name": "clip"}, r"expected file_name like a01_s01_e00_v01, got 'clip'"),
        ({"skeletons": []}, r"expected at least one frame in skeletons, got \[\]"),
        ({"skeletons": [[[0, 0, 0]] * 19]}, r"expected \(20, 3\) in frame 0, got \(19, 3\)"),
        ({"skeletons": [[[0, 0]] * 20]}, r"expected \(20, 3\) in frame 0, got \(20, 2\)"),
        ({"skeletons": [[[0, 0, "x"]] * 20]}, r"expected numbers \(20, 3\) in frame 0"),
        ({"skeletons": [[[0, 0, 0]] * 19 + [[0, 0]]]}, r"expected numbers \(20, 3\) in frame 0"),
    ],
)
def test_damaged_json(tmp_path, record, changes, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(record | changes))
    untouched(path, read, message)


def test_not_a_number_in_json(tmp_path, record):
    record["skeletons"][2][7][1] = float("nan")
    path = tmp_path / "a.json"
    path.write_text(json.dumps(record))
    untouched(path, read, r"expected finite coordinates, got .*nan.* in frame 2, joint 7")


def test_missing_key_and_truncated_json(tmp_path, record):
    path = tmp_path / "a.json"
    text = json.dumps(record)
    path.write_text(text[: len(text) // 2])
    untouched(path, read, r"expected json, got .* at line 1, column \d+")
    path.write_text(json.dumps({k: v for k, v in record.items() if k != "label"}))
    untouched(path, read, r"expected key 'label', got \['file_name', 'skeletons'\]")


def test_npz(tmp_path, arrays):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    clips = read(tmp_path / "a.npz")
    assert clips.layout == "nw_ucla20" and clips.fps == 15 and clips.view.tolist() == [1, 3]
    assert clips.extra["rep"].tolist() == [0, 1] and set(clips.extra) == {"rep"}
    assert np.array_equal(clips[1][:, 0], arrays["xyz"][4:])
    two = arrays | {"xyz": np.stack([arrays["xyz"]] * 2, 1).astype(np.float16)}
    np.savez(tmp_path / "two.npz", **two)
    assert read(tmp_path / "two.npz").xyz.shape == (9, 2, 20, 3)


def test_npz_of_another_skeleton_goes_to_ntu25(tmp_path, arrays):
    index = np.arange(25) % 22
    arrays |= {"xyz": np.ones((9, 22, 3)), "parent": np.arange(-1, 21), "ntu25_index": index}
    arrays["xyz"] *= np.arange(22)[:, None]
    np.savez(tmp_path / "a.npz", **arrays)
    clips = read(tmp_path / "a.npz")
    assert clips.layout == "ntu25" and clips.xyz[0, 0, :, 0].tolist() == index.tolist()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"length": np.array([4, 6])}, r"lengths that sum to the 9 frames of xyz, got a sum of 10"),
        ({"length": np.array([9, 0])}, r"at least one frame per clip, got 0 in clip 1 \(two\)"),
        ({"length": np.array([4.0, 5.0])}, r"expected integers \(N,\) in length, got float64"),
        ({"label": np.array([0, 2])}, r"labels in 0\.\.1, got 2 in clip 1 \(two\)"),
        ({"label": np.array([0, -1])}, r"labels in 0\.\.1, got -1 in clip 1 \(two\)"),
        ({"subject": np.array([1])}, r"subject with one entry for each of 2 clips"),
        ({"xyz": np.zeros((9, 19, 3))}, r"parent of shape \(19,\), got \(20,\)"),
        ({"xyz": np.zeros((9, 20))}, r"floating xyz of shape .*, got float64 \(9, 20\)"),
        ({"xyz": np.zeros((9, 20, 3), int)}, r"floating xyz of shape .*, got int64"),
        ({"parent": np.arange(-1, 19)}, r"expected a key 'layout', .*got 20 joints that fit none"),
        ({"layout": np.array("ntu25")}, r"the 25 joints of layout ntu25, got 20"),
        ({"classes": np.array([{}, []], object)}, r"readable archive .* in key 'classes'"),
    ],
)
def test_contradictory_npz(tmp_path, arrays, changes, message):
    np.savez(tmp_path / "a.npz", **(arrays | changes))
    untouched(tmp_path / "a.npz", read, message)


@pytest.mark.parametrize("key", ["xyz", "length", "label", "classes", "name", "subject"])
def test_npz_lacking_a_key(tmp_path, arrays, key):
    del arrays[key]
    np.savez(tmp_path / "a.npz", **arrays)
    untouched(tmp_path / "a.npz", read, f"expected key '{key}', got")


def test_not_a_number_in_npz(tmp_path, arrays):
    arrays["xyz"][6, 11, 2] = np.inf
    np.savez(tmp_path / "a.npz", **arrays)
    untouched(tmp_path / "a.npz", read, r"got inf in clip 1 \(two\), frame 2, person 0, joint 11")


def test_damaged_npz_never_passes_silently(tmp_path, arrays):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays)
    good, whole = read(path), path.read_bytes()
    for stop in range(5, len(whole), len(whole) // 25):
        path.write_bytes(whole[:stop])
        untouched(path, read, "expected")
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            clips = read(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:  # a byte that carries no data, such as a time stamp
            assert np.array_equal(clips.xyz, good.xyz)


def test_neither_json_nor_npz(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04abcdefgh")
    untouched(path, read, r"got a file that starts with b'\\x80\\x04abcdef'")
    path.write_bytes(b"")
    untouched(path, read, "got an empty file")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="expected json files, got none"):
        read(tmp_path)


def test_nw_ucla_cross_view(recorded):
    train, test = split(read(recorded / "nw_ucla.npz"), "cross_view")
    assert (len(train), len(test)) == (1020, 464)
    assert train.layout == "nw_ucla20" and set(test.view) == {3}


def test_nw_ucla_originals_equal_the_archive(recorded):
    packed, original = read_npz(recorded / "nw_ucla.npz"), read(recorded / "raw" / "nwucla")
    assert len(original) == 18
    assert original.classes == packed.classes
    where = {name: i for i, name in enumerate(packed.name)}
    for i, name in enumerate(original.name):
        k = where[name]
        assert np.array_equal(original[i], packed[k])
        for field in ("label", "subject", "view"):
            assert getattr(original, field)[i] == getattr(packed, field)[k]


def test_ui_prmd(recorded):
    clips = read(recorded / "ui_prmd_mini.npz")
    assert len(clips) == 1000 and clips.layout == "ntu25" and clips.num_classes == 10
    assert clips.fps == 15 and clips.extra["correct"].all()
