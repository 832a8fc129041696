"""Trainings: what their tables take from the records."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import training
from skelops.train.ensemble import Predictions


def predictions(*classes):
    """Of four clips of classes 0, 1, 0, 1, sure of those given."""
    score = np.eye(2)[list(classes)]
    names, label = np.array(["a", "b", "c", "d"]), np.array([0, 1, 0, 1])
    return Predictions(names, label, score, score, "joint", "run")


def test_the_gain_of_a_fusion_is_over_its_best_stream():
    streams = [predictions(1, 0, 0, 1), predictions(0, 1, 0, 0), predictions(0, 1, 1, 0)]
    found = training._gain(predictions(0, 1, 0, 1).logits, streams)
    assert found["gain"] == pytest.approx(0.25)
    assert found["gain_error"] == pytest.approx((3 / 16 / 4) ** 0.5)


def test_models_show_their_best_whole_training(monkeypatch, tmp_path):
    def record(name, top1, epochs=1):
        text = json.dumps({"top1": top1, "epochs": epochs})
        (tmp_path / f"{name}.json").write_text(text)

    record("nw_ucla-halp_small", 0.5)
    record("nw_ucla-halp_small-seed1", 0.7)
    record("nw_ucla-halp_small-untrained", 0.9, epochs=0)
    record("nw_ucla-halp_small-no_hallucinated_positives", 0.8)
    record("ui_prmd20-halp_small", 0.6)
    monkeypatch.setattr(training, "RESULTS", tmp_path)
    row = next(line for line in training.zoo().splitlines() if line.startswith("| `halp`"))
    shown = row.split("|")[-2].strip()
    assert shown == (
        "NW-UCLA [60.0](../benchmarks/trainings/nw_ucla-halp_small.json); "
        "UI-PRMD, 20 classes [60.0](../benchmarks/trainings/ui_prmd20-halp_small.json)"
    )


def test_seeds_share_a_row():
    records = [{"top1": share} for share in (0.5, 0.75, 0.7)]
    assert training._percent("top1", records[0], ()) == "50.0"
    assert training._percent("top1", records[0], records[1:]) == "65.0 ± 13.2, 3 seeds"
    assert training._percent("nearest", records[0], records[1:]) == ""


def test_records_are_of_trainings_that_can_be_repeated():
    for path in Path(training.RESULTS).glob("*.json"):
        group, _, last = path.stem.rpartition("-")
        fused = last in ("two", "three", "four", "six")
        known = {name.rpartition("-")[0] for name in training.TRAININGS} if fused else ()
        assert path.stem in training.TRAININGS or (fused and group in known), path.stem
