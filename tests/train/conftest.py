"""Training runs in processes of their own."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
COMMON = ["--config", "ctr_gcn_small", "--config", "synthetic", "--data.num_clips", "48"]
COMMON += ["--data.train_groups", "[1, 2]", "--data.window", "8", "--data.batch_size", "4"]
COMMON += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
COMMON += ["--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1"]


class Run:
    """``skelops fit`` on 32 clips in batches of 4; it knows ``crash.Crash`` and network "plain"."""

    def __init__(self, folder, *options, launcher=(), **environment):
        path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, *launcher, "-m", "skelops", "fit", *COMMON]
        command += ["--trainer.default_root_dir", str(folder)]
        command += ["--trainer.callbacks+", "crash.Crash", *options]
        self.folder = Path(folder)
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, status=0):
        """What it printed."""
        try:
            output, _ = self.process.communicate(timeout=300)
        finally:
            self.process.kill()
        assert self.process.returncode == status, output[-4000:]
        return output

    def last(self):
        path = self.folder / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True)

    def column(self, name):
        """{step: value} of the CSV logs, over all starts of the run."""
        found = {}
        for log in sorted(self.folder.glob("csv/version_*/metrics.csv")):
            with log.open() as file:
                rows = [row for row in csv.DictReader(file) if row.get(name)]
            found |= {int(row["step"]): float(row[name]) for row in rows}
        return found


@pytest.fixture(scope="session")
def start():
    return Run
