"""Latency and accuracy by precision, at sizes that take no time."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import latency
from skelops.quantize import quantize

pytest.importorskip("lightning")


@pytest.mark.parametrize("name", latency.MODELS)
def test_every_network_runs(name):
    """In every precision it has; transformers have int8, networks of convolutions do not."""
    torch.manual_seed(0)
    model = latency.build(name, frames=8)
    C, V, M = latency.OTHERS.get(name, latency.JOINTS)
    x = torch.randn(2, C, 8, V, M)
    found = latency.forms(model)
    assert list(found)[:2] == ["float32", "bfloat16"]
    assert ("int8" in found) == (name in ("cascade_former", "mamp"))
    with torch.inference_mode():
        expected = found.pop("float32")(x)
        for form in (*found.values(), quantize(model)):
            score = form(x)
            assert score.dtype == torch.float32 and not torch.equal(score, expected)
            assert (score - expected).norm() < 0.1 * expected.norm() + 1e-5


class Products(TorchDispatchMode):
    """Dtypes of what is multiplied, by op."""

    KINDS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot")
    DRAWN = ("pose_heatmap", "skeleton_streams")  # inputs of the network, from joints as they are

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        multiplied = name.startswith(tuple(f"aten::{kind}" for kind in self.KINDS))
        if multiplied or (name.startswith("skelops::") and not name.endswith(self.DRAWN)):
            self.seen.setdefault(name, set()).add(args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", latency.MODELS)
def test_bfloat16_reaches_every_product(name):
    model = latency.build(name, frames=8)
    C, V, M = latency.OTHERS.get(name, latency.JOINTS)
    form = latency.forms(model)["bfloat16"]
    with torch.no_grad(), Products() as products:
        form(torch.randn(1, C, 8, V, M))
    assert products.seen and all(d == {torch.bfloat16} for d in products.seen.values()), (
        products.seen
    )


def test_page(tmp_path, monkeypatch, capsys):
    from skelops.train import cli

    monkeypatch.setattr("sys.argv", ["skelops"])
    cli.main([
        "fit", "--config", "ctr_gcn_small", "--config", "synthetic", "--data.num_clips", "48",
        "--data.train_groups", "[1, 2]", "--data.window", "8", "--data.batch_size", "16",
        "--model.model_kwargs.stages", "[[8, 1]]", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path / "run"),
    ])  # fmt: skip
    page = tmp_path / "latency.md"
    latency.main([
        "--models", "st_gcn_pp", "--streams", "--frames", "8", "--seconds", "0.01",
        "--trained", str(tmp_path / "run"), "--output", str(page),
    ])  # fmt: skip
    text = page.read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| run | 0."))
    clips, float32, bfloat16, int8 = row.strip("| ").split(" | ")[2:]
    assert int(clips) == 16 and "%" in float32 and "%" in bfloat16 and int8 == "-"
    assert "| st_gcn_pp | 1 |" in text
