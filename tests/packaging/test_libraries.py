"""The compiled libraries: what they ask of torch, and that each of them loads and computes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import skelops
from skelops import _build

PACKAGE = Path(skelops.__file__).parent
LIBRARIES = sorted(path.name for path in PACKAGE.glob("_C*.abi3.so"))
STUB = PACKAGE.parent / "build/stubs/libtorch_cuda.so"

# C shims of torch's stable ABI, versioned symbols of the C and C++ runtimes, and what every
# shared library asks of its loader.
ALLOWED = re.compile(
    r"(aoti_)?torch_\w+|\w+@(GLIBC|GLIBCXX|CXXABI|GCC)_[\d.]+|__gmon_start__|_ITM_\w+TMCloneTable"
)
FORWARD = """
import torch, skelops
from skelops import _build
assert _build.load_cpu() is None, _build.load_cpu()
x, A = torch.randn(2, 12, 5, 25), torch.randn(3, 25, 25)
z = skelops.graph_conv(x, A)
with skelops.use_backend("reference"):
    torch.testing.assert_close(z, skelops.graph_conv(x, A))
print(torch.__version__, torch.__file__)
"""


def test_every_build_that_was_possible_succeeded():
    failed = {
        part: reason
        for part, reason in _build.build_info()["parts"].items()
        if reason and "build failed" in reason
    }
    assert not failed


@pytest.mark.skipif(not LIBRARIES, reason="no library is built")
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("name", LIBRARIES)
def test_undefined_symbols_are_stable(name):
    command = ["nm", "-D", "--undefined-only", str(PACKAGE / name)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    symbols = [line.split()[-1] for line in listed.splitlines()]
    assert symbols
    assert [symbol for symbol in symbols if not ALLOWED.fullmatch(symbol)] == []


@pytest.mark.skipif(not LIBRARIES, reason="no library is built")
@pytest.mark.parametrize("name", LIBRARIES)
def test_no_path_of_the_build_machine(name):
    content = (PACKAGE / name).read_bytes()
    assert str(PACKAGE.parent).encode() + b"/" not in content


@pytest.mark.skipif(_build.load_cpu() is not None, reason=str(_build.load_cpu()))
@pytest.mark.parametrize("isa", _build.supported_isas())
def test_every_instruction_set_computes(run_python, isa):
    run_python(FORWARD, SKELOPS_ISA=isa)


@pytest.mark.skipif(_build.load_cpu() is not None, reason=str(_build.load_cpu()))
def test_binary_runs_under_a_second_torch(run_python):
    site = os.environ.get("SKELOPS_SECOND_TORCH")
    if site is None:
        pytest.skip("SKELOPS_SECOND_TORCH names no site-packages directory with another torch")
    assert site in run_python(FORWARD, PYTHONPATH=site)


@pytest.mark.skipif("_C_cuda.abi3.so" not in LIBRARIES, reason="no CUDA library is built")
@pytest.mark.skipif(not STUB.exists(), reason="no stub of libtorch_cuda is built")
def test_cuda_library_registers_its_ops(run_python):
    sources = (PACKAGE.parent / "csrc/cuda").glob("*.cu")
    names = re.findall(r'm\.impl\("(\w+)"', "".join(path.read_text() for path in sources))
    assert "_graph_aggregate_cuda" in names
    program = f"""
import torch
from skelops import _build
assert _build.load_cuda() is None, _build.load_cuda()
for name in {names}:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"skelops::{{name}}", "CUDA"), name
"""
    run_python(program, LD_PRELOAD=STUB)


def test_forcing_an_instruction_set(monkeypatch):
    monkeypatch.setenv("SKELOPS_ISA", "baseline")
    assert _build.cpu_isa() == "baseline"
    monkeypatch.setenv("SKELOPS_ISA", "v9")
    with pytest.raises(ValueError, match=r"SKELOPS_ISA: expected one of baseline.*got v9"):
        _build.cpu_isa()
