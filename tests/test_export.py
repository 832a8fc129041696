"""Exported networks compute what the originals do, without skelops."""

import importlib

import pytest
import torch
from torch import nn

import skelops.models as zoo
from skelops.data import Clips, synthetic
from skelops.export import decomposed, export, main
from skelops.models import (
    build_classifier,
    create_model,
    create_pretext,
    list_models,
    list_pretexts,
)

X = torch.randn(2, 3, 16, 20, 1, generator=torch.Generator().manual_seed(0))


GRAPH = {"stages": [(16, 1), (32, 2)]}
MAPS = {"base_channels": 8, "blocks": (1, 1, 1), "size": (16, 16)}
TOKENS = {"num_frames": 16, "width": 16, "depth": 2, "heads": 2}
QUEUE = {"queue_size": 32}
SIZE = {"size": (50, 50, 2, 2, 64, True)}
# What makes a model small, and (C, T, V, M) of its input.
MODELS = {
    "aclnet": (GRAPH | {"base_channels": 16}, (3, 16, 25, 2)),
    "cascade_former": (SIZE, (3, 16, 25, 1)),
    "epam_net_pose": (MAPS, (2, 6, 17, 2)),
    "finetec": (GRAPH | {"frames": 16, "completion": {"layers": 2}}, (2, 16, 17, 1)),
    "ms_clr": ({"base_channels": 8}, (3, 16, 25, 2)),
    "posec3d": (MAPS, (2, 6, 17, 2)),
    "psumnet_body": (GRAPH, (12, 16, 25, 2)),
    "psumnet_hand": (GRAPH, (12, 16, 13, 2)),
    "psumnet_leg": (GRAPH, (12, 16, 9, 2)),
    "ssl_strl": ({"channels": (16, 16)}, (2, 64, 17, 2)),
}
PRETEXTS = {
    "cascade_former_pretrain": SIZE,
    "halp": QUEUE | {"hidden_size": 16},
    "hiclr": QUEUE | {"encoder_kwargs": GRAPH},
    "mae": TOKENS,
    "mamp": TOKENS,
    "ms_clr": QUEUE | {"base_channels": 8},
    "skeleton_mae": {},
    "stars": TOKENS | QUEUE | {"hidden": 16},
}
PICTURES = {
    "EPAMNetVideo": (
        {"base_channels": 8, "blocks": {"rgb": (1,) * 4, "pose": (1,) * 3}, "size": (16, 16)},
        {"rgb": (3, 6, 64, 64), "keypoints": (3, 6, 17, 1)},
    ),
    "MMixer": (
        {"modalities": ("rgb", "depth"), "dim": 16, "widths": (8, 8), "heads": 2},
        {"rgb": (3, 4, 16, 16), "depth": (1, 4, 16, 16)},
    ),
    "DeformTransformer": (
        {"num_persons": 1, "frames": 4, "image_size": 16, "dim": 16, "depth": 2, "heads": 2,
         "groups": 2, "widths": (8, 8)},
        {"rgb": (3, 4, 16, 16), "keypoints": (3, 4, 25, 1)},
    ),
}  # fmt: skip


def finetuned(name, num_classes, **options):
    return build_classifier(create_pretext(name, **options).encoder, num_classes)


def case(build, name, options=GRAPH, shape=(3, 16, 25, 2)):
    return pytest.param(build, name, options, shape, id=f"{build.__name__}-{name}")


def of_class(name, **options):
    return getattr(zoo, name)(**options)


EVERY = [
    *(case(create_model, name, *MODELS.get(name, ())) for name in list_models()),
    *(case(finetuned, name, PRETEXTS[name]) for name in ("halp", "hiclr", "mamp")),
    *(case(of_class, name, *given) for name, given in PICTURES.items()),
]
# Not written as ONNX too, being made of what psumnet, ms_clr and EPAMNetVideo are.
ALIKE = ("psumnet_body", "psumnet_hand", "psumnet_leg", "st_gcn", "epam_net_pose")


