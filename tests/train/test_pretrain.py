"""Training without labels, and what is measured of it, from the command line."""

import csv
import json

import numpy as np
import pytest
import torch

from skelops.data import save_split, synthetic
from skelops.models import LinearProbe, Pretext
from skelops.train import Pretrainer, SkeletonDataModule, cli, load_encoder, load_recognizer
from skelops.train import transfer as transfers
from skelops.train.ensemble import load_predictions
from skelops.train.pretrain import load_encoder_, read_run, run_folder

DATA = ["--data.num_clips", "48", "--data.train_groups", "[1, 2]", "--data.window", "8"]
DATA += ["--data.batch_size", "8"]
QUICK = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
QUICK += ["--trainer.max_epochs", "1", "--trainer.enable_model_summary", "false"]
TINY = {"width": 16, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of MAMP on 32 clips."""
    folder = tmp_path_factory.mktemp("runs") / "mamp"
    model = json.dumps(TINY | {"decoder_width": 16, "decoder_depth": 1})
    recipes = ["--config", "synthetic", "--config", "mamp_small", *DATA, *QUICK]
    cli.main(["fit", *recipes, "--model.model_kwargs", model,
              "--trainer.default_root_dir", str(folder)])  # fmt: skip
    return folder


def last(folder, column):
    (log,) = folder.glob("csv/version_0/metrics.csv")
    with log.open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)][-1]


def test_fit_probe_finetune_and_neighbours(run):
    assert last(run, "train_loss") > 0 and 0 <= last(run, "val_nn1") <= 1
    encoder = load_encoder(run)
    for command in ("probe", "finetune"):
        done = cli.main([command, str(run), *QUICK, "--data.fraction", "0.5"])
        assert done.datamodule.hparams.window == 8
        assert len(done.datamodule.index[0]) == 16
        assert (run / command / "predictions.npz").is_file()
        network = done.model.model
        same = [torch.equal(a, b) for a, b in zip(
            network.encoder.parameters(), encoder.parameters(), strict=True)]  # fmt: skip
        assert all(same) if command == "probe" else not any(same)
        assert isinstance(network, LinearProbe) == (command == "probe")
        loaded = load_recognizer(run / command)
        assert type(loaded) is type(done.model) and not loaded.training
        assert torch.equal(list(loaded.parameters())[-1], list(network.parameters())[-1])
    with pytest.raises(ValueError, match=r"a checkpoint of skelops fit, got one that trained with"):
        load_recognizer(run)
    found = transfers.main([str(run), "--k", "[1, 3]", "--device", "cpu"])
    assert set(found) == {"k=1", "k=3"}
    assert json.loads((run / "knn.json").read_text()) == found
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    options = ["--shots", "1", "--random", "--k", "[1]", "--device", "cpu"]
    scarce = transfers.main([checkpoint, *options])
    assert json.loads((run / "knn-random.json").read_text()) == scarce


@pytest.mark.parametrize("recipe, clips", [("hiclr_linear", 32), ("halp_linear", 3 * 24)])
def test_published_linear_evaluations(run, recipe, clips, tmp_path, monkeypatch):
    training, encoded = transfers.Probe.training_step, 0

    def step(probe, batch, i):
        def count(module, args, out):
            nonlocal encoded
            encoded += len(out)

        hook = probe.model.encoder.register_forward_hook(count)
        loss = training(probe, batch, i)
        hook.remove()
        return loss

    monkeypatch.setattr(transfers.Probe, "training_step", step)
    done = cli.main(
        ["probe", str(run), "--config", recipe, *QUICK, "--trainer.max_epochs", "3",
         "--data.batch_size", "12", "--trainer.default_root_dir", str(tmp_path)]
    )  # fmt: skip
    assert isinstance(done.model.model.head[0], torch.nn.Identity)
    assert encoded == clips  # those that are not augmented once


def test_a_probe_leaves_statistics_alone(tmp_path):
    """Lightning fits modules in the mode in which they come, which for an encoder is evaluation."""
    folder = tmp_path / "ms_clr"
    data = ["--config", "synthetic", "--config", "ms_clr_small", *DATA, *QUICK]
    cli.main(["fit", *data, "--trainer.default_root_dir", str(folder)])
    before = load_encoder(folder).state_dict()
    done = cli.main(
        ["probe", str(folder), "--config", "hiclr_linear", *QUICK, "--data.augment", "true"]
    )
    after = done.model.model.encoder.state_dict()
    assert any("running_mean" in name for name in before)
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_views_are_augmented():
    data = SkeletonDataModule(num_clips=48, train_groups=[1, 2], views=2, augment=False)
    with pytest.raises(ValueError, match="expected augment with views 2, got False"):
        data.train_dataloader()


@pytest.mark.parametrize("model", ["mamp", "mamp_small", "stars", "stars_small"])
@pytest.mark.parametrize("source", ["synthetic", "nw_ucla", "ui_prmd"])
def test_recipes_compose(model, source, monkeypatch):
    monkeypatch.setattr("sys.argv", ["skelops"])
    made = ["--data.source", "synthetic", "--data.protocol", "cross_subject", *DATA[:4]]
    done = cli.main(
        ["--config", source, "--config", model, *made, "--trainer.logger", "false"], run=False
    )
    assert isinstance(done.model, Pretrainer) and done.model.hparams.model == model.split("_")[0]
    assert done.datamodule.hparams.transform == "mamp"
    assert done.model.model.encoder.num_frames == done.datamodule.frames
    assert done.model.hparams.layout == done.datamodule.layout


def test_the_folder_of_a_run(run):
    assert run_folder(run) == run_folder(run / "checkpoints" / "last.ckpt") == run


def again(run) -> dict:
    """Arguments of a pre-training like a run and from it."""
    settings = read_run(run)["hyper_parameters"].items()
    return {k: v for k, v in settings if not k.startswith("_")} | {"start": str(run)}


def test_stars_starts_from_it(run, tmp_path):
    model = json.dumps(TINY | {"hidden": 32, "queue_size": 64})
    folder = tmp_path / "stars"
    done = cli.main(
        ["fit", "--config", "synthetic", "--config", "stars_small", *DATA, *QUICK,
         "--model.model_kwargs", model, "--model.start", str(run),
         "--trainer.default_root_dir", str(folder)]
    )  # fmt: skip
    start, tuned = load_encoder(run).blocks, done.model.model.encoder.blocks
    same = [torch.equal(a.mlp.fc1.weight, b.mlp.fc1.weight)
            for a, b in zip(start, tuned, strict=True)]  # fmt: skip
    assert same == [True, False]
    assert done.model.model.queue.queue_id.max() >= 0
    settings = again(folder)
    goes_on = Pretrainer(**settings).model.state_dict()
    for name, value in done.model.model.state_dict().items():
        assert torch.equal(goes_on[name], value), name
    with pytest.raises(ValueError, match=r"with predictor.0.weight of \(16, 16\), got \(32, 16\)"):
        Pretrainer(**settings | {"model_kwargs": TINY | {"hidden": 16, "queue_size": 64}})
    shallow = TINY | {"hidden": 32, "queue_size": 64, "depth": 1}
    with pytest.raises(ValueError, match=r"with encoder.blocks.1.\S+ of None, got \("):
        Pretrainer(**settings | {"model_kwargs": shallow})


def test_a_method_is_told_that_its_encoder_was_loaded(run, monkeypatch):
    settings = again(run) | {"model": "mae"}
    told = []
    monkeypatch.setattr(Pretext, "encoder_loaded", lambda model: told.append(model))
    made = Pretrainer(**settings)
    assert told == [made.model]
    assert torch.equal(made.model.encoder.norm.weight, load_encoder(run).norm.weight)


def test_a_random_encoder_differs_and_repeats(run):
    torch.manual_seed(0)
    first = load_encoder(run, random=True).norm.weight, load_encoder(run, random=True)
    assert not torch.equal(
        first[1].blocks[0].attn.qkv.weight, load_encoder(run).blocks[0].attn.qkv.weight
    )


def test_starting_from_a_published_checkpoint(run, tmp_path):
    state = {"model": {k: v + 1 for k, v in load_encoder(run).state_dict().items()}}
    torch.save(state, tmp_path / "mamp.pth")
    encoder = load_encoder(run)
    load_encoder_(encoder, tmp_path / "mamp.pth")
    assert torch.equal(encoder.norm.bias, state["model"]["norm.bias"])
    del state["model"]["norm.bias"]
    torch.save(state, tmp_path / "mamp.pth")
    with pytest.raises(ValueError, match=r"expected a checkpoint with norm.bias, got"):
        load_encoder_(encoder, tmp_path / "mamp.pth")


def test_learning_rates_and_clipping(run):
    module = Pretrainer("stars", "nw_ucla20", 1, 3, 16, TINY | {"hidden": 32, "queue_size": 8},
                        clip_each=0.5)  # fmt: skip
    module.peak_lr = lambda: 1.0
    rates = {group["lr"] for group in module._parameter_groups()}
    assert rates == {1.0, 0.45}
    for p in module.model.parameters():
        p.grad = torch.ones_like(p)
    module.on_before_optimizer_step(None)
    norms = torch.stack([p.grad.norm() for p in module.model.parameters()])
    torch.testing.assert_close(norms, torch.full_like(norms, 0.5))


def test_few_clips_of_each_class():
    label = torch.tensor([0, 1, 1, 2, 2, 2, 0, 1])
    chosen = transfers.few(label, 2, seed=0)
    assert sorted(label[chosen].tolist()) == [0, 0, 1, 1, 2, 2]
    assert len(set(chosen.tolist())) == 6
    assert torch.equal(chosen, transfers.few(label, 2, seed=0))


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_a_transfer(option, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["probe", option])
    shown = capsys.readouterr().out
    assert (
        stop.value.code == 0 and "skelops probe RUN [options]" in shown and "--data.source" in shown
    )


def test_what_is_refused(run, tmp_path):
    with pytest.raises(SystemExit, match=r"probe: expected the folder or a checkpoint of a run"):
        cli.main(["probe"])
    with pytest.raises(SystemExit, match=r"expected the folder or a checkpoint of a run, got"):
        cli.main(["probe", str(tmp_path)])
    with pytest.raises(ValueError, match=r"expected a run that trained without labels, got"):
        torch.save({"hyper_parameters": {}}, tmp_path / "other.ckpt")
        load_encoder(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"Pretrainer: expected optimizer in .*, got 'adam'"):
        Pretrainer(optimizer="adam")
    with pytest.raises(ValueError, match=r"expected fraction in \(0, 1\], got 0"):
        _ = SkeletonDataModule(fraction=0, num_clips=48, train_groups=[1, 2]).index


@pytest.fixture
def one_test_clip(tmp_path):
    """A split of the 48 clips: 32 to train on, one to test on."""
    path = tmp_path / "split.npz"
    save_split(path, np.arange(32), np.array([40]), synthetic.generate(48, seed=0))
    return path


def test_one_test_clip(run, one_test_clip, tmp_path):
    few = ["--data.split_file", str(one_test_clip)]
    model = json.dumps(TINY | {"decoder_width": 16, "decoder_depth": 1})
    fitted = tmp_path / "mamp"
    recipes = ["--config", "synthetic", "--config", "mamp_small", *DATA, *QUICK, *few]
    cli.main(["fit", *recipes, "--model.model_kwargs", model,
              "--trainer.default_root_dir", str(fitted)])  # fmt: skip
    assert last(fitted, "val_nn1") == 0  # there is no other one
    for command in ("probe", "finetune"):
        folder = tmp_path / command
        cli.main([command, str(run), *QUICK, *few, "--trainer.default_root_dir", str(folder)])
        assert last(folder, "val_top1") in (0, 1)
        assert load_predictions(folder / "predictions.npz").logits.shape == (1, 16)
    found = transfers.main([str(run), "--k", "[1]", "--device", "cpu", *few])
    assert found["k=1"] in (0, 1)
