"""Damaged files of every format: a ValueError that names the file, or valid clips; never else."""

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from skelops.data.formats import FORMATS, open_source
from skelops.graph import get_layout

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
TOKENS = (
    b"-1", b"0", b"1", b"1e309", b"1e38", b"NaN", b"Infinity", b"99999999999999999999", b"7", b"",
    b"1.5", b"x", b"\xff", b"true", b"null", b"[]", b"{}", b'"a"', b"[" * 3000,
)  # fmt: skip
WORDS = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01")


def damage(data, rng):
    """A copy in which bytes changed, are missing, double or new, or a number became another."""
    for _ in range(rng.integers(1, 4)):
        size = len(data)
        at, many = (int(n) for n in rng.integers(0, (size + 1, 40)))
        kind = rng.integers(0, 8)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + data[at + many :]
        elif kind == 2:
            data = data[:at] + data[at : at + many] * 2 + data[at + many :]
        elif kind == 3:
            data = data[:at] + rng.bytes(many % 9) + data[at:]
        elif kind == 4:
            width = 1 << many % 4
            data = data[:at] + WORDS[many % len(WORDS)] * width + data[at + width :]
        elif kind == 5:
            flipped = bytes(b ^ 1 << many % 8 for b in data[at : at + 1])
            data = data[:at] + flipped + data[at + 1 :]
        elif found := NUMBER.search(data, at):
            token = TOKENS[rng.integers(len(TOKENS))]
            data = data[: found.start()] + token + data[found.end() :]
    return data


def check(path, format):
    """Whether the damage was found; what is read is valid."""
    try:
        source = open_source(path, format=format)
        clips = [source.load(index) for index in range(len(source))]
    except (ValueError, FileNotFoundError) as error:
        assert "expected" in str(error) or isinstance(error, FileNotFoundError), repr(error)
        assert str(path) in str(error) or str(path.parent) in str(error), repr(error)
        return True
    joints = get_layout(source.layout).num_joints
    for clip in clips:
        if clip is not None:
            assert clip.xyz.dtype == np.float32 and len(clip.xyz) > 0
            assert clip.xyz.shape[1:] == (source.num_persons, joints, source.channels)
            assert np.isfinite(clip.xyz).all()
            assert type(clip.label) is int and 0 <= clip.label < len(source.classes)
            assert isinstance(clip.name, str)
    return False


def fuzz(path, format, inputs, seed):
    rng = np.random.default_rng(seed)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    files += [f for f in path.parent.iterdir() if f.is_file() and f not in files]
    if format == "pku_mmd":
        files += (path.parent / "label").iterdir()
    found = 0
    for number in range(inputs):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        damaged = damage(whole, rng)
        file.write_bytes(damaged)
        os.utime(file, ns=(number, number))  # what is held in memory is told apart by it
        try:
            found += check(path, format)
        except Exception as error:
            raise AssertionError(
                f"input {number} of seed {seed}: {file} {damaged!r:.500}"
            ) from error
        finally:
            file.write_bytes(whole)
    return found


@pytest.fixture(autouse=True)
def _quiet(own_layouts, recwarn):
    """Layouts of damaged recordings are forgotten; warnings of libraries may come."""


@pytest.fixture
def root():
    """A directory in memory where there is one, to which writing is cheap."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as path:
        yield Path(path)


@pytest.mark.parametrize("format", list(FORMATS))
def test_damaged(format, make_sample, root):
    found = fuzz(make_sample(format, root), format, 300, seed=0)
    assert found >= 90  # else the sample is not what is read


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("format", list(FORMATS))
def test_damaged_at_length(format, make_sample, root, request):
    inputs = request.config.getoption("fuzz_inputs", default=None)
    if inputs is None:
        pytest.skip("asked for with --fuzz-inputs N")
    fuzz(make_sample(format, root), format, -(-inputs // len(FORMATS)), seed=1)
