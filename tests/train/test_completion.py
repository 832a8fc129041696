"""Pre-training of a completion: before the first epoch, once, and better than straight lines."""

import lightning
import pytest
import torch

from skelops.models import create_model
from skelops.train import Recognizer, SkeletonDataModule
from skelops.train.completion import PretrainCompletion, motions


@pytest.fixture
def data():
    return SkeletonDataModule(
        num_clips=48, train_groups=[1, 2], window=8, batch_size=8, layout="coco17",
        transform_args={"missing": "moderate", "persons": 1},
    )  # fmt: skip


def small(completion=True):
    options = {"layers": 2, "bank": 4} if completion else False
    net = {"stages": [(8, 2)], "completion": options, "physics": False, "decomposition": False}
    return create_model("finetec", num_classes=16, in_channels=3, frames=8, **net)


def test_whole_motions_only():
    x = torch.randn(2, 3, 4, 5, 2)
    x[0, ..., 1] = 0
    x[1, :, 2] = 0
    found = motions(x)
    assert found.shape == (1, 4, 5, 3) and torch.equal(found[0], x[0, ..., 0].permute(1, 2, 0))


def test_before_the_first_epoch_and_once(data, tmp_path):
    callback = PretrainCompletion(steps=3, batch_size=8, lr=1e-3)
    recognizer = Recognizer(small(), 16)
    options = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0, "logger": False}
    options |= {"accelerator": "cpu", "enable_progress_bar": False, "default_root_dir": tmp_path}
    options |= {"enable_checkpointing": False, "enable_model_summary": False}
    lightning.Trainer(**options, callbacks=[callback]).fit(recognizer, data)
    completion = recognizer.model.completion
    assert completion.ready and not any(p.requires_grad for p in completion.parameters())
    before = {name: p.clone() for name, p in completion.state_dict().items()}
    assert before["out.weight"].abs().max() > 1e-5  # trained
    lightning.Trainer(**options, callbacks=[callback]).fit(recognizer, data)
    assert all(torch.equal(p, before[name]) for name, p in completion.state_dict().items())


def test_untrained_completions_are_straight_lines(data):
    callback, completion = PretrainCompletion(steps=0), small().completion
    callback.train(completion, data.dataset(True, missing=0.0))
    found, linear = callback.errors(
        completion, data.dataset(False), data.dataset(False, missing=0.0)
    )
    assert linear > 0 and found == pytest.approx(linear, rel=1e-3)


def test_networks_without_completion_are_left_alone(data):
    trainer = lightning.Trainer(accelerator="cpu", logger=False)
    PretrainCompletion(steps=1).on_fit_start(trainer, Recognizer(small(False), 16))
