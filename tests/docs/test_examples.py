"""The examples run as scripts, the trainings among them for an epoch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = {"own_data": ["--epochs", "1"], "few_labels": ["--epochs", "1", "--tuning-epochs", "1"]}
NEEDS = {"export_and_serve": "onnxruntime", "own_data": "lightning", "few_labels": "lightning"}
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


def test_every_example_is_shown():
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert [p.name for p in EXAMPLES if f"(examples/{p.name})" not in page] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    run = subprocess.run(
        [sys.executable, path, *SHORT.get(path.stem, [])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.strip(), "an example prints what matters"
