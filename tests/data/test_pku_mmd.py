"""PKU-MMD: recordings cut at their labels."""

import numpy as np
import pytest

from skelops.data.formats._base import FORMATS
from skelops.data.formats.pku_mmd import PKU_MMD_CLASSES, PKUMMD

FRAMES = 30


@pytest.fixture
def xyz():
    xyz = np.random.default_rng(0).normal(size=(FRAMES, 2, 25, 3)).round(6)
    xyz[20:] = 0
    return xyz


@pytest.fixture
def recordings(tmp_path, xyz):
    skeletons, labels = tmp_path / "PKU_Skeleton_Renew", tmp_path / "Train_Label_PKU_final"
    skeletons.mkdir()
    labels.mkdir()
    rows = [" ".join(map(repr, frame.ravel().tolist())) + " " for frame in xyz]
    for video in ("0002-L", "0002-M", "A01N02-R"):
        (skeletons / f"{video}.txt").write_text("\r\n".join(rows) + "\r\n")
        (labels / f"{video}.txt").write_text("51,3,9,2\n\n1, 9, 12, 1\n14,12,99,2\n7,20,25,1\n")
    return skeletons


def test_clips(recordings, xyz):
    source = PKUMMD(recordings)
    assert len(source) == 12
    clips = [source.load(i) for i in range(12)]
    assert [clip.name for clip in clips[:4] if clip] == ["0002-L_0", "0002-L_1", "0002-L_2"]
    assert clips[3] is None  # nobody in sight
    assert [clip.label for clip in clips[:3]] == [50, 0, 13]
    assert np.array_equal(clips[0].xyz, xyz[3:9].astype(np.float32))
    assert np.array_equal(clips[2].xyz, xyz[12:].astype(np.float32))
    assert [clips[i].view for i in (0, 4, 8)] == [1, 2, 3]
    assert clips[9].name == "A01N02-R_1" and clips[9].extra == {"confidence": 1}


def test_published_lists(recordings, tmp_path):
    subjects, views = tmp_path / "cross-subject.txt", tmp_path / "cross-view.txt"
    subjects.write_text("Training videos: \n0002-L, 0002-M, \n\nValidataion videos: \nA01N02-R, \n")
    views.write_text("Training videos:\n0002-M, A01N02-R\nValidataion videos:\n0002-L\n")
    source = PKUMMD(recordings, cross_subject=subjects, cross_view=views)
    sides = [source.load(i).extra for i in (0, 4, 8)]
    assert [side["cross_subject"] for side in sides] == ["train", "train", "test"]
    assert [side["cross_view"] for side in sides] == ["test", "train", "train"]
    views.write_text("0002-M, A01N02-R\n")
    with pytest.raises(ValueError, match=r"view\.txt: expected training and validation"):
        PKUMMD(recordings, cross_view=views)


@pytest.mark.parametrize(
    "line, message",
    [
        ("1,2,3", "expected action,start,end,confidence, got '1,2,3' at line 2"),
        ("1,a,3,2", "expected action,start,end,confidence, got '1,a,3,2' at line 2"),
        ("1,5,5,2", "expected action,start,end,confidence, got '1,5,5,2' at line 2"),
        ("1,-5,5,2", "expected action,start,end,confidence, got '1,-5,5,2' at line 2"),
        ("52,5,9,2", r"expected an action in 1\.\.51, got '52,5,9,2' at line 2"),
        ("0,5,9,2", r"expected an action in 1\.\.51, got '0,5,9,2' at line 2"),
    ],
)
def test_damaged_labels(recordings, line, message):
    file = recordings.parent / "Train_Label_PKU_final/0002-M.txt"
    file.write_text(f"1,2,3,2\n{line}\n")
    with pytest.raises(ValueError, match=rf"0002-M\.txt: {message}"):
        PKUMMD(recordings)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda row: row[:-1], "expected 150 numbers, got '.{40}' at line 5"),
        (lambda row: [*row, "1"], "expected 150 numbers, got '.{40}' at line 5"),
        (lambda row: ["x", *row[1:]], "expected 150 numbers, got 'x .{38}' at line 5"),
        (lambda row: ["nan", *row[1:]], "expected 150 numbers in the range of float32, got 'nan"),
        (lambda row: ["1e39", *row[1:]], "expected 150 numbers in the range of float32"),
        (lambda row: [], "expected 150 numbers, got '' at line 5"),
    ],
)
def test_damaged_frames(recordings, change, message):
    file = recordings / "0002-L.txt"
    rows = file.read_text().splitlines()
    rows[4] = " ".join(change(rows[4].split()))
    file.write_text("\n".join(rows))
    source = PKUMMD(file)
    with pytest.raises(ValueError, match=rf"0002-L\.txt: {message}"):
        source.load(0)
    assert source.load(1).name == "0002-L_1"


def test_action_after_the_end(recordings):
    (recordings.parent / "Train_Label_PKU_final/0002-L.txt").write_text("1,30,40,1\n")
    message = r"0002-L\.txt: expected an action that starts before .*, got frame 30 at line 1"
    with pytest.raises(ValueError, match=message):
        PKUMMD(recordings / "0002-L.txt").load(0)


def test_where_labels_are(recordings, tmp_path):
    labels = tmp_path / "Train_Label_PKU_final"
    elsewhere = labels.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="expected a directory of labels"):
        PKUMMD(recordings)
    assert len(PKUMMD(recordings, labels=elsewhere)) == 12
    (elsewhere / "0002-L.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"0002-L\.txt"):
        PKUMMD(recordings, labels=elsewhere)


def test_names_and_paths(recordings, tmp_path):
    (recordings / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"notes\.txt: expected a name like 0002-L\.txt or"):
        PKUMMD(recordings)
    with pytest.raises(FileNotFoundError, match=r"expected recordings in \.txt files, got none"):
        PKUMMD(tmp_path / "nothing")


def test_format(recordings):
    recognises = FORMATS["pku_mmd"].recognises
    assert recognises(recordings) and recognises(recordings / "0002-L.txt")
    assert not recognises(recordings.parent / "Train_Label_PKU_final")
    assert not recognises(recordings.parent)
    assert len(PKU_MMD_CLASSES) == len(set(PKU_MMD_CLASSES)) == 51
