"""Trainings on recorded data: run one, keep its curve and accuracy, render the table.

python -m benchmarks.training run nw_ucla-ctr_gcn_small-joint --source path/to/nw_ucla.npz
python -m benchmarks.training run nw_ucla-mamp_small --source path/to/nw_ucla.npz
python -m benchmarks.training fuse nw_ucla-ctr_gcn_small
python -m benchmarks.training fuse nw_ucla-psumnet_small
python -m benchmarks.training report
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks import records
from benchmarks.report import between, markdown

if TYPE_CHECKING:
    from skelops.train.ensemble import Predictions

RESULTS = Path(__file__).resolve().parent / "trainings"
STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
PARTS = ("body", "hand", "leg")
SIX = ("joint", "bone", "skip", "joint_motion", "bone_motion", "skip_motion")
GROUPS = ("head", "medium", "tail")


@dataclass(frozen=True)
class Training:
    """A training: the recipes it composes, further arguments, and what is known of it."""

    title: str
    recipes: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    published: str = "-"
    fusion: str = "ctr_gcn"  # of the streams of its group
    labels: bool = True  # else a linear probe and neighbours measure it
    probe: tuple[str, ...] = ("--data.batch_size", "64", "--trainer.max_epochs", "20")
    tune: tuple[str, ...] = ()  # or rather fine-tuning with these arguments, and neighbours
    start: str = ""  # training whose encoder this one starts from
    encoder: str = ""  # training whose encoder is measured, in place of one of its own
    random: bool = False  # as it was initialised
    share: float = 1.0  # of the labels that measure it
    tests: int = 1  # over which accuracies are averaged, each with other missing frames

    def command(self, name: str, source: str, further: Sequence[str] = ()) -> list[str]:
        configs = [word for recipe in self.recipes for word in ("--config", recipe)]
        where = ["--data.source", source, "--trainer.default_root_dir", f"runs/{name}"]
        where += ["--model.start", f"runs/{self.start}"] if self.start else []
        return ["fit", *configs, *where, *self.arguments, *further]


# The full network in a short cycle, in batches that fill a GPU.
_SHORT = ("--model.schedule", "one_cycle", "--model.lr", "0.1", "--model.reference_batch", "64")
_SHORT += ("--data.batch_size", "64", "--trainer.max_epochs", "40")
_FOUR = "96.5, four streams of the full network (Chen et al., ICCV 2021)"
_CORRECT = ("--data.divide", "correct", "--data.repeat", "2", "--data.window", "40")
_ROOTED = ("--data.transform", "hyper_gcn")
DATA = {
    "nw_ucla": "NW-UCLA",
    "nw_ucla_lt": "NW-UCLA-LT",
    "nw_ucla_severe": "NW-UCLA, three quarters of the frames missing",
    "ui_prmd": "UI-PRMD, 10 classes",
    "ui_prmd20": "UI-PRMD, 20 classes",
    "ui_prmd20_lt": "UI-PRMD, 20 classes, long-tailed",
    "synthetic": "synthetic set",
    "synthetic_lt": "synthetic set, long-tailed",
}
_SETS = {
    "nw_ucla": "NW-UCLA cross-view",
    "ui_prmd": "UI-PRMD odd/even subjects",
    "synthetic": "Synthetic set, unseen subjects",
}
# What Hyper-GCN trains on: title, recipes, arguments and streams.
_HYPER = {
    "nw_ucla": ("NW-UCLA cross-view", ("nw_ucla", "nw_ucla_drop"), (), STREAMS),
    "ui_prmd20": (
        "UI-PRMD odd/even subjects, 20 classes: movement x correctness",
        ("ui_prmd",),
        (*_CORRECT, *_ROOTED),
        ("joint",),
    ),
    "synthetic": ("Synthetic set, unseen subjects", ("synthetic",), _ROOTED, ("joint",)),
}
# Other graph networks of the width of ``ctr_gcn_small``.
_GRAPHS = {"st_gcn": "ST-GCN", "st_gcn_pp": "ST-GCN++", "aagcn": "AAGCN", "dg_stgcn": "DG-STGCN"}
# Networks on heat-maps, of which a short training on few clips shows that they learn.
_MAPS = {"posec3d_small": "PoseC3D", "epam_net_pose_small": "the pose stream of EPAM-Net"}
_PLAIN = (
    *("--data.rebalance", "false", "--model.mix_up", "null"),
    *("--model.action_aware", "null"),
)  # the network of BRL without the rest


def _long_tailed(
    name: str, title: str, recipes: tuple[str, ...], arguments: tuple[str, ...] = (),
    repeat: tuple[int, int] = (5, 9), streams: tuple[str, ...] = ("joint",),
) -> dict[str, Training]:  # fmt: skip
    """BRL and its plain peer; ``repeat``: passes per epoch of either, for about as many clips."""
    recipe = recipes[-1]
    title = f"{title}, ST-GCN++ of {'half' if recipe == 'brl_small' else 'full'} width"
    ours, plain = ((*arguments, "--data.repeat", str(n)) for n in repeat)
    found = {
        f"{name}-{recipe}-{stream}": Training(
            f"{title}, BRL, {stream}", (*recipes, stream), ours, fusion="brl"
        )
        for stream in streams
    }
    found[f"{name}-{recipe.replace('brl', 'plain')}-joint"] = Training(
        f"{title}, plain sampling and loss, joint", (*recipes, "joint"), (*plain, *_PLAIN)
    )
    return found


_EPAM = "synthetic-epam_net_small_lost"
_LOST = ("--data.degrade", "{keypoints: 0.5}")
_BOTH = ("--model.start", f"{{rgb: runs/{_EPAM}-rgb, keypoints: runs/{_EPAM}-keypoints}}")
_ACLNET = "ACLNet of a quarter of the width"
_CROSS_ENTROPY = ("--model.model_kwargs", "{base_channels: 24, weights: [0, 0]}")


_LINEAR = ("--config", "hiclr_linear")
_HALP_LINEAR = ("--config", "halp_linear", "--data.augment", "false")
_HALP_LINEAR += ("--data.transform_args", "{unit_box: true}")
# Recipe, method, its linear evaluation, the part that one of the runs goes without, and how.
_CONTRASTS = (
    (
        "ms_clr_small",
        "MS-CLR of half the width",
        _LINEAR,
        "second skeleton",
        ("--model.model_kwargs.skeletons", "[]"),
    ),
    (
        "halp_small",
        "HaLP of an eighth of the width",
        _HALP_LINEAR,
        "hallucinated positives",
        ("--model.model_kwargs.mu", "0"),
    ),
    ("hiclr_small", "HiCLR on 32 frames", _LINEAR, "", ()),
)


def _contrasted(
    data: str,
    title: str,
    recipe: str,
    method: str,
    probe: tuple[str, ...],
    less: str = "",
    how: tuple[str, ...] = (),
) -> dict[str, Training]:
    """A small network pre-trained by contrast, without the part ``less``, untrained, and tuned on
    few labels."""
    base, small = f"{data}-{recipe}", f"{title}, {method}"
    found = {
        base: Training(f"{small}, linear probe", (data, recipe)),
        f"{base}-untrained": _untrained(f"{small}, untrained, linear probe", base),
        **_tenth(base, small),
    }
    if less:
        shown = f"{small} without {less}, linear probe"
        found[f"{base}-no_{less.replace(' ', '_')}"] = Training(shown, (data, recipe), how)
    return {n: replace(training, labels=False, probe=probe) for n, training in found.items()}


def _untrained(title: str, base: str) -> Training:
    return Training(title, (), labels=False, encoder=base, random=True)


def _tenth(base: str, title: str) -> dict[str, Training]:
    """An encoder fine-tuned on a tenth of the labels, and the same from scratch."""
    tuned = Training(f"{title}, fine-tuned on a tenth of the labels", (), labels=False, tune=_FEW)
    scratch = f"{title}, from scratch on a tenth of the labels"
    return {
        f"{base}-tenth": replace(tuned, encoder=base, share=0.1),
        f"{base}-untrained_tenth": replace(_untrained(scratch, base), tune=_FEW, share=0.1),
    }


def _tuned(data: str, title: str, recipe: str, method: str) -> dict[str, Training]:
    """A small network pre-trained and fine-tuned, and fine-tuned from scratch."""
    base = f"{data}-{recipe}"
    found = {
        base: Training(f"{title}, small {method}, fine-tuned", (data, recipe), labels=False),
        f"{base}-untrained": _untrained(f"{title}, small {method}, from scratch", base),
    }
    return {name: replace(training, tune=_TUNE) for name, training in found.items()}


_TUNE = ("--model.lr", "1e-3", "--trainer.max_epochs", "20")
_FEW = ("--model.lr", "1e-3", "--data.batch_size", "16", "--trainer.max_epochs", "40")


def _without_labels(
    data: str, title: str, recipes: tuple[str, ...], arguments: tuple[str, ...] = ()
) -> dict[str, Training]:
    """MAMP of a quarter of the width, what it is compared with, and STARS on it."""
    base, small = f"{data}-mamp_small", f"{title}, MAMP of a quarter of the width"
    return {
        base: Training(small, (*recipes, "mamp_small"), arguments, labels=False),
        f"{base}-random_masks": Training(
            f"{small} with random masks",
            (*recipes, "mamp_small"),
            (*arguments, "--model.model_kwargs.tau", "0.0"),
            labels=False,
        ),
        f"{base}-untrained": _untrained(f"{small}, untrained", base),
        **_tenth(base, small),
        f"{data}-stars_small": Training(
            f"{small} tuned by STARS",
            (*recipes, "stars_small"),
            arguments,
            labels=False,
            start=base,
        ),
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
    **{
        f"{data}-{model}_small-joint": Training(
            f"{title}, {method} of half width, joint",
            (data, "ctr_gcn_small", "joint"),
            ("--model.model", model),
        )
        for data, title in _SETS.items()
        for model, method in _GRAPHS.items()
    },
    "synthetic-ctr_gcn_small-joint": Training(
        "Synthetic set, unseen subjects, CTR-GCN of half width, joint",
        ("synthetic", "ctr_gcn_small", "joint"),
    ),
    "ui_prmd20-ctr_gcn_small-joint": Training(
        "UI-PRMD odd/even subjects, 20 classes: movement x correctness, CTR-GCN of half width",
        ("ui_prmd", "ctr_gcn_small", "joint"),
        _CORRECT,
    ),
    **{
        f"{data}-{method}-{part}": Training(
            f"{title}, PSUMNet{' of half width' if method == 'psumnet_small' else ''}, {part}",
            (data.rstrip("0123456789"), recipe, f"psumnet_{part}"),
            arguments,
            fusion="psumnet_ntu60_xsub",
        )
        for data, title, arguments in (
            ("nw_ucla", "NW-UCLA cross-view", ()),
            ("ui_prmd20", "UI-PRMD odd/even subjects, 20 classes", _CORRECT),
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
    **{
        f"{data}-{name}-joint": Training(
            f"{title}, {what}, joint", (data, "aclnet_small", "joint"), arguments
        )
        for data, title in _SETS.items()
        for name, what, arguments in (
            ("aclnet_small", _ACLNET, ()),
            ("aclnet_plain_small", f"{_ACLNET}, cross-entropy alone", _CROSS_ENTROPY),
        )
    },
    **{
        name: training
        for data, title in _SETS.items()
        for recipe, *contrast in _CONTRASTS
        for name, training in _contrasted(data, title, recipe, *contrast).items()
    },
    **{
        f"nw_ucla_severe-finetec_small-{name}" + (f"-seed{seed}" if seed else ""): Training(
            f"NW-UCLA cross-view, three quarters of the frames missing, FineTec, {title}",
            ("nw_ucla", "finetec_small", "joint"),
            tuple(word for off in without for word in (f"--model.model_kwargs.{off}", "false"))
            + (("--seed_everything", str(seed)) if seed else ()),
            tests=10,
        )
        for seed in range(3)
        for name, title, without in (
            ("full", "complete", ()),
            ("no_completion", "without completion", ("completion",)),
            ("no_decomposition", "without decomposition", ("decomposition",)),
            ("no_physics", "without physics", ("physics",)),
            (
                "linear",
                "its head alone on straight lines",
                ("completion", "decomposition", "physics"),
            ),
        )
    },
    **{
        f"{data}-{recipe}-joint": Training(
            f"{title}, projected to 2-D, {method}, small", (data, recipe, "joint")
        )
        for recipe, method in _MAPS.items()
        for data, title in _SETS.items()
    },
    **_long_tailed(
        "nw_ucla_lt", "NW-UCLA-LT cross-view", ("nw_ucla", "nw_ucla_lt", "brl_small"), streams=SIX
    ),
    **_long_tailed(
        "nw_ucla_lt", "NW-UCLA-LT cross-view", ("nw_ucla", "nw_ucla_lt", "brl"), streams=SIX
    ),
    **_long_tailed(
        "ui_prmd20_lt",
        "UI-PRMD odd/even subjects, 20 classes with 50 to 5 clips",
        ("ui_prmd", "brl_small"),
        ("--data.divide", "correct", "--data.long_tail", "[50,0.1]"),
    ),
    **_long_tailed(
        "synthetic_lt",
        "synthetic, 16 classes with 64 to 3 clips",
        ("synthetic", "brl_small"),
        ("--data.long_tail", "[64,0.05]"),
        repeat=(2, 4),
    ),
    **{
        name: training
        for recipe, method in (
            ("cascade_former_small", "CascadeFormer"),
            ("skeleton_mae_small", "SkeletonMAE"),
        )
        for data, title in _SETS.items()
        for name, training in _tuned(data, title, recipe, method).items()
    },
    **{
        name: training
        for data, title in _SETS.items()
        for name, training in _without_labels(data, title, (data,)).items()
    },
    **{
        f"{_EPAM}-{name}": Training(
            f"Synthetic set, unseen subjects, EPAM-Net with few blocks, {title}",
            ("synthetic", recipe),
            arguments,
            fusion="epam_net",
        )
        for name, title, recipe, arguments in (
            ("rgb", "pictures", "epam_net_rgb_small", ()),
            ("keypoints", "half of the joints lost", "epam_net_keypoints_small", _LOST),
            ("both", "both of these, from them", "epam_net_small", (*_LOST, *_BOTH)),
        )
    },
    **{
        f"synthetic-{recipe}-pictures": Training(
            f"Synthetic set, unseen subjects, {title}", ("synthetic", recipe)
        )
        for recipe, title in (
            ("epam_net_small", "EPAM-Net with few blocks on RGB and joints"),
            ("m_mixer_small", "M-Mixer with thin encoders on RGB and depth"),
            ("deform_transformer_small", "3D Deformable Transformer, narrow, on RGB and joints"),
        )
    },
}


def run(name: str, source: str, further: Sequence[str] = ()) -> Path:
    """Train, evaluate the last epoch and write ``benchmarks/trainings/<name>.json``."""
    from skelops.train import cli
    from skelops.train.ensemble import load_predictions

    training = TRAININGS[name]
    command = training.command(name, source, further)
    folder = Path("runs") / (training.encoder or name)
    shown = shlex.join(["skelops", *training.command(name, "PATH", further)])
    begin = time.perf_counter()
    if not training.encoder:
        cli.main(command)
    seconds = time.perf_counter() - begin
    if not training.labels:
        return _write(name, _record(training, shown, seconds, folder) | transferred(name))
    predict = ["predict", *command[1:], "--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]
    tests = []
    for i in range(training.tests):
        other = ["--data.transform_args.missing_seed", str(i)] if training.tests > 1 else []
        cli.main([*predict, *other])
        tests.append(load_predictions(folder / "predictions.npz").accuracies())
    found = {key: float(np.mean([test[key] for test in tests])) for key in tests[0]}
    if training.tests > 1:
        found["tests"] = [test["top1"] for test in tests]
    return _write(name, _record(training, shown, seconds, folder) | found)


def transferred(name: str) -> dict:
    """Accuracy of a linear probe on a finished run, or of the tuned encoder, with its curve, and of
    nearest neighbours before."""
    from skelops.train import cli, transfer
    from skelops.train.ensemble import load_predictions

    training = TRAININGS[name]
    run = f"runs/{training.encoder or name}"
    verb, settings = ("finetune", training.tune) if training.tune else ("probe", training.probe)
    folder = Path(f"{run}/{verb}{name.removeprefix(training.encoder or name)}")
    few = ["--data.fraction", str(training.share)] if training.share < 1 else []
    random = ["--model.random", "true"] if training.random else []
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.check_val_every_n_epoch", "5"]
    where = ["--trainer.default_root_dir", str(folder)]
    measured = [verb, run, *settings, *quiet, *where, *random, *few]
    neighbours = ["knn", run, *(["--random"] if random else []), *few]
    cli.main(measured)
    near = transfer.main(neighbours[1:])
    commands = [shlex.join(["skelops", *words]) for words in (measured, neighbours)]
    return {
        **load_predictions(folder / "predictions.npz").accuracies(),
        "nearest": near["k=1"],
        "evaluation": commands,
        f"{verb}_curve": _curve(_log(folder)),
    }


def _log(folder: Path) -> Path:
    return sorted(folder.glob("csv/version_*/metrics.csv"))[-1]


def _record(training: Training, shown: str, seconds: float, folder: Path) -> dict:
    curve = [] if training.encoder else _curve(_log(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "title": training.title,
        "command": shown,
        "published": training.published,
        "seconds": round(seconds),
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "epochs": len(curve),
        "curve": curve,
        "environment": records.environment(device),
    }


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
    """Fuse the streams, or the parts, of a group with the published weights."""
    from skelops.train.ensemble import PRESETS, load_predictions
    from skelops.train.ensemble import fuse as fused

    fusion = next(t.fusion for n, t in TRAININGS.items() if n.rpartition("-")[0] == group)
    names = [f"{group}-{stream}" for stream in PRESETS[fusion][1]]
    files = [f"runs/{name}/predictions.npz" for name in names]
    predictions = [load_predictions(file) for file in files]
    score = fused(predictions, fusion)[0]
    found = predictions[0].accuracies(score)
    singles = [json.loads((RESULTS / f"{name}.json").read_text()) for name in names]
    number = {2: "two", 3: "three", 4: "four", 6: "six"}[len(names)]
    what = "parts" if set(PRESETS[fusion][1]) == set(PARTS) else "streams"
    record = {
        "title": singles[0]["title"].rsplit(",", 1)[0] + f", {number} {what}",
        "command": shlex.join(["skelops", "ensemble", *files, "--weights", fusion]),
        "published": singles[0]["published"],
        "seconds": sum(single["seconds"] for single in singles),
        "threads": singles[0]["threads"],
        "epochs": singles[0]["epochs"],
        **found,
        **_gain(score, predictions),
        "environment": singles[0]["environment"],
    }
    return _write(f"{group}-{number}", record)


def _gain(score: np.ndarray, predictions: Sequence[Predictions]) -> dict[str, float]:
    """Top-1 of a fusion above its best stream's, and the standard error over the same clips."""
    label = predictions[0].label
    alone = max((p.softmax.argmax(1) == label for p in predictions), key=np.mean)
    more = (score.argmax(1) == label).astype(float) - alone
    return {"gain": more.mean(), "gain_error": more.std() / len(more) ** 0.5}


