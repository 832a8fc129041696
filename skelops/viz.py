"""Pictures of skeletons, confusion matrices and training curves (matplotlib, no display needed)."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skelops import _check
from skelops.graph import Layout, get_layout

try:
    from matplotlib import rc_context
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
except ImportError as error:
    raise ImportError("skelops.viz needs matplotlib: pip install 'skelops[viz]'") from error

INK, PAPER, RULE = "#22303c", "#ffffff", "#d9dee3"
LEFT, RIGHT, TRUNK = "#1f77b4", "#e4572e", "#33414e"
# One hue per person, told apart by all colour-blind readers (Okabe and Ito, 2008).
PERSONS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SUFFIXES = ((".png", ".svg", ".pdf"), (".gif", ".html"))  # of figures, of animations
CELL, SCREEN = 1.5, 4.2  # inches, height of a row of a strip and of an animated clip
UP = ("auto", "y", "-y", "z")
# What points to the right, up and towards the viewer, by the axis that points up.
_FRONT = {
    "y": ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),  # depth cameras: z away from the camera
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),  # image coordinates
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),  # motion capture
}


# What a segment's joint is called, and how its coordinates are drawn.
JOINTS = {
    "chest": "waist", "head": "neck", "upper_arm": "shoulder", "forearm": "elbow", "hand": "wrist",
    "thigh": "hip", "shank": "knee", "foot": "ankle",
}  # fmt: skip
DASHES = {"x": "-", "y": "--", "z": ":"}


@dataclass(frozen=True)
class Look:
    """How clips are seen.

    Args:
        persons: 0-based persons to draw. Default: all.
        confidence: the last channel is a score in [0, 1], drawn as opacity.
        elev: height of the viewpoint above the horizontal, degrees; 3-D only.
        azim: angle by which the viewpoint moves to the right about the vertical, degrees; 3-D only.
        up: axis that points up: "y", "-y" (as in images), "z", or "auto", from the feet to the
            head; where a layout has neither, "-y" of 2-D and "y" of 3-D clips.
    """

    persons: Sequence[int] | None = None
    confidence: bool = False
    elev: float = 0.0
    azim: float = 0.0
    up: str = "auto"


class _Motion:
    """A clip projected on the picture: flat (T, M, V, 2), depth and alpha (T, M, V).

    The projection is orthographic, so lengths compare over the whole clip.
    """

    def __init__(self, clip: np.ndarray, layout: str | Layout, look: Look) -> None:
        self.layout = get_layout(layout)
        clip = np.asarray(clip, np.float32)
        axes = clip.shape[-1] - look.confidence
        if clip.ndim != 4 or axes not in (2, 3):
            raise _check.fail("viz", "a clip of shape (T, M, V, 2 or 3 + confidence)", clip.shape)
        if clip.shape[2] != self.layout.num_joints:
            wanted = f"the {self.layout.num_joints} joints of layout {self.layout.name}"
            raise _check.fail("viz", wanted, clip.shape[2])
        self.persons = range(clip.shape[1]) if look.persons is None else look.persons
        if not set(self.persons) <= set(range(clip.shape[1])):
            wanted = f"persons in 0..{clip.shape[1] - 1}"
            raise _check.fail("viz", wanted, list(self.persons))
        clip = clip[:, list(self.persons)]
        self.alpha = np.ones(clip.shape[:3], np.float32)
        if look.confidence:
            self.alpha = clip[..., -1].clip(0, 1)
        self.alpha *= clip[..., :axes].any((2, 3))[..., None]
        if not self.alpha.any():
            raise _check.fail("viz", "a clip with a person to draw", "none in any frame")
        self._project(clip[..., :axes], look)
        seen = self.flat[self.alpha > 0]
        self.low, self.high = seen.min(0), seen.max(0)

    def __len__(self) -> int:
        return len(self.flat)

    def _project(self, xyz: np.ndarray, look: Look) -> None:
        axes = xyz.shape[-1]
        self.up = up = self._up(xyz) if look.up == "auto" else look.up
        if up not in _FRONT or (up == "z" and axes == 2):
            wanted = f"up one of {', '.join(UP)} ('z' for 3-D clips only)"
            raise _check.fail("viz", wanted, repr(up))
        if axes == 2:
            if look.elev or look.azim:
                raise _check.fail("viz", "elev and azim of 3-D clips only", "a 2-D clip")
            self.flat = xyz * np.float32([1, -1 if up == "-y" else 1])
            self.depth = np.zeros_like(self.alpha)
            return
        right, above, near = np.float32(_FRONT[up])
        (ce, ca), (se, sa) = (f(np.radians([look.elev, look.azim])) for f in (np.cos, np.sin))
        right, near = ca * right - sa * near, sa * right + ca * near
        above, near = ce * above - se * near, se * above + ce * near
        self.flat = xyz @ np.stack([right, above], 1)
        self.depth = xyz @ near

    def _up(self, xyz: np.ndarray) -> str:
        """The axis that points from the feet to the head."""
        head, feet = self._mean(xyz, ("head", "nose")), self._mean(xyz, ("ankle", "foot"))
        if head is None or feet is None:
            return "y" if xyz.shape[-1] == 3 else "-y"
        body = head - feet
        if len(body) == 3 and abs(body[2]) > abs(body[1]):
            return "z"
        return "y" if body[1] > 0 else "-y"

    def _mean(self, xyz: np.ndarray, words: Sequence[str]) -> np.ndarray | None:
        """Mean place of the visible joints whose names hold one of the words."""
        names = self.layout.joint_names
        joints = [v for v, name in enumerate(names) if any(word in name for word in words)]
        seen = xyz[:, :, joints][self.alpha[:, :, joints] > 0]
        return seen.mean(0) if len(seen) else None


def _tones(person: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of the trunk, the left and the right: the person's hue, dark left, light right."""
    hue = np.array(to_rgb(PERSONS[person % len(PERSONS)]))
    return hue, 0.45 * hue, 0.45 * hue + 0.55


