"""Everything a machine with a GPU can tell, in one command of less than nine minutes.

``python -m benchmarks.gpu_check`` builds the native parts, tests the GPU kernels, and measures ops
and models; results are written as they come, so that nothing is lost when it is cut off. They go
to the folder named by the environment variable OUT, or to ``benchmarks/results/<device>``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable


class Section(NamedTuple):
    """Commands at the same time, each in a process that cannot take the others down."""

    name: str
    seconds: float
    commands: list[list[str]]


def _pytest(*arguments: str) -> list[str]:
    parallel = ["-n", "8"] if importlib.util.find_spec("xdist") else []
    quiet = ["-q", "-p", "no:cacheprovider", "--tb=short"]
    return [PYTHON, "-m", "pytest", *quiet, *parallel, *arguments]


def _bench(seconds: float, store: list[str], *arguments: str) -> list[str]:
    """A run that stops by itself before its section is cut off."""
    command = [PYTHON, "-m", "benchmarks.run", "--device", "cuda", "--seconds", "0.4"]
    return [*command, "--budget", str(seconds - 15), *arguments, *store]


def sections(store: list[str]) -> list[Section]:
    """In the order of their worth; what one leaves of its time, the later ones may use."""
    ops = ["--op", *(path.stem for path in sorted((ROOT / "benchmarks/ops").glob("[a-z]*.py")))]
    models = ["--model", *(p.stem for p in sorted((ROOT / "benchmarks/models").glob("[a-z]*.py")))]
    both = ["--dtype", "bfloat16", "float32"]
    kernels = ["--backend", "triton", "--backend", "cuda"]
    compiled = ["--against", "eager", "compile"]
    warm = [PYTHON, "-m", "benchmarks.run", "--device", "cuda", *ops, *both, "--headline"]
    count = max((os.cpu_count() or 2) - 2, 1)
    kernel_tests = _pytest("tests/contract/test_contract.py", "--reduced", *kernels)
    return [
        Section("build", 120, [[PYTHON, "setup.py", "-q", "build_ext", "--inplace"]]),
        Section("info", 30, [[PYTHON, "-m", "skelops", "info"]]),
        Section("warm", 60, [[*warm, "--warm", f"{i}/{count}"] for i in range(count)]),
        Section("contract", 90, [kernel_tests]),
        Section("ops", 70, [_bench(70, store, *ops, *both, "--headline")]),
        Section("models", 50, [_bench(50, store, *models, *both)]),
        Section("ops, compiled", 110, [_bench(110, store, *ops, *both, "--headline", *compiled)]),
        Section(
            "models, compiled",
            130,
            [_bench(130, store, *models, *both, *compiled, "--compile-limit", "80")],
        ),
        Section("all ops", 110, [_bench(110, store, *ops, *both, "--missing")]),
        Section("gpu tests", 90, [_pytest("-m", "gpu", "--ignore=tests/contract")]),
        Section("whole contract", 400, [_pytest("tests/contract/test_contract.py", *kernels)]),
    ]


def run(section: Section, seconds: float, log: Path) -> str:
    """Run a section; its outcome in words."""
    with log.open("a") as output:
        output.write(f"\n== {section.name}: {' '.join(section.commands[0])}\n")
        output.flush()
        processes = [
            subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            for command in section.commands
        ]
        deadline = time.monotonic() + seconds
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    codes = [process.returncode for process in processes]
    if -signal.SIGKILL in codes:
        return f"cut off after {seconds:.0f} s"
    return "passed" if not any(codes) else f"FAILED ({max(codes, key=abs)})"


def last_lines(log: Path, section: str, count: int = 12) -> str:
    text = log.read_text(errors="replace").rpartition(f"== {section}:")[2]
    return "\n".join(line[:160] for line in text.rstrip().splitlines()[1:][-count:])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--seconds", type=float, default=525.0, help="for everything together")
    parser.add_argument("--only", nargs="+", help="names of sections")
    parser.add_argument("--without-gpu", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    begin = time.monotonic()

    import torch

    if not torch.cuda.is_available() and not options.without_gpu:
        print("gpu_check: no CUDA device", file=sys.stderr)
        return 2
    # Children build and use the kernels: this process must not hold the package or the device.
    folder = Path(os.environ["OUT"]) if os.environ.get("OUT") else None
    store = ["--json", str(folder / "gpu_check.json")] if folder else ["--json"]
    log = (folder or ROOT / "build") / "gpu_check.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")

    outcomes = []
    for section in sections(store):
        if options.only and section.name not in options.only:
            continue
        left = options.seconds - (time.monotonic() - begin)
        if left < 15:
            outcomes.append((section.name, 0.0, "no time left"))
            continue
        started = time.monotonic()
        outcome = run(section, min(left, section.seconds), log)
        outcomes.append((section.name, time.monotonic() - started, outcome))
        print(f"{section.name}: {outcome}", flush=True)
        if outcome != "passed" or section.name in ("info", "contract"):
            print(last_lines(log, section.name), flush=True)

    _print_summary(folder)
    for name, seconds, outcome in outcomes:
        print(f"{name:18s}{seconds:6.0f} s  {outcome}")
    print(f"log: {log}")
    return int(any("FAILED" in outcome for *_, outcome in outcomes))


def _print_summary(folder: Path | None) -> None:
    from benchmarks import records
    from benchmarks.records import HEADER, row, table

    if folder:
        found = records.load(folder / "gpu_check.json")
    else:
        paths = (records.RESULTS / records.slug(records.device_name("cuda"))).glob("*.json")
        found = [record for path in sorted(paths) for record in records.load(path)]
    if found:
        columns = [
            i for i, name in enumerate(HEADER) if name not in ("NumPy ms", "saved MiB", "target")
        ]
        rows = [[row(record)[i] for i in columns] for record in found]
        print(table([HEADER[i] for i in columns], rows))


if __name__ == "__main__":
    sys.exit(main())
