"""Bridge from setuptools to CMake. Native parts are optional: what cannot be built is skipped with
its reason, shown on stderr and kept in skelops/_build_info.json, and the PyTorch reference answers.
"""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TOOL_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


class SkipPart(Exception):
    """A native part that this machine cannot build; the message says why."""


def find_tool(*names: str, what: str) -> str:
    for name in names:
        if found := shutil.which(name, path=TOOL_PATH):
            return found
    raise SkipPart(f"no {what} was found at install time")


def find_package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SkipPart(f"no {name} was found at install time (is build isolation on?)")
    return Path(spec.submodule_search_locations[0])


def torch_options() -> list[str]:
    torch = find_package("torch")
    return [f"-DTORCH_INCLUDE_DIRS={torch / 'include'}", f"-DTORCH_LIB_DIR={torch / 'lib'}"]


def cuda_options() -> list[str]:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = os.environ.get("CUDACXX") or find_tool(
        "nvcc", f"{home}/bin/nvcc", what="CUDA compiler (nvcc)"
    )
    return [*torch_options(), f"-DCMAKE_CUDA_COMPILER={nvcc}"]


def host_options() -> list[str]:
    pybind11 = find_package("pybind11") / "share/cmake/pybind11"
    return [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11}"]


class Part(NamedTuple):
    sources: str
    libraries: list[str]
    options: Callable[[], list[str]]


PARTS = {
    "cpu": Part("csrc/cpu/*.cpp", ["_C.abi3.so", "_C_v*.abi3.so"], torch_options),
    "cuda": Part("csrc/cuda/*.cu", ["_C_cuda.abi3.so"], cuda_options),
    "host": Part("python/*.cpp", ["_host*.so"], host_options),
}


def run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or "warning:" in done.stdout:
        print(done.stdout, file=sys.stderr)
    if done.returncode:
        errors = [line.strip() for line in done.stdout.splitlines() if "error" in line.lower()]
        raise SkipPart(f"the build failed: {(errors or ['pip install -v shows why'])[0]}")


def build_part(name: str, tree: Path) -> None:
    """Configure and compile one part in its own directory, which persists between runs."""
    part = PARTS[name]
    if not any(ROOT.glob(part.sources)):
        raise SkipPart("the source tree has none")
    options = part.options()
    compilers = os.environ.get("CXX", "").split()[:1] or ["c++", "g++", "clang++"]
    find_tool(*compilers, what="C++ compiler")
    cmake = find_tool("cmake", what="cmake")
    options.append(f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja', what='ninja')}")
    options += os.environ.get("CMAKE_ARGS", "").split()
    run(cmake, "-S", str(ROOT), "-B", str(tree), "-G", "Ninja", f"-DSKELOPS_PARTS={name}", *options)
    run(cmake, "--build", str(tree))


def replace_file(source: Path, target: Path) -> None:
    """Copy by rename: a process that has the old library mapped keeps it intact."""
    fresh = target.with_suffix(".fresh")
    shutil.copy2(source, fresh)
    fresh.replace(target)


class BuildNative(build_ext):
    def run(self) -> None:
        package = self.package_dir()
        package.mkdir(parents=True, exist_ok=True)
        info: dict[str, object] = {"python": sys.version.split()[0]}
        if importlib.util.find_spec("torch"):
            info["torch"] = importlib.metadata.version("torch")
        info["parts"] = {name: self.build(name, package) for name in PARTS}
        (package / "_build_info.json").write_text(json.dumps(info, indent=2) + "\n")

    def build(self, name: str, package: Path) -> str | None:
        """Put the libraries of one part into the package; None, or why there are none."""
        tree = ROOT / "build" / name
        try:
            build_part(name, tree)
        except SkipPart as reason:
            for pattern in PARTS[name].libraries:
                for stale in package.glob(pattern):
                    stale.unlink()
            print(f"skelops: {name} not built: {reason}", file=sys.stderr)
            return str(reason)
        for pattern in PARTS[name].libraries:
            for library in tree.glob(pattern):
                replace_file(library, package / library.name)
        print(f"skelops: {name} built", file=sys.stderr)
        return None

    def package_dir(self) -> Path:
        return (ROOT if self.inplace else Path(self.build_lib).resolve()) / "skelops"

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self.package_dir().glob("_*.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Wheel(bdist_wheel):
    """Tagged py3-none-<platform>: the op libraries know no Python; only the host module does."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        package = Path(self.bdist_dir) / "skelops"
        if any(package.glob("_host*.so")):
            return python, abi, platform
        return "py3", "none", platform if any(package.glob("_C*.so")) else "any"


sources = [
    str(path.relative_to(ROOT))
    for pattern in ("csrc/**/*.*", "python/**/*.*")
    for path in ROOT.glob(pattern)
]

setup(
    ext_modules=[Extension("skelops._C", sources=[], depends=["CMakeLists.txt", *sources])],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
