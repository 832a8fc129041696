"""Everything a machine with a GPU can tell, in one command of less than nine minutes.

``python -m benchmarks.gpu_check`` builds the native parts, tests the GPU kernels, and measures ops
and models; results are written as they come, so that nothing is lost when it is cut off. They go
to the folder named by the environment variable OUT, or to ``benchmarks/results/<device>``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
AT_ONCE = max((os.cpu_count() or 2) - 2, 1)
NOTHING_TO_TEST = 5  # an op without such a kernel


class Section(NamedTuple):
    """Commands, so many at a time, each in a process that cannot take the others down."""

    name: str
    seconds: float
    commands: list[list[str]]


def _pytest(*arguments: str) -> list[str]:
    return [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *arguments]


def _bench(seconds: float, store: list[str], *arguments: str) -> list[str]:
    """A run that stops by itself before its section is cut off."""
    command = [PYTHON, "-m", "benchmarks.run", "--device", "cuda", "--seconds", "0.4"]
    return [*command, "--budget", str(seconds - 15), *arguments, *store]


def sections(store: list[str]) -> list[Section]:
    """In the order of their worth; what one leaves of its time, the later ones may use."""
    names = [path.stem for path in sorted((ROOT / "benchmarks/ops").glob("[a-z]*.py"))]
    ops = ["--op", *names]
    models = ["--model", *(p.stem for p in sorted((ROOT / "benchmarks/models").glob("[a-z]*.py")))]
    both = ["--dtype", "bfloat16", "float32"]
    compiled = ["--against", "eager", "compile"]
    warm = [PYTHON, "-m", "benchmarks.run", "--device", "cuda", *ops, *both, "--headline"]
    parts = 4 * AT_ONCE
    backends = ["--backend", "triton", "--backend", "cuda"]
    contract = _pytest("tests/contract/test_contract.py", *backends)
    kernels = [[*contract, "-k", f"test_contract[{name}-"] for name in names]
    return [
        Section("build", 120, [[PYTHON, "setup.py", "-q", "build_ext", "--inplace"]]),
        Section("info", 30, [[PYTHON, "-m", "skelops", "info"]]),
        Section("contract", 150, [[*command, "--reduced"] for command in kernels]),
        Section("warm", 60, [[*warm, "--warm", f"{i}/{parts}"] for i in range(parts)]),
        Section("ops", 90, [_bench(90, store, *ops, *both, "--headline")]),
        Section("models", 50, [_bench(50, store, *models, *both)]),
        Section("ops, compiled", 110, [_bench(110, store, *ops, *both, "--headline", *compiled)]),
        Section(
            "models, compiled",
            130,
            [_bench(130, store, *models, *both, *compiled, "--compile-limit", "80")],
        ),
        Section("all ops", 110, [_bench(110, store, *ops, *both, "--missing")]),
        Section("gpu tests", 90, [_pytest("-m", "gpu", "--ignore=tests/contract")]),
        Section("whole contract", 400, kernels),
    ]


def run(section: Section, seconds: float, log: Path) -> str:
    """Run a section; its outcome in words."""
    with log.open("a") as output:
        output.write(f"\n== {section.name}: {' '.join(section.commands[0])}\n")
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(AT_ONCE) as pool:
        codes = list(pool.map(lambda command: _call(command, deadline, log), section.commands))
    failed = [code for code in codes if code not in (0, NOTHING_TO_TEST, None)]
    cut = f"{codes.count(None)} of {len(codes)} cut off after {seconds:.0f} s"
    outcome = [f"{len(failed)} of {len(codes)} FAILED"] if failed else []
    return ", ".join([*outcome, *([cut] if None in codes else [])]) or "passed"


def _call(command: list[str], deadline: float, log: Path) -> int | None:
    """The exit code of a command, None if it had to be stopped; what it printed goes to the log."""
    stopped = deadline <= time.monotonic()
    if stopped:
        return None
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        # Interrupted, pytest still says what failed.
        for number in (signal.SIGINT, signal.SIGKILL):
            try:
                process.wait(max(deadline - time.monotonic(), 6.0 if stopped else 0.0))
                break
            except subprocess.TimeoutExpired:
                stopped = True
                os.killpg(process.pid, number)
        process.wait()
        output.seek(0)
        with log.open("a") as whole:
            whole.write(f"-- {' '.join(command[1:])[-200:]}\n{output.read()}")
    return None if stopped else process.returncode


def last_lines(log: Path, section: str, count: int = 12) -> str:
    """What failed of a section, or else its last words."""
    text = log.read_text(errors="replace").rpartition(f"== {section}:")[2]
    lines = [line for line in text.rstrip().splitlines() if not line.startswith("-- ")]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return "\n".join(line[:160] for line in (failed[:40] or lines[1:][-count:]))


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
