"""Pictures of skeletons, confusion matrices and training curves (matplotlib, no display needed)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from skelops.data.clips import Clips
from skelops.graph import get_layout

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Circle
except ImportError as error:
    raise ImportError("skelops.viz needs matplotlib: pip install 'skelops[viz]'") from error

INK, PAPER, RULE = "#22303c", "#ffffff", "#d9dee3"
LEFT, RIGHT, TRUNK = "#1f77b4", "#e4572e", "#33414e"
SECOND = {LEFT: "#6fb7a5", RIGHT: "#c9a227", TRUNK: "#8d99a6"}


def _figure(width: float, height: float, arrange: bool = True) -> Figure:
    layout = ConstrainedLayoutEngine() if arrange else None
    figure = Figure(figsize=(width, height), dpi=120, facecolor=PAPER, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _bones(layout: str) -> list[tuple[int, int, str]]:
    """(joint, parent, colour) of each bone: left, right, trunk."""
    table = get_layout(layout)
    side = {j: c for pair in table.left_right for j, c in zip(pair, (LEFT, RIGHT), strict=True)}
    bones = [(j, p) for j, p in enumerate(table.parents) if j != p]
    return [(j, p, side.get(j, side.get(p, TRUNK))) for j, p in bones]


def film_strip(
    clips: Clips,
    index: Sequence[int],
    path: str | Path,
    *,
    frames: int = 8,
    titles: Sequence[str] | None = None,
) -> Path:
    """Draw clips as rows of skeletons, seen by the camera, time from left to right.

    Left limbs are blue, right limbs red; a second person is green and yellow.

    Args:
        clips: the set; only x and y are drawn.
        index: the clips to draw, one row each.
        path: picture file to write; its directory is created.
        frames: skeletons per row, evenly spaced over the non-empty frames.
        titles: row titles. Default: class names.

    Returns:
        The path of the picture.
    """
    titles = titles or [clips.classes[clips.label[i]] for i in index]
    width, height = 1.35 + 0.92 * frames, 1.45 * len(index) + 0.1
    figure = _figure(width, height, arrange=False)
    figure.subplots_adjust(1.3 / width, 0.05 / height, 1 - 0.05 / width, 1, hspace=0)
    rows = figure.subplots(len(index), 1, squeeze=False)[:, 0]
    for axes, clip, title in zip(rows, index, titles, strict=True):
        xyz = clips[clip]
        seen = xyz[xyz.any((1, 2, 3))]
        seen = seen[np.linspace(0, len(seen) - 1, frames).round().astype(int)]
        _draw_row(axes, seen, clips.layout)
        text = axes.text(-0.02, 0.45, textwrap.fill(title, 14), transform=axes.transAxes)
        text.set(ha="right", va="center", fontsize=11, color=INK)
    return _save(figure, path)


def _draw_row(axes, seen: np.ndarray, layout: str) -> None:
    """Poses (T, M, V, C) side by side on a common floor, scaled to the tallest."""
    names, bones = get_layout(layout).joint_names, _bones(layout)
    present = (seen != 0).any(axis=(2, 3))
    flat = seen[..., :2] * (-1, 1)  # a camera that looks along +z has +x on its left
    low, high = flat[present, :, 1].min(), flat[present, :, 1].max()
    tall = high - low
    pitch, floor = 0.74 * tall, low - 0.05 * tall
    axes.plot([0, len(seen) * pitch], [floor, floor], color=RULE, lw=1.2, zorder=0)
    for column, poses in enumerate(flat):
        here = poses[present[column]]
        middle = (here[..., 0].min() + here[..., 0].max()) / 2
        for person in np.flatnonzero(present[column])[::-1]:
            pose = poses[person] + ((column + 0.5) * pitch - middle, 0)
            colours = [SECOND[c] if person else c for *_, c in bones]
            lines = LineCollection([pose[[j, p]] for j, p, _ in bones], colors=colours)
            lines.set(linewidth=2.2, capstyle="round", zorder=2 - 0.5 * person)
            axes.add_collection(lines)
            if "head" in names:
                colour = SECOND[TRUNK] if person else TRUNK
                head = Circle(pose[names.index("head")], 0.055 * tall, facecolor=colour)
                head.set(edgecolor=PAPER, linewidth=0.8, zorder=3 - 0.5 * person)
                axes.add_patch(head)
    axes.set(xlim=(0, len(seen) * pitch), ylim=(floor - 0.02 * tall, high + 0.1 * tall))
    axes.set_aspect("equal")
    axes.axis("off")


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], path: str | Path) -> Path:
    """Draw a confusion matrix as percentages of each true class.

    Args:
        matrix: (K, K) counts, rows are true classes, columns predictions.
        classes: K class names.
        path: picture file to write; its directory is created.

    Returns:
        The path of the picture.

    Raises:
        ValueError: ``matrix`` is not (K, K).
    """
    k = len(classes)
    if matrix.shape != (k, k):
        raise ValueError(
            f"confusion_matrix: expected matrix of shape ({k}, {k}), got {matrix.shape}"
        )
    percent = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = _figure(2.4 + 0.42 * k, 1.6 + 0.42 * k)
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=115)
    for row, column in np.argwhere(percent >= 0.5):
        value = percent[row, column]
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8,
                  color=PAPER if value > 60 else INK)  # fmt: skip
    axes.set_xticks(range(k), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(k), classes)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"top-1 {100 * np.trace(matrix) / max(matrix.sum(), 1):.1f} %", color=INK)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=RULE, linewidth=0.6)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)
    return _save(figure, path)


def training_curve(history: Mapping[str, Sequence[tuple[float, float]]], path: str | Path) -> Path:
    """Draw named curves over epochs: losses (names with "loss") above, accuracies in % below.

    Args:
        history: points (epoch, value) by curve name; accuracies in 0..1.
        path: picture file to write; its directory is created.

    Returns:
        The path of the picture.
    """
    figure = _figure(6.4, 5.2)
    panels = figure.subplots(2, 1, sharex=True)
    colours = {"train": TRUNK, "test": RIGHT, "val": RIGHT}
    for name, points in history.items():
        if not len(points):
            continue
        epoch, value = np.asarray(points, float).T
        loss = "loss" in name
        axes, value = panels[0 if loss else 1], value if loss else 100 * value
        colour = next((c for key, c in colours.items() if key in name), LEFT)
        axes.plot(
            epoch, value, color=colour, lw=1.8, marker="o", ms=3.5, label=name.replace("_", " ")
        )
    for axes, label in zip(panels, ("loss", "top-1 (%)"), strict=True):
        axes.set_ylabel(label, color=INK)
        axes.grid(color=RULE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
        if axes.lines:
            axes.legend(frameon=False, labelcolor=INK)
    panels[1].set_xlabel("epoch", color=INK)
    return _save(figure, path)
