import os
import signal
import sys

import numpy as np
import pytest
import torch

from skelops.data import Clips, convert, verify
from skelops.data.formats._base import Clip


class Source:
    """Clips of 1 to 7 frames; every fifth is left out; ``faults`` maps an index to a failure."""

    layout = "ntu25"
    classes = ("sit", "stand", "walk")
    num_persons = 2
    channels = 3
    confidence = False
    fps = 30.0

    def __init__(self, count=40, faults=None):
        self.count, self.faults = count, faults or {}

    def __len__(self):
        return self.count

    def load(self, index):
        if index in self.faults:
            fault = self.faults[index]
            if isinstance(fault, Exception):
                raise fault
            fault()
        if index % 5 == 4:
            return None
        rng = np.random.default_rng(index)
        xyz = rng.normal(size=(index % 7 + 1, 1 + index % 2, 25, 3)).astype(np.float32)
        return Clip(xyz, index % 3, f"clip {index}", index % 4 + 1, 1, {"setup": index % 2})


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_store_does_not_depend_on_the_workers(tmp_path, workers):
    state = torch.get_rng_state()
    done = convert(Source(), tmp_path / "a", workers=workers)
    assert torch.equal(torch.get_rng_state(), state)
    convert(Source(), tmp_path / "b", workers=0, progress=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    clips = Clips.open(tmp_path / "a")
    assert (done.clips, done.frames, done.left_out) == (len(clips), len(clips.xyz), 8) == (
        32, int(clips.length.sum()), 8)  # fmt: skip
    assert done.skipped == ()
    for i, index in enumerate(k for k in range(40) if k % 5 != 4):
        clip = Source().load(index)
        assert np.array_equal(clips[i][:, : clip.xyz.shape[1]], clip.xyz)
        assert (clips.name[i], clips.label[i]) == (clip.name, clip.label)
        assert clips.extra["setup"][i] == index % 2
    assert clips.fps == 30 and clips.layout == "ntu25" and clips.classes == Source.classes
    verify(tmp_path / "a")


def test_float16(tmp_path):
    convert(Source(), tmp_path / "a", dtype="float16", workers=0, progress=False)
    clips = Clips.open(tmp_path / "a")
    assert clips.xyz.dtype == np.float16
    assert np.array_equal(clips[0], np.pad(Source().load(0).xyz, ((0, 0), (0, 1), (0, 0), (0, 0)))
                          .astype(np.float16))  # fmt: skip


class Unsound(Source):
    """Its fourth clip holds a coordinate that is not a number."""

    def load(self, index):
        clip = super().load(index)
        if index == 3:
            clip.xyz[2, 0, 7] = np.nan
        return clip


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "source, message",
    [
        (Source(faults={3: ValueError("a.txt: expected 25 joints, got 24 at line 3")}), "line 3"),
        (Source(faults={3: PermissionError(13, "Permission denied", "a.txt")}), "denied: 'a"),
        (Unsound(), r"nan in clip 3 \(clip 3\), frame 2, person 0, joint 7"),
    ],
)  # fmt: skip
def test_a_damaged_clip_stops_or_is_skipped(tmp_path, source, message, workers):
    with pytest.raises((ValueError, OSError), match=message):
        convert(source, tmp_path / "a", workers=workers, progress=False)
    assert not list(tmp_path.iterdir())
    done = convert(source, tmp_path / "a", workers=workers, on_error="skip", progress=False)
    assert done.clips == 31 and len(done.skipped) == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(done.skipped[0])
    assert "clip 3" not in Clips.open(tmp_path / "a").name


def test_skipping_all_leaves_no_store(tmp_path):
    source = Source(2, {0: ValueError("bad"), 1: ValueError("bad")})
    with pytest.raises(ValueError, match="expected at least one clip, got none"):
        convert(source, tmp_path / "a", workers=0, on_error="skip", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_not_skipped(tmp_path, monkeypatch):
    def full(self, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skelops.data.store._ArrayStream.write", full)
    with pytest.raises(OSError, match="No space left"):
        convert(Source(), tmp_path / "a", workers=0, on_error="skip", progress=False)
    assert not list(tmp_path.iterdir())


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt_the_parent():
    os.kill(os.getppid(), signal.SIGINT)


def interrupt():
    raise KeyboardInterrupt


def test_a_killed_worker(tmp_path):
    with pytest.raises(RuntimeError, match=r"convert: expected the reading processes to live, got"):
        convert(Source(faults={9: die}), tmp_path / "a", workers=2, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers, fault", [(0, interrupt), (2, interrupt_the_parent)])
def test_an_interrupt(tmp_path, workers, fault):
    # Python drops an interrupt that meets a finaliser: then the next one has to do.
    faults = dict.fromkeys((9, 700, 1400), fault)
    # A shell that starts the tests in the background may have them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            convert(Source(2000, faults), tmp_path / "a", workers=workers, progress=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not list(tmp_path.iterdir())


def test_reading_ahead_is_bounded(tmp_path):
    """No clip is asked for before all but a few of the clips before it were written."""
    loaded = tmp_path / "loaded"
    loaded.write_text("")

    class Counting(Source):
        def load(self, index):
            with loaded.open("a") as file:
                file.write(".")
            return super().load(index)

    ahead = []

    class Bar:
        done = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self):
            self.done += 1
            ahead.append(len(loaded.read_text()) - self.done)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["skelops.data.convert"], "_bar", lambda *_: Bar())
        convert(Counting(300), tmp_path / "a", workers=2)
    assert len(ahead) == 300 and max(ahead) <= 5 * 16


def test_progress(tmp_path, capsys, monkeypatch):
    convert(Source(), tmp_path / "a", workers=0)
    assert "40/40" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    convert(Source(), tmp_path / "b", workers=0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"on_error": "ignore"}, r"expected on_error in \('raise', 'skip'\), got 'ignore'"),
        ({"workers": -1}, "expected workers >= 0, got -1"),
        ({"dtype": "int8"}, "expected dtype in .*, got 'int8'"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        convert(Source(), tmp_path / "a", **arguments)
    assert not list(tmp_path.iterdir())


def test_an_existing_store(tmp_path):
    convert(Source(10), tmp_path / "a", workers=0, progress=False)
    with pytest.raises(FileExistsError):
        convert(Source(20), tmp_path / "a", workers=0, progress=False)
    assert convert(
        Source(20), tmp_path / "a", workers=0, progress=False, overwrite=True
    ).clips == 16  # fmt: skip
    assert len(Clips.open(tmp_path / "a")) == 16
