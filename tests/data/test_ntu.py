"""NTU RGB+D: the parser in C++ and its twin, the published rules, the data set."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skelops.data import _pickle, splits
from skelops.data.formats import ntu
from skelops.data.formats._base import FORMATS

BODY = b"72057594037931648 0 1 1 1 1 0 -0.1159187 0.1413209 2"
JOINT = b"0.2058097 0.1920515 3.810989 276.0976 190.0662 1032.328 514.0889 -0.1 0.04 0.9 -0.1 2"
PARSERS = ["native", "numpy"]


@pytest.fixture(params=PARSERS)
def parse(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(ntu, "_host", None)
    elif ntu._host is None:
        pytest.skip("skelops._host is not built")
    return ntu.parse


def text_of(frames, end=b"\n"):
    """A file of frames, each a list of (id, pose (25, 3))."""
    lines = [b"%d" % len(frames)]
    for bodies in frames:
        lines.append(b"%d" % len(bodies))
        for number, pose in bodies:
            lines += [b"%d 0 1 1 1 1 0 0.02 -0.03 2" % number, b"25"]
            lines += [
                b" ".join(b"%.9g" % x for x in (*joint, 1, 2, 3, 4, 0, 0, 0, 1, 2))
                for joint in pose.tolist()
            ]
    return end.join(lines) + end


def pose(x=0.5, y=1.8, seed=0):
    """A pose of random joints with extents x and y."""
    joints = np.random.default_rng(seed).uniform(size=(25, 3))
    joints[0, :2], joints[1, :2] = 0, 1
    return (joints * (x, y, 0.3) + (0, 0, 3)).astype(np.float32)


def moving(frames, step=0.01, start=0, **options):
    """Frame -> pose of a body that walks."""
    return {start + t: pose(**options) + np.float32(step * t) for t in range(frames)}


def together(frames, **bodies):
    """Frames (id, pose) of bodies that are given as frame -> pose, in the order of their names."""
    return [
        [(i, body[t]) for i, body in enumerate(bodies.values()) if t in body] for t in range(frames)
    ]


def denoised(frames, **bodies):
    return ntu.denoise(ntu.parse(text_of(together(frames, **bodies))))


# The parser


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_parse(parse, end):
    a, b = pose(seed=1), pose(seed=2)
    skeleton = parse(text_of([[(7, a)], [], [(7, b), (2**63, a)]], end))
    assert skeleton.bodies.tolist() == [1, 0, 2] and skeleton.bodies.dtype == np.int64
    assert skeleton.id.tolist() == [7, 7, 2**63] and skeleton.id.dtype == np.uint64
    assert skeleton.state.tolist() == [[0, 1, 1, 1, 1, 0, 0.02, -0.03, 2]] * 3
    assert skeleton.joints.shape == (3, 25, 12) and skeleton.joints.dtype == np.float64
    assert np.array_equal(skeleton.joints[:, :, :3].astype(np.float32), [a, b, a])
    assert np.array_equal(skeleton.joints[2, 24, 3:], [1, 2, 3, 4, 0, 0, 0, 1, 2])


def test_numbers_are_those_of_float(parse):
    tokens = b"+1.5 .5 5. 1e-3 -0 0.1 8.41e+21 3e-310 1e-400 9007199254740993 nan -Infinity"
    others = b"123456789012345678901234567890 2.2250738585072011e-308 1e22 1e23 0.30000000000000004"
    more = b" ".join([others] + [b"1"] * 7)
    lines = [b"1", b"1", BODY, b"25", *([tokens, more] * 13)[:25]]
    joints = parse(b"\n".join(lines)).joints[0]
    for row, line in enumerate(lines[4:]):
        expected = np.array([float(token) for token in line.split()])
        assert np.array_equal(joints[row].view(np.uint64), expected.view(np.uint64))


@pytest.mark.parametrize("data", [b"0", b"0\r\n", b"2\n0\n0\n", b"1\n0\n\n \t\r\n"])
def test_nobody(parse, data):
    skeleton = parse(data)
    assert len(skeleton.bodies) == int(data[:1]) and not skeleton.bodies.any()
    assert skeleton.id.shape == (0,) and skeleton.joints.shape == (0, 25, 12)
    assert skeleton.state.shape == (0, 9)


LAST = 4 + 25 - 1  # index of the last line of one body in one frame


@pytest.mark.parametrize(
    "line, content, message",
    [
        (0, b"", "a number of frames, got '' at line 1"),
        (0, b"-1", "a number of frames, got '-1' at line 1"),
        (0, b"\xff\xfe5", r"a number of frames, got '\?\?5' at line 1"),
        (0, b"1 1", "a number of frames, got '1 1' at line 1"),
        (0, b"1000000000", "a number of bodies, got the end of the file at line 30"),
        (0, b"9" * 19, "a number of frames, got '9+' at line 1"),
        (1, b"-3", "a number of bodies, got '-3' at line 2"),
        (1, b"1000000000", "a body id and 9 numbers, got the end of the file at line 30"),
        (1, b"0", "the end of the file, got '72057594037931648 0 1 1 1 1 0 -0.1159187' at line 3"),
        (2, BODY[:-2], "a body id and 9 numbers, got '.{40}' at line 3"),
        (2, b"-" + BODY, "a body id and 9 numbers, got '.{40}' at line 3"),
        (2, BODY.replace(b" 2", b" two"), "a body id and 9 numbers, got '.{40}' at line 3"),
        (3, b"24", "25 joints, got '24' at line 4"),
        (3, b"1000000000", "25 joints, got '1000000000' at line 4"),
        (3, b"-25", "25 joints, got '-25' at line 4"),
        (9, JOINT + b" 1", "12 numbers of a joint, got '.{40}' at line 10"),
        (9, JOINT[:-2], "12 numbers of a joint, got '.{40}' at line 10"),
        (9, b"x" + JOINT, "12 numbers of a joint, got 'x0.2.{36}' at line 10"),
        (9, b"1_0" + JOINT[9:], "12 numbers of a joint, got '1_0 .{36}' at line 10"),
        (9, b"0x1" + JOINT[9:], "12 numbers of a joint"),
        (9, b"nan(1)" + JOINT[9:], "12 numbers of a joint"),
        (9, b"+-1" + JOINT[9:], "12 numbers of a joint"),
        (9, b"1e999" + JOINT[9:], "12 numbers of a joint"),
        (9, b"nan" + JOINT[9:], "x, y and z of a joint in the range of float32, got 'nan .* 10"),
        (9, b"-inf" + JOINT[9:], "x, y and z of a joint in the range of float32"),
        (9, b"4e38" + JOINT[9:], "x, y and z of a joint in the range of float32"),
        (LAST, b"\n", "12 numbers of a joint, got '' at line 29"),
        (LAST, JOINT + b"\nend", "the end of the file, got 'end' at line 30"),
        (LAST, None, "12 numbers of a joint, got the end of the file at line 29"),
    ],
)
def test_damaged_files(parse, tmp_path, line, content, message):
    lines = [b"1", b"1", BODY, b"25", *[JOINT] * 25]
    lines[line : line + 1] = [] if content is None else [content]
    file = tmp_path / "S001C001P001R001A001.skeleton"
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: expected {message}"):
        ntu.read_skeleton(file)


def outcome(read, data):
    try:
        return read(data)
    except ValueError as error:
        return str(error)


SEED = text_of([[(7, pose(seed=1))], [], [(7, pose(seed=2)), (9, pose(seed=3))]])
TOKENS = [b"", b" ", b"\n", b"\r\n", b"\x00", b"\xff", b"-", b"+", b".", b"e", b"1e999", b"1e-999",
          b"nan", b"-inf", b"infinity", b"1_0", b"0x1p3", b"25", b"0", b"-1", b"1000000000",
          b"99999999999999999999", b"nan(x)", b"\t", b"\x0b",
          b"0.1234567890123456789012345"]  # fmt: skip
EDIT = st.tuples(
    st.integers(0, len(SEED)), st.integers(0, 60), st.sampled_from(TOKENS) | st.binary(max_size=6)
)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.skipif(ntu._host is None, reason="skelops._host is not built")
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(EDIT, min_size=1, max_size=4), st.integers(0, len(SEED)) | st.none())
def test_both_parsers_agree_on_damaged_text(edits, cut):
    data = SEED[:cut]
    for place, length, content in edits:
        data = data[:place] + content + data[place + length :]
    native, twin = outcome(ntu._host.parse_ntu_skeleton, data), outcome(ntu._parse, data)
    if isinstance(twin, str) or isinstance(native, str):
        assert native == twin
        return
    for one, other in zip(native, twin, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.array_equal(one, other, equal_nan=True)
    try:
        xyz = ntu.denoise(ntu.Skeleton(*twin))
    except ValueError as error:
        assert "twice in frame" in str(error)
    else:
        assert xyz.dtype == np.float32 and xyz.shape[1:] in ((1, 25, 3), (2, 25, 3))


def test_both_parsers_agree_on_recordings(recorded):
    if ntu._host is None:
        pytest.skip("skelops._host is not built")
    files = [*recorded.glob("raw/ntu_skeleton/*"), *recorded.glob("fixtures/*.skeleton")]
    assert len(files) == 8
    for file in files:
        data = file.read_bytes()
        for one, other in zip(ntu._host.parse_ntu_skeleton(data), ntu._parse(data), strict=True):
            assert np.array_equal(one, other)


# The published rules


def test_a_body_alone_is_kept_whatever_it_is():
    table = moving(3, x=2, y=0.5)
    assert np.array_equal(denoised(5, a=table)[:, 0], [table[t] for t in range(3)])


def test_frames_without_a_body_are_not_counted():
    body = moving(4, start=2) | moving(20, start=9, seed=3)
    xyz = denoised(30, a=body)
    assert np.array_equal(xyz[:, 0], [body[t] for t in sorted(body)])


def test_short_bodies_are_noise():
    long, short, kept = moving(40), moving(11, 0.5), moving(12, 0.5)
    assert denoised(40, a=long, b=short).shape == (40, 1, 25, 3)
    assert denoised(40, a=long, b=kept).shape == (40, 2, 25, 3)
    assert denoised(11, a=short, b=short).shape == (0, 1, 25, 3)


def test_bodies_wider_than_high_are_noise_but_the_last_stays():
    person, table = moving(40), moving(40, 0.5, x=2)
    xyz = denoised(40, a=person, b=table)
    assert np.array_equal(xyz, np.stack([person[t] for t in range(40)])[:, None])
    other = moving(40, x=3)
    assert np.array_equal(denoised(40, a=table, b=other)[0, 0], other[0])


def test_share_of_wide_poses():
    body = np.stack([pose()] * 1000)
    body[:697, :, 0] *= 10
    other = ntu.Track(0, np.stack([pose()] * 1000), 1.0)
    assert len(ntu.drop_wide([ntu.Track(0, body, 5.0), other])) == 2
    assert ntu.drop_wide([ntu.Track(0, body, 5.0), other])[0].motion == ntu.motion(body[697:])
    body[697, :, 0] *= 10
    assert ntu.drop_wide([ntu.Track(0, body, 5.0), other])[0] is other


def test_the_body_that_moves_most_comes_first():
    still, lively = moving(30, 0.001), moving(30, 0.05, seed=5)
    xyz = denoised(30, a=still, b=lively)
    assert np.array_equal(xyz[3, 0], lively[3]) and np.array_equal(xyz[3, 1], still[3])


def test_bodies_one_after_the_other_are_one_actor():
    first, second = moving(30, 0.05), moving(20, 0.04, start=30, seed=4)
    beside = moving(25, 0.03, start=10, seed=6)
    xyz = denoised(50, a=first, b=second, c=beside)
    assert np.array_equal(
        xyz[:, 0], [first[t] for t in range(30)] + [second[t + 30] for t in range(20)]
    )
    assert np.array_equal(xyz[10:35, 1], [beside[t] for t in range(10, 35)])
    assert not xyz[:10, 1].any() and not xyz[35:, 1].any()


def test_a_third_body_at_the_same_time_is_left_out():
    bodies = [moving(30, step, seed=i) for i, step in enumerate((0.05, 0.04, 0.03))]
    xyz = denoised(30, a=bodies[0], b=bodies[1], c=bodies[2])
    assert np.array_equal(xyz[7], [bodies[0][7], bodies[1][7]])


def test_a_gap_of_a_body_closes():
    body = moving(15, 0.05) | moving(15, 0.05, start=20, seed=3)
    other = moving(40, 0.01, seed=4)
    xyz = denoised(40, a=body, b=other)
    assert np.array_equal(xyz[15, 0], body[20]) and not xyz[30:, 0].any()


def test_an_id_twice_in_a_frame():
    frames = [[(7, pose())], [(7, pose()), (9, pose()), (7, pose())]]
    with pytest.raises(ValueError, match="each body once in a frame, got id 7 twice in frame 1"):
        ntu.denoise(ntu.parse(text_of(frames)))


def test_centre():
    xyz = np.zeros((3, 2, 25, 3), np.float32)
    xyz[1:, 0], xyz[:2, 1] = pose(seed=1), pose(seed=2)
    moved = ntu.centre(xyz)
    origin = xyz[1, 0, 1]
    assert np.array_equal(moved[1:, 0], xyz[1:, 0] - origin) and not moved[0, 0].any()
    assert np.array_equal(moved[:2, 1], xyz[:2, 1] - origin) and not moved[2, 1].any()
    assert not ntu.centre(np.zeros((2, 1, 25, 3), np.float32)).any()


def test_denoised_joints_are_the_published_ones(recorded, parse):
    truth = _pickle.load(recorded / "raw/ctrgcn_npz/raw_denoised_joints.pkl")
    files = sorted((recorded / "raw/ntu_skeleton").glob("*.skeleton"))
    for file, expected in zip(files, truth, strict=True):
        actors = ntu.denoise(ntu.read_skeleton(file))
        assert np.array_equal(actors.reshape(len(actors), -1), expected), file


@pytest.mark.parametrize(
    "archive, group, train, test",
    [
        ("NTU60_CS", "subject", splits.NTU60_SUBJECTS, sorted({*range(1, 41)} -
                                                              {*splits.NTU60_SUBJECTS})),
        ("NTU60_CV", "view", (2, 3), (1,)),
    ],
)  # fmt: skip
def test_clips_are_the_published_arrays(recorded, archive, group, train, test):
    source = ntu.NTUSkeletons(recorded / "raw/ntu_skeleton")
    assert [str(name) for name, _ in source.files] == (
        (recorded / "raw/ctrgcn_npz/order.txt").read_text().split()
    )
    clips = [source.load(i) for i in range(len(source))]
    longest = max(len(clip.xyz) for clip in clips)
    with np.load(recorded / "raw/ctrgcn_npz" / f"{archive}.npz") as truth:
        for side, groups in (("train", train), ("test", test)):
            chosen = [clip for g in groups for clip in clips if getattr(clip, group) == g]
            x = np.zeros((len(chosen), longest, 150), np.float32)
            for row, clip in zip(x, chosen, strict=True):
                row[: len(clip.xyz)] = clip.xyz.reshape(-1, 150)
            assert np.array_equal(x, truth[f"x_{side}"])
            y = np.eye(60)[[clip.label for clip in chosen]]
            assert np.array_equal(y, truth[f"y_{side}"])


# The data set


@pytest.fixture
def directory(tmp_path):
    """Four clips, one without a body, in two directories."""
    (tmp_path / "s18").mkdir()
    couple = together(20, a=moving(20, 0.05), b=moving(20, 0.01, seed=1))
    for name, frames in {
        "S001C002P003R002A060": couple,
        "S001C001P001R001A001": together(5, a=moving(5)),
        "S002C001P001R001A001": [[]] * 4,
        "s18/S018C003P106R001A120": [[], *together(5, a=moving(5))],
    }.items():
        (tmp_path / f"{name}.skeleton").write_bytes(text_of(frames))
    return tmp_path


def test_source(directory):
    source = ntu.NTUSkeletons(directory)
    assert len(source) == 4 and len(source.classes) == 120
    clips = [source.load(i) for i in range(4)]
    assert clips[2] is None
    assert [clip.name for clip in clips if clip] == [
        "S001C001P001R001A001", "S001C002P003R002A060", "S018C003P106R001A120"
    ]  # fmt: skip
    assert [clip.label for clip in clips if clip] == [0, 59, 119]
    assert (clips[1].subject, clips[1].view) == (3, 2)
    assert clips[1].extra == {"setup": 1, "replication": 2}
    assert [clip.xyz.shape for clip in clips if clip] == [
        (5, 2, 25, 3), (20, 2, 25, 3), (5, 2, 25, 3)
    ]  # fmt: skip
    assert all(clip.xyz.dtype == np.float32 for clip in clips if clip)
    assert not clips[0].xyz[0, 0, 1].any() and not clips[0].xyz[:, 1].any()


def test_options(directory):
    assert len(ntu.NTUSkeletons(directory, classes=60)) == 3
    assert len(ntu.NTUSkeletons(directory, classes=60).classes) == 60
    one = directory / "S001C001P001R001A001.skeleton"
    assert len(ntu.NTUSkeletons(one)) == 1 and len(ntu.NTUSkeletons(one).classes) == 60
    assert len(ntu.NTUSkeletons(one, classes=120).classes) == 120
    camera = ntu.NTUSkeletons(one, normalise=False).load(0).xyz
    assert np.array_equal(camera[:, 0], [moving(5)[t] for t in range(5)])
    twice = ntu.NTUSkeletons(one, repeat_single=True).load(0).xyz
    assert np.array_equal(twice[:, 0], twice[:, 1]) and twice[:, 1].any()


def test_raw_bodies(directory):
    source = ntu.NTUSkeletons(directory, bodies="raw", normalise=False)
    xyz = source.load(3).xyz
    assert xyz.shape == (6, 2, 25, 3) and not xyz[0].any() and not xyz[:, 1].any()
    assert np.array_equal(xyz[1:, 0], [moving(5)[t] for t in range(5)])
    assert np.array_equal(
        source.load(1).xyz[:, 1], [moving(20, 0.01, seed=1)[t] for t in range(20)]
    )
    assert source.load(2) is None


def test_missing_list(directory):
    published = directory / "missing.txt"
    published.write_text("2 of the samples have missing skeletons.\n\nS001C002P003R002A060\n"
                         "S002C001P001R001A001.skeleton\n")  # fmt: skip
    source = ntu.NTUSkeletons(directory, missing=published)
    assert [source.load(i).name for i in range(2)] == [
        "S001C001P001R001A001", "S018C003P106R001A120"
    ]  # fmt: skip
    assert len(source) == 2
    published.write_text("nothing\n")
    with pytest.raises(ValueError, match=r"missing\.txt: expected names like S001.*, got none"):
        ntu.NTUSkeletons(directory, missing=published)


@pytest.mark.parametrize(
    "name, message",
    [
        ("S001C001P001R001.skeleton", r"expected a name like S001C001P001R001A001\.skeleton, got"),
        ("S001C001P001R001A121.skeleton", r"expected an action in 1\.\.120, got 121"),
        ("S001C001P001R001A000.skeleton", r"expected an action in 1\.\.120, got 0"),
        ("s18/S001C001P001R001A001.skeleton", "expected each name once, got it in"),
    ],
)
def test_names(directory, name, message):
    (directory / name).write_bytes(b"0\n")
    with pytest.raises(ValueError, match=message) as error:
        ntu.NTUSkeletons(directory)
    assert str(directory / name) in str(error.value)


def test_wrong_options_and_paths(tmp_path):
    with pytest.raises(ValueError, match="expected classes 60, 120 or None, got 61"):
        ntu.NTUSkeletons(tmp_path, classes=61)
    with pytest.raises(ValueError, match="expected bodies 'denoised' or 'raw', got 'all'"):
        ntu.NTUSkeletons(tmp_path, bodies="all")
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"expected \.skeleton files, got none"):
            ntu.NTUSkeletons(path)


def test_format(directory, tmp_path):
    recognises = FORMATS["ntu_skeleton"].recognises
    assert recognises(directory) and recognises(directory / "S001C001P001R001A001.skeleton")
    (tmp_path / "empty").mkdir()
    assert not recognises(tmp_path / "empty")
    assert len(FORMATS["ntu_skeleton"].open(directory, classes=60)) == 3


def test_class_names():
    assert len(ntu.NTU120_CLASSES) == len(set(ntu.NTU120_CLASSES)) == 120
    assert ntu.NTU60_CLASSES[-1] == "walking apart from each other"
    assert ntu.NTU120_CLASSES[98] == "running on the spot"
