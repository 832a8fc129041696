"""Latency and accuracy by precision, at sizes that take no time."""

import pytest
import torch

from benchmarks import latency

pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the quantisation, which is deprecated


def test_precisions_agree():
    model = latency.build("mamp", frames=8)
    x = torch.randn(2, 3, 8, 25, 2)
    found = latency.forms(model)
    assert list(found) == ["float32", "bfloat16", "int8"]
    with torch.inference_mode():
        expected = found.pop("float32")(x)
        for form in found.values():
            score = form(x)
            assert score.dtype == torch.float32 and not torch.equal(score, expected)
            assert (score - expected).norm() < 0.1 * expected.norm()


def test_graph_networks_have_no_int8():
    assert "int8" not in latency.forms(latency.build("st_gcn_pp", frames=8))


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
