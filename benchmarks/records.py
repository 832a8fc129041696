"""Results: what was measured, on what, where it is kept and how it reads."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import COMPILE, NUMPY

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
MIB = 2**20
KEY = ("work", "case", "direction", "device", "dtype", "threads", "allocator")

GENERATED = (":!benchmarks/results", ":!benchmarks/trainings", ":!docs", ":!README.md")

Record = dict[str, Any]


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*: (.+)", cpuinfo)
    return found[1].strip() if found else platform.machine()


def machine(environment: Record) -> str:
    """What a table is of: a device and, as one name covers several generations, its vectors."""
    vectors = environment.get("instruction_set")
    return environment["device_name"] + (f" ({vectors})" if vectors else "")


def slug(name: str) -> str:
    """ "Intel(R) Xeon(R) @ 2.50GHz" -> "intel-xeon-2.50ghz"."""
    name = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b", " ", name.lower())
    return re.sub(r"[^a-z0-9.]+", "-", name).strip("-")


def _git(*command: str) -> str | None:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(device: str) -> Record:
    """Everything a reader needs to judge or repeat a number."""
    from skelops import _backend, _build
    from skelops._library import OPS

    found = {
        "device_name": device_name(device),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", *GENERATED)),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "backends": {name: _backend.active(op, device)[0] for name, op in OPS.items()},
    }
    if device == "cpu":
        found["instruction_set"] = _build.cpu_isa()
        found["load"] = round(os.getloadavg()[0], 1)
    else:
        found["cuda"] = torch.version.cuda
        found["tf32"] = {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolution": torch.backends.cudnn.allow_tf32,
        }
    return found


def load(path: Path) -> list[Record]:
    return json.loads(path.read_text())["records"] if path.exists() else []


def merge(path: Path, fresh: Record) -> None:
    """Add a record to a file, in place of an older one of the same work, in one atomic step."""
    same = [fresh[k] for k in KEY]
    kept = [r for r in load(path) if [r[k] for k in KEY] != same]
    kept = sorted([*kept, fresh], key=lambda r: [str(r[k]) for k in KEY])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    draft.write_text(json.dumps({"records": kept}, indent=1) + "\n")
    draft.replace(path)


def default_path(record: Record, folder: Path = RESULTS) -> Path:
    return folder / slug(machine(record["environment"])) / f"{record['work']}.json"


# Reading a record


def ours_ms(record: Record) -> float:
    return record["variants"]["ours"]["ms"]["median"]


def peer_ms(record: Record, peer: str) -> float | None:
    """Median of a peer; of "compile" that of its better setting."""
    names = COMPILE if peer == "compile" else (peer,)
    times = [record["variants"][n]["ms"]["median"] for n in names if n in record["variants"]]
    return min(times, default=None)


def graph_ms(record: Record, variant: str) -> float | None:
    """Median of a variant replayed as a CUDA graph: its kernels without their launches."""
    found = record["variants"].get(variant, {}).get("graph_ms")
    return found and found["median"]


def busy_ms(record: Record) -> float:
    """Time the device works for us."""
    return graph_ms(record, "ours") or ours_ms(record)


def rate(record: Record) -> float:
    """Samples per second; the first size of a case counts them."""
    return 1e3 * next(iter(record["sizes"].values())) / ours_ms(record)


def bandwidth(record: Record) -> float:
    """GB/s, counting every tensor once."""
    return record["bytes"] / busy_ms(record) / 1e6


def of_floor(record: Record) -> float:
    """How near the time is to the roofline; 1 is at the roof."""
    return record["floor_ms"] / busy_ms(record)


def saved_share(record: Record) -> float | None:
    """Bytes kept for the backward, as a share of eager's."""
    ours, eager = (record["variants"].get(n, {}).get("saved_bytes") for n in ("ours", "eager"))
    return ours / eager if ours is not None and eager else None


def verdicts(record: Record) -> dict[str, tuple[str, bool | None]]:
    """Target -> (the condition, whether it is met; None if it was not measured)."""
    found = {}
    for name, bound in record["targets"].items():
        if name == "saved":
            share = saved_share(record)
            met = None if share is None else share <= bound
            found[name] = (f"saved <= {bound:g}x", met)
        elif name == "rate":
            met = rate(record) >= bound * (record["threads"] or 1)
            found[name] = (f"samples/s >= {bound:.0f} per thread", met)
        else:
            factor = record["speedup"].get(name)
            met = None if factor is None else factor >= bound
            found[name] = (f"{name} >= {bound:g}x", met)
    return found


# Printing

MET = {True: "met", False: "MISSED", None: "not measured"}


def row(record: Record) -> list[str]:
    def ratio(peer: str) -> str:
        factor = record["speedup"].get(peer)
        return "-" if factor is None else f"{peer_ms(record, peer):.1f} ({factor:.2f}x)"

    def replay(name: str) -> str:
        ours, theirs = graph_ms(record, "ours"), graph_ms(record, name)
        if ours is None or theirs is None:
            return "-"
        return f"{theirs:.2f}" if name == "ours" else f"{theirs:.2f} ({theirs / ours:.2f}x)"

    def mib(key: str) -> str:
        sides = [record["variants"].get(n, {}).get(key) for n in ("ours", "eager")]
        return "/".join("-" if s is None else f"{s / MIB:.0f}" for s in sides)

    goals = [f"{text} {MET[met]}" for text, met in verdicts(record).values()]
    return [
        f"{record['work']} {record['case']}",
        record["direction"],
        record["dtype"],
        f"{ours_ms(record):.2f}",
        ratio("eager"),
        ratio("compile"),
        ratio(NUMPY),
        *(replay(name) for name in GRAPHED),
        f"{rate(record):.0f}",
        f"{bandwidth(record):.1f}",
        f"{100 * of_floor(record):.0f}",
        mib("peak_bytes"),
        mib("saved_bytes"),
        "; ".join(goals) or "-",
    ]


GRAPHED = ("ours", "eager", "compile")
HEADER = ["work", "direction", "dtype", "ours ms", "eager ms", "compile ms", "NumPy ms"]
HEADER += [f"{name} graph ms" for name in GRAPHED]
HEADER += ["samples/s", "GB/s", "% floor", "peak MiB", "saved MiB", "target"]


def table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * w for w in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
