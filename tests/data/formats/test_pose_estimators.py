"""What pose estimators write: tracks, numbered frames, classes by directory or table, damage."""

import json

import numpy as np
import pytest

from skelops.data import open_source, read


def points(x, score=0.5, joints=17):
    return [x, 2.0, score] * joints


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def test_tracks_and_frames_of_coco_results(tmp_path):
    entries = [
        {"image_id": "0007.jpg", "keypoints": points(1), "idx": 4},
        {"image_id": "0007.jpg", "keypoints": points(2, 0.9), "idx": [9]},
        {"image_id": "0007.jpg", "keypoints": points(3, 0.1), "idx": 2.0},
        {"image_id": "0009.jpg", "keypoints": points(4, 0.9), "idx": 9},
        {"image_id": "0009.jpg", "keypoints": points(5), "idx": 4},
    ]
    path = write(tmp_path / "jump" / "clip.json", entries)
    clips = read(path)
    assert clips.layout == "coco17" and clips.confidence and clips.classes == ("jump",)
    assert clips[0][:, :, 3, 0].tolist() == [[1, 2], [0, 0], [5, 4]]
    assert read(path, num_persons=1)[0][:, 0, 3, 0].tolist() == [2, 0, 4]
    for entry in entries:
        del entry["idx"]
    write(path, entries)
    assert read(path)[0][:, :, 3, 0].tolist() == [[1, 2], [0, 0], [4, 5]]
    for entry, name in zip(entries, "bbbaa", strict=True):
        entry["image_id"] = name
    write(path, entries)
    assert read(path, num_persons=3)[0][:, :, 3, 0].tolist() == [[1, 2, 3], [4, 5, 0]]


@pytest.mark.parametrize("joints, layout", [(26, "halpe26"), (133, "coco_wholebody133"),
                                            (136, "halpe136")])  # fmt: skip
def test_layouts_of_coco_results(tmp_path, joints, layout):
    path = write(tmp_path / "a.json", [{"image_id": 3, "keypoints": points(1, 1, joints)}])
    assert read(path).layout == layout


def test_classes_by_table(make_sample, tmp_path):
    path = make_sample("coco_results").parent.parent
    table = tmp_path / "labels.csv"
    table.write_text('name,label\njump/clip,"far, high"\nother,low\n')
    assert read(path, labels=table).classes == ("far, high",)
    for text, message in [
        ("name,label\n", r"labels\.csv: expected a line for clip 'jump/clip', got none"),
        ("a,b\n", r"labels\.csv: expected lines name,label, got .* line 1, not the heading"),
        ("name,label\nx,a\nx,b\n", "at line 3, not one new name and its label"),
        ("name,label\nx\n", "at line 2, not one new name and its label"),
    ]:
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            open_source(path, labels=table)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"keypoints": [1, 2]}, "entry 0, keypoints: expected x, y, score of each joint, got 2 nu"),
        ({"keypoints": []}, "expected x, y, score of each joint, got 0 numbers"),
        ({"keypoints": "abc"}, "entry 0, keypoints: expected numbers"),
        ({"keypoints": points(float("inf"))}, "entry 0, keypoints: expected finite coordinates"),
        ({"keypoints": points(1, 1, 23)}, "expected option layout for 23 joints"),
        ({"image_id": None}, "entry 0: expected image_id, got None"),
        ({"idx": "x"}, r"entry 0: expected idx in 0\.\.\d+, got 'x'"),
        ({"image_id": "9.jpg", "idx": 3}, "expected one person of track 3 in frame 9, got two"),
    ],
)
def test_damaged_coco_results(tmp_path, change, message):
    entries = [{"image_id": f"{i}.jpg", "keypoints": points(1), "idx": 3} for i in (0, 9)]
    entries[0] |= change
    path = write(tmp_path / "clip.json", entries)
    with pytest.raises(ValueError, match=message):
        read(path, format="coco_results")


def test_clips_without_a_person_are_left_out(make_sample):
    path = make_sample("mmpose")
    frames = [{"frame_id": 1, "instances": []}]
    write(path.with_name("empty.json"), {"instance_info": frames})
    assert read(path.parent, format="mmpose").name.tolist() == ["clip"]
    write(path, {"instance_info": frames})
    with pytest.raises(ValueError, match="expected a person in some clip, got none"):
        read(path.parent, format="mmpose")


