"""Two gloo processes against one. The network has no batch statistics: those are per process."""

import pytest
import torch

pytestmark = pytest.mark.slow

PLAIN = ["--model.model", "plain", "--model.model_kwargs", "{}"]
DDP = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
SHARDED = ["--trainer.devices", "2"]
SHARDED += ["--trainer.strategy", "lightning.pytorch.strategies.ModelParallelStrategy"]
SHARDED += ["--trainer.strategy.data_parallel_size", "2"]
SHARDED += ["--trainer.strategy.tensor_parallel_size", "1"]
SHARDED += ["--trainer.strategy.save_distributed_checkpoint", "false"]


@pytest.fixture(scope="module")
def one(start, tmp_path_factory):
    run = start(tmp_path_factory.mktemp("one"), *PLAIN, "--data.batch_size", "8")
    run.finish()
    return run


@pytest.mark.parametrize("strategy", [DDP, SHARDED], ids=["ddp", "fsdp"])
def test_two_processes_train_as_one(strategy, one, start, tmp_path):
    two = start(tmp_path, *PLAIN, *strategy)
    output = two.finish()
    assert "distributed_backend=gloo" in output and "2 processes" in output
    a, b = one.last(), two.last()
    assert a["global_step"] == b["global_step"] == 8
    names = [name for name in a["state_dict"] if name.startswith("model.")]
    assert len(names) == 4
    for name in names:
        torch.testing.assert_close(a["state_dict"][name], b["state_dict"][name])
    for name in ("train_loss", "train_top1", "val_loss", "val_top1", "lr-SGD"):
        assert one.column(name) == pytest.approx(two.column(name), rel=1e-5), name


def test_hyper_gcn_trains_sharded_as_replicated(start, tmp_path):
    """Its auxiliary loss and its static graphs use parameters outside of their blocks."""
    options = ["--model.model", "hyper_gcn", "--model.model_kwargs", "{base_channels: 16}"]
    losses = []
    for name, strategy in (("ddp", DDP), ("fsdp", SHARDED)):
        run = start(tmp_path / name, *options, *strategy)
        run.finish()
        losses.append(run.column("train_loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_lost_rank_restarts_from_the_last_checkpoint(start, tmp_path):
    options = [*DDP, "--model.model_kwargs", "{base_channels: 8}", "--ckpt_path", "last"]
    options += ["--step_checkpoint.every_n_train_steps", "1"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    torchrun += ["--max-restarts", "1"]
    fresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # a restart reads no address of the dead
    kill = ["--trainer.callbacks.step", "3", "--trainer.callbacks.rank", "1"]
    kill += ["--trainer.callbacks.marker", str(tmp_path / "mark")]
    through = start(tmp_path / "a", *options, launcher=torchrun, **fresh)
    through.finish()
    restarted = start(tmp_path / "b", *options, *kill, launcher=torchrun, **fresh)
    assert "Restored all states" in restarted.finish() and (tmp_path / "mark").exists()
    a, b = through.last(), restarted.last()
    assert a["global_step"] == b["global_step"] == 8
    for name, weight in a["state_dict"].items():
        if name.startswith("model."):
            assert torch.equal(weight, b["state_dict"][name]), name