class _Skeletons:
    """Poses of a clip in one axes: bones from far to near, joints on top."""

    def __init__(self, axes: Axes, motion: _Motion, width: float) -> None:
        layout = motion.layout
        side = np.zeros(layout.num_joints, int)
        for pair in layout.left_right:
            side[list(pair)] = 1, 2
        self.motion = motion
        self.links = np.array([*layout.bones, *layout.extra_edges], int).reshape(-1, 2)
        joint, parent = self.links.T
        tones = np.array([_tones(person) for person in motion.persons])
        self.bone_colours = tones[:, np.where(side[joint], side[joint], side[parent])]
        self.joint_colours = tones[:, side]
        head = [name == "head" for name in layout.joint_names]
        self.sizes = np.where(head, 4.6 * width, 1.5 * width) ** 2
        self.bones = LineCollection([], linewidths=width, capstyle="round", zorder=2)
        axes.add_collection(self.bones, autolim=False)
        self.joints = axes.scatter([], [], edgecolors=PAPER, linewidths=0.15 * width, zorder=3)
        axes.set_aspect("equal")
        axes.axis("off")

    def show(self, frames: Sequence[int], shift: np.ndarray | float = 0.0) -> None:
        """Draw the poses of K frames at once, moved by ``shift`` (K, 1, 1, 2)."""
        motion = self.motion
        flat, depth, alpha = motion.flat[frames] + shift, motion.depth[frames], motion.alpha[frames]
        k, m, v = _visible(depth, alpha)
        colours = np.column_stack([self.joint_colours[m, v], alpha[k, m, v]])
        self.joints.set(offsets=flat[k, m, v], sizes=self.sizes[v], facecolor=colours)
        depth, alpha = depth[:, :, self.links].mean(-1), alpha[:, :, self.links].min(-1)
        k, m, b = _visible(depth, alpha)
        colours = np.column_stack([self.bone_colours[m, b], alpha[k, m, b]])
        self.bones.set(segments=flat[k[:, None], m[:, None], self.links[b]], color=colours)


