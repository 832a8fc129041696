"""A small valid sample of every registered format, and the recordings where they are at hand."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from skelops.data import read

RECORDED = Path(__file__).parents[3] / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-inputs", type=int, help="slow fuzz test of the formats: damaged inputs in total"
    )


@pytest.fixture
def recorded():
    if not (RECORDED / "nw_ucla.npz").exists():
        pytest.skip("the recordings are not at hand (../shared/data)")
    return RECORDED


@pytest.fixture
def refused():
    """``refused(path, message)``: reading raises an error that names the file and leaves it be."""

    def check(path, message):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert str(path) in str(error.value)
        assert path.read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    return check


def rng():
    return np.random.default_rng(0)


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def rounded(*shape):
    return rng().normal(size=shape).round(3)


def nw_ucla(root):
    for name in ("a03_s02_e01_v01", "a03_s02_e01_v03"):
        record = {"file_name": name, "skeletons": rounded(2, 20, 3).tolist(), "label": 3}
        dump(root / f"{name}.json", record)
    return root


def packed(root):
    arrays = {
        "xyz": rounded(9, 20, 3).astype(np.float32),
        "length": np.array([4, 5]),
        "label": np.array([1, 0]),
        "classes": np.array(["sit", "stand"]),
        "name": np.array(["one", "two"]),
        "subject": np.array([1, 2]),
        "layout": np.array("nw_ucla20"),
    }
    np.savez(root / "packed.npz", **arrays)
    return root / "packed.npz"


def kinetics(root):
    pose, score = rounded(36).tolist(), np.abs(rounded(18)).tolist()
    person = {"pose": pose, "score": score}
    frames = [{"frame_index": 1, "skeleton": [person]}, {"frame_index": 3, "skeleton": []}]
    entry = {"label": "jump", "label_index": 1}
    dump(root / "train" / "clip.json", {"data": frames, **entry})
    dump(root / "train_label.json", {"clip": {"has_skeleton": True, **entry}})
    return root / "train"


def pyskl(root):
    annotations = [
        {
            "frame_dir": f"clip_{i}",
            "label": i,
            "img_shape": (240, 320),
            "total_frames": 3,
            "keypoint": rounded(i + 1, 3, 17, 2).astype(np.float16),
            "keypoint_score": np.abs(rounded(i + 1, 3, 17)).astype(np.float16),
        }
        for i in range(2)
    ]
    content = {"split": {"train": ["clip_0"], "val": ["clip_1"]}, "annotations": annotations}
    (root / "clips.pkl").write_bytes(pickle.dumps(content))
    return root / "clips.pkl"


def ctrgcn(root):
    x = rounded(2, 4, 150).astype(np.float32)
    x[0, 3:] = 0
    y = np.eye(3)[[0, 2]]
    np.savez_compressed(root / "ctr.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    return root / "ctr.npz"


def stgcn(root):
    x = rounded(2, 3, 5, 25, 2).astype(np.float32)
    x[0, :, 3:] = 0
    np.save(root / "train_data.npy", x)
    names = ["S001C002P003R001A002.skeleton", "S001C003P004R001A001.skeleton"]
    (root / "train_label.pkl").write_bytes(pickle.dumps((names, [1, 0])))
    return root


def shrec(root):
    for essai in (1, 2):
        place = root / "gesture_2" / "finger_2" / "subject_5" / f"essai_{essai}"
        place.mkdir(parents=True)
        np.savetxt(place / "skeletons_world.txt", rounded(3, 66), fmt="%.3f")
    (root / "train_gestures.txt").write_text("2 2 5 1 2 4 3\n")
    (root / "test_gestures.txt").write_text("2 2 5 2 2 4 3\n9 1 5 2 9 17 3\n")
    return root


BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0.0 90.0 0.0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 10 1
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT Head
    {
      OFFSET 0 20 -2
      CHANNELS 3 Yrotation Xrotation Zrotation
      End Site
      {
        OFFSET 0 8 0
      }
    }
  }
  JOINT LeftLeg
  {
    OFFSET 9 -4 0
    CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 -40 3
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.008333
1 91 3 10 20 30 5 -15 25 40 50 -60 9 -4 0 3 60 -20
2 92 4 -80 20 130 95 -15 25 40 150 -60 10 -5 1 -3 60 20
"""