def test_mmpose(tmp_path, make_sample):
    clips = read(make_sample("mmpose"))
    assert clips.xyz.shape == (2, 2, 17, 3) and not clips[0][1].any()
    people = [
        {"keypoints": [[x, 0, 3]] * 17, "keypoint_scores": [0.5] * 17, "track_id": t}
        for x, t in ((1, 8), (2, 5))
    ]
    frames = [{"frame_id": i, "instances": people[:: 1 - 2 * i]} for i in range(2)]
    clips = read(write(tmp_path / "a.json", {"instance_info": frames}))
    assert clips[0].shape == (2, 2, 17, 4) and clips[0][:, :, 0, 0].tolist() == [[1, 2]] * 2


def test_openpose(make_sample):
    path = make_sample("openpose")
    clips = read(path)
    assert (
        clips.layout == "openpose25" and clips.name[0] == "sit/clip" and clips.classes == ("sit",)
    )
    assert clips[0].shape == (2, 2, 25, 3) and not clips[0][0].any() and clips[0][1, 0].any()
    assert np.array_equal(read(path / "sit" / "clip").xyz, clips.xyz)
    file = path / "sit" / "clip" / f"clip_{1:012d}_keypoints.json"
    file.write_text('{"people": [{"pose_keypoints_2d": null}]}')
    with pytest.raises(ValueError, match=r"keypoints\.json, person 0, pose_keypoints_2d: expected"):
        read(path)


def test_mediapipe(make_sample):
    path = make_sample("mediapipe")
    clips = read(path)
    assert clips.layout == "mediapipe33" and clips.confidence and clips[0].shape == (3, 2, 33, 4)
    seen = clips.present[:3]
    assert seen.tolist() == [[True, False], [False, False], [True, True]]
    content = json.loads(path.read_text())
    del content[0][32]["visibility"]
    write(path, content)
    with pytest.raises(ValueError, match="frame 0, person 0, landmark 32: expected key 'visibili"):
        read(path)
    write(path, [content[0][:20]])
    with pytest.raises(
        ValueError, match=r"frame 0, person 0: expected numbers \(33, 4\), got \(20,"
    ):
        read(path)


def test_arrays(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.normal(size=(5, 3, 24, 3)).astype(np.float32)
    array[:, 1] *= np.array([1, 0, 0, 0, 0])[:, None, None]
    np.save(tmp_path / "a.npy", array)
    clips = read(tmp_path / "a.npy")
    assert clips.layout == "smpl24" and not clips.confidence
    assert np.array_equal(clips[0], array[:, [0, 2]])  # those seen in most frames
    swapped = read(tmp_path / "a.npy", axes="MTVC", num_persons=5)
    assert np.array_equal(swapped[0], array.swapaxes(0, 1))
    scored = read(tmp_path / "a.npy", confidence=True, num_persons=1)
    best = array[..., 2].sum((0, 2)).argmax()
    assert np.array_equal(scored[0][:, 0], array[:, best]) and scored.confidence
    np.save(tmp_path / "b.npy", array[:, 0])
    assert read(tmp_path / "b.npy").xyz.shape == (5, 1, 24, 3)
    np.savez(tmp_path / "c.npz", x=array[:, 0], y=array[:2, 0])
    assert read(tmp_path / "c.npz").name.tolist() == ["c/x", "c/y"]


@pytest.mark.parametrize(
    "array, options, message",
    [
        (
            np.zeros((2, 17, 3)),
            {},
            r"expected option layout for 17 joints, got none; .*coco17, h36",
        ),
        (np.zeros((2, 17, 3)), {"layout": "ntu25"}, "the 25 joints of layout ntu25, got 17"),
        (np.zeros((2, 17)), {}, r"expected arrays TVC or TMVC or MTVC, got \(2, 17\)"),
        (np.zeros((2, 24, 3)), {"axes": "MTVC"}, "expected arrays"),
        (np.zeros((2, 24, 3)), {"axes": "VTC"}, "expected axes in"),
        (np.zeros((0, 24, 3)), {}, "expected at least one frame, got"),
        (np.full((2, 24, 3), np.nan), {}, "expected finite coordinates, got nan"),
        (np.array([["x"]]), {}, "expected arrays"),
        (np.array([{}], object), {}, "expected an array, got ValueError: object"),
    ],
)
def test_damaged_arrays(tmp_path, array, options, message):
    path = tmp_path / "a.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=message):
        read(path, format="arrays", **options)
