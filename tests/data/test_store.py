import copy
import json
import multiprocessing
import os
import pickle
import re
import resource
import signal
import struct
import time
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skelops import graph
from skelops.data import Clips, ClipWriter, read, store, verify
from skelops.data.formats._base import Clip

FORK = multiprocessing.get_context("fork")
SETTINGS = {"layout": "ntu25", "classes": ("sit", "stand"), "num_persons": 2}


def make(frames=7, persons=2, name="one", **changes):
    rng = np.random.default_rng(frames)
    xyz = rng.normal(size=(frames, persons, 25, 3)).astype(np.float32)
    return Clip(**({"xyz": xyz, "label": 1, "name": name} | changes))


def write(path, count=5, **changes):
    with ClipWriter(path, **(SETTINGS | changes)) as writer:
        for i in range(count):
            writer.add(make(i + 1, name=f"clip {i}", extra={"setup": i, "take": "ab"[: i % 3]}))
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "a.clips")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_field_comes_back(tmp_path, dtype):
    xyz = np.random.default_rng(0).normal(size=(8, 2, 4, 3)).astype(dtype)
    xyz[2, 1] = 0
    clips = Clips(
        xyz,
        (3, 1, 4),
        (0, 2, 1),
        ("a", "b", "ünnamed"),
        "made up",
        name=["one", "zwölf", "三"],
        subject=(4, 5, 6),
        view=(3, 2, 1),
        fps=29.97,
        extra={
            "text": np.array(["", "longer", "x"]),
            "none": np.array(["", "", ""]),
            "small": np.array([1, 2, 3], np.uint8),
            "flag": np.array([True, False, True]),
            "pair": np.array([[1.5, 2], [3, 4], [5, 6]], np.float32),
        },
        present=np.arange(16).reshape(8, 2) % 5 > 0,
        confidence=True,
    )
    clips.save(tmp_path / "a.clips")
    opened = Clips.open(tmp_path / "a.clips")
    for key in ("xyz", "length", "label", "name", "subject", "view", "present"):
        assert np.array_equal(getattr(opened, key), getattr(clips, key)), key
        assert getattr(opened, key).dtype == getattr(clips, key).dtype, key
    assert list(opened.extra) == list(clips.extra)
    for key, value in clips.extra.items():
        assert np.array_equal(opened.extra[key], value), key
    assert opened.extra["small"].dtype == np.uint8 and opened.extra["pair"].dtype == np.float32
    for key in ("classes", "layout", "fps", "confidence", "identity", "dims"):
        assert getattr(opened, key) == getattr(clips, key), key
    assert opened.path == tmp_path / "a.clips" and clips.path is None
    assert np.array_equal(opened.select(np.array([2, 0]))[1], clips[0])
    verify(tmp_path / "a.clips")


