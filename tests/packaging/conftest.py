import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_python():
    """Run a program in a fresh interpreter; its standard output, or fail with its errors."""

    def run(program: str, cwd: Path = ROOT, **environment: object) -> str:
        env = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
