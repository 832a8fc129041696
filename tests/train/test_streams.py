"""EPAM-Net as published: streams that were trained alone are the start of both together."""

import json

import pytest
import torch

from skelops.models import EPAMNet, EPAMNetPose, EPAMNetVideo, published_state
from skelops.train import Recognizer, cli, load_recognizer

DATA = ["--config", "synthetic", "--data.num_clips", "48", "--data.train_groups", "[1, 2]"]
DATA += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--data.window", "6"]
DATA += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
NET = {"layout": "ntu25", "base_channels": 8}
NET |= {"blocks": {"rgb": [1, 1, 1, 1], "pose": [1, 1, 1]}}
SMALL = NET | {"size": [16, 16]}
BOTH = ["rgb", "keypoints"]


def arguments(folder, modalities):
    """Of ``skelops fit`` for an EPAM-Net of these modalities."""
    options = {"num_classes": 16, "modalities": modalities} | SMALL
    network = {"class_path": "skelops.models.EPAMNetVideo", "init_args": options}
    given = {"model": {"model": network}, "data": {"modalities": modalities, "image_size": 64}}
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(json.dumps(given))
    where = ["--trainer.default_root_dir", str(folder)]
    return [*DATA, "--config", str(folder / "recipe.yaml"), *where]


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """Runs of both streams alone."""
    found = {name: tmp_path_factory.mktemp("runs") / name for name in BOTH}
    for name, folder in found.items():
        cli.main(["fit", *arguments(folder, [name])])
    return {name: str(folder) for name, folder in found.items()}


def same(stream, state):
    return [name for name, value in stream.state_dict().items() if torch.equal(value, state[name])]


def test_both_start_from_runs_of_one(streams, tmp_path, monkeypatch):
    given = [*arguments(tmp_path, BOTH), "--model.start", json.dumps(streams)]
    monkeypatch.setattr("sys.argv", ["skelops"])
    start = cli.main(given, run=False).model.model.net
    for name, ours in (("rgb", start.rgb), ("keypoints", start.pose)):
        alone = load_recognizer(streams[name]).model.net.state_dict()
        assert same(ours, alone) == list(alone)
    cli.main(["fit", *given])
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    tuned = load_recognizer(checkpoint).model.net
    assert "fc.weight" not in same(tuned.rgb, start.rgb.state_dict())
    state = torch.load(checkpoint, weights_only=True)
    state["hyper_parameters"]["start"] = {"rgb": str(tmp_path / "gone")}
    torch.save(state, checkpoint)
    assert same(load_recognizer(checkpoint).model.net, tuned.state_dict()) == list(
        tuned.state_dict()
    )


def published(source):
    """A published checkpoint of the streams alone or together, as ``source`` has them."""
    return {"model_state_dict": {f"module.{k}": v for k, v in published_state(source).items()}}


def test_published_checkpoints_and_other_classes(tmp_path):
    torch.manual_seed(0)
    whole = EPAMNet(16, 25, base_channels=8, blocks=NET["blocks"])
    pose = EPAMNetPose(7, "ntu25", base_channels=8, blocks=NET["blocks"]["pose"])
    files = {}
    for name, made in (("rgb", whole.rgb), ("both", whole), ("pose", pose)):
        torch.save(published(made), tmp_path / f"{name}.pt")
        files[name] = str(tmp_path / f"{name}.pt")
    net = EPAMNetVideo(16, **NET)
    Recognizer(net, 16, start={"rgb": files["rgb"], "keypoints": files["both"]})
    assert same(net.net.rgb, whole.rgb.state_dict()) == list(whole.rgb.state_dict())
    assert same(net.net.pose, whole.pose.state_dict()) == list(whole.pose.state_dict())
    head = net.net.pose.fc.weight.clone()
    Recognizer(net, 16, start={"keypoints": files["pose"]})
    assert torch.equal(net.net.pose.stem.conv.weight, pose.net.stem.conv.weight)
    assert torch.equal(net.net.pose.fc.weight, head)  # of 16 classes, where the start has 7


def test_bad_starts(tmp_path):
    net = EPAMNetVideo(16, **NET)
    narrow = EPAMNetVideo(16, **NET | {"base_channels": 4})
    torch.save(narrow.net.rgb.state_dict(), tmp_path / "narrow.pt")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    bad = {
        ("rgb", "none"): r"expected the folder or a checkpoint of a run, got .*none",
        ("rgb", "narrow.pt"): r"start of rgb, got .*narrow.pt \(.*\(8, 3, 1, 3, 3\)",
        ("rgb", "other.pt"): r"start of rgb, got .*other.pt .*a state_dict with backbone",
        ("depth", "other.pt"): r"a stream, rgb or keypoints, of both, got depth",
    }
    for (name, file), message in bad.items():
        with pytest.raises(ValueError, match=message):
            Recognizer(net, 16, start={name: str(tmp_path / file)})
    alone = EPAMNetVideo(16, modalities=["rgb"], **NET | {"blocks": {"rgb": [1, 1]}})
    with pytest.raises(ValueError, match=r"rgb or keypoints, of both, got rgb of \('rgb',\)"):
        Recognizer(alone, 16, start={"rgb": str(tmp_path / "narrow.pt")})
    with pytest.raises(ValueError, match=r"no start of rgb, STGCN has no parts, got a\.pt"):
        Recognizer("st_gcn", 16, start={"rgb": "a.pt"})