def test_a_store_is_read_only_and_a_copy_of_it_is_not(path):
    opened = Clips.open(path)
    for array in (opened.xyz, opened.label, opened.name, opened.present, opened[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = array
    opened.select(np.array([1])).xyz[:] = 0
    assert replace(opened, fps=3.0).path is None
    verify(path)


def test_float16_rounds_and_refuses_what_it_cannot_hold(tmp_path):
    clip = make(30)
    with ClipWriter(tmp_path / "a", dtype="float16", **SETTINGS) as writer:
        writer.add(clip)
        far = np.full((2, 1, 25, 3), 3.0, np.float32)
        far[1, 0, 9, 2] = 70000
        place = r"in clip 1 \(far\), frame 1, person 0, joint 9"
        with pytest.raises(ValueError, match=r"finite float16 coordinates, got 70000\.0 " + place):
            writer.add(make(name="far", xyz=far))
    opened = Clips.open(tmp_path / "a")
    assert opened.xyz.dtype == np.float16 and len(opened) == 1
    assert np.array_equal(opened.xyz, clip.xyz.astype(np.float16))
    assert np.abs(opened.xyz.astype(np.float32) - clip.xyz).max() < 2e-3


def test_fewer_persons_are_filled_with_zeros(tmp_path):
    with ClipWriter(tmp_path / "a", **SETTINGS) as writer:
        writer.add(make(3, persons=1, name="alone"))
        writer.add(make(2, persons=2, name="pair"))
        writer.add(make(1, persons=0, name="nobody"))
    clips = Clips.open(tmp_path / "a")
    assert np.array_equal(clips[0][:, :1], make(3, persons=1).xyz) and not clips[0][:, 1].any()
    assert clips.present.tolist() == [[True, False]] * 3 + [[True, True]] * 2 + [[False, False]]


def poke(xyz, value):
    xyz = xyz.copy()
    xyz[4, 1, 20, 0] = value
    return xyz


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "first"}, r"unique names, got the name of clip 0 again in clip 1 \(first\)"),
        ({"name": ""}, r"a name in clip 1 \(\), got ''"),
        ({"xyz": np.ones((0, 2, 25, 3), np.float32)}, r"one frame in clip 1 \(second\), got none"),
        ({"xyz": np.ones((1, 3, 25, 3), np.float32)}, r"at most 2 persons in clip 1 .*, got 3"),
        ({"xyz": np.ones((1, 2, 20, 3), np.float32)}, r"25 joints of 3 .* \(second\), got 20"),
        ({"xyz": np.ones((1, 2, 25, 2), np.float32)}, r"25 joints of 3 channels .*, got 25 of 2"),
        ({"xyz": np.ones((1, 25, 3), np.float32)}, r"xyz \(T, M, V, C\) in clip 1 \(second\), got"),
        ({"xyz": np.ones((1, 2, 25, 3), int)}, r"floating xyz .* in clip 1 \(second\), got int64"),
        ({"xyz": poke(make().xyz, np.nan)}, r"nan in clip 1 \(second\), frame 4, person 1, joint"),
        ({"xyz": poke(make().xyz, -np.inf)}, r"-inf in clip 1 \(second\), frame 4, person 1, joi"),
        ({"label": 2}, r"a label in 0\.\.1, got 2 in clip 1 \(second\)"),
        ({"label": -1}, r"a label in 0\.\.1, got -1 in clip 1 \(second\)"),
        ({"label": 0.5}, r"a label in 0\.\.1, got 0\.5 in clip 1 \(second\)"),
        ({"extra": {}}, r"extra values \['setup'\] in clip 1 \(second\), got \[\]"),
        ({"extra": {"setup": "x"}}, r"extra 'setup' of int64 \(\) in clip 1 .*, got <U1 \(\)"),
        ({"extra": {"setup": None}}, r"a number or a string as extra 'setup' in clip 1 .*, got ob"),
    ],
)  # fmt: skip
def test_a_refused_clip_is_named_and_the_writer_goes_on(tmp_path, changes, message):
    extra = {"extra": {"setup": 3}}
    with ClipWriter(tmp_path / "a", **SETTINGS) as writer:
        writer.add(make(name="first", **extra))
        with pytest.raises(ValueError, match="ClipWriter: expected .*" + message):
            writer.add(make(**({"name": "second"} | extra | changes)))
        writer.add(make(name="third", **extra))
    assert Clips.open(tmp_path / "a").name.tolist() == ["first", "third"]
    verify(tmp_path / "a")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dtype": "float64"}, r"dtype in \('float32', 'float16'\), got 'float64'"),
        ({"num_persons": 0}, r"at least one person, joint and coordinate, got \(0, 25, 3\)"),
        ({"channels": 1, "confidence": True}, r"at least one .* coordinate, got \(2, 25, 1\)"),
        ({"layout": "ntu26"}, "ntu26"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        ClipWriter(tmp_path / "a", **(SETTINGS | changes))
    assert not list(tmp_path.iterdir())


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), ClipWriter(tmp_path / "a", **SETTINGS) as writer:
        writer.add(make())
        assert [file.suffix for file in tmp_path.iterdir()] == [".partial"]
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="expected an open ClipWriter, got a closed one"):
        writer.add(make())
    with (
        pytest.raises(ValueError, match="expected at least one clip, got none"),
        ClipWriter(tmp_path / "a", **SETTINGS),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_store_is_replaced_on_request_only(path):
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"a\.clips: expected a new file \(overwrite=True"):
        ClipWriter(path, **SETTINGS)
    with pytest.raises(KeyError), ClipWriter(path, overwrite=True, **SETTINGS) as writer:
        writer.add(make())
        raise KeyError
    assert path.read_bytes() == before
    mapped = Clips.open(path)
    xyz = mapped.xyz.copy()
    write(path, count=2, overwrite=True)
    assert len(Clips.open(path)) == 2 and np.array_equal(mapped.xyz, xyz)
    mapped.save(path, overwrite=True)
    assert np.array_equal(Clips.open(path).xyz, xyz)