def _write(name: str, record: dict) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{path}: top-1 {100 * record['top1']:.1f} % in {record['seconds']} s")
    return path


def _results() -> dict[Path, tuple[dict, list[dict]]]:
    """Every training with its record, and those of its repetitions with other seeds."""
    found: dict[Path, tuple[dict, list[dict]]] = {}
    for path in sorted(RESULTS.glob("*.json"), key=lambda path: path.stem):
        record, (stem, seed, _) = json.loads(path.read_text()), path.stem.partition("-seed")
        if seed:
            found[path.with_stem(stem)][1].append(record)
        else:
            found[path] = (record, [])
    return found


def _percent(key: str, record: dict, others: Sequence[dict]) -> str:
    """A share, or mean and standard deviation over several seeds."""
    if key not in record:
        return ""
    shares = 100 * np.array([r[key] for r in (record, *others)])
    if not others:
        return f"{shares[0]:.1f}"
    return f"{shares.mean():.1f} ± {shares.std(ddof=1):.1f}, {len(shares)} seeds"


def table() -> str:
    """Results as a table, with the command of each."""
    rows, commands = [], []
    for path, (r, others) in _results().items():
        where = r["environment"]["device_name"]
        if r["threads"]:
            where += f", {r['threads']} thread{'s' * (r['threads'] > 1)}"
        wall = "not timed" if r["seconds"] is None else f"{r['seconds'] / 60:.0f} min"
        rows.append([
            f"[{r['title']}](../benchmarks/trainings/{path.name})",
            *(_percent(key, r, others) for key in ("top1", "mean_class")),
            " / ".join(_percent(key, r, others) for key in GROUPS if key in r),
            _percent("nearest", r, others),
            f"{r['epochs']}", f"{wall}, {where}",
        ])  # fmt: skip
        commands += [*([r["command"]] if r["epochs"] else []), *r.get("evaluation", ())]
    header = [
        "training",
        "top-1 %",
        "mean class %",
        "head / medium / tail %",
        "1-NN %",
        "epochs",
        "wall time",
    ]
    listing = "\n".join(commands)
    return f"{markdown(header, rows)}\n```sh\n{listing}\n```\n" if rows else "No results yet.\n"


