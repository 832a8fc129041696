"""Exported networks compute what the originals do, without skelops."""

import pytest
import torch
from torch import nn

from skelops.export import decomposed, export, main
from skelops.models import create_model

X = torch.randn(2, 3, 16, 20, 1, generator=torch.Generator().manual_seed(0))


def small(name="ctr_gcn"):
    torch.manual_seed(0)
    options = {"base_channels": 16, "stages": [(16, 2)]}
    return create_model(name, num_classes=5, layout="nw_ucla20", num_persons=1, **options)


@pytest.mark.parametrize("name", ["ctr_gcn", "aagcn"])
def test_nothing_of_skelops_remains(name):
    shapes = ({0: torch.export.Dim("N", min=1)},)
    model = small(name).eval()
    program = torch.export.export(model, (X,), dynamic_shapes=shapes, strict=True)
    assert any("skelops" in str(node.target) for node in program.graph.nodes)
    plain = decomposed(program)
    assert not any("skelops" in str(node.target) for node in plain.graph.nodes)
    x = torch.cat([X, X + 1])[:3]
    with torch.no_grad():
        torch.testing.assert_close(plain.module()(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_files_compute_the_same(to, tmp_path):
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    model = small().train()
    written = export(model, X, tmp_path / f"net.{to}", to=to, clips=[X, X[:1]])
    assert written.path.stat().st_size > 1000
    assert written.clips == 5
    assert written.difference < 1e-4
    assert model.training


def test_a_program_that_differs_is_refused(tmp_path, monkeypatch):
    class Fickle(nn.Module):
        """Its scores are other ones at every call."""

        calls = 0

        def forward(self, x):
            self.calls += 1
            return x.mean((1, 2, 3)) + self.calls

    path = tmp_path / "net.pt2"
    with pytest.raises(RuntimeError, match=r"export: expected net\.pt2 to compute what the model"):
        export(Fickle(), X, path, to="pt2", clips=[X, X])
    assert not path.exists()


def test_bad_requests(tmp_path):
    with pytest.raises(ValueError, match="export: expected to one of onnx, pt2, aoti, got 'tf'"):
        export(small(), X, tmp_path / "net", to="tf")
    with pytest.raises(ValueError, match=r"expected an example \(N >= 2"):
        export(small(), X[:1], tmp_path / "net")


def test_command_line(tmp_path, capsys):
    lightning = pytest.importorskip("lightning")
    from skelops.train import Recognizer

    recognizer = Recognizer(
        "st_gcn_pp", 5, "nw_ucla20", 1, {"base_channels": 16, "stages": [(16, 1)]}
    )
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(recognizer)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    main([str(tmp_path / "last.ckpt"), "--to", "pt2", "--frames", "16"])
    assert (tmp_path / "last.pt2").exists()
    assert "scores of 2 clips differ by at most" in capsys.readouterr().out