def test_a_store_that_appears_meanwhile_is_kept(tmp_path):
    with pytest.raises(FileExistsError), ClipWriter(tmp_path / "a", **SETTINGS) as writer:
        writer.add(make())
        (tmp_path / "a").write_text("mine")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "mine"


def write_forever(path, ready):
    with ClipWriter(path, overwrite=True, **SETTINGS) as writer:
        ready.set()
        for i in range(200):
            writer.add(make(100, name=str(i)))


def test_kill_leaves_no_store_that_is_not_whole(tmp_path):
    path = tmp_path / "a"
    for trial in range(12):
        ready = FORK.Event()
        process = FORK.Process(target=write_forever, args=(path, ready))
        process.start()
        assert ready.wait(30)
        time.sleep(0.02 * trial)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if path.exists():
            assert len(Clips.open(path)) == 200
            verify(path)
            path.unlink()
    assert all(file.suffix == ".partial" for file in tmp_path.iterdir())


def fill_the_disk(path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
    try:
        write_forever(path, FORK.Event())
    except OSError as error:
        os._exit(0 if "File too large" in str(error) else 1)
    os._exit(2)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    process = FORK.Process(target=fill_the_disk, args=(tmp_path / "a",))
    process.start()
    process.join()
    assert process.exitcode == 0 and not list(tmp_path.iterdir())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_an_error_while_writing_closes_the_writer(tmp_path, monkeypatch):
    def full(self, array):
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(RuntimeError, match="got a closed one"),
        ClipWriter(tmp_path / "a", **SETTINGS) as writer,
    ):
        writer.add(make())
        monkeypatch.setattr(store._ArrayStream, "write", full)
        with pytest.raises(OSError, match="No space left"):
            writer.add(make(name="two"))
    assert not list(tmp_path.iterdir())


