import signal
import subprocess
import sys

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from skelops.models import create_model
from skelops.train import Recognizer, SkeletonDataModule
from skelops.train.callbacks import ExactResume
from skelops.train.checkpoint import AtomicCheckpointIO


def equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_run_killed_in_mid_epoch_ends_with_the_same_bits(start, tmp_path):
    options = ["--model.ema", "0.9", "--model.model_kwargs", "{base_channels: 8, dropout: 0.5}"]
    options += ["--step_checkpoint.every_n_train_steps", "5", "--ckpt_path", "last"]
    kill = ["--trainer.callbacks.step", "13", "--trainer.callbacks.marker", str(tmp_path / "mark")]
    through = start(tmp_path / "a", *options)
    killed = start(tmp_path / "b", *options, *kill)
    killed.finish(-signal.SIGKILL)
    assert killed.last()["global_step"] == 10
    resumed = start(tmp_path / "b", *options, *kill)
    assert "Restored all states" in resumed.finish()
    through.finish()
    a, b = through.last(), resumed.last()
    assert a["global_step"] == b["global_step"] == 16
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        assert equal(a[key], b[key]), key
    for name in ("loss", "train_loss", "train_top1", "val_loss", "val_top1"):
        assert through.column(name) == resumed.column(name), name


def test_a_balanced_run_ends_with_the_same_bits(start, tmp_path):
    options = ["--data.num_clips", "96", "--data.train_groups", "[1, 2, 3, 4]"]
    options += ["--data.long_tail", "[4, 0.5]", "--data.rebalance", "true"]
    options += ["--model.mix_up", "{ratio: 0.5}", "--model.action_aware", "{start: 1}"]
    options += ["--model.model_kwargs", "{base_channels: 8}", "--ckpt_path", "last"]
    options += ["--step_checkpoint.every_n_train_steps", "5"]
    kill = ["--trainer.callbacks.step", "18", "--trainer.callbacks.marker", str(tmp_path / "mark")]
    through = start(tmp_path / "a", *options)
    start(tmp_path / "b", *options, *kill).finish(-signal.SIGKILL)
    resumed = start(tmp_path / "b", *options, *kill)
    resumed.finish()
    through.finish()
    a, b = through.last(), resumed.last()
    assert a["global_step"] == b["global_step"] == 26
    assert equal(a["state_dict"], b["state_dict"])
    assert through.column("loss") == resumed.column("loss")


class Stop(Exception):
    pass


class StopAt(lightning.Callback):
    """Stops in front of a training step, or in front of the validation after it."""

    def __init__(self, step, validation):
        self.step, self.validation = step, validation

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step and not self.validation:
            raise Stop

    def on_validation_start(self, trainer, *_):
        if trainer.global_step == self.step and self.validation:
            raise Stop


class PlainData(SkeletonDataModule):
    """Its training loader cannot resume by itself."""

    def train_dataloader(self):
        loader = super().train_dataloader()
        return DataLoader(
            loader.dataset,
            loader.batch_size,
            sampler=loader.sampler,
            collate_fn=lambda batch: batch,
            num_workers=self.hparams.num_workers,
            drop_last=True,
        )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of two epochs of four steps, stopped at a step and resumed."""

    def run(step, kind=SkeletonDataModule, workers=0, validation=False, dropout=0.5):
        folder = tmp_path_factory.mktemp("run")
        for _ in range(2):
            torch.manual_seed(0)
            network = create_model("st_gcn", num_classes=16, base_channels=2, dropout=dropout)
            module = Recognizer(network, 16, schedule="cosine", warmup_epochs=1)
            data = kind(
                train_groups=[1, 2], window=4, batch_size=8, num_clips=48, num_workers=workers
            )
            every = (
                {"every_n_train_steps": 1},
                {"every_n_epochs": 1, "save_on_train_epoch_end": True},
            )
            saves = [
                ModelCheckpoint(folder, "last", enable_version_counter=False, **options)
                for options in every
            ]
            trainer = lightning.Trainer(
                accelerator="cpu",
                max_epochs=2,
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                plugins=[AtomicCheckpointIO()],
                callbacks=[ExactResume(), StopAt(step, validation), *saves],
            )
            try:
                trainer.fit(module, data, ckpt_path="last")
            except Stop:
                assert trainer.global_step == step
                step = -1
                continue
            assert trainer.global_step == 8 and step == -1
            return torch.cat([p.detach().flatten() for p in network.parameters()])

    return run


@pytest.fixture(scope="module")
def through(weights):
    return weights(-1)


@pytest.fixture(scope="module")
def plain(weights):
    return weights(-1, PlainData)


@pytest.mark.parametrize("step", range(1, 8))
def test_wherever_it_stops_the_bits_are_the_same(step, weights, through):
    assert torch.equal(weights(step), through)


@pytest.mark.parametrize("workers", [0, 1])
def test_it_may_stop_between_training_and_validation(workers, weights):
    stopped = weights(4, validation=True, dropout=0, workers=workers)
    assert torch.equal(stopped, weights(-1, dropout=0))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_loader_that_cannot_resume_by_itself(step, workers, weights, plain):
    assert torch.equal(weights(step, PlainData, workers), plain)


def test_worker_processes_resume_in_the_right_epoch(weights, through):
    assert torch.equal(weights(6, workers=1), through)


KILLED = """
import os, signal, sys, torch
from skelops.train.checkpoint import AtomicCheckpointIO
path, save = sys.argv[1], torch.save
AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

def torn(value, file):
    file.write(b"half a checkpoint")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = torn
AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
"""


def test_a_kill_during_the_write_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert AtomicCheckpointIO().load_checkpoint(path, weights_only=True) == {"step": 1}
    AtomicCheckpointIO().save_checkpoint({"step": 3}, path)
    assert AtomicCheckpointIO().load_checkpoint(path, weights_only=True) == {"step": 3}
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
