"""Installing: pure Python wherever something is missing, a platform wheel where nothing is."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE_ONLY = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import torch, skelops
from skelops import _build
x, A = torch.randn(2, 6, 5, 25, requires_grad=True), torch.randn(3, 25, 25)
z = skelops.graph_conv(x, A)
z.sum().backward()
torch.testing.assert_close(z, torch.einsum("nkctv,kuv->nctu", x.unflatten(1, (3, 2)), A))
print(skelops.__file__)
print(_build.load_cpu())
"""


@pytest.fixture
def source(tmp_path):
    """A copy of what an install needs, with a single C++ op to keep compiling short."""
    copy = tmp_path / "source"
    for name in ("skelops", "csrc", "python"):
        ignored = shutil.ignore_patterns("*.so", "_build_info.json", "__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    for path in (copy / "csrc/cpu").glob("*.cpp"):
        if path.name != "graph_conv.cpp":
            path.unlink()
    return copy


def install(source: Path, *options: str, **environment: str) -> Path:
    target = source.parent / "target"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target)]
    done = subprocess.run(
        [*command, *options, str(source)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=540,
    )
    output = done.stdout + done.stderr
    if "No matching distribution found for setuptools" in output:
        pytest.skip("the package registry is unreachable")
    assert done.returncode == 0, output
    return target


def wheel_tag(target: Path) -> str:
    lines = next(target.glob("skelops-*.dist-info/WHEEL")).read_text().splitlines()
    return next(line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: "))


def test_isolated_install_without_a_compiler(source, run_python):
    target = install(source, PATH=str(source), CC="nonexistent", CXX="nonexistent")
    assert wheel_tag(target) == "py3-none-any"
    file, reason = run_python(REFERENCE_ONLY, cwd=source.parent, PYTHONPATH=target).splitlines()
    assert Path(file).parent == target / "skelops"
    assert reason.startswith("not built: no torch was found at install time")
    parts = json.loads((target / "skelops/_build_info.json").read_text())["parts"]
    assert parts["host"].startswith("no pybind11 was found at install time")


def test_missing_compiler_is_named(source):
    target = install(source, "--no-build-isolation", PATH=str(source), CXX="nonexistent")
    parts = json.loads((target / "skelops/_build_info.json").read_text())["parts"]
    assert parts["cpu"] == "no C++ compiler was found at install time"


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_native_wheel_survives_a_broken_cuda_compiler(source):
    broken = source / "nvcc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    target = install(source, "--no-build-isolation", CUDACXX=str(broken))
    parts = json.loads((target / "skelops/_build_info.json").read_text())["parts"]
    assert parts["cpu"] is None
    assert parts["cuda"].startswith("the build failed")
    assert (target / "skelops/_C.abi3.so").exists()
    assert not list(target.glob("skelops/_C_cuda*"))
    assert not wheel_tag(target).endswith("-any")


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_wheel_with_the_host_module_is_of_one_python(source, run_python):
    pytest.importorskip("pybind11")
    for part in ("cpu", "cuda"):
        shutil.rmtree(source / "csrc" / part)
    target = install(source, "--no-build-isolation")
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel_tag(target).startswith(f"{tag}-{tag}-")
    program = "from skelops import _host; print(_host.parse_ntu_skeleton(b'0')[3].shape)"
    assert run_python(program, cwd=source.parent, PYTHONPATH=target) == "(0, 25, 12)\n"


def test_source_distribution_is_complete(source):
    command = [sys.executable, "setup.py", "--quiet", "sdist"]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    with tarfile.open(next(source.glob("dist/*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"CMakeLists.txt", "pyproject.toml", "setup.py", "LICENSE", "skelops/__init__.py"}
    sources = {
        str(path.relative_to(source))
        for name in ("csrc", "python")
        for path in (source / name).rglob("*")
        if path.is_file()
    }
    assert (needed | sources) - packed == set()
