import json
from types import SimpleNamespace

import numpy as np
import pytest

from skelops.__main__ import main
from skelops.data import Clips, synthetic
from skelops.dynamics import torques

Image = pytest.importorskip("PIL.Image")
viz = pytest.importorskip("skelops.viz")


@pytest.fixture(scope="module")
def clips():
    return synthetic.generate(16, sensor=False)


@pytest.fixture(scope="module")
def store(clips, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "made.clips"
    clips.save(path)
    return path


def view(*args):
    assert main(["view", *map(str, args)]) == 0


def refuse(capsys, *args):
    """What the command says of arguments that it refuses: one line."""
    with pytest.raises(SystemExit) as error:
        main(["view", *map(str, args)])
    captured = capsys.readouterr()
    assert error.value.code == 2 and captured.out == ""
    assert captured.err.startswith("skelops view: ") and captured.err.count("\n") == 1
    return captured.err


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_picture_of_a_store(store, clips, tmp_path, capsys):
    out = tmp_path / "new" / "a.png"
    view(store, "--clip", clips.name[14], "--out", out)
    assert capsys.readouterr().out == f"{out}\n"
    by_name = pixels(out)
    assert 0.01 < (by_name < 230).any(-1).mean() < 0.5
    view(store, "--clip", 14, "--out", out)
    assert (pixels(out) == by_name).all()
    view(store, "--clip", 3, "--out", out)
    assert pixels(out).shape != by_name.shape or (pixels(out) != by_name).any()


def test_default_is_the_first_clip_as_view_png(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    view(store)
    view(store, "--clip", 0, "--out", "same.png")
    assert capsys.readouterr().out.split() == ["view.png", "same.png"]
    assert (pixels("view.png") == pixels("same.png")).all()


def test_synthetic(store, tmp_path):
    view("synthetic", "--clip", 383, "--out", tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") < 230).any()


def test_animations(tmp_path, clips):
    short = Clips(clips[14][:6], [6], [14], clips.classes, "ntu25", fps=20.0)
    short.save(tmp_path / "short.clips")
    view(tmp_path / "short.clips", "--out", tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 6 and film.info["duration"] == 50
    view(tmp_path / "short.clips", "--out", tmp_path / "b.gif", "--fps", 10)
    with Image.open(tmp_path / "b.gif") as film:
        assert film.n_frames == 6 and film.info["duration"] == 100
    view(tmp_path / "short.clips", "--out", tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "new Array(6)" in page and "http" not in page


def test_recording(tmp_path):
    poses = np.random.default_rng(0).normal(size=(4, 20, 3)).round(5).tolist()
    record = {"file_name": "a03_s02_e01_v03", "skeletons": poses, "label": 3}
    (tmp_path / "a03_s02_e01_v03.json").write_text(json.dumps(record))
    view(tmp_path / "a03_s02_e01_v03.json", "--out", tmp_path / "a.png")
    view(tmp_path, "--format", "nw_ucla", "--clip", "a03_s02_e01_v03", "--out", tmp_path / "b.png")
    assert (pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")).all()


@pytest.fixture
def drawn(monkeypatch):
    """Arguments of the last strip."""
    from skelops import viz

    seen = SimpleNamespace()

    def record(clips, layout, **options):
        seen.clips, seen.layout, seen.options = clips, layout, options
        return real(clips, layout, **options)

    real = viz.strip
    monkeypatch.setattr(viz, "strip", record)
    return seen


def test_what_is_drawn(store, clips, tmp_path, drawn):
    out = ("--out", tmp_path / "a.png")
    view(store, "--clip", 14, *out, "--frames", 3, "--persons", "1,0", "--elev", 10, "--azim", -5,
         "--axis-up=-y")  # fmt: skip
    np.testing.assert_array_equal(drawn.clips[0], clips[14])
    look, options = drawn.options["look"], drawn.options
    assert (look.persons, look.elev, look.azim, look.up) == ((1, 0), 10, -5, "-y")
    assert options["frames"] == 3 and options["truth"] == "handshake"
    assert options["heading"] == (
        f"{clips.name[14]} · handshake (class 14) · subject 1 · view {clips.view[14]} · "
        f"{clips.length[14]} frames · 30 fps"
    )
    assert drawn.layout == "ntu25" and options["predicted"] is None


def test_confidence(tmp_path, drawn):
    xyz = np.random.default_rng(0).random((5, 1, 17, 3))
    Clips(xyz, [5], [0], ["a"], "coco17", confidence=True).save(tmp_path / "a.clips")
    view(tmp_path / "a.clips", "--out", tmp_path / "a.png")
    assert drawn.options["look"].confidence
    assert drawn.options["heading"] == "0 · a (class 0) · subject 1 · view 1 · 5 frames"


def test_layout_replaces_the_recorded_one(store, tmp_path, drawn, capsys):
    view(store, "--layout", "openpose25", "--out", tmp_path / "a.png")
    assert drawn.layout == "openpose25"
    capsys.readouterr()
    said = refuse(capsys, store, "--layout", "coco17", "--out", tmp_path / "a.png")
    assert "expected the 17 joints of layout coco17, got 25" in said
    assert "get_layout: expected one of" in refuse(capsys, store, "--layout", "none")


def test_transform(store, clips, tmp_path, drawn, capsys):
    from skelops.data import ClipDataset

    out = ("--out", tmp_path / "a.png")
    view(store, "--clip", 14, "--transform", "ctr_gcn", "--seed", 3, "--epoch", 2, *out)
    original, augmented = drawn.clips
    np.testing.assert_array_equal(original, clips[14])
    sample = ClipDataset(clips, "ctr_gcn", train=True, seed=3)[2 * len(clips) + 14].x
    np.testing.assert_array_equal(augmented, sample.permute(1, 3, 2, 0))
    assert drawn.options["titles"] == ["original", "ctr_gcn, seed 3, epoch 2"]
    view(store, "--clip", 14, "--transform", "ctr_gcn", "--seed", 3, "--epoch", 1, *out)
    assert (drawn.clips[1] != augmented).any()
    capsys.readouterr()
    assert "got 'none at all'" in refuse(capsys, store, "--transform", "none at all", *out)


def test_transform_keeps_scores(tmp_path, drawn):
    xyz = np.random.default_rng(0).random((5, 1, 17, 3))
    Clips(xyz, [5], [0], ["a"], "coco17", confidence=True).save(tmp_path / "a.clips")
    view(tmp_path / "a.clips", "--transform", "pyskl_2d", "--out", tmp_path / "a.png")
    assert np.isin(drawn.clips[1][..., 2], xyz[..., 2].astype(np.float32)).all()


def test_errors(store, clips, tmp_path, capsys, recwarn):
    name = str(clips.name[3])
    said = refuse(capsys, store, "--clip", name.replace("0_", "1_"))
    assert f"one like {name}" in said and "or an index in 0..15" in said
    said = refuse(capsys, store, "--clip", "S001")
    assert f"a name like {clips.name[0]}" in said
    assert "0..15, got 16" in refuse(capsys, store, "--clip", 16)
    said = refuse(capsys, store, "--out", tmp_path / "a.avi")
    assert ".png" in said and ".gif" in said and ".html" in said and "a.avi" in said
    assert "persons in 0..1, got [5]" in refuse(
        capsys, store, "--persons", 5, "--out", tmp_path / "a.png"
    )
    assert str(tmp_path / "none") in refuse(capsys, tmp_path / "none")
    (tmp_path / "file").write_text("")
    for suffix in ("png", "gif", "html"):
        unwritable = tmp_path / "file" / f"a.{suffix}"
        assert str(tmp_path / "file") in refuse(capsys, store, "--out", unwritable)
    (tmp_path / "a.png").mkdir()
    assert str(tmp_path / "a.png") in refuse(capsys, store, "--out", tmp_path / "a.png")
    assert not [str(w.message) for w in recwarn]


def test_damaged_store(store, tmp_path, capsys):
    broken = tmp_path / "broken.clips"
    broken.write_bytes(store.read_bytes()[:5000])
    assert str(broken) in refuse(capsys, broken, "--out", tmp_path / "a.png")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained network of two persons' 25 joints and 16 classes, as `skelops fit` saves it."""
    lightning = pytest.importorskip("lightning")
    from skelops.train import Recognizer, SkeletonDataModule

    folder = tmp_path_factory.mktemp("fit")
    data = SkeletonDataModule(num_clips=384, window=16, batch_size=4)
    module = Recognizer("st_gcn", 16, "ntu25", 2, {"base_channels": 8})
    trainer = lightning.Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=0, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "a.ckpt")
    return folder / "a.ckpt", module.eval()


def test_predict(store, clips, checkpoint, tmp_path, drawn):
    from skelops.data import ClipDataset, get_transform

    path, network = checkpoint
    view(store, "--clip", 14, "--predict", path, "--out", tmp_path / "a.png")
    x = ClipDataset(clips, get_transform("ctr_gcn", frames=16))[14].x
    expected = network(x[None]).softmax(1)[0].tolist()
    predicted = drawn.options["predicted"]
    assert list(predicted) == list(clips.classes)
    np.testing.assert_allclose(list(predicted.values()), expected, rtol=1e-5)


def test_predict_errors(store, clips, checkpoint, tmp_path, capsys):
    (tmp_path / "bad.ckpt").write_text("no checkpoint")
    for path in (tmp_path / "bad.ckpt", tmp_path / "none.ckpt"):
        said = refuse(capsys, store, "--predict", path, "--out", tmp_path / "a.png")
        assert str(path) in said
    other = Clips(clips[0], [clips.length[0]], [0], ["a", "b"], "ntu25")
    other.save(tmp_path / "b.clips")
    said = refuse(capsys, tmp_path / "b.clips", "--predict", checkpoint[0])
    assert "expected num_classes 2, as the clip has it, got 16" in said


@pytest.mark.parametrize("up", ["y", "z"])
def test_torques_of_the_person_drawn(up, clips, tmp_path, monkeypatch):
    """Of the person and at the speed asked for, the same whichever axis points up."""
    pair = clips[14]
    turned = pair if up == "y" else pair[..., [0, 2, 1]] * np.float32([1, -1, 1])
    Clips(turned, [len(pair)], [0], ["a"], "ntu25").save(tmp_path / "a.clips")
    drawn, draw = [], viz.torques
    monkeypatch.setattr(viz, "torques", lambda *a, **k: drawn.append((a, k)) or draw(*a, **k))
    out = tmp_path / "torques.svg"
    view(tmp_path / "a.clips", "--torques", "--persons", 1, "--fps", 50, "--out", out)
    (((tau, names, fps), options),) = drawn
    expected = torques(pair[:, 1], 50, "ntu25")
    assert (names, fps) == (expected.model.names, 50)
    assert options["heading"].startswith("0 · a (class 0)")
    joints = slice(names.index("chest_about_x"), None)  # the root's depend on the axes
    wanted = expected.tau.numpy()[:, joints]
    np.testing.assert_allclose(tau[:, joints], wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
    assert "<svg" in out.read_text()


def test_torques_are_no_animation(store, tmp_path, capsys):
    said = refuse(capsys, store, "--torques", "--out", tmp_path / "a.gif")
    assert "--out: expected one of .png, .svg, .pdf with --torques, got '.gif'" in said


def test_torques_need_every_frame(clips, tmp_path, capsys):
    gap = clips[14].copy()
    gap[3] = 0
    Clips(gap, [len(gap)], [0], ["a"], "ntu25").save(tmp_path / "a.clips")
    said = refuse(capsys, tmp_path / "a.clips", "--torques", "--out", tmp_path / "a.png")
    assert "expected a clip without missing frames (fill_frames), got frames [3]" in said