def unipose() -> str:
    """The error of UniPose's networks before and after their trainings."""
    with (RESULTS / "unipose.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    networks = {
        "cloud": ["`PointPose`, clouds", "joints in the image"],
        "depth": ["`LiftPose`, depth", "what the first says"],
        "rgb": ["`LiftPose`, colour", "what the first says"],
    }
    rows = []
    for stage in dict.fromkeys(row["stage"] for row in log):
        errors = [row["test_mpjpe_mm"] for row in log if row["stage"] == stage]
        rows.append([*networks[stage], errors[0], errors[-1]])
    return markdown(["network", "trained by", "test MPJPE, mm, untrained", "trained"], rows)


# What is published on 2-D key-points, and what else the first command of a method needs.
_FILMED = ("posec3d", "epam_net", "epam_net_pose", "epam_net_rgb")
_FURTHER = {
    "brl": " --config ntu_lt",
    "epam_net": " --data.recorded.folders.rgb nturgb+d_rgb",
    "epam_net_rgb": " --data.recorded.folders.rgb nturgb+d_rgb",
    "psumnet": " --config psumnet_body",
    "stars": " --model.start runs/ntu60_xsub-mamp",
}


def zoo() -> str:
    """The recipes of every method, and the best top-1 by data set, the mean over its seeds."""
    recipes: dict[str, list[str]] = {}
    for path in sorted((records.ROOT / "skelops" / "recipes" / "model").glob("*.yaml")):
        recipes.setdefault(_method(path.stem), []).append(path.stem)
    best: dict[str, dict[str, tuple[float, str]]] = {method: {} for method in recipes}
    for path, (r, others) in _results().items():
        data, recipe, *variant = path.stem.split("-")
        method, data = _method(recipe), DATA[data]
        if r["epochs"] and method in best and not _lessened(variant):
            top1 = float(np.mean([each["top1"] for each in (r, *others)]))
            shown = f"{data} [{100 * top1:.1f}](../benchmarks/trainings/{path.name})"
            best[method][data] = max(best[method].get(data, (0.0, "")), (top1, shown))
    rows = []
    for method, names in recipes.items():
        data = "--config " + ("ntu60_xsub" if method in names else "synthetic")
        if method in _FILMED:
            data = "--data.source ntu60_hrnet.pkl --data.protocol extra:xsub"
        further = _FURTHER.get(method, "")
        rows.append([
            f"`{method}`", f"`skelops fit {data} --config {names[0]}{further}`",
            ", ".join(f"`{name}`" for name in names[1:]) or "-",
            "; ".join(shown for _, shown in best[method].values()) or "-",
        ])  # fmt: skip
    return markdown(["method", "command", "further recipes", "measured top-1, %"], rows)