def bvh(root):
    (root / "walk").mkdir()
    (root / "walk" / "one.bvh").write_text(BVH)
    return root


def c3d(root):
    package = pytest.importorskip("c3d")
    writer = package.Writer(point_rate=50, point_scale=-1)
    points = np.concatenate([1000 * rounded(4, 3, 3), np.zeros((4, 3, 2))], axis=-1)
    points[1, 2, 3:] = -1
    writer.set_point_labels(["LASI", "RASI", "HEAD"])
    writer.add_frames(
        [(frame, np.zeros((0, 1), np.float32)) for frame in points.astype(np.float32)]
    )
    with open(root / "markers.c3d", "wb") as file:
        writer.write(file)
    return root / "markers.c3d"


def coco_results(root):
    points = rounded(3, 51)
    points[:, 2::3] = np.abs(points[:, 2::3])
    entries = [
        {"image_id": f"{t}.jpg", "category_id": 1, "keypoints": p.tolist(), "score": 1, "idx": i}
        for t, i, p in zip((0, 0, 2), (7, 3, 3), points, strict=True)
    ]
    return dump(root / "jump" / "clip.json", entries)


def mmpose(root):
    instance = {"keypoints": rounded(17, 2).tolist(), "keypoint_scores": rounded(17).tolist()}
    frames = [{"frame_id": 1, "instances": [instance]}, {"frame_id": 2, "instances": []}]
    return dump(root / "run" / "clip.json", {"meta_info": {}, "instance_info": frames})


def openpose(root):
    for t in range(2):
        person = {"person_id": [-1], "pose_keypoints_2d": np.abs(rounded(75)).tolist()}
        name = f"clip_{t:012d}_keypoints.json"
        dump(root / "sit" / "clip" / name, {"version": 1.3, "people": [person] * t})
    return root


def mediapipe(root):
    marks = [dict(zip(("x", "y", "z", "visibility"), p, strict=True)) for p in rounded(33, 4)]
    return dump(root / "wave" / "clip.json", [marks, [], [marks, marks]])


def arrays(root):
    (root / "wave").mkdir()
    np.save(root / "wave" / "one.npy", rounded(3, 33, 4).astype(np.float32))
    np.savez(root / "wave" / "more.npz", a=rounded(2, 33, 4), b=rounded(1, 33, 4))
    return root


def ntu_skeleton(root):
    joints = "".join(f"0.{v} 0.2 3.{v} 1 2 3 4 0 0 0 1 2\n" for v in range(25))
    body = f"72057594037931101 0 1 1 0 0 0 0.1 -0.2 2\n25\n{joints}"
    path = root / "S001C001P001R001A001.skeleton"
    path.write_text("2\n" + f"1\n{body}" * 2)
    return path


def pku_mmd(root):
    for place in ("video", "label"):
        (root / place).mkdir()
    np.savetxt(root / "video" / "0002-L.txt", rounded(6, 150), fmt="%.3f")
    (root / "label" / "0002-L.txt").write_text("4,1,3,2\n51,3,6,1\n")
    return root / "video"


_SAMPLES = {
    f.__name__: f
    for f in (
        nw_ucla, packed, kinetics, pyskl, ctrgcn, stgcn, shrec, bvh, c3d, coco_results, mmpose,
        openpose, mediapipe, arrays, ntu_skeleton, pku_mmd,
    )
}  # fmt: skip


@pytest.fixture
def make_sample(tmp_path):
    """Writes a sample into a directory of its own; returns what to open."""

    def make(format, root=tmp_path):
        (root / format).mkdir()
        return _SAMPLES[format](root / format)

    return make


@pytest.fixture
def own_layouts(monkeypatch):
    """Layouts that a test registers are forgotten after it."""
    from skelops import graph

    monkeypatch.setattr(graph, "_LAYOUTS", dict(graph._LAYOUTS))