@pytest.mark.parametrize(("build", "name", "options", "shape"), EVERY)
def test_every_model(build, name, options, shape, tmp_path):
    to = "pt2" if name in ALIKE else "onnx"
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = build(name, num_classes=5, **options)
    if isinstance(shape, dict):
        example = {name: torch.rand(3, *size) for name, size in shape.items()}
        one = {name: x[:1] for name, x in example.items()}
    else:
        example = torch.randn(3, *shape)
        one = example[:1]
    written = export(model, example, tmp_path / f"net.{to}", to=to, clips=[one])
    assert written.clips == 4 and written.difference <= 1e-4


def test_every_pretext_leaves_a_network_of_exported_parts():
    exported = {
        type(part)
        for build, name, options, _ in (each.values for each in EVERY)
        for part in build(name, num_classes=5, **options).modules()
    }
    for name in list_pretexts():
        network = finetuned(name, 5, **PRETEXTS.get(name, {}))
        assert {type(part) for part in network.modules()} <= exported, name


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


@pytest.mark.parametrize("pays", [True, False])
def test_a_free_batch_whichever_product_runs(pays, monkeypatch, tmp_path):
    """``linear`` leaves products of a few rows to PyTorch; a program takes any number."""
    linear = importlib.import_module("skelops.ops.linear")
    monkeypatch.setattr(linear, "FASTER_HERE", pays)
    model = finetuned("mamp", 5, **TOKENS)
    example = torch.randn(3, 3, 16, 25, 2)
    written = export(model, example, tmp_path / "net.pt2", to="pt2", clips=[example[:1]])
    assert written.difference <= 1e-4


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


def test_bad_pictures(tmp_path):
    shapes = {"rgb": (2, 3, 4, 16, 16), "depth": (3, 1, 4, 16, 16)}
    model = of_class("MMixer", num_classes=5, **PICTURES["MMixer"][0])
    with pytest.raises(ValueError, match=r"example \(N >= 2, .*'depth': \(3, 1, 4, 16, 16\)"):
        export(model, {k: torch.rand(v) for k, v in shapes.items()}, tmp_path / "net")


def saved(recognizer, path, data=None):
    """What ``skelops fit`` would leave of an untrained network."""
    lightning = pytest.importorskip("lightning")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = lightning.Trainer(
        max_steps=0, limit_val_batches=0, accelerator="cpu", enable_checkpointing=False, **quiet
    )
    trainer.fit(recognizer, data)
    trainer.save_checkpoint(path)
    return str(path)


def test_command_line(tmp_path, capsys):
    """Clips are those of the training: their number of frames, their streams and their layout."""
    pytest.importorskip("lightning")
    from skelops.train import Recognizer, SkeletonDataModule

    data = SkeletonDataModule(num_clips=48, train_groups=[1, 2], window=16, layout="coco17",
                              streams=["bone", "joint"])  # fmt: skip
    net = {"base_channels": 16, "stages": [(16, 1)]}
    path = saved(Recognizer("st_gcn_pp", 16, "coco17", 2, net, 6), tmp_path / "last.ckpt", data)
    main([path, "--to", "pt2"])
    assert "scores of 2 clips differ by at most" in capsys.readouterr().out
    x = torch.randn(3, 6, 16, 17, 2)
    assert torch.export.load(tmp_path / "last.pt2").module()(x).shape == (3, 16)
    synthetic.generate(5, seed=0).save(tmp_path / "a.clips")
    main([path, "--to", "pt2", "--clips", str(tmp_path / "a.clips"), "--frames", "8"])
    assert "scores of 7 clips differ by at most" in capsys.readouterr().out
    assert torch.export.load(tmp_path / "last.pt2").module()(x[:, :, :8]).shape == (3, 16)
    with pytest.raises(SystemExit, match=r"^skelops: .*none\.ckpt: expected the folder or a ch"):
        main([str(tmp_path / "none.ckpt")])
    made = synthetic.generate(5, seed=0)
    flat = Clips(made.xyz[..., :2], made.length, made.label, made.classes, made.layout)
    flat.save(tmp_path / "b.clips")
    with pytest.raises(SystemExit, match=r"expected clips of \(6, 16, 17, 2\) .* got \(4, 16,"):
        main([path, "--to", "pt2", "--clips", str(tmp_path / "b.clips")])
