"""``python -m skelops demo``: train, evaluate on unseen people, draw, measure; in minutes."""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from skelops.data import Clips, read

BASE_CHANNELS, WINDOW, BATCH, PEAK_LR = 32, 32, 16, 0.1
MAX_EPOCHS = {"synthetic": 18, "recorded": 30}
RESERVE = 20.0  # seconds for pictures and the speed table


def main(argv: Sequence[str] | None = None) -> dict:
    """Train a small CTR-GCN, report top-1 on unseen subjects (or views) and draw the results.

    Args:
        argv: arguments of ``python -m skelops demo``, see its ``--help``.

    Returns:
        The metrics that were written to ``metrics.json``.

    Raises:
        SystemExit: arguments that do not parse.
        ValueError: the data are damaged, see :func:`skelops.data.read`.
    """
    parser = argparse.ArgumentParser(prog="skelops demo", description=__doc__)
    parser.add_argument("--data", default="synthetic", help="clips to read instead (json, npz)")
    parser.add_argument("--out", default="outputs/demo", type=Path, help="folder for the results")
    parser.add_argument("--max-minutes", default=4.0, type=float, help="for everything, epochs too")
    parser.add_argument("--max-epochs", type=int, help="default: 18, of recorded data 30")
    parser.add_argument("--num-clips", default=1536, type=int, help="size of the synthetic set")
    parser.add_argument("--seed", default=0, type=int)
    args = parser.parse_args(argv)
    begin = time.perf_counter()

    from skelops.train.allocator import tune_allocator

    tune_allocator()
    module, data = _prepare(args)
    train, test = data.index
    clips = data.clips
    print(
        f"{args.data}: {len(train)} clips to train on, {len(test)} of unseen "
        f"{'views' if data.hparams.protocol == 'cross_view' else 'subjects'} to test, "
        f"{clips.num_classes} classes, layout {clips.layout}"
    )
    test_clips = clips.select(test)
    picture = _draw_clips(test_clips, args.out)

    step, evaluation, steps = _measure(module, data)
    left = 60 * args.max_minutes - RESERVE - (time.perf_counter() - begin)
    affordable = max(int((left - 4 * evaluation) / step), 1)
    most = args.max_epochs or MAX_EPOCHS["synthetic" if args.data == "synthetic" else "recorded"]
    epochs = min(max(affordable // steps, 1), most)
    steps = min(steps, affordable)
    print(
        f"{1e3 * step:.0f} ms per step of {BATCH} clips on {torch.get_num_threads()} threads: "
        f"{epochs} epochs of {steps} steps"
    )
    history = _fit(module, data, epochs, steps, max(left - evaluation, 1.0))

    matrix = _confusion(module, data, clips.num_classes)
    metrics = {
        "data": args.data,
        "protocol": data.hparams.protocol,
        "top1": float(np.trace(matrix) / matrix.sum()),
        "top1_train": history["train_top1"][-1][1] if history["train_top1"] else None,
        "epochs": epochs,
        "steps_per_epoch": steps,
        "seconds_per_step": step,
        "seconds": time.perf_counter() - begin,
        "threads": torch.get_num_threads(),
        "seed": args.seed,
        "confusion": matrix.tolist(),
        "classes": list(clips.classes),
    }
    _report(metrics, matrix, test_clips, history, args.out, picture)
    return metrics


def _prepare(args):
    import lightning

    from skelops.train import Recognizer, SkeletonDataModule

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for message in (".*does not have many workers.*", ".*LeafSpec.*", ".*isinstance.*treespec.*"):
        warnings.filterwarnings("ignore", message)
    lightning.seed_everything(args.seed, verbose=False)
    common = {"batch_size": BATCH, "seed": args.seed, "num_clips": args.num_clips}
    if args.data == "synthetic":
        data = SkeletonDataModule(window=WINDOW, **common)
    else:
        views = np.unique(read(args.data).view)
        protocol = "cross_view" if len(views) > 2 else "cross_subject"
        data = SkeletonDataModule(args.data, protocol, transform="nw_ucla", **common)
    module = Recognizer(
        "ctr_gcn",
        data.num_classes,
        data.layout,
        data.num_persons,
        {"base_channels": BASE_CHANNELS},
        lr=PEAK_LR,
        schedule="constant",
        label_smoothing=0.1,
    )
    return module, data


def _measure(module, data) -> tuple[float, float, int]:
    """Seconds of a training step and of an evaluation, and steps per epoch; trains a copy.

    Keeps the thread count that is fastest: fewer than the cores where others use them too.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    probe, train = copy.deepcopy(module).to(device), data.train_dataloader()
    optimizer = torch.optim.SGD(probe.parameters(), 0.0, momentum=0.9)

    def step(x, y, _) -> float:
        start = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(probe(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return time.perf_counter() - start

    batches = [batch for batch, _ in zip(train, range(5), strict=False)]
    threads = torch.get_num_threads()
    counts = {threads, max(threads // 2, 1), 1} if device == "cpu" else {threads}
    seconds = {}
    for count in sorted(counts, reverse=True):
        torch.set_num_threads(count)
        step(*batches[0])
        seconds[count] = sum(step(*batch) for batch in batches) / len(batches)
    best = min(seconds, key=lambda count: seconds[count])
    torch.set_num_threads(best)
    return seconds[best], seconds[best] / 3 * len(data.test_dataloader()), len(train)


def _fit(module, data, epochs: int, steps: int, seconds: float) -> dict[str, list]:
    """Train; points (epoch, value) of losses and accuracies by name."""
    import lightning

    history: dict[str, list] = {
        name: [] for name in ("train_loss", "train_top1", "val_loss", "val_top1")
    }
    begin = time.perf_counter()

    class Conductor(lightning.Callback):
        """One cycle over the planned steps, or over the time if that runs out first."""

        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            done = trainer.global_step / (epochs * steps)
            progress = min(max(done, (time.perf_counter() - begin) / seconds), 1.0)
            rise = progress / 0.25 if progress < 0.25 else (1 - progress) / 0.75
            wave = 0.5 - 0.5 * math.cos(math.pi * rise)
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = PEAK_LR * max(wave, 1e-4)
                group["momentum"] = 0.95 - 0.1 * wave
            trainer.should_stop = progress >= 1

        def on_train_epoch_end(self, trainer, module) -> None:
            self.take(trainer, "train")

        def on_validation_end(self, trainer, module) -> None:
            self.take(trainer, "val")

        def take(self, trainer, stage: str) -> None:
            for name, points in history.items():
                if name.startswith(stage) and name in trainer.callback_metrics:
                    epoch = trainer.global_step / steps
                    points.append((epoch, float(trainer.callback_metrics[name])))

    trainer = lightning.Trainer(
        max_epochs=epochs,
        limit_train_batches=steps,
        check_val_every_n_epoch=max(epochs // 3, 1),
        num_sanity_val_steps=0,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[Conductor()],
    )
    trainer.fit(module, data)
    return history


@torch.no_grad()
def _confusion(module, data, classes: int) -> np.ndarray:
    module.eval()
    matrix = np.zeros((classes, classes), np.int64)
    for x, y, _ in data.test_dataloader():
        predicted = module(x.to(module.device)).argmax(1).cpu()
        np.add.at(matrix, (y.numpy(), predicted.numpy()), 1)
    return matrix


def _draw_clips(clips: Clips, out: Path) -> Path:
    from skelops import viz

    classes = np.linspace(0, clips.num_classes - 1, min(8, clips.num_classes)).round().astype(int)
    lively = np.array([_liveliness(clips[i]) for i in range(len(clips))])
    index = [
        int(np.argmax(np.where(clips.label == c, lively, -1)))
        for c in classes
        if (clips.label == c).any()
    ]
    titles = [clips.classes[clips.label[i]] for i in index]
    strip = viz.strip([clips[i] for i in index], clips.layout, titles=titles)
    return viz.save(strip, out / "skeletons.png")


def _liveliness(xyz: np.ndarray) -> float:
    """How well a clip shows in a picture: motion across the image, distance between persons."""
    xyz = xyz[xyz.any((1, 2, 3))]
    if len(xyz) < 8:
        return 0.0
    middle = [person[..., 0].mean() for person in xyz.swapaxes(0, 1) if person.any()]
    return float(np.ptp(xyz[:, 0, :, :2], axis=0).mean() + np.ptp(middle))


def _report(metrics: dict, matrix, test: Clips, history: dict, out: Path, picture: Path) -> None:
    from skelops import viz

    files = [
        picture,
        viz.confusion_matrix(matrix, test.classes, out / "confusion.png"),
        viz.training_curve(history, out / "training.png"),
        out / "metrics.json",
    ]
    files[-1].write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"\ntop-1 on unseen {metrics['protocol'].removeprefix('cross_')}s: "
          f"{100 * metrics['top1']:.1f} %  ({metrics['seconds']:.0f} s)")  # fmt: skip
    print("\n".join(str(f) for f in files))
    try:
        from benchmarks.run import quick_table
    except ImportError:
        print("speed table: the benchmarks folder is not present here (run from a source checkout)")
    else:
        print(quick_table())


if __name__ == "__main__":
    main()
