"""Plots of the results, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

OURS, OTHERS, COMPILED = "#b0413e", "#4878a8", "#d08a3c"
# Words as words and names that do not change from run to run: small files, and small differences.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "skelops"}


def svg(figure: Figure) -> str:
    with matplotlib.rc_context(STYLE), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return file.getvalue()


def speedups(title: str, rows: Sequence[tuple[str, float | None, float | None]]) -> Figure:
    """Bars of (label, times faster than eager, than compiled); None where it was not measured."""
    figure = Figure(figsize=(8, 1 + 0.45 * len(rows)), layout="constrained")
    axes = figure.subplots()
    labels, *factors = zip(*rows, strict=True)
    peers = (("eager", OTHERS), ("torch.compile", COMPILED))
    for i, ((peer, colour), found) in enumerate(zip(peers, factors, strict=True)):
        places = [k + 0.38 * (i - 0.5) for k in range(len(rows))]
        widths = [factor or 0 for factor in found]
        bars = axes.barh(places, widths, 0.36, color=colour, label=f"over {peer}")
        axes.bar_label(bars, [f"{f:.1f}x" if f else "-" for f in found], padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("times faster")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def roofline(title: str, rows: Sequence[tuple[str, float, float | None, float]]) -> Figure:
    """A line per (label, operations per byte, rate of eager, ours), all as shares of the roof's.

    From eager PyTorch (open) to ours (filled); the black line is the roof.
    """
    figure = Figure(figsize=(10, max(6, 0.19 * len(rows))), layout="constrained")
    axes = figure.subplots()
    for i, (label, x, eager, ours) in enumerate(rows, 1):
        if eager:
            axes.plot([x, x], [eager, ours], color=OTHERS, linewidth=0.8)
            axes.plot(x, eager, "o", color="white", markeredgecolor=OURS, markersize=5)
        axes.plot(x, ours, "o", color=OURS, markersize=5)
        axes.annotate(f"{i}", (x, ours), xytext=(4, 3), textcoords="offset points", fontsize=7)
        axes.plot([], [], " ", label=f"{i} {label}")
    axes.set(xscale="log", yscale="log")
    (low, high), bottom = axes.get_xlim(), axes.get_ylim()[0]
    start, end = max(low, bottom), max(high, 2)
    axes.plot([start, 1, end], [start, 1, 1], color="black", linewidth=1)
    axes.set_xlabel("operations per byte, over those at which arithmetic becomes the limit")
    axes.set_ylabel("operations per second, over the most that was measured")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=7, handlelength=0)
    return figure
