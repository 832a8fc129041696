"""Packed archives: what is read, and every way in which one can be damaged."""

import numpy as np
import pytest

from skelops.data import open_source, read

PARENT = [-1, 0, 1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18]


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


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_contents(tmp_path, arrays, save):
    save(tmp_path / "a.npz", **arrays)
    clips = read(tmp_path / "a.npz")
    assert clips.layout == "nw_ucla20" and clips.fps == 15 and clips.view.tolist() == [1, 3]
    assert clips.extra["rep"].tolist() == [0, 1] and set(clips.extra) == {"rep"}
    assert np.array_equal(clips[1][:, 0], arrays["xyz"][4:])
    two = arrays | {"xyz": np.stack([arrays["xyz"]] * 2, 1).astype(np.float16)}
    save(tmp_path / "two.npz", **two, confidence=True)
    clips = read(tmp_path / "two.npz")
    assert clips.xyz.shape == (9, 2, 20, 3) and clips.confidence


def test_clips_are_mapped(tmp_path, arrays):
    arrays["xyz"] = np.asfortranarray(np.repeat(arrays["xyz"], 20_000, axis=0))  # 43 MB
    arrays["length"] = np.array([4, 179_996])
    np.savez(tmp_path / "a.npz", **arrays)
    import tracemalloc

    tracemalloc.start()
    clip = open_source(tmp_path / "a.npz").load(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(clip.xyz[:, 0], arrays["xyz"][:4])
    assert peak < 4e6


def test_another_skeleton_goes_to_ntu25(tmp_path, arrays):
    index = np.arange(25) % 22
    arrays |= {"xyz": np.ones((9, 22, 3)), "parent": np.arange(-1, 21), "ntu25_index": index}
    arrays["xyz"] *= np.arange(22)[:, None]
    np.savez(tmp_path / "a.npz", **arrays)
    clips = read(tmp_path / "a.npz")
    assert clips.layout == "ntu25" and clips.xyz[0, 0, :, 0].tolist() == index.tolist()
    clips = read(tmp_path / "a.npz", layout="shrec22")
    assert clips.layout == "shrec22" and clips.num_joints == 22
    with pytest.raises(ValueError, match="expected the 17 joints of layout coco17, got 22"):
        read(tmp_path / "a.npz", layout="coco17")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"length": np.array([4, 6])}, r"lengths that sum to the 9 frames of xyz, got a sum of 10"),
        ({"length": np.array([9, 0])}, r"at least one frame per clip, got 0 in clip 1 \(two\)"),
        ({"length": np.array([4.0, 5.0])}, r"expected integers \(N,\) in length, got float64"),
        ({"label": np.array([0, 2])}, r"labels in 0\.\.1, got 2 in clip 1 \(two\)"),
        ({"label": np.array([0, -1])}, r"labels in 0\.\.1, got -1 in clip 1 \(two\)"),
        ({"subject": np.array([1])}, r"subject with one entry for each of 2 clips"),
        ({"name": np.array(["a", "a"])}, r"unique names, got 'a' as clips 0 and 1"),
        ({"fps": np.array(np.nan)}, r"expected a finite number in fps, got nan"),
        ({"xyz": np.zeros((9, 19, 3))}, r"parent of shape \(19,\), got \(20,\)"),
        ({"xyz": np.zeros((9, 20))}, r"floating xyz of shape .*, got float64 \(9, 20\)"),
        ({"xyz": np.zeros((9, 20, 3), int)}, r"floating xyz of shape .*, got int64"),
        ({"parent": np.arange(-1, 19)}, r"expected a key 'layout', .*got 20 joints that fit none"),
        ({"layout": np.array("ntu25")}, r"the 25 joints of layout ntu25, got 20"),
        ({"layout": np.array("xyz")}, r"expected a known layout, got .*'xyz'"),
        ({"classes": np.array([{}, []], object)}, r"readable archive .* key 'classes'"),
    ],
)
def test_contradictions(refused, tmp_path, arrays, changes, message):
    np.savez(tmp_path / "a.npz", **(arrays | changes))
    refused(tmp_path / "a.npz", message)


@pytest.mark.parametrize("key", ["length", "label", "classes", "name", "subject"])
def test_lacking_a_key(refused, tmp_path, arrays, key):
    del arrays[key]
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", f"expected key '{key}', got")


def test_not_a_number(refused, tmp_path, arrays):
    arrays["xyz"][6, 11, 2] = np.inf
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", r"clip 1 \(two\): .*got inf at index \[2, 11, 2\]")


def test_damage_never_passes_silently(refused, tmp_path, arrays):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays)
    good, whole = read(path), path.read_bytes()
    for stop in range(5, len(whole), len(whole) // 25):
        path.write_bytes(whole[:stop])
        refused(path, "expected")
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            clips = read(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:  # a byte that carries no data, such as a time stamp
            assert np.array_equal(clips.xyz, good.xyz)
