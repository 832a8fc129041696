"""The device code of an op, compiled for the CPU."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def kernels(request, tmp_path_factory):
    """The exports of the source beside the test: ``test_<op>.py`` has ``<op>.cpp``."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    name = request.path.stem.removeprefix("test_")
    library = tmp_path_factory.mktemp("emulated") / f"{name}.so"
    flags = ["-std=c++20", "-O1", "-pthread", "-fPIC", "-shared", "-o", str(library)]
    includes = ["-include", str(HERE / "cuda_emulator.h"), f"-I{HERE.parents[1] / 'csrc'}"]
    source = str(HERE / f"{name}.cpp")
    subprocess.run([compiler, *flags, *includes, source], check=True, timeout=300)
    return ctypes.CDLL(str(library))
