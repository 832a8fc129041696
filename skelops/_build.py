"""What was built at install time, and how it is loaded. Nothing is compiled here."""

import functools
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

_PACKAGE = Path(__file__).parent
_LIBRARIES = {"baseline": "_C", "v3": "_C_v3", "v4": "_C_v4"}
_FLAGS = {
    "v3": {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
    "v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


@functools.cache
def build_info() -> dict[str, Any]:
    """What setup.py recorded: torch and Python versions, and per part None or why it is absent."""
    try:
        return json.loads((_PACKAGE / "_build_info.json").read_text())
    except FileNotFoundError:
        return {"parts": {}}


def _cpu_says(name: str) -> list[str]:
    """The words after a name in what Linux tells of the first processor."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.split() for line in lines if line.startswith(name)), [])
    except OSError:
        return []


@functools.cache
def cpu_vendor() -> str:
    """Such as "GenuineIntel"; empty where it is not known."""
    return next(reversed(_cpu_says("vendor_id")), "")


@functools.cache
def supported_isas() -> list[str]:
    """Instruction sets of this machine, the most capable last (x86-64 psABI levels)."""
    supported = ["baseline"]
    if platform.machine() in ("x86_64", "AMD64"):
        flags = set(_cpu_says("flags"))
        for isa, needed in _FLAGS.items():
            if not needed <= flags:
                break
            supported.append(isa)
    return supported


def cpu_isa() -> str:
    """Return "baseline", "v3" or "v4": the machine's best, or what ``SKELOPS_ISA`` asks for."""
    supported = supported_isas()
    isa = os.environ.get("SKELOPS_ISA") or supported[-1]
    if isa not in supported:
        raise ValueError(f"SKELOPS_ISA: expected one of {', '.join(supported)}, got {isa}")
    return isa


def _load(part: str, candidates: list[str]) -> str | None:
    paths = [_PACKAGE / f"{name}.abi3.so" for name in candidates]
    paths = [path for path in paths if path.exists()]
    if not paths:
        how = "install with --no-build-isolation where torch and a compiler are present"
        return f"not built: {build_info()['parts'].get(part) or how}"
    try:
        torch.ops.load_library(paths[0])
    except OSError as error:
        return f"built but failed to load: {error.__cause__ or error}"
    return None


@functools.cache
def load_cpu() -> str | None:
    """Register the C++ kernels for this machine's instruction set; None, or why there are none."""
    supported = supported_isas()
    wanted = supported[: supported.index(cpu_isa()) + 1]
    return _load("cpu", [_LIBRARIES[isa] for isa in reversed(wanted)])


@functools.cache
def load_cuda() -> str | None:
    """Register the compiled CUDA kernels; None, or why there are none. Called on first GPU use."""
    return _load("cuda", ["_C_cuda"])
