"""Every CUDA source compiles for every architecture and keeps its registers."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc/cuda").glob("*.cu"))
NVCC = shutil.which("nvcc")
SPILLED_BYTES = 64  # per thread


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_compiles(source, architecture, tmp_path):
    command = [NVCC, "-cubin", "-std=c++17", f"-arch=sm_{architecture}", "--resource-usage"]
    command += ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{ROOT / 'csrc'}"]
    command += [f"-I{path}" for path in include_paths()]
    command += ["-o", str(tmp_path / "out.cubin"), str(source)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    spilled = re.findall(r"(\d+) bytes spill stores", run.stderr + run.stdout)
    assert spilled and max(map(int, spilled)) <= SPILLED_BYTES, run.stderr[-4000:]
