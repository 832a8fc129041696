"""``skelops bench-train``: training speed and peak memory of models on this machine.

Each configuration runs in a process of its own, on the synthetic clips, loader included. Its peer
is the same network on the reference ops, fed by a NumPy feeder that prepares one clip at a time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skelops import use_backend
from skelops.data import Clips
from skelops.models import create_model, list_models

WARM_UP = 3
SPINE = 1  # the middle of the spine in ntu25, the origin
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
HEADER = ("model", "batch", "precision", "compile", "ops and feeder", "clips/s", "ratio",
          "data share", "peak MiB")  # fmt: skip


class ClipFeeder(Dataset):
    """One clip at a time in NumPy, by the laws of the CTR-GCN feeder: the peer of the loader.

    Args:
        clips: in ntu25 order.
        window: frames T per sample.
        train: random crop and rotation instead of the central crop.
        seed: of the random numbers.
    """

    def __init__(self, clips: Clips, window: int, *, train: bool = True, seed: int = 0) -> None:
        self.clips, self.window, self.train = clips, window, train
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """x (C, T, V, M) float32 and the label of a clip."""
        xyz = self.clips[index]
        present = (xyz != 0).any((2, 3), keepdims=True)
        first = int(np.argmax(present[:, 0]))
        xyz = np.where(present, xyz - xyz[first, 0, SPINE], 0)
        xyz = self._resize(self._crop(xyz))
        if self.train:
            xyz = xyz @ self._rotation().T
        return np.ascontiguousarray(xyz.transpose(3, 0, 2, 1), np.float32), self.clips.label[index]

    def _crop(self, xyz: np.ndarray) -> np.ndarray:
        length = len(xyz)
        if not self.train:
            skip = int((1 - 0.95) * length / 2)
            return xyz[skip : length - skip]
        size = min(max(int(self.rng.uniform(0.5, 1) * length), 64), length)
        start = self.rng.integers(0, length - size + 1)
        return xyz[start : start + size]

    def _resize(self, xyz: np.ndarray) -> np.ndarray:
        position = np.maximum((np.arange(self.window) + 0.5) * len(xyz) / self.window - 0.5, 0)
        low = position.astype(int)
        high = np.minimum(low + 1, len(xyz) - 1)
        weight = (position - low).astype(np.float32)[:, None, None, None]
        return xyz[low] * (1 - weight) + xyz[high] * weight

    def _rotation(self) -> np.ndarray:
        angles = self.rng.uniform(-0.3, 0.3, 3)
        (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
        x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
        y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
        return (z @ y @ x).astype(np.float32)


def measure(
    model: str,
    batch: int,
    precision: str = "fp32",
    compile: bool = False,
    peer: str = "skelops",
    steps: int = 10,
    window: int = 64,
    num_workers: int = 0,
    model_kwargs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a few steps in this process.

    Args:
        model: name for :func:`skelops.models.create_model`.
        batch: clips per step.
        precision: "fp32" or "bf16" (autocast).
        compile: compile the network.
        peer: "skelops", or "reference" for the reference ops and :class:`ClipFeeder`.
        steps: steps that are timed, after three that are not.
        window: frames T per clip.
        num_workers: worker processes of the loader or feeder.
        model_kwargs: further arguments of the model.

    Returns:
        ``clips_per_s`` by the median step, ``data_share`` of the step time that was spent waiting
        for batches and ``peak_mib``: of the process on a CPU, allocated by torch on a GPU.
    """
    from skelops.train.data import SkeletonDataModule

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    data = SkeletonDataModule(
        num_clips=384, window=window, batch_size=batch, num_workers=num_workers
    )
    facts = {k: getattr(data, k) for k in ("num_classes", "layout", "num_persons", "in_channels")}
    network = create_model(model, **facts, **(model_kwargs or {})).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, nesterov=True)
    if compile:
        network.compile()
    loader: Any = data.train_dataloader()
    if peer == "reference":
        feeder = ClipFeeder(data.clips.select(data.index[0]), window)
        loader = DataLoader(feeder, batch, shuffle=True, drop_last=True, num_workers=num_workers)
    half = PRECISIONS[precision]
    waits, seconds = [], []
    with use_backend("reference") if peer == "reference" else nullcontext():
        batches = _forever(loader)
        for _ in range(WARM_UP + steps):
            begin = time.perf_counter()
            x, y = next(batches)[:2]
            waits.append(time.perf_counter() - begin)
            with torch.autocast(device, half) if half else nullcontext():
                logits = network(x.to(device))
            torch.nn.functional.cross_entropy(logits.float(), y.to(device)).backward()
            optimizer.step()
            optimizer.zero_grad()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
    return {
        "clips_per_s": batch / statistics.median(seconds[WARM_UP:]),
        "data_share": sum(waits[WARM_UP:]) / sum(seconds[WARM_UP:]),
        "peak_mib": _peak_bytes(device) / 2**20,
    }


def _forever(loader: Any) -> Iterator[Sequence[Tensor]]:
    while True:
        yield from loader


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure every combination, print a table, write it as JSON.

    Returns:
        One record per configuration.

    Raises:
        SystemExit: arguments that do not parse.
    """
    parser = argparse.ArgumentParser(prog="skelops bench-train", description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", default=["ctr_gcn"], choices=list_models())
    parser.add_argument("--batch", nargs="+", type=int, default=[16])
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=list(PRECISIONS))
    parser.add_argument("--compile", action="store_true", help="also under torch.compile")
    parser.add_argument("--against", nargs="*", default=["reference"], choices=["reference"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--model-kwargs", type=json.loads, default={}, help="JSON")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(**args.measure)))
        return []

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"window {args.window}, {args.steps} steps")  # fmt: skip
    print(_line(HEADER))
    records: list[dict[str, Any]] = []
    grid = itertools.product(args.model, args.batch, args.precision, range(args.compile + 1))
    for model, batch, precision, compile in grid:
        ours = None
        for peer in ["skelops", *args.against]:
            setting = {"model": model, "batch": batch, "precision": precision,
                       "compile": bool(compile), "peer": peer}  # fmt: skip
            found = _in_process({
                **setting, "steps": args.steps, "window": args.window,
                "num_workers": args.num_workers, "model_kwargs": args.model_kwargs,
            })  # fmt: skip
            ours = ours or found["clips_per_s"]
            records.append({**setting, **found, "ratio": ours / found["clips_per_s"]})
            print(_line(_cells(records[-1])), flush=True)
    if args.json:
        environment = {
            "device": device,
            "machine": platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "window": args.window,
            "steps": args.steps,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"environment": environment, "records": records}, indent=1)
        args.json.write_text(text + "\n", encoding="utf-8")
    return records


def _in_process(setting: dict[str, Any]) -> dict[str, Any]:
    """``measure`` in a process of its own, with the allocator tuned alike for both sides."""
    command = [sys.executable, "-m", "skelops", "bench-train", "--measure", json.dumps(setting)]
    done = subprocess.run(command, env=ALLOCATOR | os.environ, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"skelops bench-train: {setting} failed\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _cells(record: dict[str, Any]) -> tuple[str, ...]:
    return (
        record["model"],
        str(record["batch"]),
        record["precision"],
        "yes" if record["compile"] else "no",
        record["peer"],
        f"{record['clips_per_s']:.1f}",
        f"{record['ratio']:.2f}x",
        f"{100 * record['data_share']:.1f} %",
        f"{record['peak_mib']:.0f}",
    )


def _line(cells: Sequence[str]) -> str:
    return "  ".join(cell.ljust(14 if i in (0, 4) else 10) for i, cell in enumerate(cells))


if __name__ == "__main__":
    main()
