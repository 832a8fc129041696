"""Latency of one clip on a CPU, and of a frame of a stream: ``python -m benchmarks.latency``.

Writes docs/latency.md. Ours, its forms of lower precision and, where there is one, the published
network in plain PyTorch take turns on the same clip; all run under ``inference_mode`` with the
allocator as it is. ``--trained runs/NAME ...`` adds accuracies in every precision, on the test
clips of those runs.
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
from benchmarks.report import markdown
from skelops.models import build_classifier, create_model, create_pretext, list_models
from skelops.quantize import quantize
from skelops.stream import Continual

PAGE = Path(__file__).parent.parent / "docs" / "latency.md"
SIZES = {"N": 1, "M": 2}
TRANSFORMER = "mamp"
# (C, V, M) of a clip, and frames where a network fixes them.
JOINTS = (3, 25, 2)
OTHERS: dict[str, tuple[int, int, int]] = {
    "cascade_former": (3, 25, 1),
    "epam_net_pose": (2, 17, 2),
    "finetec": (2, 17, 1),
    "posec3d": (2, 17, 2),
    "ssl_strl": (2, 17, 2),
}
MODELS = [name for name in list_models() if not name.startswith("psumnet_")] + [TRANSFORMER]
PRECISIONS = ("float32", "bfloat16", "int8")
Form = Callable[[Tensor], Tensor]


def build(name: str, frames: int) -> nn.Module:
    if name == TRANSFORMER:
        encoder = create_pretext(name, num_frames=frames).encoder
        return build_classifier(encoder, num_classes=60).eval()
    fixed = {"finetec": {"frames": frames}, "ssl_strl": {"num_frames": frames}}
    return create_model(name, num_classes=60, **fixed.get(name, {})).eval()


def forms(model: nn.Module) -> dict[str, Form]:
    """The network by precision: as it is, under autocast, and with linear layers in int8, if these
    are most of it."""

    def bfloat16(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x).float()

    found: dict[str, Form] = {"float32": model, "bfloat16": bfloat16}
    rounded = quantize(model)
    left, whole = (sum(p.numel() for p in m.parameters()) for m in (rounded, model))
    if 2 * left < whole:
        found["int8"] = rounded
    return found


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


def clip_row(name: str, threads: int, frames: int, seconds: float) -> list[str]:
    torch.set_num_threads(threads)
    C, V, M = OTHERS.get(name, JOINTS)
    x = torch.randn(1, C, frames, V, M)
    runs, theirs = forms(build(name, frames)), published(name)
    if theirs is not None:
        runs["published"] = theirs.eval()
    with torch.inference_mode():
        measured = times([lambda run=run: run(x) for run in runs.values()], seconds)
    found = dict(zip(runs, measured, strict=True))
    cells = [_rate(found[p]) if p in found else "-" for p in PRECISIONS]
    gain = "-"
    if theirs is not None:
        gain = f"{np.median(found['published'] / found['float32']):.1f}x"
    return [name, f"{threads}", *cells, gain]


def _rate(measured: np.ndarray) -> str:
    p50, p99 = np.percentile(measured, [50, 99])
    return f"{1e3 / p50:.1f}, {p50:.0f} / {p99:.0f}"


def trained_row(run: str, seconds: float) -> list[str]:
    """Size, and by precision top-1 of the run's test clips and clips per second, one at a time."""
    from skelops.train import SkeletonDataModule, load_recognizer
    from skelops.train.cli import TRANSFERS
    from skelops.train.pretrain import data_settings, run_folder

    torch.set_num_threads(1)
    model = load_recognizer(run).model
    data = SkeletonDataModule(**data_settings(run))
    batches = list(data.test_dataloader())
    found = forms(model)
    right = dict.fromkeys(found, 0)
    with torch.inference_mode():
        for x, y, _ in batches:
            for precision, form in found.items():
                right[precision] += int((form(x).argmax(1) == y).sum())
        one = batches[0].x[:1]
        measured = times([lambda form=form: form(one) for form in found.values()], seconds)
    rates = dict(zip(found, (1e3 / np.median(t) for t in measured), strict=True))
    count = sum(len(y) for _, y, _ in batches)
    cells = [
        f"{100 * right[p] / count:.1f} %, {rates[p]:.0f}" if p in found else "-" for p in PRECISIONS
    ]
    size = sum(p.numel() for p in model.parameters()) / 1e6
    folder = run_folder(run)
    name = f"{folder.parent.name}/{folder.name}" if folder.name in TRANSFERS else folder.name
    return [name, f"{size:.2f} M", f"{count}", *cells]


def stream_rows(
    name: str, threads: int, frames: int, stride: int, seconds: float
) -> list[list[str]]:
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
        [
            name, f"{threads}", what,
            f"{1e3 * stride / np.median(t):.0f}", f"{np.median(window / t):.1f}x",
        ]
        for what, t in rows
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing per row")
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS)
    parser.add_argument("--streams", nargs="*", default=["st_gcn", "st_gcn_pp"])
    parser.add_argument("--trained", nargs="*", default=[], help="runs of skelops fit or finetune")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args(argv)
    counts = sorted({1, min(2, torch.get_num_threads())})
    clips = [clip_row(m, n, args.frames, args.seconds) for n in counts for m in args.models]
    trained = [trained_row(run, args.seconds) for run in args.trained]
    streams = [
        row
        for name in args.streams
        for row in stream_rows(name, 1, args.frames, args.stride, args.seconds)
    ]
    header = ["model", "threads", *PRECISIONS, "published"]
    page = f"""# Latency on a CPU

{device_name("cpu")}, torch {torch.__version__}; clips of {args.frames} frames, 25 joints and 2
persons, one at a time: clips per second, then the median and the 99th percentile of a clip's time
in ms. CascadeFormer sees one person; PoseC3D, the pose stream of EPAM-Net, STRL and FineTec see 17
joints in a picture, FineTec of one person. "Published" is the time of the published network in
plain PyTorch over ours in float32, taken in turns. bfloat16 is autocast. int8 is
`skelops.quantize.quantize`, of networks that are mostly linear layers.
PYSKL's author reports 7.2 clips/s of CTR-GCN and 8.9 of ST-GCN++ on the 8 cores of a laptop.
`python -m benchmarks.latency` repeats it.

{markdown(header, clips)}
## Accuracy by precision

{_accuracy(trained)}
## Streams

Frames per second of a live stream: `skelops.stream.Continual` computes every frame once, the window
runs the network on the last {args.frames} frames.

{markdown(["model", "threads", "form", "frames/s", "over the window"], streams)}"""
    args.output.write_text(page, encoding="utf-8")
    print(page)


def _accuracy(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Not measured.\n"
    header = ["run", "parameters", "test clips", *PRECISIONS]
    what = "Top-1 of the test clips of trained networks, and clips/s on one thread, one at a time."
    return f"{what}\n\n{markdown(header, rows)}"


if __name__ == "__main__":
    main()