def _visible(depth: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Indices (3, S) into (K, M, V) of what is not transparent, from far to near."""
    seen = np.argwhere(alpha > 0)
    return seen[np.argsort(depth[alpha > 0], kind="stable")].T


def strip(
    clips: np.ndarray | Sequence[np.ndarray],
    layout: str | Layout,
    *,
    frames: int = 8,
    heading: str = "",
    titles: Sequence[str] = (),
    predicted: Mapping[str, float] | None = None,
    truth: str | None = None,
    look: Look = Look(),
) -> Figure:
    """Draw clips as rows of skeletons, time from left to right, on one length scale per row.

    Each person has a hue, dark on the left side and light on the right. Every pose is moved to the
    middle of its column, but keeps its height.

    Args:
        clips: one clip (T, M, V, C), or several, one row each; a person who is all zero in a frame
            is not drawn.
        layout: joint layout of the clips.
        frames: skeletons per row, evenly spaced over the frames with a person.
        heading: title of the picture.
        titles: one per row.
        predicted: class scores to draw beside the clips, see :func:`scores`.
        truth: the true class, see :func:`scores`.
        look: what to draw and from where.

    Raises:
        ValueError: a clip that does not fit the layout or shows no person, or a wrong ``look``.
    """
    if frames < 1:
        raise _check.fail("strip", "frames >= 1", frames)
    motions = _motions(clips, layout, look)
    rows = [_Row(motion, frames) for motion in motions]
    width = CELL * max(row.width / row.height for row in rows)
    figure, axes = _page((len(rows), 1), (width, CELL), heading, titles, predicted, truth)
    for panel, motion, row in zip(axes, motions, rows, strict=True):
        skeletons = _Skeletons(panel, motion, width=2.2)
        skeletons.show(row.picked, row.shift)
        panel.axhline(row.low, color=RULE, linewidth=1.2, zorder=0)
        for place, frame in zip(row.place, row.picked, strict=True):
            panel.annotate(f"{frame}", (place, row.low), (0, -3), textcoords="offset points",
                           ha="center", va="top", fontsize=7, color=INK)  # fmt: skip
        panel.set(anchor="W", xlim=(0, row.width), ylim=(row.low, row.low + row.height))
    _legend(figure, motions)
    return figure


class _Row:
    """Where the poses of one row of a strip go, in the units of the clip."""

    def __init__(self, motion: _Motion, frames: int) -> None:
        filled = np.flatnonzero(motion.alpha.any((1, 2)))
        steps = np.linspace(0, len(filled) - 1, min(frames, len(filled))).round().astype(int)
        self.picked = filled[steps]
        seen = motion.alpha[self.picked, ..., None] > 0
        low = np.where(seen, motion.flat[self.picked], np.inf).min((1, 2))
        high = np.where(seen, motion.flat[self.picked], -np.inf).max((1, 2))
        wide, tall = (high - low)[:, 0].max(), high[:, 1].max() - low[:, 1].min()
        tall = max(tall, wide / 4) or 1.0
        self.low, self.height = low[:, 1].min() - 0.06 * tall, 1.2 * tall
        pitch = max(wide + 0.1 * tall, 0.7 * tall)
        self.width = pitch * frames
        self.place = pitch * (np.arange(len(self.picked)) + 0.5)
        across = self.place - (low + high)[:, 0] / 2
        self.shift = np.column_stack([across, np.zeros_like(across)])[:, None, None]


def animate(
    clips: np.ndarray | Sequence[np.ndarray],
    layout: str | Layout,
    *,
    fps: float = 30.0,
    heading: str = "",
    titles: Sequence[str] = (),
    predicted: Mapping[str, float] | None = None,
    truth: str | None = None,
    look: Look = Look(),
) -> FuncAnimation:
    """Draw clips as an animation, side by side; the longest sets the pace of the others.

    Args:
        clips: one clip (T, M, V, C), or several, as in :func:`strip`.
        layout: joint layout of the clips.
        fps: frames per second of the animation.
        heading, titles, predicted, truth, look: as in :func:`strip`.

    Raises:
        ValueError: as of :func:`strip`.
    """
    if not fps > 0:
        raise _check.fail("animate", "fps > 0", fps)
    motions = _motions(clips, layout, look)
    length = max(map(len, motions))
    spans = [np.maximum(motion.high - motion.low, 1e-6) for motion in motions]
    width = SCREEN * np.clip(max(across / up for across, up in spans), 0.6, 2.0)
    figure, axes = _page((1, len(motions)), (width, SCREEN), heading, titles, predicted, truth)
    skeletons = []
    for panel, motion, span in zip(axes, motions, spans, strict=True):
        skeletons.append(_Skeletons(panel, motion, width=3.6))
        margin = 0.08 * span.max()
        low, high = motion.low - margin, motion.high + margin
        panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    _legend(figure, motions)
    below = {"transform": axes[0].transAxes, "ha": "center", "va": "top"}
    clock = axes[0].text(0.5, 0, "", fontsize=8, color=INK, **below)

    def show(frame: int) -> None:
        clock.set_text(f"frame {frame} of {length}")
        for skeleton in skeletons:
            skeleton.show([frame * len(skeleton.motion) // length])

    show(0)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # arranged once, not for every frame
    return FuncAnimation(figure, show, frames=length, interval=1000 / fps, cache_frame_data=False)


def upward(clip: np.ndarray, layout: str | Layout, look: Look | None = None) -> str:
    """The axis that points up in a clip (T, M, V, C): "y", "-y" or "z", see :class:`Look`.

    Raises:
        ValueError: as :func:`strip`.
    """
    return _Motion(clip, layout, look or Look()).up


def torques(tau: np.ndarray, names: Sequence[str], fps: float, *, heading: str = "") -> Figure:
    """Draw the torques at the joints over time, those of a left and right joint in one panel.

    Args:
        tau: (T, n) in N m, ``skelops.dynamics.torques(...).tau``.
        names: of the n coordinates, ``.model.names``: segment, "about" or "along", axis. The root,
            which slides along some, is left out: the world exerts its forces.
        fps: frames per second.
        heading: above the figure.

    Returns:
        The figure; see :func:`save`.

    Raises:
        ValueError: shapes do not fit, names of no such form, or fps not above zero.

    Example:
        >>> found = skelops.dynamics.torques(clip, fps=30, layout="nw_ucla20")
        >>> save(torques(found.tau.numpy(), found.model.names, 30), "torques.svg")
    """
    if tau.ndim != 2 or tau.shape[1] != len(names):
        raise _check.fail("torques", f"tau of shape (T, {len(names)})", tau.shape)
    if not fps > 0:
        raise _check.fail("torques", "fps above zero", fps)
    parts = [re.fullmatch(r"((left|right)_)?(\w+)_(about|along)_([xyz])", name) for name in names]
    if not all(parts):
        strange = names[parts.index(None)]
        raise _check.fail("torques", "names like left_shank_about_x", repr(strange))
    found = [part.group(2, 3, 4, 5) for part in parts if part]
    roots = {segment for _, segment, way, _ in found if way == "along"}
    segments = list(dict.fromkeys(row[1] for row in found if row[1] not in roots))
    rows = -(-len(segments) // 2)
    figure, axes = _page((rows, 2), (3.6, 1.4), heading, (), None, None)
    panels = dict(zip(segments, axes, strict=False))
    colours = {"left": LEFT, "right": RIGHT, None: TRUNK}
    seconds = np.arange(len(tau)) / fps
    for values, (side, segment, _, axis) in zip(tau.T, found, strict=True):
        if segment not in roots:
            panels[segment].plot(seconds, values, DASHES[axis], color=colours[side], linewidth=1.2)
    for panel in axes[len(segments) :]:
        panel.axis("off")
    for segment, panel in panels.items():
        panel.set_title(JOINTS.get(segment, segment), loc="left", fontsize=9, color=INK)
        panel.grid(color=RULE, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=INK, labelsize=8)
        panel.set_ylabel("N m", color=INK, fontsize=8)
        panel.margins(x=0)
        panel.tick_params(labelbottom=segment in segments[-2:])
    for segment in segments[-2:]:
        panels[segment].set_xlabel("s", color=INK, fontsize=8)
    handles = [
        Line2D([], [], color=colours[side], linewidth=3, label=side or "middle")
        for side in dict.fromkeys(row[0] for row in found if row[1] not in roots)
    ]
    handles += [
        Line2D([], [], color=INK, linestyle=DASHES[axis], label=f"about {axis}")
        for axis in sorted({row[3] for row in found if row[1] not in roots})
    ]
    style = {"frameon": False, "fontsize": 8, "labelcolor": INK}
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), **style)
    return figure


def scores(
    axes: Axes, predicted: Mapping[str, float], *, truth: str | None = None, top: int = 5
) -> None:
    """Draw the highest class scores as bars.

    Args:
        axes: where to draw.
        predicted: probability in [0, 1] by class name.
        truth: the true class, drawn in colour.
        top: number of bars.
    """
    best = sorted(predicted, key=lambda name: -predicted[name])[:top]
    values = [100 * predicted[name] for name in best]
    bars = axes.barh(range(len(best)), values, height=0.35, align="edge", color=RULE)
    for row, (name, value, bar) in enumerate(zip(best, values, bars, strict=True)):
        if name == truth:
            bar.set_color(PERSONS[0])
        text = f"{name[:30]}  {value:.1f} %"
        axes.text(0, row - 0.08, text, fontsize=8, color=INK,
                  weight="bold" if name == truth else "normal")  # fmt: skip
    axes.set(xlim=(0, 100), ylim=(len(best), -0.6))
    axes.axis("off")


def save(picture: Figure | FuncAnimation, path: str | Path) -> Path:
    """Write a figure, or an animation as .gif or as a web page (.html) that needs nothing else.

    Args:
        picture: from :func:`strip`, :func:`animate` or matplotlib.
        path: file to write; its directory is created.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written.
        ValueError: an unknown suffix.
    """
    path = Path(path)
    known = SUFFIXES[isinstance(picture, FuncAnimation)]
    if path.suffix.lower() not in known:
        raise _check.fail("save", f"a file name ending in {' or '.join(known)}", repr(path.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, Figure):
        picture.savefig(path)
    elif path.suffix.lower() == ".html":
        path.write_text(_web_page(picture, path.stem), encoding="utf-8")
    else:
        picture.save(path, writer="pillow")
    return path


# The player of matplotlib takes the icons of its buttons from a font on the network.
_ICONS = {
    "minus": "2212", "plus": "002b", "pause": "23f8", "play": "25b6",
    "fast-backward": "23ee", "fast-forward": "23ed", "step-backward": "25c2",
    "step-forward": "25b8", "play.fa-flip-horizontal": "25c0",
}  # fmt: skip


def _web_page(animation: FuncAnimation, title: str) -> str:
    with rc_context({"animation.embed_limit": 1024}):  # MB; beyond it frames would be dropped
        player = animation.to_jshtml()
    player = re.sub(r"<link[^>]*>", "", player)
    icons = "".join(f'.fa-{name}::before{{content:"\\{code}"}}' for name, code in _ICONS.items())
    return (
        f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>body{{text-align:center}}.fa{{font-style:normal}}{icons}</style></head>"
        f"<body>{player}</body></html>"
    )


def _motions(
    clips: np.ndarray | Sequence[np.ndarray], layout: str | Layout, look: Look
) -> list[_Motion]:
    clips = [clips] if isinstance(clips, np.ndarray) else clips
    return [_Motion(clip, layout, look) for clip in clips]


def _figure(width: float, height: float) -> Figure:
    figure = Figure((width, height), dpi=100, facecolor=PAPER, layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    return figure


def _page(
    grid: tuple[int, int],
    size: tuple[float, float],
    heading: str,
    titles: Sequence[str],
    predicted: Mapping[str, float] | None,
    truth: str | None,
) -> tuple[Figure, list[Axes]]:
    """A figure with a grid (rows, columns) of panels (width, height) and the scores beside it."""
    (rows, columns), (width, height) = grid, size
    beside = 2.6 if predicted else 0.0
    total = max(columns * width, 2.2) + beside
    figure = _figure(total + 0.2, rows * (height + (0.2 if titles else 0)) + 0.9)
    ratios = [width] * columns + [beside] * bool(beside)
    cells = figure.add_gridspec(rows, len(ratios), width_ratios=ratios)
    axes = [figure.add_subplot(cells[r, c]) for r in range(rows) for c in range(columns)]
    for panel, title in zip(axes, titles, strict=False):
        panel.set_title(title, loc="left", fontsize=9, color=INK)
    if predicted:
        scores(figure.add_subplot(cells[:, -1]), predicted, truth=truth)
    lines = textwrap.wrap(heading, max(int(total * 13), 20))
    figure.suptitle("\n".join(lines), x=0.005, ha="left", fontsize=9, color=INK)
    return figure, axes


def _legend(figure: Figure, motions: Sequence[_Motion]) -> None:
    first = motions[0]
    shown = {p for m in motions for i, p in enumerate(m.persons) if m.alpha[:, i].any()}
    handles = []
    for person in sorted(shown):
        who = f"person {person}" if len(first.persons) > 1 else ""
        hue, *sides = _tones(person)
        tones = {"left": sides[0], "right": sides[1]} if first.layout.left_right else {"": hue}
        for side, tone in tones.items():
            handles.append(Line2D([], [], color=tone, linewidth=3, label=f"{who} {side}".strip()))
    if handles[0].get_label():
        columns = 2 * max(int(figure.get_figwidth() / 2.8), 1)
        style = {"frameon": False, "fontsize": 8, "labelcolor": INK, "handlelength": 1.2}
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, **style)


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
    return save(figure, path)


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
    return save(figure, path)
