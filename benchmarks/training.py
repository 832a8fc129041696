"""Trainings on recorded data: run one, keep its curve and accuracy, render the table.

python -m benchmarks.training run nw_ucla-ctr_gcn_small-joint --source path/to/nw_ucla.npz
python -m benchmarks.training fuse nw_ucla-ctr_gcn_small
python -m benchmarks.training fuse nw_ucla-psumnet_small
python -m benchmarks.training report
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import records
from benchmarks.report import between, markdown

RESULTS = Path(__file__).resolve().parent / "trainings"
PAGE = records.ROOT / "docs" / "training.md"
STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
PARTS = ("body", "hand", "leg")


@dataclass(frozen=True)
class Training:
    """A training: the recipes it composes, further arguments, and what is known of it."""

    title: str
    recipes: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    published: str = "-"

    def command(self, name: str, source: str) -> list[str]:
        configs = [word for recipe in self.recipes for word in ("--config", recipe)]
        where = ["--data.source", source, "--trainer.default_root_dir", f"runs/{name}"]
        return ["skelops", "fit", *configs, *where, *self.arguments]


# The full network in a short cycle, in batches that fill a GPU.
_SHORT = ("--model.schedule", "one_cycle", "--model.lr", "0.1", "--model.reference_batch", "64")
_SHORT += ("--data.batch_size", "64", "--trainer.max_epochs", "40")
_FOUR = "96.5, four streams of the full network (Chen et al., ICCV 2021)"
_PRMD = "UI-PRMD odd/even subjects, 20 classes: movement x correctness"
_CORRECT = ("--data.divide", "correct", "--data.repeat", "2", "--data.window", "40")
_ROOTED = ("--data.transform", "hyper_gcn")
# What Hyper-GCN trains on: title, recipes, arguments and streams.
_HYPER = {
    "nw_ucla": ("NW-UCLA cross-view", ("nw_ucla", "nw_ucla_drop"), (), STREAMS),
    "ui_prmd20": (
        _PRMD,
        ("ui_prmd",),
        (*_CORRECT, *_ROOTED),
        ("joint",),
    ),
    "synthetic": ("Synthetic set, unseen subjects", ("synthetic",), _ROOTED, ("joint",)),
}
TRAININGS = {
    **{
        f"nw_ucla-ctr_gcn_small-{stream}": Training(
            f"NW-UCLA cross-view, CTR-GCN of half width, {stream}",
            ("nw_ucla", "ctr_gcn_small", stream),
            published=_FOUR,
        )
        for stream in STREAMS
    },
    "nw_ucla-st_gcn_pp_small-joint": Training(
        "NW-UCLA cross-view, ST-GCN++ of half width, joint",
        ("nw_ucla", "ctr_gcn_small", "joint"),
        ("--model.model", "st_gcn_pp"),
    ),
    "ui_prmd20-ctr_gcn_small-joint": Training(
        f"{_PRMD}, CTR-GCN of half width",
        ("ui_prmd", "ctr_gcn_small", "joint"),
        _CORRECT,
    ),
    **{
        f"{data}-{method}-{part}": Training(
            f"{title}, PSUMNet{' of half width' if method == 'psumnet_small' else ''}, {part}",
            (data.rstrip("0123456789"), recipe, f"psumnet_{part}"),
            arguments,
        )
        for data, title, arguments in (
            ("nw_ucla", "NW-UCLA cross-view", ()),
            ("ui_prmd20", _PRMD, _CORRECT),
            ("synthetic", "Synthetic set, unseen subjects", ()),
        )
        for method, recipe in (("psumnet_small", "ctr_gcn_small"), ("psumnet", "psumnet"))
        for part in PARTS
    },
    **{
        f"nw_ucla-ctr_gcn-{stream}": Training(
            f"NW-UCLA cross-view, CTR-GCN, {stream}",
            ("ctr_gcn", "nw_ucla", stream),
            published=_FOUR,
        )
        for stream in STREAMS
    },
    **{
        f"{data}-hyper_gcn_small-{stream}": Training(
            f"{title}, Hyper-GCN of half width, {stream}",
            (*recipes, "hyper_gcn_small", stream),
            arguments,
        )
        for data, (title, recipes, arguments, streams) in _HYPER.items()
        for stream in streams
    },
    **{
        f"{data}-hyper_gcn-{stream}": Training(
            f"{title}, Hyper-GCN, {stream}",
            ("hyper_gcn", *recipes, stream),
            (*arguments, *_SHORT),
        )
        for data, (title, recipes, arguments, streams) in _HYPER.items()
        for stream in streams
    },
}


def run(name: str, source: str) -> Path:
    """Train, evaluate the last epoch and write ``benchmarks/trainings/<name>.json``."""
    training = TRAININGS[name]
    command = training.command(name, source)
    folder = Path("runs") / name
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], check=True)
    seconds = time.perf_counter() - begin
    predict = [word if word != "fit" else "predict" for word in command]
    predict += ["--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]
    subprocess.run([sys.executable, "-m", *predict], check=True)
    curve = _curve(sorted(folder.glob("csv/version_*/metrics.csv"))[-1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shown = " ".join(training.command(name, "PATH"))
    record = {
        "title": training.title,
        "command": shown,
        "published": training.published,
        "seconds": round(seconds),
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "epochs": len(curve),
        **{key: curve[-1][f"val_{key}"] for key in ("top1", "top5", "mean_class")},
        "curve": curve,
        "environment": records.environment(device),
    }
    return _write(name, record)


def _curve(path: Path) -> list[dict[str, float]]:
    """Losses and accuracies per epoch, from Lightning's CSV log."""
    epochs: dict[int, dict[str, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found = {k: float(v) for k, v in row.items() if v and k.startswith(("train_", "val_"))}
            if found:
                epochs.setdefault(int(row["epoch"]), {"epoch": int(row["epoch"])}).update(found)
    return [epochs[epoch] for epoch in sorted(epochs)]


def fuse(group: str) -> Path:
    """Fuse the four streams, or the three parts, of a group with the published weights."""
    from skelops.train.ensemble import fuse as fused
    from skelops.train.ensemble import load_predictions
    from skelops.train.metrics import accuracies

    parts = f"{group}-{PARTS[0]}" in TRAININGS
    members, weights = (PARTS, "psumnet_ntu60_xsub") if parts else (STREAMS, "ctr_gcn")
    names = [f"{group}-{member}" for member in members]
    files = [f"runs/{name}/predictions.npz" for name in names]
    predictions = [load_predictions(file) for file in files]
    score = torch.from_numpy(fused(predictions, weights)[0])
    found = accuracies(score, torch.from_numpy(predictions[0].label))
    singles = [json.loads((RESULTS / f"{name}.json").read_text()) for name in names]
    what = "three parts" if parts else "four streams"
    record = {
        "title": f"{singles[0]['title'].rpartition(',')[0]}, {what}",
        "command": f"skelops ensemble {' '.join(files)} --weights {weights}",
        "published": singles[0]["published"],
        "seconds": sum(single["seconds"] for single in singles),
        "threads": singles[0]["threads"],
        "epochs": singles[0]["epochs"],
        **{key: float(value) for key, value in found.items()},
        "environment": singles[0]["environment"],
    }
    return _write(f"{group}-{what.split()[0]}", record)


def _write(name: str, record: dict) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{path}: top-1 {100 * record['top1']:.1f} % in {record['seconds']} s")
    return path


def table() -> str:
    """Results as a table, with the command of each."""
    rows, commands = [], []
    for path in sorted(RESULTS.glob("*.json")):
        r = json.loads(path.read_text())
        where = r["environment"]["device_name"]
        if r["threads"]:
            where += f", {r['threads']} thread{'s' * (r['threads'] > 1)}"
        rows.append([
            f"[{r['title']}](../benchmarks/trainings/{path.name})",
            *(f"{100 * r[key]:.1f}" for key in ("top1", "mean_class")),
            f"{r['epochs']}", f"{r['seconds'] / 60:.0f} min, {where}",
        ])  # fmt: skip
        commands.append(r["command"])
    header = ["training", "top-1 %", "mean class %", "epochs", "wall time"]
    listing = "\n".join(commands)
    return f"{markdown(header, rows)}\n```sh\n{listing}\n```\n" if rows else "No results yet.\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="train and keep the result")
    command.add_argument("name", choices=TRAININGS)
    command.add_argument("--source", required=True, help="the recorded clips")
    command = commands.add_parser("fuse", help="fuse the streams or parts of a group")
    command.add_argument("group", choices=sorted({n.rpartition("-")[0] for n in TRAININGS}))
    commands.add_parser("report", help="render the table of docs/training.md")
    options = parser.parse_args(argv)
    if options.command == "run":
        run(options.name, options.source)
    elif options.command == "fuse":
        fuse(options.group)
    fresh = between(PAGE.read_text(), "training", table()) if PAGE.exists() else None
    if fresh is not None:
        PAGE.write_text(fresh)


if __name__ == "__main__":
    main()
