"""``python -m skelops info``: versions, binaries, and for each op which backend runs where."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence

import torch

import skelops
from skelops import _backend, _build
from skelops._library import OPS

VARIABLES = {
    "SKELOPS_BACKEND": "force one backend for every op",
    "SKELOPS_ISA": "instruction set of the CPU kernels: baseline, v3 or v4",
    "TRITON_INTERPRET": "1 interprets the Triton kernels on a CPU",
}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def report() -> str:
    """The text printed by ``python -m skelops info``."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    lines = [
        f"skelops {skelops.__version__}, torch {torch.__version__}, python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        *(f"{p}: {_version(p)}" for p in ("triton", "lightning")),
        f"CPU threads: {torch.get_num_threads()}; GPU: {gpu}",
        f"CPU kernels: {_build.load_cpu() or 'loaded'} (instruction set {_build.cpu_isa()})",
        *(f"build {key}: {value}" for key, value in _build.build_info().items()),
        "",
    ]
    lines += [
        f"{name}={os.environ.get(name, '')}  ({text})" for name, text in VARIABLES.items()
    ] + [""]
    for op in OPS.values():
        lines.append(op.name)
        for device in _backend.DEVICES:
            backend, reasons = _backend.active(op, device)
            why = "".join(f"; not {b}: {r}" for b, r in reasons.items())
            lines.append(f"  {device}: {backend}{why}")
    return "\n".join(lines)


def main(_: Sequence[str] = ()) -> None:
    print(report())
