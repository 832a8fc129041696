"""Measure ops and models against what a user would otherwise run.

python -m benchmarks.run --op ctr_graph_conv --against eager compile --device cpu
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure, records
from benchmarks.case import (
    COMPILE,
    FAISS,
    NUMPY,
    PINOCCHIO,
    SDPA,
    Case,
    Variant,
    model_cases,
    op_cases,
    settings,
)
from benchmarks.clock import clock
from benchmarks.records import HEADER, Record, ours_ms, peer_ms, row, table
from benchmarks.roofline import roofs
from skelops.testing.threads import threads

# glibc returns blocks over 32 MiB to the kernel at every free; each next use then faults its pages
# in again. Tuned keeps them, for both sides.
ALLOCATOR = {
    "default": {},
    "tuned": {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"},
}


def allocator() -> str:
    """The setting this process runs under."""
    mine = {name: os.environ[name] for name in ALLOCATOR["tuned"] if name in os.environ}
    return next((name for name, wanted in ALLOCATOR.items() if wanted == mine), "custom")


def _setting(device: str, dtype: torch.dtype) -> Record:
    on_cpu = device == "cpu"
    return {
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads() if on_cpu else None,
        "allocator": allocator() if on_cpu else None,
    }


def _environment(setting: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ALLOCATOR["tuned"]}
    return kept | ALLOCATOR[setting]


def _compile_apart(
    work: str,
    case: Case,
    direction: str,
    name: str,
    device: str,
    dtype: torch.dtype,
    limit: float,
) -> str | None:
    """Fill torch's compilation cache in a process of its own; None, or why that failed."""
    command = [sys.executable, "-m", "benchmarks.run", "--model", work, "--case", case.name]
    command += ["--direction", direction, "--device", device, "--compile-only", name]
    command += ["--dtype", str(dtype).removeprefix("torch.")]
    command += ["--threads", str(torch.get_num_threads())]
    child = subprocess.Popen(
        command, cwd=records.ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return f"did not compile in {limit:.0f} s"
    return f"failed: {errors.strip().splitlines()[-1][:200]}" if child.returncode else None


def _variants(
    work: str,
    case: Case,
    direction: str,
    against: Sequence[str],
    device: str,
    dtype: torch.dtype,
    compile_limit: float,
) -> tuple[dict[str, Variant], dict[str, str]]:
    """Ours and the peers, and why those that do not compile are missing."""
    asked = [peer for peer in against if peer in case.peers]
    wanted = [name for peer in asked for name in settings(peer, device)]
    skipped = {}
    if case.slow_to_compile:
        for name in [n for n in wanted if n in COMPILE]:
            reason = _compile_apart(work, case, direction, name, device, dtype, compile_limit)
            if reason is not None:
                skipped[name] = reason
    variants = case.variants(direction, [n for n in wanted if n not in skipped], device, dtype)
    for name in [n for n in variants if n in COMPILE]:
        try:
            variants[name].run()
        except Exception as error:
            del variants[name]
            skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return variants, skipped


def measure_case(
    work: str,
    case: Case,
    direction: str,
    against: Sequence[str],
    *,
    device: str,
    dtype: torch.dtype,
    roof: dict[str, float],
    environment: Record,
    seconds: float,
    least: int = 5,
    compile_limit: float = 900.0,
) -> Record:
    """Check, time and weigh one case in this process.

    Raises:
        Disagreement: a result of ours, or of a peer that is not compiled, is not the formula's.
    """
    variants, skipped = _variants(work, case, direction, against, device, dtype, compile_limit)
    truth = case.truth(direction, device, dtype)
    allowed = measure.tolerance(device, dtype)
    for name in [n for n in variants if n in COMPILE]:
        compiled = {n: variants[n] for n in ("eager", name) if n in variants}
        try:
            measure.check(compiled, truth, allowed, case.slack)
        except measure.Disagreement as problem:
            del variants[name]
            skipped[name] = str(problem)
    errors = measure.check(variants, truth, allowed, case.slack)
    runs = {name: variant.run for name, variant in variants.items()}
    times = measure.interleave(runs, clock(device), seconds, least=least)

    graphs = _graph_times(variants, clock(device), seconds / 2) if device == "cuda" else {}

    found: dict[str, dict[str, Any]] = {}
    for name, variant in variants.items():
        found[name] = {"ms": measure.summary(times[name]), "error": errors[name]}
        if name in graphs:
            found[name]["graph_ms"] = measure.summary(graphs[name])
        found[name]["peak_bytes"] = measure.peak_bytes(variant.run, device)
        if direction in case.saving:
            found[name]["saved_bytes"] = measure.saved_bytes(variant)
    ratios = {n: measure.ratio(times[n], times["ours"]) for n in variants if n != "ours"}
    speedup = {n: r for n, r in ratios.items() if n not in COMPILE}
    if compiled := [r for n, r in ratios.items() if n in COMPILE]:
        speedup["compile"] = min(compiled)

    flops, moved = case.work(direction, variants["ours"])
    on_target = (device, dtype) == ("cpu", torch.float32)
    return {
        "work": work,
        "case": case.name,
        "direction": direction,
        **_setting(device, dtype),
        "sizes": dict(case.sizes),
        "variants": found,
        "skipped": skipped,
        "ratios": ratios,
        "speedup": speedup,
        "targets": dict(case.targets.get(direction, {})) if on_target else {},
        "flops": flops,
        "bytes": moved,
        "roofs": roof,
        "floor_ms": 1e3 * measure.floor_seconds(flops, moved, roof),
        "environment": environment,
    }


def _graph_times(
    variants: dict[str, Variant], clock: Callable[[Callable[[], Any]], float], seconds: float
) -> measure.Times:
    """Times of the kernels alone, where launching them costs nothing."""
    replays = {name: measure.captured(variant.run) for name, variant in variants.items()}
    return measure.interleave({n: r for n, r in replays.items() if r is not None}, clock, seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--op", nargs="+", default=[], choices=sorted(op_cases()))
    parser.add_argument("--model", nargs="+", default=[], choices=sorted(model_cases()))
    parser.add_argument("--all", action="store_true", help="every op and model, results stored")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--headline", action="store_true", help="only rows of the summary")
    parser.add_argument("--missing", action="store_true", help="only what --json does not hold yet")
    parser.add_argument("--direction", help="only this direction")
    peers = ["eager", "compile", NUMPY, FAISS, PINOCCHIO, SDPA]
    parser.add_argument("--against", nargs="+", default=["eager"], choices=peers)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--allocator", default="tuned", choices=[*ALLOCATOR, "both"])
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing per case")
    parser.add_argument("--compile-limit", type=float, default=900.0, help="of a model, in s")
    parser.add_argument("--warm", metavar="I/N", help="run every N-th case once, from the I-th")
    parser.add_argument("--compile-only", choices=list(COMPILE), help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=float, default=1e9, help="start no case after, in s")
    parser.add_argument("--quick", action="store_true", help="small batch, few rounds, not stored")
    parser.add_argument(
        "--json", nargs="?", const=records.RESULTS, type=Path,
        help="store in this file, or without a name in benchmarks/results",
    )  # fmt: skip
    return parser


def _selected(options: argparse.Namespace) -> Iterator[tuple[str, Case, str]]:
    """Work, case and direction of everything asked for."""
    registered = {**op_cases(), **model_cases()}
    for work in registered if options.all else (*options.op, *options.model):
        for case in registered[work]:
            if options.case not in case.name or (options.headline and not case.headline):
                continue
            if options.device == "cuda":
                case = case.resized(**case.gpu)
            if options.quick:
                case = case.resized(**case.quick)
            for direction in case.directions[-1:] if options.headline else case.directions:
                if options.direction in (None, direction):
                    yield work, case, direction


def _plan(options: argparse.Namespace) -> Iterator[tuple[torch.dtype, str, Case, str]]:
    """Dtype, work, case and direction, under each number of threads."""
    counts = options.threads if options.device == "cpu" else [torch.get_num_threads()]
    for dtype in (getattr(torch, name) for name in options.dtype):
        for count in counts:
            with threads(count):
                yield from ((dtype, *selected) for selected in _selected(options))


def _measure(options: argparse.Namespace, failures: list[str]) -> Iterator[Record]:
    """Records of everything asked for; what fails or is refused goes to ``failures``."""
    begin = time.monotonic()
    environment = records.environment(options.device)
    measured_roofs: dict[tuple, dict[str, float]] = {}
    for dtype, work, case, direction in _plan(options):
        if time.monotonic() - begin > options.budget:
            failures.append(f"{work} {case.name} and all after it: no time left")
            return
        key = {"work": work, "case": case.name, "direction": direction}
        key |= _setting(options.device, dtype)
        if options.missing and _stored(key, environment, options.json):
            continue
        roof = (dtype, torch.get_num_threads())
        if roof not in measured_roofs:
            measured_roofs[roof] = roofs(options.device, dtype)
        try:
            yield measure_case(
                work, case, direction, options.against,
                device=options.device, dtype=dtype, roof=measured_roofs[roof],
                environment=environment, seconds=options.seconds,
                least=3 if options.quick else 5, compile_limit=options.compile_limit,
            )  # fmt: skip
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            failures.append(
                f"{work} {case.name} {direction} {dtype}: {type(error).__name__}: {reason}"
            )


def _warm(options: argparse.Namespace) -> None:
    """Fill Triton's cache of compiled kernels: N processes do it N times as fast."""
    first, _, step = options.warm.partition("/")
    for dtype, _, case, direction in list(_plan(options))[int(first) :: int(step)]:
        case.variants(direction, [], options.device, dtype)["ours"].run()


def _compile_only(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads[0])
    name, dtype = options.compile_only, getattr(torch, options.dtype[0])
    for _, case, direction in _selected(options):
        case.variants(direction, [name], options.device, dtype)[name].run()


def _path(record: Record, path: Path) -> Path:
    return records.default_path(record) if path == records.RESULTS else path


def _stored(wanted: Record, environment: Record, path: Path | None) -> bool:
    if path is None:
        return False
    found = records.load(_path(wanted | {"environment": environment}, path))
    return any(all(r[k] == v for k, v in wanted.items()) for r in found)


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(argv)
    if options.compile_only:
        _compile_only(options)
        return 0
    if options.warm:
        _warm(options)
        return 0
    if options.device == "cpu" and sys.platform == "linux":
        asked = list(ALLOCATOR) if options.allocator == "both" else [options.allocator]
        if asked != [allocator()]:
            command = [sys.executable, "-m", "benchmarks.run", *argv, "--allocator"]
            return max(
                subprocess.call([*command, name], env=_environment(name), cwd=records.ROOT)
                for name in asked
            )
    if options.quick:
        options.seconds = min(options.seconds, 1.0)
    elif options.all and options.json is None:
        options.json = records.RESULTS
    rows: list[list[str]] = []
    failures: list[str] = []
    for record in _measure(options, failures):
        if not rows:
            seen, roof = record["environment"], record["roofs"]
            print(
                f"{seen['device_name']}, torch {seen['torch']}, threads {record['threads']}, "
                f"{record['allocator']} allocator, {roof['gb_s']:.1f} GB/s, "
                f"{roof['gflop_s']:.0f} GFLOP/s",
                flush=True,
            )
        rows.append(row(record))
        print("  ".join(rows[-1]), file=sys.stderr, flush=True)
        if options.json and not options.quick:
            records.merge(_path(record, options.json), record)
    if rows:
        print(table(HEADER, rows))
    for failure in failures:
        print(f"FAILED {failure}")
    return bool(failures)


def quick_table(seconds: float = 30.0) -> str:
    """Speed of every op against eager on one thread of this machine, as a short text."""
    begin = time.monotonic()
    environment = records.environment("cpu")
    rows = []
    with threads(1):
        roof = roofs("cpu", torch.float32, 0.2)
        for name, cases in op_cases().items():
            if time.monotonic() - begin > seconds:
                break
            case = next((c for c in cases if c.headline), cases[0])
            direction = case.directions[-1]
            label = f"{name} ({case.name}), {direction}"
            try:
                record = measure_case(
                    name, case.resized(**case.quick), direction, ["eager"],
                    device="cpu", dtype=torch.float32, roof=roof,
                    environment=environment, seconds=1.0, least=3,
                )  # fmt: skip
            except Exception as error:
                rows.append([label, "failed", str(error).splitlines()[0], ""])
                continue
            times = [f"{ours_ms(record):.1f}", f"{peer_ms(record, 'eager'):.1f}"]
            rows.append([label, *times, f"{record['speedup']['eager']:.1f}x"])
    return table(["1 thread", "skelops ms", "PyTorch ms", "faster"], rows)


if __name__ == "__main__":
    sys.exit(main())