def _lessened(variant: Sequence[str]) -> bool:
    """Whether a training goes without a part of its method."""
    return any(word.startswith("no_") or word in ("linear", "random_masks") for word in variant)


def _method(recipe: str) -> str:
    return recipe.removesuffix("_small").removesuffix("_large")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="train and keep the result")
    command.add_argument("name", choices=TRAININGS)
    command.add_argument("--source", required=True, help="the recorded clips")
    command.add_argument(
        "--further", nargs=argparse.REMAINDER, default=[], help="last: more arguments of fit"
    )
    command = commands.add_parser("fuse", help="fuse the streams or parts of a group")
    command.add_argument("group", choices=sorted({n.rpartition("-")[0] for n in TRAININGS}))
    commands.add_parser("report", help="render the tables of docs/")
    options = parser.parse_args(argv)
    if options.command == "run":
        run(options.name, options.source, options.further)
    elif options.command == "fuse":
        fuse(options.group)
    for page, name, body in (
        ("training", "training", table()),
        ("training", "unipose", unipose()),
        ("models", "zoo", zoo()),
    ):
        path = records.ROOT / "docs" / f"{page}.md"
        fresh = between(path.read_text(), name, body) if path.exists() else None
        if fresh is not None:
            path.write_text(fresh)


if __name__ == "__main__":
    main()
