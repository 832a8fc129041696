"""``skelops view``: draw a clip as a picture, an animation or a web page."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skelops import _check
from skelops.data import ClipDataset, Clips, read, synthetic

if TYPE_CHECKING:
    from skelops.viz import Look

FPS = 30.0  # of clips that were recorded at an unknown rate
GRAVITY = {"y": (0.0, -9.81, 0.0), "-y": (0.0, 9.81, 0.0), "z": (0.0, 0.0, -9.81)}
SYNTHETIC = 384  # clips of the synthetic set on offer: each class of each subject once


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one clip of a store, a recording or the synthetic set, see ``skelops view --help``.

    Args:
        argv: arguments of the command. Default: those of the process.

    Raises:
        SystemExit: with status 2 for arguments that do not parse, a source that cannot be read, a
            clip that is not in it and a file that cannot be written; one line on stderr says which.
    """
    args = _parser().parse_args(argv)
    try:
        print(draw(args))
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"skelops view: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skelops view", description=__doc__)
    add = parser.add_argument
    add("source", help='a clip store, a recording in a known format, or "synthetic"')
    add("--clip", default="0", metavar="NAME|INDEX", help="clip to draw (default: the first)")
    out = "picture (.png), animation (.gif) or web page (.html) to write (default: view.png)"
    add("--out", type=Path, default=Path("view.png"), metavar="FILE", help=out)
    add("--format", help="format of the source, where it is not recognised")
    add("--layout", help="draw the bones of this joint layout instead of the recorded one")
    add("--frames", type=int, default=8, help="skeletons in a picture (default: 8)")
    add("--fps", type=float, help="frames per second (default: as recorded, or 30)")
    add("--persons", type=_numbers, metavar="P[,P...]", help="draw these, from 0 (default: all)")
    add("--transform", metavar="PRESET", help="draw the augmented clip beside the original")
    add("--seed", type=int, default=0, help="seed of the augmentation")
    add("--epoch", type=int, default=0, help="epoch of the augmentation")
    add("--torques", action="store_true", help="draw the torques at a person's joints over time")
    add("--predict", metavar="CHECKPOINT", help="draw the five highest class scores")
    add("--elev", type=float, default=0.0, help="degrees above the horizontal (3-D)")
    add("--azim", type=float, default=0.0, help="degrees about the vertical (3-D)")
    up = "axis that points up (default: from the feet to the head); of images: --axis-up=-y"
    add("--axis-up", default="auto", metavar="y|-y|z|auto", help=up)
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def draw(args: argparse.Namespace) -> Path:
    """Draw what the parsed arguments ask for; returns the file."""
    from skelops import viz

    still, moving = viz.SUFFIXES
    suffix = args.out.suffix.lower()
    if suffix not in still + moving:
        known = ", ".join(still + moving)
        raise _check.fail("--out", f"a file name ending in one of {known}", repr(str(args.out)))
    clips = _open(args.source, args.format)
    index = find_clip(clips, args.clip)
    args.out.parent.mkdir(parents=True, exist_ok=True)  # fails before the drawing, if at all
    look = viz.Look(args.persons, clips.confidence, args.elev, args.azim, args.axis_up)
    layout = args.layout or clips.layout
    fps = (clips.fps or FPS) if args.fps is None else args.fps
    if args.torques:
        if suffix in moving:
            raise _check.fail("--out", f"one of {', '.join(still)} with --torques", repr(suffix))
        tau, names = _torques(clips[index], layout, fps, look)
        return viz.save(viz.torques(tau, names, fps, heading=heading(clips, index)), args.out)
    shown, titles = [clips[index]], []
    if args.transform:
        shown.append(_transformed(clips, index, args.transform, args.seed, args.epoch))
        titles = ["original", f"{args.transform}, seed {args.seed}, epoch {args.epoch}"]
    options = {
        "heading": heading(clips, index),
        "titles": titles,
        "predicted": _predicted(args.predict, clips, index) if args.predict else None,
        "truth": clips.classes[clips.label[index]],
        "look": look,
    }
    if suffix in moving:
        return viz.save(viz.animate(shown, layout, fps=fps, **options), args.out)
    return viz.save(viz.strip(shown, layout, frames=args.frames, **options), args.out)


def _open(source: str, format: str | None) -> Clips:
    if source == "synthetic":
        return synthetic.generate(SYNTHETIC)
    return read(source, format)


def find_clip(clips: Clips, wanted: str) -> int:
    """Index of the clip of that name or, where no clip has it, of that number.

    Raises:
        ValueError: neither; the message lists names that are close.
    """
    named = np.flatnonzero(clips.name == wanted)
    if len(named):
        return int(named[0])
    if wanted.isdecimal():
        if int(wanted) < len(clips):
            return int(wanted)
        raise _check.fail("--clip", f"a name or an index in 0..{len(clips) - 1}", wanted)
    close = difflib.get_close_matches(wanted, clips.name.tolist(), n=5, cutoff=0.5)
    expected = f"one like {', '.join(close)}" if close else f"a name like {clips.name[0]}"
    raise _check.fail("--clip", f"{expected}, or an index in 0..{len(clips) - 1}", repr(wanted))


def heading(clips: Clips, index: int) -> str:
    """What is known about a clip, in one line."""
    label, length = clips.label[index], clips.length[index]
    facts = [
        f"{clips.name[index]}",
        f"{clips.classes[label]} (class {label})",
        f"subject {clips.subject[index]}",
        f"view {clips.view[index]}",
        f"{length} frame{'s' * bool(length > 1)}",
    ]
    if clips.fps:
        facts.append(f"{clips.fps:g} fps")
    return " · ".join(facts)


def _torques(
    clip: np.ndarray, layout: str, fps: float, look: Look
) -> tuple[np.ndarray, Sequence[str]]:
    """Torques (T, n) and their names, of the first person to be drawn."""
    from skelops import dynamics, viz

    up = viz.upward(clip, layout, look)
    person = (look.persons or (0,))[0]
    joints = clip[:, person, :, : clip.shape[-1] - look.confidence].copy()
    found = dynamics.torques(joints, fps, layout, gravity=GRAVITY[up])
    return found.tau.numpy(), found.model.names


def _transformed(clips: Clips, index: int, preset: str, seed: int, epoch: int) -> np.ndarray:
    """The clip (T, M, V, C) as a training on all clips of the source sees it in that epoch."""
    draw = epoch * len(clips) + index
    sample = ClipDataset(clips.select([index]), preset, train=True, seed=seed)[draw]
    return sample.x.permute(1, 3, 2, 0).numpy()


def _predicted(checkpoint: str, clips: Clips, index: int) -> Mapping[str, float]:
    """Probability by class name, of the clip as the test of that training saw it."""
    import torch

    from skelops.train import SkeletonDataModule, load_recognizer
    from skelops.train.pretrain import data_settings

    network = load_recognizer(checkpoint)
    data = SkeletonDataModule(**data_settings(checkpoint))
    data.clips, data.index = clips.select([index]), (np.array([0]), np.array([0]))
    for fact in ("num_classes", "layout", "num_persons"):
        theirs, ours = network.hparams[fact], getattr(data, fact)
        if theirs != ours:
            raise _check.fail(checkpoint, f"{fact} {ours}, as the clip has it", theirs)
    samples = data.dataset(train=False)
    with torch.inference_mode():
        probability = network(samples.__getitems__(range(len(samples))).x).softmax(1).mean(0)
    return dict(zip(clips.classes, probability.tolist(), strict=True))
