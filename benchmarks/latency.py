"""Latency of one clip on a CPU, and of a frame of a stream: ``python -m benchmarks.latency``.

Writes docs/latency.md. Ours and, where there is one, the published network in plain PyTorch take
turns on the same clip; both run under ``inference_mode`` with the allocator as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models.ctr_gcn import EagerCTRGCN
from benchmarks.models.hyper_gcn import NETWORK as HYPER_GCN
from benchmarks.models.patch import CASES as PATCHED
from benchmarks.records import device_name
from skelops.models import create_model
from skelops.stream import Continual

PAGE = Path(__file__).parent.parent / "docs" / "latency.md"
SIZES = {"N": 1, "M": 2}
MODELS = ("st_gcn", "st_gcn_pp", "aagcn", "ctr_gcn", "dg_stgcn", "hyper_gcn", "psumnet")


def published(name: str) -> nn.Module | None:
    if name == "ctr_gcn":
        return EagerCTRGCN(SIZES["M"])
    if name == "hyper_gcn":
        return HYPER_GCN["published"](SIZES)
    found = {"st_gcn_pp": "ST-GCN++", "aagcn": "AAGCN"}.get(name)
    return next((c.published(SIZES) for c in PATCHED if found and c.name.startswith(found)), None)


def times(runs: Sequence[Callable[[], object]], seconds: float) -> list[np.ndarray]:
    """Milliseconds of every call, the functions taking turns."""
    for run in runs:
        run()
    rows, end = [], perf_counter() + seconds
    while perf_counter() < end or len(rows) < 5:
        row = []
        for run in runs:
            begin = perf_counter()
            run()
            row.append(1e3 * (perf_counter() - begin))
        rows.append(row)
    return list(np.array(rows).T)


def clip_row(name: str, threads: int, frames: int, seconds: float) -> str:
    torch.set_num_threads(threads)
    x = torch.randn(1, 3, frames, 25, SIZES["M"])
    ours, theirs = create_model(name, num_classes=60).eval(), published(name)
    runs = [lambda: ours(x)] + ([lambda: theirs.eval()(x)] if theirs is not None else [])
    with torch.inference_mode():
        found = times(runs, seconds)
    p50, p99 = np.percentile(found[0], [50, 99])
    gain = f"{np.median(found[1] / found[0]):.1f}x" if len(found) > 1 else "-"
    return f"| {name} | {threads} | {1e3 / p50:.1f} | {p50:.0f} | {p99:.0f} | {gain} |"


def stream_rows(name: str, threads: int, frames: int, stride: int, seconds: float) -> list[str]:
    """A frame of a stream: by the continual network, and by its window every ``stride`` frames."""
    torch.set_num_threads(threads)
    model = create_model(name, num_classes=60).eval()
    steps = Continual(model, window=frames)
    x = torch.randn(1, 3, frames, 25, SIZES["M"])

    def by_frame() -> Tensor | None:
        for t in range(stride):
            steps(x[0, :, t])
        return None

    for _ in range(frames):
        by_frame()
    with torch.inference_mode():
        online, window = times([by_frame, lambda: model(x)], seconds)
    rows = (("every frame once", online), (f"window of {frames}, every {stride} frames", window))
    return [
        f"| {name} | {threads} | {what} | {1e3 * stride / np.median(t):.0f} | "
        f"{np.median(window / t):.1f}x |"
        for what, t in rows
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing per row")
    parser.add_argument("--models", nargs="+", default=MODELS)
    args = parser.parse_args(argv)
    counts = sorted({1, min(2, torch.get_num_threads())})
    clips = [clip_row(m, n, args.frames, args.seconds) for n in counts for m in args.models]
    streams = [
        row
        for name in ("st_gcn", "st_gcn_pp")
        for row in stream_rows(name, 1, args.frames, args.stride, args.seconds)
    ]
    page = f"""# Latency on a CPU

{device_name("cpu")}, torch {torch.__version__}, float32; clips of {args.frames} frames, 25 joints
and 2 persons, one at a time. "Published" is the time of the published network in plain PyTorch over
ours, taken in turns. `python -m benchmarks.latency` repeats it.

| model | threads | clips/s | p50 ms | p99 ms | published |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(clips)}

## Streams

Frames per second of a live stream: `skelops.stream.Continual` computes every frame once, the window
runs the network on the last {args.frames} frames.

| model | threads | form | frames/s | over the window |
| --- | --- | --- | --- | --- |
{chr(10).join(streams)}
"""
    PAGE.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