def test_the_writer_holds_no_frames(tmp_path):
    big = np.ones((3000, 2, 25, 3), np.float32)  # 1.8 MB
    tracemalloc.start()
    with ClipWriter(tmp_path / "a", **SETTINGS) as writer:
        for i in range(60):
            writer.add(make(xyz=big, name=str(i)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert os.path.getsize(tmp_path / "a") > 100e6 and peak < 16e6


def test_not_a_store(tmp_path, path):
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        Clips.open(tmp_path / "nothing")
    for content, message in [
        (b"", "expected a clip store, got an empty file"),
        (b"PK\3\4 and so on", r"expected a clip store, got a file that starts with b'PK"),
        (whole[:20], "expected 64 bytes or more, got 20"),
        (whole[:-1], rf"expected {len(whole)} bytes, got {len(whole) - 1}"),
        (whole[:5000], rf"expected {len(whole)} bytes, got 5000"),
        (whole + b"\0", rf"expected {len(whole)} bytes, got {len(whole) + 1}"),
        (whole[:8] + b"\7" + whole[9:], "version 1 or older, got version 7: a newer skelops wrote"),
        (whole[:20] + b"\7" + whole[21:], "expected checksum .* of the first 60 bytes, got"),
        (whole[:-9] + b"\7" + whole[-8:], r"of the header in bytes \d+\.\.\d+, got"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path)) + ": .*" + message):
            Clips.open(path)
        assert path.read_bytes() == content


def with_header(path, change):
    """Change the header of a store, with checksums that are right."""
    header = store.read_header(path)
    with path.open("r+b") as file:
        at = struct.unpack_from("<Q", file.read(64), 16)[0]
        file.seek(at)
        header = json.loads(file.read())
        change(header)
        file.seek(at)
        file.truncate()
        store.write_header(file, header)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.pop("layout"),
        lambda h: h.update(layout=3),
        lambda h: h.update(classes="ab"),
        lambda h: h.update(fps="fast"),
        lambda h: h.update(confidence=1),
        lambda h: h.update(clips=6),
        lambda h: h.update(arrays={}),
        lambda h: h["arrays"].pop(),
        lambda h: h["arrays"].reverse(),
        lambda h: h["arrays"][0].update(dtype="|O8"),
        lambda h: h["arrays"][0].update(dtype="<f8"),
        lambda h: h["arrays"][0].update(offset=-4096),
        lambda h: h["arrays"][0].update(offset=0),
        lambda h: h["arrays"][0].update(shape=[15, 2, 25, 10**15]),
        lambda h: h["arrays"][0].update(shape=[15, 2, 25, -3]),
        lambda h: h["arrays"][0].update(shape=[15, 2, 75]),
        lambda h: h["arrays"][0].update(crc32=[]),
        lambda h: h["arrays"][1].update(shape=[30]),
        lambda h: h["arrays"][4].update(dtype="<i8"),
        lambda h: h["arrays"][4].update(name="names"),
    ],
)
def test_a_header_that_contradicts_itself(path, change):
    with_header(path, change)
    with pytest.raises(ValueError, match=r"a\.clips: expected a header of a clip store, got"):
        Clips.open(path)


def test_every_cut_is_noticed(path):
    whole = path.read_bytes()
    for stop in range(0, len(whole), 977):
        path.write_bytes(whole[:stop])
        with pytest.raises(ValueError, match=r"a\.clips: expected"):
            Clips.open(path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_every_changed_byte_is_noticed(path, place, mask):
    whole = bytearray(path.read_bytes())
    damaged = whole.copy()
    damaged[int(place * len(whole))] ^= mask
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.clips: expected"):
        verify(path)
    path.write_bytes(whole)
    verify(path)


def test_verify_names_array_and_bytes(path, monkeypatch):
    monkeypatch.setattr(store, "BLOCK", 4096)
    write(path, overwrite=True)
    verify(path)
    entries = store.read_header(path)["arrays"]
    assert len(entries["xyz"]["crc32"]) == 3
    for name, at, first, last in [
        ("xyz", 4096 + 4095, 4096, 8192),
        ("xyz", 4096 + 8999, 12288, 13096),
        ("label", entries["label"]["offset"], entries["label"]["offset"], None),
        ("extra/take", entries["extra/take"]["offset"] + 9, entries["extra/take"]["offset"], None),
    ]:
        whole = path.read_bytes()
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        last = first + 40 if last is None else last
        with pytest.raises(ValueError, match=rf"array '{name}' in bytes {first}\.\.{last}, got"):
            verify(path)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "name, index, value, message",
    [
        ("xyz", 2 * 150 + 75 + 3, np.nan, r"nan in clip 1 \(clip 1\), frame 1, person 1, joint 1"),
        ("length", 1, 3, r"lengths that sum to the 15 frames of xyz, got a sum of 16"),
        ("label", 2, 2, r"labels in 0\.\.1, got 2 in clip 2 \(clip 2\)"),
        ("name", 1, "clip 0", r"unique names, got the same for clip 0 \(clip 0\) and clip 1"),
        ("present", 3, 2, r"0 or 1 in 'present', got 2"),
    ],
)
def test_verify_checks_what_the_writer_checks(path, name, index, value, message):
    entry = store.read_header(path)["arrays"][name]
    dtype = np.uint8 if name == "present" else np.dtype(entry["dtype"])
    array = np.memmap(path, dtype, "r+", entry["offset"], tuple(entry["shape"])).reshape(-1)
    array[index] = value
    array.flush()
    crc = zlib.crc32(array.tobytes())
    with_header(path, lambda h: next(
        e for e in h["arrays"] if e["name"] == name).update(crc32=[crc]))  # fmt: skip
    with pytest.raises(ValueError, match=r"a\.clips: expected .*" + message):
        verify(path)


