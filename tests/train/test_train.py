import csv
import json
import pickle
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from skelops.data import save_split, synthetic
from skelops.models import list_pretexts
from skelops.train import Recognizer, SkeletonDataModule, ensemble
from skelops.train import cli as commands
from skelops.train.allocator import tune_allocator


class Tiny(nn.Module):
    def __init__(self, features=3 * 8 * 25 * 2, classes=16):
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Two(nn.Module):
    """Two heads."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Tiny(6, 4), Tiny(6, 4)

    def forward(self, x):
        return self.first(x), self.second(x)


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


@pytest.mark.parametrize("count", [1, 17])
def test_one_test_clip_and_a_last_batch_of_one(count, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["skelops"])
    clips = synthetic.generate(48, seed=0)
    split = tmp_path / "split.npz"
    save_split(split, np.arange(31), np.arange(31, 31 + count), clips)
    given = ["--config", "synthetic", "--config", "ctr_gcn_small", "--data.num_clips", "48"]
    given += ["--data.split_file", str(split), "--data.window", "8", "--data.batch_size", "16"]
    given += ["--model.model_kwargs", "{stages: [[8, 1]]}", "--trainer.accelerator", "cpu"]
    given += ["--trainer.default_root_dir", str(tmp_path), "--trainer.enable_progress_bar", "false"]
    fitted = commands.main(["fit", *given, "--trainer.max_epochs", "1"])
    scores = fitted.model.scores.by_clip()
    right = scores["softmax"].argmax(1) == scores["label"]
    assert right.shape == (count,)
    assert fitted.trainer.callback_metrics["val_top1"] == pytest.approx(right.float().mean())
    for command in ("validate", "test", "predict"):
        commands.main([command, *given, "--ckpt_path", "last"])
    with (tmp_path / "confusion.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    assert sum(int(cell) for row in rows for cell in row[1:]) == count
    found = ensemble.load_predictions(tmp_path / "predictions.npz")
    assert found.logits.shape == (count, 16) and found.label.shape == found.name.shape == (count,)
    assert 0 <= found.accuracies()["top1"] <= 1


def test_a_further_term_of_the_loss(tmp_path):
    class Drawn(Tiny):
        def auxiliary_loss(self):
            return 3 * self.fc.bias.sum() + 100

    module = Recognizer(Drawn(), num_classes=16)
    nn.init.zeros_(module.model.fc.bias)
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, data())
    assert 90 < run.callback_metrics["loss"] < 110
    assert (module.model.fc.bias < 0).all()


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


def test_the_rate_halves_on_a_plateau(tmp_path):
    module = Recognizer(Tiny(), num_classes=16, schedule="plateau", lr=1e-7)
    run = trainer(tmp_path, max_steps=-1, max_epochs=14, limit_train_batches=1)
    rates = []

    class Note(lightning.Callback):
        def on_train_epoch_start(self, trainer, _):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    run.callbacks.append(Note())
    run.fit(module, data())
    # Such a rate changes next to nothing: six epochs without progress, twice, after the first.
    np.testing.assert_allclose(rates, [1e-7] * 7 + [5e-8] * 6 + [2.5e-8])


@pytest.mark.parametrize("world, accumulate", [(1, 1), (4, 1), (2, 8)])
def test_the_learning_rate_follows_the_clips_of_a_step(world, accumulate, monkeypatch):
    module = Recognizer(Tiny(), num_classes=16, lr=0.1, reference_batch=64, batch_size=16)
    run = SimpleNamespace(world_size=world, accumulate_grad_batches=accumulate)
    monkeypatch.setattr(Recognizer, "trainer", run)
    assert module.peak_lr() == pytest.approx(0.1 * 16 * world * accumulate / 64)


def test_optimizers(tmp_path):
    def optimizer(**options):
        module = Recognizer(Tiny(), num_classes=16, weight_decay=0.1, **options)
        run = trainer(tmp_path, max_steps=1)
        run.fit(module, data())
        return run.optimizers[0]

    sgd = optimizer(decay_norms=False)
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["nesterov"]
    assert [(g["weight_decay"], [p.dim() for p in g["params"]]) for g in sgd.param_groups] == [
        (0.1, [2]),
        (0.0, [1]),
    ]
    adamw = optimizer(optimizer="adamw", betas=(0.8, 0.9))
    assert isinstance(adamw, torch.optim.AdamW) and adamw.param_groups[0]["betas"] == (0.8, 0.9)
    assert [len(g["params"]) for g in adamw.param_groups] == [2]


def test_accumulated_batches_are_one_large_batch(tmp_path):
    def weights(batch_size, accumulate):
        torch.manual_seed(0)
        module = Recognizer(Tiny(), 16, reference_batch=16, batch_size=batch_size, momentum=0.5)
        run = trainer(tmp_path, max_steps=3, accumulate_grad_batches=accumulate)
        run.fit(module, data(batch_size=batch_size))
        return module.model.fc.weight.detach()

    torch.testing.assert_close(weights(8, 4), weights(32, 1))


def test_ema_is_what_is_evaluated_and_kept(tmp_path):
    taken = []

    class Note(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            taken.append(module.model.fc.weight.detach().clone())

    module = Recognizer(Tiny(), num_classes=16, ema=0.5)
    trainer(tmp_path, max_steps=3, callbacks=[Note()]).fit(module, data())
    a, b, c = taken
    expected = 0.5 * (0.5 * a + 0.5 * b) + 0.5 * c
    torch.testing.assert_close(module.model.fc.weight.detach(), expected)


def test_compiling_keeps_the_names(tmp_path, monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "suppress_errors", False)
    module = Recognizer(Tiny(), num_classes=16, compile=True)
    names = list(module.state_dict())
    trainer(tmp_path, max_steps=1).fit(module, data())
    assert list(module.state_dict()) == names and "model.fc.weight" in names
    assert module.model._compiled_call_impl is not None


class Views(torch.utils.data.Dataset):
    """Clip i has i + 1 views in a row; its views vote, and only their mean is right."""

    def __init__(self, clips=6, classes=8):
        self.clip = torch.repeat_interleave(torch.arange(clips), torch.arange(clips) + 1)
        logits = torch.randn(len(self.clip), classes)
        mean = torch.stack([logits[self.clip == c].softmax(1).mean(0) for c in range(clips)])
        self.label = mean.argmax(1)
        self.x = logits.view(-1, classes, 1, 1, 1)

    def __len__(self):
        return len(self.clip)

    def __getitem__(self, i):
        return self.x[i], self.label[self.clip[i]], self.clip[i]


def test_the_views_of_a_clip_are_averaged(tmp_path):
    views = Views()
    module = Recognizer(nn.Flatten(), num_classes=8)
    loader = torch.utils.data.DataLoader(views, batch_size=4)  # clips straddle batches
    found = trainer(tmp_path).test(module, loader, verbose=False)[0]
    assert found["test_top1"] == found["test_top5"] == found["test_mean_class"] == 1
    single = torch.utils.data.DataLoader([views[i][:2] for i in range(len(views))], batch_size=4)
    alone = trainer(tmp_path).test(module, single, verbose=False)[0]["test_top1"]
    right = views.x.flatten(1).argmax(1) == views.label[views.clip]
    assert alone == pytest.approx(float(right.float().mean())) and alone < 1


LONG_TAILED = [64, 60, 50, 40, 30, 30, 20, 20, 20, 10, 10, 10, 5, 5, 5, 2]


def test_mix_up_and_weights_enter_the_loss(tmp_path):
    losses = []

    class Note(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, *_):
            losses.append(outputs["loss"].item())

    def run(**options):
        losses.clear()
        lightning.seed_everything(0, verbose=False)
        module = Recognizer(Tiny(), 16, class_counts=LONG_TAILED, lr=0.0, **options)
        trainer(tmp_path, max_steps=2, callbacks=[Note()]).fit(module, data())
        assert all(map(np.isfinite, losses))
        return list(losses)

    plain = run()
    mixed = run(mix_up={"ratio": 0.25})
    assert mixed != plain and mixed == run(mix_up={"ratio": 0.25})
    assert mixed != run(mix_up={"ratio": 0.25, "published": False})
    assert run(action_aware={}) == plain  # ones at first
    assert run(action_aware={"start": 0}) != plain


def test_weights_follow_the_epoch(tmp_path):
    seen = []

    class Note(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append(module.class_weight.max().item())

    action_aware = {"start": 1}
    module = Recognizer(Tiny(), 16, class_counts=LONG_TAILED, action_aware=action_aware)
    run = trainer(tmp_path, max_steps=-1, max_epochs=4, limit_train_batches=1, callbacks=[Note()])
    run.fit(module, data())
    assert seen[0] == 1 and seen[1] == seen[3] > 2 and abs(seen[2] - 1) < 0.01
    assert not any("class_weight" in name or "mix_up" in name for name in module.state_dict())


def test_head_and_tail_are_reported(tmp_path):
    label = torch.arange(8).repeat_interleave(3)
    logits = torch.nn.functional.one_hot(label, 8).float()
    logits[-7:] = torch.tensor([1.0] + [0] * 7)  # a clip of class 5, all of 6 and 7
    items = [(x.view(8, 1, 1, 1), y) for x, y in zip(logits, label, strict=True)]
    loader = torch.utils.data.DataLoader(items, batch_size=5)

    def found(count):
        module = Recognizer(nn.Flatten(), num_classes=8, class_counts=count)
        return trainer(tmp_path).test(module, loader, verbose=False)[0]

    tailed = found([80, 40, 20, 10, 8, 6, 4, 2])
    assert tailed["test_head"] == tailed["test_medium"] == 1
    assert tailed["test_tail"] == pytest.approx((1 + 2 / 3) / 4)
    assert "test_tail" not in found([80, 70, 60, 60, 60, 60, 50, 40])
    assert "test_tail" not in found(None)


def test_a_checkpoint_of_other_classes(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.fit(Recognizer(Tiny(), num_classes=16), data())
    run.save_checkpoint(tmp_path / "a.ckpt")
    other = Recognizer(Tiny(classes=10), num_classes=10)
    with pytest.raises(ValueError, match=r"expected a checkpoint of num_classes 10.* got .* 16"):
        trainer(tmp_path).test(other, data(), ckpt_path=tmp_path / "a.ckpt", verbose=False)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_checkpoint_is_not_executed(command, tmp_path, monkeypatch):
    from skelops.__main__ import main

    monkeypatch.setattr("sys.argv", ["skelops"])
    torch.save({"state_dict": Trap(tmp_path / "trap")}, tmp_path / "a.ckpt")
    arguments = [*SMALL, "--trainer.default_root_dir", str(tmp_path)]
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        main([command, *arguments, "--ckpt_path", str(tmp_path / "a.ckpt")])
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (tmp_path / "a.ckpt").rename(folder / "last.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        main([command, *arguments, "--ckpt_path", "last"])
    assert not (tmp_path / "trap").exists()


def test_bad_settings():
    with pytest.raises(ValueError, match=r"Recognizer: expected optimizer in .*, got 'adam'"):
        Recognizer(Tiny(), num_classes=16, optimizer="adam")
    with pytest.raises(ValueError, match="expected a batch_size with reference_batch 64, got None"):
        Recognizer(Tiny(), num_classes=16, reference_batch=64)
    with pytest.raises(ValueError, match=r"Recognizer: expected schedule in .*, got 'step'"):
        Recognizer(Tiny(), num_classes=16, schedule="step")
    with pytest.raises(ValueError, match="ctr-gcn"):
        Recognizer("ctr-gcn")
    with pytest.raises(ValueError, match="expected class_counts with mix_up or action_aware"):
        Recognizer(Tiny(), num_classes=16, mix_up={})
    with pytest.raises(ValueError, match=r"action_aware_weights: .* got none of class 1"):
        Recognizer(Tiny(), num_classes=2, class_counts=[3, 0], action_aware={})


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_heads_are_trained_apart_and_predict_together():
    module = Recognizer(Two(), num_classes=4, label_smoothing=0.1)
    x, y = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    heads = module(x)
    expected = sum(F.cross_entropy(head, y, label_smoothing=0.1) for head in heads)
    torch.testing.assert_close(module.training_step((x, y), 0), expected)
    assert torch.equal(module.predict_step((x, y), 0), heads[0] + heads[1])


UNLABELLED = ("mamp", "mamp_small", "stars", "stars_small")  # composed in test_pretrain.py
MODELS = sorted(p.stem for p in (commands.RECIPES / "model").glob("*.yaml"))
MODELS = [name for name in MODELS if name not in UNLABELLED]
DATA = sorted(p.stem for p in (commands.RECIPES / "data").glob("*.yaml"))
STREAMS = ["joint", "bone", "joint_motion", "bone_motion"]
SMALL = ["--data.source", "synthetic", "--data.protocol", "cross_subject", "--data.num_clips", "48"]
SMALL += ["--data.train_groups", "[1, 2]", "--data.num_workers", "0", "--trainer.logger", "false"]
SMALL += ["--model.model_kwargs", "{base_channels: 8}", "--trainer.accelerator", "cpu"]


def settings(kind, name):
    return yaml.safe_load((commands.RECIPES / kind / f"{name}.yaml").read_text())


PRETEXTS = [m for m in MODELS if settings("model", m)["model"]["model"] in list_pretexts()]
CLASSIFIERS = [m for m in MODELS if m not in PRETEXTS]
CLASSIFIERS.remove("cascade_former")  # has no narrow form


@pytest.mark.parametrize("i, model", list(enumerate(CLASSIFIERS)))
def test_recipes_compose(i, model, monkeypatch):
    monkeypatch.setattr("sys.argv", ["skelops"])
    stream = STREAMS[i % 4]
    for source in DATA:
        names = [option for name in (model, source, stream) for option in ("--config", name)]
        cli = commands.main([*names, *SMALL], run=False)
        expected = settings("model", model)["data"] | settings("data", source)["data"]
        assert cli.datamodule.hparams.transform == expected.get("transform", "ctr_gcn")
        assert cli.datamodule.hparams.streams == [stream]
        assert cli.model.hparams.num_classes == 16  # linked from the data
        assert cli.model.hparams.batch_size == cli.datamodule.hparams.batch_size
        assert cli.trainer.default_root_dir == f"runs/{model}-{source}-{stream}"


@pytest.mark.parametrize("model", [m for m in PRETEXTS if m.endswith("_small")])
def test_recipes_without_labels_compose(model, monkeypatch):
    monkeypatch.setattr("sys.argv", ["skelops"])
    names = [option for name in ("synthetic", model, "bone") for option in ("--config", name)]
    cli = commands.main([*names, *SMALL[:-4]], run=False)
    expected = settings("data", "synthetic")["data"] | settings("model", model)["data"]
    assert cli.datamodule.hparams.transform == expected.get("transform", "ctr_gcn")
    assert cli.model.hparams.frames == cli.datamodule.frames == expected["window"]
    assert cli.model.hparams.batch_size == cli.datamodule.hparams.batch_size


@pytest.mark.parametrize("part, V", [("body", 25), ("hand", 13), ("leg", 9)])
def test_recipes_of_parts(part, V, monkeypatch):
    monkeypatch.setattr("sys.argv", ["skelops"])
    for model in ("psumnet", "ctr_gcn_small"):
        names = ("ui_prmd", model, f"psumnet_{part}")
        options = [word for name in names for word in ("--config", name)]
        cli = commands.main([*options, *SMALL], run=False)
        assert cli.datamodule.layout == cli.model.hparams.layout == f"ntu25_{part}"
        x = next(iter(cli.datamodule.train_dataloader())).x
        assert x.shape[1::2] == (12, V) and cli.model(x).shape == (len(x), 16)


@pytest.mark.parametrize("tail, largest", [("ntu_lt", 600), ("ntu120_xset_lt", 400)])
def test_long_tails_compose(tail, largest, monkeypatch):
    monkeypatch.setattr("sys.argv", ["skelops"])
    names = [f"--config={name}" for name in ("brl", "synthetic", tail, "skip_motion")]
    cli = commands.main([*names, *SMALL], run=False)
    assert cli.datamodule.hparams.long_tail == [largest, 0.01]
    assert cli.model.hparams.class_counts == cli.datamodule.class_counts
    assert cli.model.hparams.mix_up == {} and cli.datamodule.hparams.rebalance


@pytest.mark.parametrize("source", DATA)
def test_recipes_name_a_protocol(source):
    from skelops.data import splits

    assert settings("data", source)["data"]["protocol"] in splits.PROTOCOLS


@pytest.mark.parametrize("model", MODELS)
def test_recipes_state_what_was_published(model):
    text = (commands.RECIPES / "model" / f"{model}.yaml").read_text()
    assert "Published top-1" in text or "no published number" in text


def test_unknown_recipes(tmp_path, monkeypatch):
    from skelops.__main__ import main

    with pytest.raises(SystemExit, match=r"model/ctr_gcn, .*tail/nw_ucla_lt; got 'ctrgcn'"):
        main(["fit", "--config", "ctrgcn"])
    monkeypatch.setattr(commands, "RECIPES", tmp_path)
    for kind in ("model", "data"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "same.yaml").touch()
    with pytest.raises(ValueError, match="got one of data/same, model/same"):
        commands.find_recipe("same")
    assert commands.find_recipe("data/same") == str(tmp_path / "data" / "same.yaml")


def test_fit_test_predict_from_the_command_line(tmp_path, monkeypatch):
    from skelops.__main__ import main

    monkeypatch.setattr("sys.argv", ["skelops"])
    monkeypatch.chdir(tmp_path)
    common = ["--config", "ctr_gcn_small", "--config", "synthetic", "--config", "bone"]
    common += ["--data.num_clips", "48", "--data.window", "8", "--data.train_groups", "[1, 2]"]
    common += ["--model.model_kwargs", "{base_channels: 8}", "--trainer.accelerator", "cpu"]
    common += ["--trainer.enable_progress_bar", "false", "--data.batch_size", "4"]
    common += ["--trainer.precision", "bf16-mixed", "--trainer.log_every_n_steps", "1"]
    assert main(["fit", *common, "--trainer.max_epochs", "1", "--model.ema", "0.9"]) == 0
    run = tmp_path / "runs" / "ctr_gcn_small-synthetic-bone"
    with (run / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {name for row in rows for name, value in row.items() if value}
    assert logged >= {"clips_per_s", "data_share", "loss", "lr-SGD", "train_top1", "val_top5"}
    assert all(0 < float(row["data_share"]) < 1 for row in rows if row["data_share"])
    assert list((run / "tensorboard").glob("events.*"))

    assert main(["test", *common, "--ckpt_path", "last"]) == 0
    matrix = np.genfromtxt(run / "confusion.csv", delimiter=",", skip_header=1)[:, 1:]
    assert matrix.shape == (16, 16) and matrix.sum() == 16
    assert (run / "confusion.png").stat().st_size > 5000

    assert main(["predict", *common, "--ckpt_path", "last"]) == 0
    found = ensemble.load_predictions(run / "predictions.npz")
    assert found.stream == "bone" and found.run == run.name and len(set(found.name)) == 16
    assert found.class_counts.tolist() == [2] * 16
    np.testing.assert_allclose(found.softmax.sum(1), 1, atol=1e-5)
    accuracy = (found.softmax.argmax(1) == found.label).mean()
    assert accuracy == pytest.approx(np.trace(matrix) / 16)


def test_parts_are_fused_by_their_names(tmp_path, monkeypatch, capsys):
    from skelops.__main__ import main

    monkeypatch.setattr("sys.argv", ["skelops"])
    monkeypatch.chdir(tmp_path)
    files = []
    for part in ("leg", "body", "hand"):
        names = ["synthetic", "ctr_gcn_small", f"psumnet_{part}"]
        common = [word for name in names for word in ("--config", name)]
        common += [*SMALL, "--data.window", "8", "--data.batch_size", "8"]
        common += ["--trainer.enable_progress_bar", "false"]
        assert main(["fit", *common, "--trainer.max_steps", "1"]) == 0
        assert main(["predict", *common, "--ckpt_path", "last"]) == 0
        files.append(f"runs/{'-'.join(names)}/predictions.npz")
        assert ensemble.load_predictions(files[-1]).stream == part
    rows = ensemble.main([*files, "--weights", "psumnet_ntu60_xsub"])
    assert [(r["stream"], r["weight"]) for r in rows[:-1]] == [
        ("leg", 0.7), ("body", 2.0), ("hand", 1.8),
    ]  # fmt: skip
    assert rows[-1]["stream"] == "leg+body+hand" and 0 <= rows[-1]["top1"] <= 1


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
