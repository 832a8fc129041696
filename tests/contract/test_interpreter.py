"""Triton kernels on the CPU, by Triton's interpreter, which has to be chosen before the import."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skelops._library import OPS

ROOT = Path(__file__).parents[2]
TRITON = sorted(op.name for op in OPS.values() if "triton" in op.gpu)
PARTS = 8  # a process each: to collect the cases takes longer than to run those of most ops


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_interpreted(part):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    chosen = " or ".join(f"[{name}-triton-" for name in TRITON[part::PARTS])
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider"]
    command += ["tests/contract/test_contract.py", "--backend", "triton", "--reduced"]
    run = subprocess.run(
        [*command, "-k", chosen],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
