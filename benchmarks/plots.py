"""Plots as SVG text, a line per mark: small, and the same for the same results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

OURS, OTHERS, COMPILED = "#b0413e", "#4878a8", "#d08a3c"
CHARACTER = 6.5  # width of one in 12 px


class _Drawing:
    """Marks on white, in pixels."""

    def __init__(self, width: float, height: float) -> None:
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]

    def mark(self, tag: str, **attributes: str | float) -> None:
        self.lines.append(f"<{tag}{_attributes(attributes)}/>")

    def text(self, x: float, y: float, words: str, **attributes: str | float) -> None:
        placed = {"x": x, "y": y, **attributes}
        self.lines.append(f"<text{_attributes(placed)}>{escape(words, quote=False)}</text>")

    def path(self, points: Sequence[tuple[float, float]], colour: str = "black") -> None:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.mark("polyline", points=corners, fill="none", stroke=colour)

    def __str__(self) -> str:
        return "\n".join([*self.lines, "</svg>\n"])


def _attributes(named: dict[str, str | float]) -> str:
    """Underscores stand for hyphens; numbers keep one decimal."""

    def shown(value: str | float) -> str:
        return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")

    return "".join(f' {name.replace("_", "-")}="{shown(v)}"' for name, v in named.items())


def _step(largest: float) -> float:
    """Between ticks of an axis from zero: about six of them, at 1, 2 or 5 times a power of ten."""
    decade = 10 ** math.floor(math.log10(largest / 6))
    return next(decade * k for k in (1, 2, 5, 10) if decade * k >= largest / 6)


def speedups(title: str, rows: Sequence[tuple[str, float | None, float | None]]) -> str:
    """Bars of (label, times faster than eager, than compiled); None where it was not measured."""
    left = CHARACTER * max(len(label) for label, *_ in rows) + 16
    top, row, width = 36, 32, 420
    bottom = top + row * len(rows)
    largest = max((factor or 0 for _, *factors in rows for factor in factors), default=1)
    scale = width / max(largest, 1)
    picture = _Drawing(left + width + 60, bottom + 72)
    picture.text(left, 20, title, font_weight="bold")
    for i, (label, *factors) in enumerate(rows):
        y = top + row * i
        picture.text(left - 8, y + row / 2 + 4, label, text_anchor="end")
        for factor, colour in zip(factors, (OTHERS, COMPILED), strict=True):
            length = scale * (factor or 0)
            if factor:
                picture.mark("rect", x=left, y=y + 3, width=length, height=12, fill=colour)
            words = f"{factor:.1f}x" if factor else "-"
            picture.text(left + length + 4, y + 13, words, font_size=11)
            y += 13
    picture.path([(left, top), (left, bottom), (left + width, bottom)])
    picture.path([(left + scale, top), (left + scale, bottom)])
    step = _step(max(largest, 1))
    for k in range(int(largest / step) + 1):
        picture.text(left + scale * step * k, bottom + 16, f"{step * k:g}", text_anchor="middle")
    picture.text(left + width / 2, bottom + 34, "times faster", text_anchor="middle")
    for x, colour, peer in ((left, OTHERS, "eager"), (left + 110, COMPILED, "torch.compile")):
        picture.mark("rect", x=x, y=bottom + 48, width=24, height=12, fill=colour)
        picture.text(x + 30, bottom + 58, f"over {peer}")
    return str(picture)


def roofline(title: str, rows: Sequence[tuple[str, float, float | None, float]]) -> str:
    """A line per (label, operations per byte, rate of eager, ours), all as shares of the roof's.

    From eager PyTorch (open) to ours (filled); the black line is the roof.
    """
    left, top, size, spacing = 64, 36, 560, 15
    right, bottom = left + size, top + max(size, spacing * len(rows))
    rates = [rate for _, _, *both in rows for rate in both if rate]
    x0, x1 = _decades([x for _, x, *_ in rows] + [1])
    y0, y1 = _decades([*rates, 1])

    def at(x: float, y: float) -> tuple[float, float]:
        across, down = (math.log10(x) - x0) / (x1 - x0), (y1 - math.log10(y)) / (y1 - y0)
        return left + size * across, top + (bottom - top) * down

    longest = max(len(label) for label, *_ in rows)
    picture = _Drawing(right + 44 + CHARACTER * longest, bottom + 48)
    picture.text(left, 20, title, font_weight="bold")
    picture.path([(left, top), (left, bottom), (right, bottom)])
    for k in range(x0, x1 + 1):
        picture.text(at(10**k, 1)[0], bottom + 16, f"{10.0**k:g}", text_anchor="middle")
    for k in range(y0, y1 + 1):
        picture.text(left - 6, at(1, 10**k)[1] + 4, f"{10.0**k:g}", text_anchor="end")
    across = "operations per byte, over those at which arithmetic becomes the limit"
    picture.text(left + size / 2, bottom + 38, across, text_anchor="middle")
    upwards, middle = "operations per second, over the most that was measured", (top + bottom) / 2
    turned = f"rotate(-90 14 {middle:.0f})"
    picture.text(14, middle, upwards, text_anchor="middle", transform=turned)
    start = 10.0 ** max(x0, y0)
    picture.path([at(start, start), at(1, 1), at(10**x1, 1)])
    for i, (label, x, eager, ours) in enumerate(rows, 1):
        end = at(x, ours)
        if eager:
            begin = at(x, eager)
            picture.path([begin, end], OTHERS)
            picture.mark("circle", cx=begin[0], cy=begin[1], r=3, fill="white", stroke=OURS)
        picture.mark("circle", cx=end[0], cy=end[1], r=3, fill=OURS, stroke=OURS)
        picture.text(end[0] + 4, end[1] - 3, f"{i}", font_size=9)
        picture.text(right + 20, top + spacing * i, f"{i} {label}", font_size=11)
    return str(picture)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Exponents of the powers of ten around all values."""
    low = math.floor(math.log10(min(values)))
    return low, max(math.ceil(math.log10(max(values))), low + 1)