def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024


def test_opening_100_gb_touches_nothing(tmp_path):
    clips, frames = 2_400_000, 170_000_000
    path, arrays, end = tmp_path / "a", [], 64
    for name, dtype, shape in [
        ("xyz", "<f4", (frames, 2, 25, 3)), ("present", "|b1", (frames, 2)),
        ("length", "<i8", (clips,)), ("label", "<i8", (clips,)), ("name", "<U20", (clips,)),
        ("subject", "<i8", (clips,)), ("view", "<i8", (clips,)),
    ]:  # fmt: skip
        offset = -(-end // 4096) * 4096
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        end = offset + size
        crc = [0] * -(-size // store.BLOCK)
        arrays.append(
            {"name": name, "dtype": dtype, "shape": shape, "offset": offset, "crc32": crc}
        )
    header = {"layout": "ntu25", "classes": ["a"], "fps": 30, "confidence": False, "clips": clips}
    with path.open("wb") as file:
        file.truncate(end)
        file.seek(end)
        store.write_header(file, header | {"arrays": arrays})
    assert path.stat().st_size > 100e9 and path.stat().st_blocks * 512 < 1e6
    before, start = resident(), time.perf_counter()
    opened = Clips.open(path)
    seconds = time.perf_counter() - start
    assert len(opened) == clips and opened.xyz[-1].sum() == 0
    assert seconds < 0.5 and resident() - before < 50e6


def total(clips):
    return len(clips), float(clips.xyz.sum()), clips.name.tolist()


def test_readers_in_several_processes(path):
    clips = Clips.open(path)
    with FORK.Pool(3) as pool:
        results = pool.map(total, [clips] * 6, chunksize=1)
    assert results == [total(clips)] * 6


@pytest.mark.parametrize("again", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy])
def test_a_pickled_store_is_its_path(path, again):
    clips = Clips.open(path)
    assert len(pickle.dumps(clips)) < 500
    other = again(clips)
    assert other.path == path and np.array_equal(other[4], clips[4])
    write(path, count=2, overwrite=True)
    with pytest.raises(ValueError, match=r"a\.clips: expected store [0-9a-f]{8}, got .*: replaced"):
        again(clips)


def test_a_relative_path_is_pickled_whole(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    text = pickle.dumps(Clips.open(path.name))
    monkeypatch.chdir("/")
    assert len(pickle.loads(text)) == 5


def test_a_layout_that_is_not_registered_comes_with_the_store(tmp_path):
    path = tmp_path / "arms.clips"
    layout = graph.register_layout(
        graph.Layout("arm_of_a_robot", (0, 0, 1), ("base", "elbow", "tip"))
    )
    try:
        xyz = np.ones((4, 1, 3, 3), np.float32)
        Clips(xyz, np.array([4]), np.array([0]), ("wave",), layout.name).save(path)
        del graph._LAYOUTS[layout.name]
        opened = Clips.open(path)
        assert graph.get_layout(opened.layout).parents == (0, 0, 1)
        assert graph.get_layout(opened.layout).joint_names == ("base", "elbow", "tip")
        assert len(read(path)) == 1 and read(path).path is not None
    finally:
        graph._LAYOUTS.pop(layout.name, None)
