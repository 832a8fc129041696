"""``skelops ensemble``: fuse the class scores of several streams or runs.

Example:
    skelops ensemble runs/joint/predictions.npz runs/bone/predictions.npz --weights ctr_gcn
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from skelops.graph import BODY_PARTS
from skelops.models.psumnet import ALPHAS

SCORES = ("logits", "softmax")
FOUR = ("joint", "bone", "joint_motion", "bone_motion")
SIX = ("joint", "bone", "skip", "joint_motion", "bone_motion", "skip_motion")

# Published fusions: what is summed, over which streams, with which weights.
PRESETS: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    # Chen et al., ICCV 2021
    "ctr_gcn": ("logits", FOUR, (0.6, 0.6, 0.4, 0.4)),
    # Duan et al., ACM MM 2022
    "pyskl": ("softmax", FOUR, (2, 2, 1, 1)),
    # Balanced Representation Learning, and ACLNet
    "brl": ("softmax", SIX, (2, 2, 2, 1, 1, 1)),
    "aclnet": ("softmax", SIX, (2, 2, 2, 1, 1, 1)),
    # Hyper-GCN, ICCV 2025, base and large
    "hyper_gcn_ntu60_xsub": ("logits", FOUR, (1, 1.4, 1.1, 0.3)),
    "hyper_gcn_ntu60_xview": ("logits", FOUR, (1, 1.4, 1.1, 0.6)),
    "hyper_gcn_ntu120": ("logits", FOUR, (1, 1.5, 0.7, 0.3)),
    "hyper_gcn_large_ntu60": ("logits", FOUR, (1, 1.4, 1, 0.5)),
    "hyper_gcn_large_ntu120_xsub": ("logits", FOUR, (1, 1.5, 0.7, 0.3)),
    "hyper_gcn_large_ntu120_xset": ("logits", FOUR, (1, 1.5, 0.6, 0.6)),
    # Trivedi and Sarvadevabhatla, ECCVW 2022: parts of the body
    **{f"psumnet_{data}": ("logits", BODY_PARTS, alphas) for data, alphas in ALPHAS.items()},
    # Abdelkawy et al., Neurocomputing 2025
    "epam_net": ("logits", ("rgb", "keypoints"), (1, 1)),
    # AimCLR, HiCLR and MS-CLR
    "hiclr": ("logits", FOUR[:3], (0.6, 0.6, 0.4)),
}


@dataclass(frozen=True)
class Predictions:
    """Class scores of N clips, as ``skelops predict`` writes them.

    Args:
        name: (N,) names of the clips.
        label: (N,) int64.
        logits: (N, classes) floating, mean over the views of a clip.
        softmax: (N, classes) floating, likewise.
        stream: "joint", "bone", ...
        run: where they come from.
        class_counts: (classes,) int64, training clips of each class, if known.
    """

    name: np.ndarray
    label: np.ndarray
    logits: np.ndarray
    softmax: np.ndarray
    stream: str
    run: str
    class_counts: np.ndarray | None = None

    def accuracies(self, score: np.ndarray | None = None) -> dict[str, float]:
        """See :func:`skelops.train.metrics.accuracies`; by default of ``softmax``."""
        from skelops.train.metrics import accuracies

        found = torch.from_numpy(self.softmax if score is None else score)
        count = None if self.class_counts is None else self.class_counts.tolist()
        return accuracies(found, torch.from_numpy(self.label), count)


def load_predictions(path: str | Path) -> Predictions:
    """Read a ``predictions.npz``; nothing in it is executed.

    Raises:
        ValueError: not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            optional = {"class_counts"} - set(file.files)
            found = {key: file[key] for key in Predictions.__dataclass_fields__.keys() - optional}
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path}: expected predictions of skelops predict, got {error}") from None
    found["stream"], found["run"] = str(found["stream"]), str(found["run"])
    return Predictions(**found)


