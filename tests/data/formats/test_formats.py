"""All formats: what a path holds, one clip per load, and the same recording in several of them."""

import json
import pickle
import shutil

import numpy as np
import pytest

from skelops.data import open_source, read
from skelops.data.formats import FORMATS, detect
from skelops.graph import conversion, get_layout


@pytest.mark.parametrize("format", list(FORMATS))
@pytest.mark.usefixtures("own_layouts")
def test_every_format(format, make_sample):
    path = make_sample(format)
    assert detect(path).name == format
    source = pickle.loads(pickle.dumps(open_source(path)))
    loaded = [source.load(i) for i in range(len(source))]
    for clip in loaded:
        assert clip.xyz.dtype == np.float32 and clip.xyz.any()
        joints = get_layout(source.layout).num_joints
        assert clip.xyz.shape[1:] == (source.num_persons, joints, source.channels)
    clips = read(path, format=format)
    assert clips.name.tolist() == [clip.name for clip in loaded]
    assert np.array_equal(clips.xyz, np.concatenate([clip.xyz for clip in loaded]))
    assert clips.confidence == source.confidence and len(FORMATS[format].describes) < 80


@pytest.mark.parametrize("format", list(FORMATS))
def test_empty_files_and_directories(format, make_sample, tmp_path):
    path = make_sample(format)
    for file in [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]:
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="expected"):
        read(path, format=format)
    (tmp_path / "empty").mkdir()
    with pytest.raises((FileNotFoundError, ValueError, IsADirectoryError), match="empty"):
        open_source(tmp_path / "empty", format=format)


def test_unknown_contents(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04abcdefgh")
    with pytest.raises(ValueError, match=r"got a file that starts with b'\\x80\\x04abcdef'"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.pkl: expected one of .*, got an empty file"):
        read(path)
    with pytest.raises(FileNotFoundError, match="expected a file or directory, got nothing"):
        read(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing", format="bvh")
    with pytest.raises(ValueError, match="got a directory with files of none"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"open_source: expected one of .*nw_ucla.*, got 'xyz'"):
        open_source(path, format="xyz")


def test_two_formats_in_a_directory(make_sample):
    path = make_sample("nw_ucla")
    shutil.copy(make_sample("packed"), path)
    assert detect(path).name == "nw_ucla"  # a packed archive is opened as a file
    shutil.copytree(make_sample("bvh"), path / "bvh")
    with pytest.raises(ValueError, match=r"got .*(nw_ucla, bvh|bvh, nw_ucla)"):
        detect(path)


def test_name_twice(make_sample):
    path = make_sample("nw_ucla")
    shutil.copy(path / "a03_s02_e01_v01.json", path / "copy.json")
    with pytest.raises(ValueError, match="expected unique names, got the same for clip 0"):
        read(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"data": ' * 100_000, '{"frame_index": ' * 9999])
@pytest.mark.parametrize("format", ["nw_ucla", "kinetics", "coco_results", "mmpose", "mediapipe"])
def test_json_bomb(tmp_path, format, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.json: expected json"):
        read(path, format=format)


def test_text_that_is_not_utf8(tmp_path, make_sample):
    path = make_sample("coco_results")
    path.write_bytes(path.read_bytes().replace(b"image_id", b"image\xffid", 1))
    with pytest.raises(ValueError, match=r"clip\.json: expected text in UTF-8, got byte 8"):
        read(path, format="coco_results")


def test_fixtures(recorded, tmp_path):
    fixtures, kinetics = recorded / "fixtures", tmp_path / "kinetics"
    kinetics.mkdir()
    for file in fixtures.glob("kinetics_*.json"):
        shutil.copy(file, kinetics)
    label = json.loads((fixtures / "kinetics_label.json").read_text())
    clips = read(kinetics)
    assert clips.xyz.shape == (45, 2, 18, 3) and clips.confidence
    assert [clips.classes[i] for i in clips.label] == [label[name]["label"] for name in clips.name]
    # What all say of clip 0, on the NTU joints; the arrays are centred on the middle of the spine.
    raw = read(fixtures / "S001C001P001R001A001.skeleton", bodies="raw", normalise=False)
    pyskl = read(fixtures / "pyskl_3d.pkl")
    padded, ctrgcn = read(fixtures / "stgcn_data.npy"), read(fixtures / "NTU60_CS_layout.npz")
    packed = read(recorded / "ui_prmd_mini.npz", layout="ntu25")
    json_clip = read(fixtures / "a01_s01_e00_v01.json")
    xyz = pyskl[0][:, 0]
    assert pyskl.name[0] == padded.name[0] == raw.name[0]
    np.testing.assert_allclose(xyz, raw[0][:, 0], atol=1e-3)
    np.testing.assert_allclose(xyz, packed[0][:20, 0] * (1, 1, -1), atol=1e-3)
    np.testing.assert_allclose(xyz - xyz[0, 1], padded[0][:20, 0], atol=2e-3)
    np.testing.assert_allclose(
        xyz[:, :20][:, [0, 1, 3, 4]], json_clip[0][:, 0, [0, 1, 3, 4]], atol=1e-3
    )
    for i, j in ((0, 0), (1, 3), (2, 1), (3, 4)):
        assert padded.length[i] == ctrgcn.length[j] and padded.label[i] == ctrgcn.label[j]
        np.testing.assert_allclose(padded[i], ctrgcn[j], atol=1e-3)
    flat = read(fixtures / "pyskl_2d.pkl")
    assert flat.layout == "coco17" and flat.confidence
    assert set(flat.extra["height"]) == {240} and set(flat.extra["width"]) == {320}


def test_prepared_archives_equal_the_raw_files(recorded):
    raw = read(recorded / "raw" / "ntu_skeleton")
    order = (recorded / "raw" / "ctrgcn_npz" / "order.txt").read_text().split()
    index = {name: i for i, name in enumerate(raw.name)}
    for archive in ("NTU60_CS", "NTU60_CV"):
        clips = read(recorded / "raw" / "ctrgcn_npz" / f"{archive}.npz")
        assert len(clips) == len(order)
        lengths = {int(raw.length[index[name]]) for name in order}
        assert set(clips.length.tolist()) == lengths
        for i in range(len(clips)):
            (same,) = [k for k in range(len(raw)) if raw.length[k] == clips.length[i]]
            np.testing.assert_allclose(clips[i], raw[same], atol=1e-5)
            assert clips.label[i] == raw.label[same]


def test_ui_prmd(recorded):
    native = read(recorded / "ui_prmd_mini.npz")
    assert len(native) == 1000 and native.layout == "ui_prmd22" and native.num_classes == 10
    assert native.fps == 15 and native.extra["correct"].all()
    clips = read(recorded / "ui_prmd_mini.npz", layout="ntu25")
    index, weight = conversion("ui_prmd22", "ntu25")
    assert (weight == 1).sum() == 25 and (weight == 0).sum() == weight.numel() - 25
    converted = native[0][:, :, index.numpy()] * weight.numpy()[..., None]
    assert np.array_equal(converted.sum(-2), clips[0])
