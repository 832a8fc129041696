"""NW-UCLA json: what is read, and every way in which a file can be damaged."""

import json

import numpy as np
import pytest

from skelops.data import read, split


@pytest.fixture
def record():
    skeletons = np.random.default_rng(0).normal(size=(4, 20, 3)).round(5).tolist()
    return {"file_name": "a03_s02_e01_v03", "skeletons": skeletons, "label": 3}


def test_file_and_directory(tmp_path, record):
    for view in (3, 1):
        name = f"a03_s02_e01_v0{view}"
        (tmp_path / f"{name}.json").write_text(json.dumps(record | {"file_name": name}))
    clips = read(tmp_path)
    assert clips.name.tolist() == ["a03_s02_e01_v01", "a03_s02_e01_v03"]
    assert clips.layout == "nw_ucla20" and clips.xyz.shape == (8, 1, 20, 3)
    assert clips.label.tolist() == [2, 2] and clips.classes[2] == "drop trash"
    assert clips.subject.tolist() == [2, 2] and clips.view.tolist() == [1, 3]
    assert clips.extra["rep"].tolist() == [1, 1]
    assert np.array_equal(clips[0][:, 0], np.array(record["skeletons"], np.float32))
    assert len(read(tmp_path / "a03_s02_e01_v01.json")) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"label": 11}, r"expected label in 1\.\.10, got 11"),
        ({"label": "3"}, r"expected label in 1\.\.10, got '3'"),
        ({"label": True}, r"expected label in 1\.\.10, got True"),
        ({"label": 3.0}, r"expected label in 1\.\.10, got 3.0"),
        ({"file_name": "clip"}, r"expected file_name like a01_s01_e00_v01, got 'clip'"),
        ({"skeletons": []}, r"expected at least one frame in skeletons, got \[\]"),
        ({"skeletons": [[[0, 0, 0]] * 19]}, r"frame 0: expected numbers \(20, 3\), got \(19, 3\)"),
        ({"skeletons": [[[0, 0]] * 20]}, r"frame 0: expected numbers \(20, 3\), got \(20, 2\)"),
        ({"skeletons": [[[0, 0, "x"]] * 20]}, r"frame 0: expected numbers \(20, 3\)"),
        ({"skeletons": [[[0, 0, 10**400]] * 20]}, r"frame 0: expected numbers \(20, 3\)"),
        ({"skeletons": [[[0, 0, 1e39]] * 20]}, r"frame 0: expected finite coordinates, got inf"),
        ({"skeletons": [[[0, 0, 0]] * 19 + [[0, 0]]]}, r"frame 0: expected numbers \(20, 3\)"),
    ],
)
def test_damaged(refused, tmp_path, record, changes, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(record | changes))
    refused(path, message)


def test_not_a_number(refused, tmp_path, record):
    record["skeletons"][2][7][1] = float("nan")
    path = tmp_path / "a.json"
    path.write_text(json.dumps(record))
    refused(path, r"frame 2: expected finite coordinates, got nan at index \[7, 1\]")


def test_missing_key_and_truncated(refused, tmp_path, record):
    path = tmp_path / "a.json"
    text = json.dumps(record)
    path.write_text(text[: len(text) // 2])
    refused(path, r"expected json, got .* at line 1, column \d+")
    path.write_text(json.dumps({k: v for k, v in record.items() if k != "label"}))
    refused(path, r"expected key 'label', got \['file_name', 'skeletons'\]")


def test_cross_view(recorded):
    clips = read(recorded / "nw_ucla.npz")
    train, test = split(clips, "nw_ucla")
    assert (len(train), len(test)) == (1020, 464)
    assert clips.layout == "nw_ucla20" and set(clips.view[test]) == {3}


def test_originals_equal_the_archive(recorded):
    packed, original = read(recorded / "nw_ucla.npz"), read(recorded / "raw" / "nwucla")
    assert len(original) == 18
    assert original.classes == packed.classes
    where = {name: i for i, name in enumerate(packed.name)}
    for i, name in enumerate(original.name):
        k = where[name]
        assert np.array_equal(original[i], packed[k])
        for field in ("label", "subject", "view"):
            assert getattr(original, field)[i] == getattr(packed, field)[k]
