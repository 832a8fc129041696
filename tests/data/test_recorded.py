"""Recorded clips: frames that are asked for, pictures and joints in place, broken recordings."""

import re
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

from skelops.data import Clips, ClipTransform, RecordedDataset
from skelops.data.video import MediaError, count_frames, find_media, read_depth, read_video
from skelops.train import SkeletonDataModule
from skelops.train.cli import main as command

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")

H, W, LENGTHS = 48, 64, (12, 9, 15)
WINDOW = ClipTransform(frames=6, sampling="window", center=False)


def write_video(path, frames):
    """(F, H, W, 3) uint8, without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def numbered(count):
    """Frames that show their number, and a red dot that wanders along row 20."""
    frames = np.zeros((count, H, W, 3), np.uint8)
    frames[:, :, :, 1] = np.arange(count)[:, None, None] * 10
    for i in range(count):
        frames[i, 20, 10 + i, 0] = 255
    return frames


@pytest.fixture
def recorded(tmp_path):
    """Clips whose first joint is the red dot, and their recordings."""
    joints = np.zeros((sum(LENGTHS), 1, 17, 3), np.float32)
    names, first = [], 0
    for clip, count in enumerate(LENGTHS):
        names.append(f"clip{clip}")
        at = joints[first : first + count, 0]
        at[:, :, 2] = 0.5
        at[:, 1:, 0], at[:, 1:, 1] = np.linspace(8, 40, 16), np.linspace(6, 42, 16)
        at[:, 0, 0], at[:, 0, 1] = np.arange(count) + 10.5, 20.5
        first += count
        for sensor in ("rgb", "depth"):
            (tmp_path / sensor).mkdir(exist_ok=True)
        write_video(tmp_path / "rgb" / f"clip{clip}.mkv", numbered(count))
        depth = np.full((count, H // 2, W // 2), 1500, np.uint16) + np.arange(count)[:, None, None]
        if clip:
            np.savez(tmp_path / "depth" / f"clip{clip}.npz", depth=depth)
            continue
        (tmp_path / "depth" / "clip0").mkdir()
        for i, image in enumerate(depth.astype(np.uint16)):
            Image.fromarray(image).save(tmp_path / "depth" / "clip0" / f"{i:04}.png")
    clips = Clips(
        joints, np.array(LENGTHS), np.array([0, 1, 0]), ("a", "b"), "coco17", np.array(names),
        subject=np.array([1, 2, 2]), confidence=True,
    )  # fmt: skip
    return clips, tmp_path


def dataset(recorded, modalities=("rgb", "depth", "keypoints"), transform=WINDOW, **options):
    clips, path = recorded
    folders = {name: path / name for name in ("rgb", "depth")}
    return RecordedDataset(
        clips, transform, folders=folders, modalities=modalities,
        **{"image_size": 32, "box": "picture", **options},
    )  # fmt: skip


def test_frames_of_a_video(recorded):
    path = find_media(recorded[1] / "rgb", "clip0")
    index = [7, 2, 2, 11]
    frames = numbered(12)[index]
    assert count_frames(path) == 12
    assert np.array_equal(read_video(path, index), frames)
    grey = read_video(path, index, grey=True)
    assert grey.shape == (4, H, W, 1) and (np.diff(grey[[1, 0, 3], 0, 0, 0]) > 10).all()


@pytest.mark.parametrize("clip", [0, 1])
def test_depth_maps(recorded, clip):
    path = find_media(recorded[1] / "depth", f"clip{clip}", depth=True)
    depth = read_depth(path, [5, 0])
    assert depth.shape == (2, H // 2, W // 2, 1) and depth.dtype == np.float32
    np.testing.assert_allclose(depth[:, 0, 0, 0], [1.505, 1.5])


def test_floating_depth_is_in_metres(tmp_path):
    np.savez(tmp_path / "a.npz", depth=np.full((2, 3, 4), 1.25))
    assert (read_depth(tmp_path / "a.npz", [1]) == 1.25).all()


def test_sensors_show_the_same_frames(recorded):
    (x, y, clip) = dataset(recorded).__getitems__([0, 1, 2])
    assert x["rgb"].shape == (3, 3, 6, 32, 32) and x["depth"].shape == (3, 1, 6, 32, 32)
    assert x["keypoints"].shape == (3, 3, 6, 17, 1)
    assert y.tolist() == [0, 1, 0] and clip.tolist() == [0, 1, 2]
    number = (x["rgb"][:, 1, :, 0, 0] * 25.5).round()
    assert torch.equal(number[0], torch.arange(3.0, 9))  # the middle of twelve
    torch.testing.assert_close(x["depth"][:, 0, :, 5, 5], 1.5 + number / 1000)
    dot = (x["keypoints"][:, 0, :, 0, 0] + 1) / 2 * W - 10.5
    torch.testing.assert_close(dot, number, atol=1e-4, rtol=0)
    assert (x["keypoints"][:, 2] == 0.5).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"box": "pose"}, {"flip": 1.0}, {"box": "pose", "flip": 1.0, "crop": (0.5, 0.9)}],
)
def test_joints_are_in_place_with_the_pictures(recorded, options):
    data = dataset(recorded, ("rgb", "keypoints"), image_size=128, train=True, **options)
    mirror = data.geometry.layout.mirror
    for draw in range(6):
        x = data[draw][0]
        for t in range(6):
            place = x["keypoints"][:2, t, 0, 0]
            if place.abs().max() > 0.95:
                continue  # cropped away
            red = x["rgb"][0, t]
            weight = red / red.sum()
            grid = (torch.arange(128) + 0.5) / 64 - 1
            found = torch.stack([(weight.sum(0) * grid).sum(), (weight.sum(1) * grid).sum()])
            torch.testing.assert_close(found, place, atol=0.06, rtol=0)
    plain = dataset(recorded, ("keypoints",), image_size=128, train=True)
    if options == {"flip": 1.0}:
        flipped = dataset(recorded, ("rgb", "keypoints"), train=True, flip=1.0)[0][0]["keypoints"]
        given = dataset(recorded, ("rgb", "keypoints"), train=True)[0][0]["keypoints"]
        torch.testing.assert_close(flipped[0], -given[0][:, list(mirror)])
        torch.testing.assert_close(flipped[1:], given[1:][:, :, list(mirror)])
    with pytest.raises(ValueError, match="height and width of the picture of clip 0"):
        plain[0]


def test_a_batch_replays(recorded):
    data = dataset(recorded, train=True, box="pose", crop=(0.5, 1.0), flip=0.5)
    batch, one = data.__getitems__([4, 8]), data[8]
    assert all(torch.equal(batch.x[name][1], one.x[name]) for name in batch.x)
    assert any(not torch.equal(data[2].x["rgb"], data[2 + 3 * i].x["rgb"]) for i in range(1, 4))


def test_missing_joints_and_frames(recorded):
    recorded[0].xyz[3, 0, 5] = 0
    x = dataset(recorded, transform=ClipTransform(frames=14, sampling="pad", center=False))[0].x
    assert not x["keypoints"][:, 3, 5].any() and x["keypoints"][2, 3, 6] == 0.5
    assert all(not x[name][:, 12:].any() and x[name][:, 11].any() for name in x)


def test_boxes_of_a_detector(recorded, tmp_path):
    boxes, names = np.array([[8, 8, 40, 40], [0, 0, 64, 48], [-5, 0, 99, 48]]), recorded[0].name
    np.savez(tmp_path / "boxes.npz", name=names, box=boxes)
    box = {"box": tmp_path / "boxes.npz"}
    x = dataset(recorded, **box).__getitems__([0, 2]).x["keypoints"]
    number = torch.arange(3.0, 9)
    torch.testing.assert_close(x[0, 0, :, 0, 0], (number + 10.5 - 8) / 32 * 2 - 1)
    torch.testing.assert_close(x[1, 1, :, 0, 0], torch.full((6,), 20.5 / 48 * 2 - 1))
    for wrong, got in (((8, 8, 8, 40), "(8, 8, 8, 40)"), ((8, 40, 12, 9), "(8, 40, 12, 9)")):
        boxes[1] = wrong
        np.savez(tmp_path / "boxes.npz", name=names, box=boxes)
        with pytest.raises(ValueError, match=re.escape(f"clip1 in {box['box']}, got {got}")):
            dataset(recorded, **box)
    boxes[1] = 70, 0, 90, 48
    np.savez(tmp_path / "boxes.npz", name=names, box=boxes)
    with pytest.raises(ValueError, match=r"a box with pixels in the 64 x 48 picture of clip 1"):
        dataset(recorded, **box)[1]
    np.savez(tmp_path / "boxes.npz", name=names[:2], box=boxes[:2])
    with pytest.raises(ValueError, match=r"expected a box of clip clip2 in .*, got none"):
        dataset(recorded, **box)


def _broken(path):
    path.write_bytes(b"no video" * 100)


def _cut_off(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])


def _shorter(path):
    write_video(path, numbered(7))


@pytest.mark.parametrize(
    "damage, message",
    [
        (_broken, "clip1.mkv: expected a video that decodes, got"),
        (_cut_off, "clip1.mkv: expected"),
        (_shorter, "clip1.mkv: expected 9 frames as of clip 1 (clip1), got 7"),
    ],
)
def test_broken_videos_are_named(recorded, damage, message):
    damage(recorded[1] / "rgb" / "clip1.mkv")
    with pytest.raises(MediaError, match=re.escape(message)):
        dataset(recorded).__getitems__([0, 1, 2])
    with pytest.warns(UserWarning, match=re.escape(message)):
        x, y, clip = dataset(recorded, skip_broken=True).__getitems__([0, 1, 2])
    assert clip.tolist() == [0, 2] and y.tolist() == [0, 0] and len(x["rgb"]) == 2
    with (
        pytest.warns(UserWarning, match=re.escape(message)),
        pytest.raises(MediaError, match="expected a clip of the batch that decodes, got none"),
    ):
        dataset(recorded, skip_broken=True)[1]


def test_missing_modality_of_a_clip(recorded):
    path = recorded[1] / "depth" / "clip2.npz"
    path.unlink()
    message = re.escape(f"{path.parent}: expected a folder or .npz of clip clip2, got none")
    with pytest.raises(MediaError, match=message):
        dataset(recorded)
    dataset(recorded, ("rgb",))
    with pytest.warns(UserWarning, match="left out: " + message):
        data = dataset(recorded, skip_broken=True)
    assert len(data) == 2 and data.__getitems__([0, 1]).clip.tolist() == [0, 1]
    for name in ("clip0", "clip1"):
        (recorded[1] / "rgb" / f"{name}.mkv").unlink()
    with pytest.raises(MediaError, match=r"of clip clip0, got none \(and of 2 more clips\)"):
        dataset(recorded, skip_broken=True)


def test_damaged_depth(tmp_path):
    np.savez(tmp_path / "a.npz", other=np.ones(3))
    np.savez(tmp_path / "b.npz", depth=np.ones((3, 4)))
    (tmp_path / "c.npz").write_bytes(b"PK no archive")
    for name, message in (("a", "array depth"), ("b", r"\(F, H, W\)"), ("c", "array depth")):
        with pytest.raises(MediaError, match=f"{name}.npz: expected .*{message}"):
            read_depth(tmp_path / f"{name}.npz", [0])
    folder = tmp_path / "clip"
    folder.mkdir()
    with pytest.raises(MediaError, match=r"expected depth maps as .png, got none"):
        read_depth(folder, [0])
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(folder / "0.png")
    with pytest.raises(MediaError, match=r"0.png: expected a depth map of 16 bits, got mode L"):
        read_depth(folder, [0])
    with pytest.raises(MediaError, match=r"clip: expected frame 3, got none"):
        read_depth(folder, [3])
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(folder / "0.png")
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(folder / "1.png")
    with pytest.raises(MediaError, match="expected frames of one size"):
        read_depth(folder, [0, 1])
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"1.png: expected a PNG that decodes"):
        read_depth(folder, [1])
    with pytest.raises(MediaError, match="expected a recording, got none"):
        count_frames(tmp_path / "nothing.mp4")


BAD = [
    (dict(modalities=["sound"]), "modalities of rgb, .*, got 'sound'"),
    (dict(modalities=["infrared"]), "a folder of infrared, got rgb, depth"),
    (dict(transform="ctr_gcn"), "sampling of whole frames, .*, got 'crop_resize'"),
    (dict(layout="openpose18"), "the layout coco17, got openpose18"),
    (dict(crop=(0.9, 0.5)), r"crop of rising shares in \(0, 1\], got \(0.9, 0.5\)"),
    (dict(flip=2.0), r"flip in \[0, 1\], got 2.0"),
]


@pytest.mark.parametrize("options, message", BAD)
def test_bad_input(recorded, options, message):
    with pytest.raises(ValueError, match=f"RecordedDataset: expected {message}"):
        dataset(recorded, **options)


def test_joints_in_space_are_no_keypoints(recorded):
    clips, path = recorded
    deep = Clips(clips.xyz, clips.length, clips.label, clips.classes, "coco17")
    with pytest.raises(ValueError, match="joints in pixels of two dimensions, got 3"):
        dataset((deep, path))


def test_fit_on_recorded_clips(recorded, tmp_path, monkeypatch):
    clips, path = recorded
    clips.save(path / "a.clips")
    monkeypatch.chdir(tmp_path)
    net = "--model.model.init_args"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli = command([
            "fit", "--config", "epam_net_small", "--data.source", str(path / "a.clips"),
            "--data.transform", "posec3d", "--data.transform_args", "{num_clips: 1}",
            "--data.window", "6", "--data.image_size", "32", "--data.batch_size", "1",
            "--data.recorded", f"{{folders: {{rgb: {path / 'rgb'}}}, flip: 0.5}}",
            "--data.train_groups", "[1]", f"{net}.num_classes", "2", f"{net}.layout", "coco17",
            f"{net}.size", "[8, 8]", "--trainer.max_epochs", "1", "--trainer.logger", "false",
            "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
        ])  # fmt: skip
    assert cli.trainer.global_step == 1 and "val_top1" in cli.trainer.callback_metrics


def test_recorded_needs_modalities(recorded):
    clips, path = recorded
    clips.save(path / "a.clips")
    given = {"source": str(path / "a.clips"), "train_groups": [1], "transform": "posec3d"}
    for option, value in (("recorded", {"folders": {}}), ("degrade", {"rgb": 1.0})):
        with pytest.raises(ValueError, match=f"expected modalities with {option}, got None"):
            SkeletonDataModule(**given, **{option: value}).dataset(train=True)
    both = {"recorded": {"folders": {}}, "degrade": {"rgb": 1.0}, "modalities": ["rgb"]}
    with pytest.raises(ValueError, match="expected no degrade with recorded, got both"):
        SkeletonDataModule(**given, **both).dataset(train=True)