def fuse(
    predictions: Sequence[Predictions],
    weights: str | Sequence[float] = "ctr_gcn",
    score: str | None = None,
) -> tuple[np.ndarray, list[float]]:
    """Weighted sum of the scores of the same clips.

    Args:
        predictions: of the streams.
        weights: one per stream, or the name of a published fusion in ``PRESETS``, which goes by
            the streams' names.
        score: "logits" or "softmax". Default: that of the published fusion, else "logits".

    Returns:
        The fused score (N, classes) float64 and the weights that were used.

    Raises:
        ValueError: other clips, labels or classes; weights that do not fit.
    """
    first = predictions[0]
    for other in predictions[1:]:
        for what in ("name", "label"):
            a, b = getattr(first, what), getattr(other, what)
            if len(a) != len(b) or (a != b).any():
                at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
                got = f"{len(b)} clips" if at is None else f"{b[at]} at clip {at}"
                want = f"{len(a)}" if at is None else f"{a[at]}"
                raise ValueError(f"ensemble: expected the {what}s of {first.run}, {want}, "
                                 f"got {got} in {other.run}")  # fmt: skip
        if other.logits.shape != first.logits.shape:
            sizes = [p.logits.shape[1] for p in (first, other)]
            raise ValueError(f"ensemble: expected {sizes[0]} classes as in {first.run}, "
                             f"got {sizes[1]} in {other.run}")  # fmt: skip
    if isinstance(weights, str):
        if weights not in PRESETS:
            raise ValueError(f"ensemble: expected numbers or one of {', '.join(PRESETS)} as "
                             f"weights, got {weights!r}")  # fmt: skip
        published, streams, values = PRESETS[weights]
        score = score or published
        known = dict(zip(streams, values, strict=True))
        for p in predictions:
            if p.stream not in known:
                raise ValueError(f"ensemble: expected the streams of {weights}, "
                                 f"{', '.join(streams)}, got {p.stream!r} in {p.run}")  # fmt: skip
        weights = [known[p.stream] for p in predictions]
    if len(weights) != len(predictions):
        raise ValueError(f"ensemble: expected {len(predictions)} weights, got {len(weights)}")
    if (score := score or "logits") not in SCORES:
        raise ValueError(f"ensemble: expected score in {SCORES}, got {score!r}")
    terms = [w * getattr(p, score).astype(float) for w, p in zip(weights, predictions, strict=True)]
    return np.sum(terms, axis=0), [float(w) for w in weights]


def main(argv: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Fuse, print top-1, top-5 and mean-class accuracy of each stream and of all, write a table.

    Returns:
        The rows of the table.

    Raises:
        SystemExit: arguments that do not parse, or predictions that do not fit together.
    """
    parser = argparse.ArgumentParser(prog="skelops ensemble", description=__doc__.split("\n")[0])
    parser.add_argument("predictions", nargs="+", type=Path, help="files of skelops predict")
    parser.add_argument("--weights", nargs="+", default=["ctr_gcn"],
                        help=f"one per file, or published: {', '.join(PRESETS)}")  # fmt: skip
    parser.add_argument("--score", choices=SCORES, help="what is summed (default: as published)")
    parser.add_argument("--out", type=Path, default=Path("ensemble.csv"), help="table to write")
    args = parser.parse_args(argv)
    try:
        weights: str | list[float] = args.weights[0]
        if len(args.weights) > 1 or weights not in PRESETS:
            weights = _numbers(args.weights)
        streams = [load_predictions(path) for path in args.predictions]
        fused, used = fuse(streams, weights, args.score)
    except ValueError as error:
        parser.exit(2, f"skelops: {error}\n")

    def row(run: str, stream: str, weight: float | str, score: np.ndarray) -> dict[str, object]:
        found = streams[0].accuracies(score)
        return {"run": run, "stream": stream, "weight": weight, **found}

    rows = [row(p.run, p.stream, w, p.softmax) for p, w in zip(streams, used, strict=True)]
    rows.append(row("ensemble", "+".join(p.stream for p in streams), "", fused))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    for cells in ([*rows[0]], *(r.values() for r in rows)):
        print("  ".join((f"{c:.4f}" if isinstance(c, float) else f"{c}").ljust(12) for c in cells))
    return rows


def _numbers(weights: Sequence[str]) -> list[float]:
    try:
        return [float(w) for w in weights]
    except ValueError:
        raise ValueError(
            f"ensemble: expected numbers or one of {', '.join(PRESETS)} as weights, "
            f"got {' '.join(weights)}"
        ) from None


if __name__ == "__main__":
    main()
