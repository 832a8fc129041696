"""Networks that take labels: what a training step passes on, and what a checkpoint keeps."""

import pytest
import torch

from skelops.train import Recognizer

SMALL = {"base_channels": 8, "stages": [[8, 1], [16, 2]], "width": 12, "memory": 8, "start": -1}


def recognizer(**settings):
    torch.manual_seed(0)
    return Recognizer("aclnet", num_classes=5, model_kwargs=SMALL, **settings)


def test_memories_of_a_checkpoint():
    trained, fresh = recognizer(), recognizer()
    trained.model.start_epoch(3)
    trained.model(torch.randn(8, 3, 8, 25, 2), torch.arange(8) % 5)
    checkpoint = {"epoch": 3, "hyper_parameters": {}}
    trained.on_save_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in checkpoint["memories"]} == {"inter", "intra"}
    assert not checkpoint["memories"].keys() & trained.model.state_dict().keys()
    fresh.on_load_checkpoint(checkpoint)
    for a, b in (("inter", "superclass"), ("inter", "mean"), ("intra", "memory_label")):
        kept, found = (getattr(getattr(r.model, a), b) for r in (trained, fresh))
        assert torch.equal(kept, found)
    fresh.model.start_epoch(3)
    assert not fresh.model.inter.outdated, "superclasses of a begun epoch stay"
    fresh.model.start_epoch(4)
    assert fresh.model.inter.outdated


def test_without_losses_there_is_nothing_to_keep():
    plain = Recognizer("aclnet", num_classes=5, model_kwargs=SMALL | {"weights": (0, 0)})
    checkpoint = {}
    plain.on_save_checkpoint(checkpoint)
    assert checkpoint == {}


@pytest.mark.parametrize("option", [{"mix_up": {}}, {"cuda_graph": True}])
def test_what_does_not_go_together(option):
    counts = {"class_counts": [4] * 5}
    with pytest.raises(ValueError, match=rf"^Recognizer: expected no {next(iter(option))} with"):
        recognizer(**option, **counts)
