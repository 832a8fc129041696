import json
import re
import subprocess
import sys

import numpy as np
import pytest

from skelops.__main__ import main as skelops
from skelops.data import Clips, load_split, normalize
from skelops.data.cli import main
from skelops.data.formats import FORMATS
from skelops.data.formats._base import Clip, Format


class Numbers:
    """A format for these tests: one file that holds the number of clips."""

    layout, classes, num_persons, channels, confidence, fps = "ntu25", ("a", "b"), 1, 3, False, 30.0

    def __init__(self, path, scale=1.0, bad=-1):
        self.count, self.scale, self.bad, self.path = int(path.read_text()), scale, bad, path

    def __len__(self):
        return self.count

    def load(self, index):
        if index == self.bad:
            raise ValueError(f"{self.path}: expected a sound clip,\n got {index}")
        xyz = np.full((index % 3 + 1, 1, 25, 3), self.scale, np.float32)
        return Clip(xyz, index % 2, f"n{index}", index % 3 + 1, index % 2 + 1)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "numbers", Format("numbers", "", lambda path: False, Numbers))
    path = tmp_path / "source.txt"
    path.write_text("12")
    return path


@pytest.fixture
def store(tmp_path, source, capsys):
    main(["convert", str(source), str(tmp_path / "a.clips"), "--format", "numbers"])
    capsys.readouterr()
    return tmp_path / "a.clips"


def refused(capsys, *arguments):
    """The command ends with status 2 and one line on stderr, which is returned."""
    with pytest.raises(SystemExit) as error:
        main([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert error.value.code == 2 and out == ""
    assert err.startswith("skelops data: ") and err.count("\n") == 1
    return err.rstrip("\n")


def test_convert(tmp_path, source, capsys):
    out = tmp_path / "a.clips"
    skelops(
        ["data", "convert", str(source), str(out), "--format", "numbers", "--workers", "2",
         "--dtype", "float16", "--option", "scale=2.5"]
    )  # fmt: skip
    clips = Clips.open(out)
    assert len(clips) == 12 and clips.xyz.dtype == np.float16 and (clips.xyz == 2.5).all()
    assert re.match(rf"{out}: 12 clips of 24 frames, 0\.\d MB; 0 left out .* 0 skipped",
                    capsys.readouterr().out)  # fmt: skip


def test_damaged_clips(tmp_path, source, capsys):
    arguments = ["convert", source, tmp_path / "a", "--format", "numbers", "--option", "bad=3"]
    line = refused(capsys, *arguments)
    assert line == f"skelops data: {source}: expected a sound clip, got 3"
    assert not (tmp_path / "a").exists()
    main([*map(str, arguments), "--on-error", "skip"])
    out, err = capsys.readouterr()
    assert "11 clips" in out and "1 skipped" in out and "expected a sound clip" in err


def test_an_existing_store(source, store, capsys):
    before = store.read_bytes()
    arguments = ["convert", source, store, "--format", "numbers"]
    assert "expected a new file" in refused(capsys, *arguments)
    assert store.read_bytes() == before
    source.write_text("5")
    main([*map(str, arguments), "--overwrite"])
    assert len(Clips.open(store)) == 5


def test_info(store, capsys):
    main(["info", str(store), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == 12 and found["frames"] == 24 and found["persons"] == 1
    assert found["classes"] == [["a", 6], ["b", 6]] and found["subjects"] == {
        "1": 4, "2": 4, "3": 4}  # fmt: skip
    assert found["views"] == {"1": 6, "2": 6} and found["layout"] == "ntu25"
    assert found["length"] == {"min": 1, "median": 2, "mean": 2, "max": 3}
    assert found["bytes"] == store.stat().st_size
    assert found["identity"] == Clips.open(store).identity
    main(["info", str(store)])
    text = capsys.readouterr().out
    for part in ("12 of 24 frames", "25 joints (ntu25)", "3: 1 (4), 2 (4), 3 (4)", "6 b"):
        assert part in text


def test_verify(store, capsys):
    main(["verify", str(store)])
    assert capsys.readouterr().out == f"{store}: sound\n"
    with store.open("r+b") as file:
        file.seek(4100)
        file.write(b"\7")
    assert "of array 'xyz' in bytes 4096.." in refused(capsys, "verify", store)


def test_split(tmp_path, store, capsys):
    out = tmp_path / "split.npz"
    main(["split", str(store), "--protocol", "cross_subject", "--train", "1", "--out", str(out)])
    assert capsys.readouterr().out == f"{out}: 4 clips to train on, 8 to test, cross_subject\n"
    train, _ = load_split(out, Clips.open(store))
    assert train.tolist() == [0, 3, 6, 9]
    main(["split", str(store), "--protocol", "random", "--share", "0.5", "--out", str(out)])
    assert "6 clips to train on, 6 to test" in capsys.readouterr().out
    tail = ["--long-tail", "2", "0.5"]
    main(["split", str(store), "--protocol", "random", "--share", "0.7", "--out", str(out), *tail])
    assert "3 clips to train on, 4 to test" in capsys.readouterr().out
    line = refused(capsys, "split", store, "--protocol", "ntu60_xsub", "--out", tmp_path / "b")
    assert "expected the 60 classes of ntu60_xsub, got 2" in line
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("command", ["info", "verify"])
def test_no_store(tmp_path, source, capsys, command):
    assert "No such file" in refused(capsys, command, tmp_path / "nothing")
    assert "expected a clip store, got a file that starts" in refused(capsys, command, source)


def test_bad_arguments(source, capsys):
    for arguments in (
        [],
        ["convert", str(source)],
        ["convert", str(source), "out", "--format", "unheard of"],
        ["convert", str(source), "out", "--option", "novalue"],
        ["split", str(source)],
    ):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2 and "usage" in capsys.readouterr().err


def test_the_command_ends_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "skelops", "data", "info", str(tmp_path / "nothing")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("skelops data: ")


def test_convert_prepares_clips(recorded, tmp_path):
    source = recorded / "fixtures" / "pyskl_3d.pkl"
    for name in ("raw", "pyskl"):
        options = ["--prepare", "pyskl"] if name == "pyskl" else []
        main(["convert", str(source), str(tmp_path / name), "--workers", "0", *options])
    raw, prepared = Clips.open(tmp_path / "raw"), Clips.open(tmp_path / "pyskl")
    assert raw.name.tolist() == prepared.name.tolist()
    for clip in range(len(raw)):
        expected = normalize.pyskl(raw[clip], "ntu25")
        np.testing.assert_array_equal(prepared[clip], expected)
        assert not prepared[clip][0, 0, 1].any() and not np.array_equal(prepared[clip], raw[clip])
