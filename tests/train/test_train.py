import json

import lightning
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from skelops.data import synthetic
from skelops.train import Recognizer, SkeletonDataModule
from skelops.train import cli as commands
from skelops.train.allocator import tune_allocator


class Tiny(nn.Module):
    def __init__(self, features=3 * 8 * 25 * 2, classes=16):
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def forward(self, x):
        return self.fc(x.flatten(1))


def data(**changes):
    return SkeletonDataModule(**({"window": 8, "batch_size": 16, "num_clips": 384} | changes))


def trainer(tmp_path, **changes):
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        "max_steps": 2,
        "limit_val_batches": 1,
    }
    return lightning.Trainer(**(options | changes))


def test_two_steps(tmp_path):
    module, source = Recognizer(Tiny(), num_classes=16, warmup_epochs=0), data()
    before = module.model.fc.weight.clone()
    run = trainer(tmp_path)
    run.fit(module, source)
    assert run.global_step == 2
    assert not torch.equal(module.model.fc.weight, before)
    result = run.test(module, source, verbose=False)[0]
    assert 0 <= result["test_top1"] <= 1 and np.isfinite(result["test_loss"])


def test_the_named_model_is_built_for_the_data(tmp_path):
    source = data(num_clips=48, train_groups=[1, 2])
    module = Recognizer(
        "ctr_gcn", source.num_classes, source.layout, source.num_persons, {"base_channels": 8}
    )
    run = trainer(tmp_path, limit_train_batches=1, max_steps=1)
    run.fit(module, source)
    assert module(torch.zeros(1, 3, 8, 25, 2)).shape == (1, 16)


def test_same_seed_same_weights(tmp_path):
    def weights():
        lightning.seed_everything(1, verbose=False)
        module = Recognizer(Tiny(), num_classes=16)
        trainer(tmp_path).fit(module, data(seed=1))
        return module.model.fc.weight.detach()

    assert torch.equal(weights(), weights())


def test_checkpoint_and_resume(tmp_path):
    def fresh():
        torch.manual_seed(0)
        return Recognizer(Tiny(), num_classes=16, schedule="cosine", warmup_epochs=1)

    options = {"max_steps": -1, "max_epochs": 4, "limit_train_batches": 2}
    through = fresh()
    trainer(tmp_path, **options).fit(through, data())
    halted = trainer(tmp_path, **options)

    class Halt(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    halted.callbacks.append(Halt())
    halted.fit(fresh(), data())
    resumed = fresh()
    trainer(tmp_path, **options).fit(resumed, data(), ckpt_path=tmp_path / "half.ckpt")
    torch.testing.assert_close(resumed.model.fc.weight, through.model.fc.weight)


def test_protocols():
    train, test = data().clips
    assert set(train.subject) == set(synthetic.TRAIN_SUBJECTS)
    assert not set(train.subject) & set(test.subject)
    train, test = data(protocol="cross_view").clips
    assert set(train.view) == {1, 2} and set(test.view) == {3}


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, {0: 0.2, 3.9: 0.8, 4: 1.0, 34.9: 1.0, 35: 0.1, 55: 0.01}),
        ({"milestones": [50], "warmup_epochs": 0}, {0: 1.0, 49.9: 1.0, 50: 0.1}),
        ({"schedule": "cosine", "warmup_epochs": 2}, {0: 0.0, 1: 0.5 * 0.9998, 50: 0.5, 100: 0.0}),
        ({"schedule": "constant", "warmup_epochs": 2}, {0: 0.0, 1: 0.5, 99: 1.0}),
    ],
)
def test_schedules(settings, expected):
    module = Recognizer(Tiny(), num_classes=16, **settings)
    for epoch, factor in expected.items():
        assert module._lr_factor(epoch, epoch / 100) == pytest.approx(factor, abs=2e-4)


def test_one_cycle_rises_and_falls(tmp_path):
    rates = []

    class Note(lightning.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = Recognizer(Tiny(), num_classes=16, schedule="one_cycle")
    trainer(tmp_path, max_steps=8, callbacks=[Note()]).fit(module, data())
    assert len(rates) == 8 and np.argmax(rates) in (1, 2)
    assert max(rates) == pytest.approx(0.1, rel=0.1) and rates[-1] < rates[0] < 0.01


def test_bad_settings():
    with pytest.raises(ValueError, match=r"Recognizer: expected schedule in .*, got 'step'"):
        Recognizer(Tiny(), num_classes=16, schedule="step")
    with pytest.raises(ValueError, match="ctr-gcn"):
        Recognizer("ctr-gcn")


@pytest.mark.parametrize("recipe", sorted(p.stem for p in commands.RECIPES.glob("*.yaml")))
def test_recipes_parse(recipe, monkeypatch):
    settings = yaml.safe_load((commands.RECIPES / f"{recipe}.yaml").read_text())
    assert settings["model"]["model"] == "ctr_gcn"
    monkeypatch.setattr("sys.argv", ["skelops"])
    source = ["--data.source", "synthetic", "--data.num_clips", "384"]
    small = ["--model.model_kwargs", "{base_channels: 8}", "--trainer.logger", "false"]
    built = commands.main(["--config", recipe, *source, *small], run=False)
    assert built.model.model is not None and built.trainer.max_epochs > 1
    assert built.model.hparams.num_classes == 16  # linked from the data
    assert built.datamodule.hparams.batch_size == settings["data"]["batch_size"]


def test_fit_from_the_command_line(tmp_path, monkeypatch):
    from skelops.__main__ import main

    monkeypatch.setattr("sys.argv", ["skelops"])
    monkeypatch.chdir(tmp_path)
    common = ["--config", "ctr_gcn_synthetic", "--data.num_clips", "48", "--data.window", "8"]
    common += ["--model.model_kwargs", "{base_channels: 8}", "--trainer.accelerator", "cpu"]
    common += ["--trainer.enable_progress_bar", "false", "--data.batch_size", "4"]
    common += ["--trainer.precision", "bf16-mixed", "--data.train_groups", "[1, 2]"]
    assert main(["fit", *common, "--trainer.max_epochs", "1"]) == 0
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert list(tmp_path.rglob("metrics.csv")) and list(tmp_path.rglob("events.*"))
    assert main(["test", *common, "--ckpt_path", str(checkpoint)]) == 0


def test_commands(capsys):
    from skelops.__main__ import main

    assert main([]) == 0 and "usage: skelops" in capsys.readouterr().out
    assert main(["paint"]) == 2
    assert "skelops: expected a command, got 'paint'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "--no_such_option", "1"])


def test_allocator_respects_the_environment(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert tune_allocator() is False


def test_demo(tmp_path, capsys):
    from skelops import demo

    options = ["--max-minutes", "0.45", "--num-clips", "384", "--max-epochs", "1"]
    metrics = demo.main(["--out", str(tmp_path), *options])
    assert "top-1 on unseen subjects" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert np.array(metrics["confusion"]).sum() == 128
    for picture in ("skeletons", "confusion", "training"):
        assert (tmp_path / f"{picture}.png").stat().st_size > 8000
