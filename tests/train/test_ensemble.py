import csv

import numpy as np
import pytest

from skelops.train import ensemble
from skelops.train.ensemble import PRESETS, Predictions, fuse, load_predictions


def predictions(stream, seed=0, **changes):
    logits = np.random.default_rng(seed).normal(size=(40, 8)).astype(np.float32)
    given = {
        "name": np.arange(40).astype(str),
        "label": np.arange(40) % 8,
        "logits": logits,
        "softmax": np.exp(logits) / np.exp(logits).sum(1, keepdims=True),
        "stream": stream,
        "run": f"run-{stream}",
    }
    return Predictions(**(given | changes))


def save(path, found):
    np.savez(path, **{name: value for name, value in vars(found).items() if value is not None})
    return str(path)


def test_published_fusions_go_by_the_name_of_the_stream():
    joint, bone = predictions("joint", 0), predictions("bone_motion", 1)
    fused, weights = fuse([bone, joint], "ctr_gcn")
    assert weights == [0.4, 0.6]
    np.testing.assert_allclose(fused, 0.4 * bone.logits + 0.6 * joint.logits, rtol=1e-4)
    fused, weights = fuse([joint, bone], "pyskl")
    assert weights == [2, 1]
    np.testing.assert_allclose(fused, 2 * joint.softmax + bone.softmax, rtol=1e-6)


def test_presets_are_complete():
    for name, (score, streams, weights) in PRESETS.items():
        assert score in ensemble.SCORES and len(streams) == len(weights) > 1, name


def test_own_weights():
    a, b = predictions("joint", 0), predictions("anything", 1)
    np.testing.assert_allclose(fuse([a, b], [3, 1], "softmax")[0], 3 * a.softmax + b.softmax)
    np.testing.assert_allclose(fuse([a, b], [3, 1])[0], 3 * a.logits.astype(float) + b.logits)


@pytest.mark.parametrize(
    "other, weights, message",
    [
        ({"name": np.array([*"ab"] * 20)}, [1, 1], "names of run-joint, 0, got a at clip 0"),
        ({"label": np.zeros(40, int)}, [1, 1], "labels of run-joint, 1, got 0 at clip 1"),
        ({"name": np.arange(39).astype(str)}, [1, 1], "names of run-joint, 40, got 39 clips"),
        ({"logits": np.zeros((40, 9))}, [1, 1], "expected 8 classes as in run-joint, got 9"),
        ({}, [1, 1, 1], "expected 2 weights, got 3"),
        ({}, "ctrgcn", "one of ctr_gcn, pyskl, .* got 'ctrgcn'"),
        ({}, "psumnet_ntu60_xsub", "streams of psumnet_ntu60_xsub, body, hand, leg, got 'joint'"),
    ],
)
def test_what_does_not_fit(other, weights, message):
    with pytest.raises(ValueError, match=message):
        fuse([predictions("joint"), predictions("bone", 1, **other)], weights)


def test_command(tmp_path, capsys):
    from skelops.__main__ import main

    a, b = predictions("joint", 0), predictions("bone", 1)
    files = [save(tmp_path / f"{p.stream}.npz", p) for p in (a, b)]
    table = tmp_path / "new" / "table.csv"
    assert main(["ensemble", *files, "--weights", "0.6", "0.4", "--out", str(table)]) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [r["stream"] for r in rows] == ["joint", "bone", "joint+bone"]
    fused = 0.6 * a.logits + 0.4 * b.logits
    assert float(rows[2]["top1"]) == pytest.approx((fused.argmax(1) == a.label).mean())
    five = (np.argsort(-fused)[:, :5] == a.label[:, None]).any(1).mean()
    assert float(rows[2]["top5"]) == pytest.approx(five)
    right = fused.argmax(1) == a.label
    per_class = np.mean([right[a.label == c].mean() for c in range(8)])
    assert float(rows[2]["mean_class"]) == pytest.approx(per_class)
    assert rows[2]["top1"][:6] in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["ensemble", *files, "--weights", "ctrgcn", "--out", str(table)])
    assert "one of ctr_gcn, pyskl" in capsys.readouterr().err


def test_groups_of_a_long_tail(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("tailed.npz", predictions("joint", class_counts=np.arange(8, 0, -1) * 3))
    save("unknown.npz", predictions("bone"))
    assert "tail" in load_predictions("tailed.npz").accuracies()
    assert "tail" not in load_predictions("unknown.npz").accuracies()
    rows = ensemble.main(["tailed.npz", "unknown.npz", "--weights", "1", "1"])
    assert all("tail" in row for row in rows)


def test_files_are_not_executed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, name=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="expected predictions of skelops predict, got"):
        load_predictions(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match="expected predictions of skelops predict, got"):
        load_predictions(path)
