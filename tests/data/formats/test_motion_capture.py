"""Hand gestures, BVH and C3D: directories and lists, forward kinematics, units, damage."""

import numpy as np
import pytest

from skelops.data import open_source, read
from skelops.data.formats.motion_capture import parse_bvh
from skelops.graph import get_layout

pytestmark = pytest.mark.usefixtures("own_layouts")


def test_hand_gestures(make_sample):
    path = make_sample("shrec")
    clips, source = read(path), open_source(path, num_classes=28)
    assert clips.layout == "shrec22" and clips.xyz.shape == (6, 1, 22, 3)
    assert clips.name.tolist() == [f"gesture_2/finger_2/subject_5/essai_{i}" for i in (1, 2)]
    assert clips.classes[clips.label[0]] == "tap" and clips.subject.tolist() == [5, 5]
    assert clips.extra["finger"].tolist() == [2, 2] and clips.extra["trial"].tolist() == [1, 2]
    assert source.load(0).label == 3 and source.classes[3] == "tap, whole hand"
    assert source.splits == {"train": (clips.name[0],), "test": (clips.name[1],)}
    with pytest.raises(ValueError, match="expected num_classes 14 or 28, got 27"):
        open_source(path, num_classes=27)


def test_hand_gestures_damaged(make_sample):
    path = make_sample("shrec")
    file = path / "gesture_2/finger_2/subject_5/essai_1/skeletons_world.txt"
    whole = file.read_text()
    for text, message in [
        (whole[:-9], r"essai_1/skeletons_world\.txt: expected 66 numbers, got .* at line 3"),
        (whole.replace("0", "x", 1), "expected 66 numbers, got .* at line 1"),
        ("nan " * 66, "expected 66 finite numbers, got 'nan nan"),
        ("1e39 " * 66, "expected 66 finite numbers"),
        ("\n\n", "expected at least one frame, got '' at line 2"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read(path)
    (path / "train_gestures.txt").write_text("2 2 5 1\n2 2 x 1\n")
    with pytest.raises(ValueError, match=r"train_gestures\.txt: expected gesture, .* at line 2"):
        open_source(path)
    file.parent.parent.parent.parent.rename(path / "gesture_15")
    with pytest.raises(ValueError, match=r"gesture_15.*: expected gesture_1\.\.14"):
        open_source(path)


def test_bvh_forward_kinematics(make_sample):
    path = make_sample("bvh") / "walk" / "one.bvh"
    motion = parse_bvh(path.read_bytes())
    assert motion.names == ("Hips", "Spine", "Head", "Head_end", "LeftLeg", "LeftLeg_end")
    assert motion.parents == (0, 0, 1, 2, 0, 4)
    # Positions of the joints as the package bvhio 1.5 computes them.
    expected = [
        [[1, 91, 3], [-0.088, 100.049, 7.234], [-8.953, 117.985, 9.161], [9.061, 90.168, -2.597]],
        [[2, 92, 4], [11.604, 92.916, 6.816], [4.145, 84.781, 23.615], [-0.814, 97.253, -5.513]],
    ]
    np.testing.assert_allclose(motion.xyz[:, [0, 1, 2, 4]], expected, atol=6e-4)
    for end, parent, length in ((3, 2, 8), (5, 4, np.hypot(40, 3))):
        bones = np.linalg.norm(motion.xyz[:, end] - motion.xyz[:, parent], axis=-1)
        np.testing.assert_allclose(bones, length)


def test_bvh_clips(make_sample):
    path = make_sample("bvh")
    clips = read(path)
    assert clips.layout == "one" and clips.classes == ("walk",) and clips.name[0] == "walk/one"
    assert get_layout("one").joint_names[2] == "Head" and clips.fps == pytest.approx(120, rel=1e-4)
    np.testing.assert_allclose(clips[0][0, 0, 0], [0.01, 0.91, 0.03], rtol=1e-6)  # from centimetres
    labels = path / "labels.csv"
    labels.write_text("name,label\nwalk/one,stride\n")
    inches = read(path, scale=0.0254, layout="body", labels=labels)
    assert inches.layout == "body" and inches.classes == ("stride",)
    np.testing.assert_allclose(inches.xyz, clips.xyz * 2.54, rtol=1e-5)
    file = path / "walk" / "one.bvh"
    (path / "walk" / "two.bvh").write_text(file.read_text().replace("Spine", "Chest"))
    with pytest.raises(ValueError, match=r"two\.bvh: expected the joints of .*one\.bvh"):
        read(path)
    file.write_text(file.read_text().replace("Spine", "Chest"))
    with pytest.raises(ValueError, match="expected a new name in option layout, got 'one'"):
        read(path)
    with pytest.raises(ValueError, match="expected the 17 joints of layout coco17, got 6"):
        read(path, layout="coco17")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("HIERARCHY", "", r"one\.bvh: expected HIERARCHY, got 'ROOT Hips' at line 2"),
        ("OFFSET 0 10 1", "OFFSET 0 10", r"expected a number, got 'CHANNELS 3 .*' at line 9"),
        ("CHANNELS 3", "CHANNELS 9", "expected 0 to 6 channels"),
        ("Zrotation Yrotation Xrotation", "Wrotation", "expected a channel such as Xrotation"),
        ("JOINT Head", "JOINT Spine", "expected each joint once, got 'Spine' twice"),
        ("Frames: 2", "Frames: 3", "expected 3 frames, not 2"),
        ("Frames: 2", "Frames: inf", "expected at least one frame"),
        ("Frames: 2", "Frames: 0", "expected at least one frame"),
        ("Time: 0.008333", "Time: 0", "expected at least one frame and the seconds"),
        ("1 91 3", "1 91", r"expected the 18 numbers of a frame, got .* at line 33"),
        ("1 91 3", "1 nan 3", "expected finite coordinates, got nan"),
        ("1 91 3", "1 1e300 3", "expected finite coordinates, got inf"),
        ("Site", "Sight", "expected Site"),
    ],
)
def test_bvh_damaged(make_sample, old, new, message):
    path = make_sample("bvh") / "walk" / "one.bvh"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read(path)


def test_bvh_of_many_brackets(tmp_path):
    path = tmp_path / "deep.bvh"
    joint = "{\nOFFSET 0 0 0\nCHANNELS 0\nJOINT %d\n"
    path.write_text("HIERARCHY\nROOT r\n" + "".join(joint % i for i in range(20_000)))
    with pytest.raises(ValueError, match="expected at most 10000 joints"):
        read(path)


def test_c3d(make_sample):
    path = make_sample("c3d")
    clips = read(path)
    points = np.random.default_rng(0).normal(size=(4, 3, 3)).round(3)
    points[1, 2] = 0  # not seen
    np.testing.assert_allclose(clips.xyz[:, 0], points, atol=1e-6)  # from millimetres
    assert clips.fps == 50 and get_layout(clips.layout).joint_names == ("LASI", "RASI", "HEAD")
    assert get_layout(clips.layout).bones == ()
    np.testing.assert_allclose(read(path, scale=1.0).xyz, clips.xyz * 1000, rtol=1e-5)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"mm  ", b"ells"))
    with pytest.raises(ValueError, match=r"expected a unit in \['cm', .*, got 'ells'"):
        read(path)
    path.write_bytes(whole[:-512])
    with pytest.raises(
        ValueError, match=r"markers\.c3d: expected a C3D file, got .* frames, \d+ sh"
    ):
        read(path)
