"""``skelops data``: convert recordings to a clip store, describe, verify and split it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skelops.data.clips import Clips
from skelops.data.convert import ON_ERROR, convert
from skelops.data.formats import FORMATS, open_source
from skelops.data.longtail import long_tail
from skelops.data.normalize import PREPARATIONS, Prepared
from skelops.data.splits import PROTOCOLS, save_split, split
from skelops.data.store import DTYPES, verify


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the commands convert, info, verify and split; see ``skelops data --help``.

    Args:
        argv: arguments of the command. Default: those of the process.

    Raises:
        SystemExit: with status 2 for arguments that do not parse, and for data that are missing,
            damaged or not of a known format; 130 when interrupted. One line on stderr says which.
    """
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"skelops data: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        print("skelops data: interrupted, nothing was written", file=sys.stderr)
        raise SystemExit(130) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skelops data", description=__doc__)
    commands = parser.add_subparsers(metavar="command", required=True)

    formats = "\n".join(f"  {f.name:<14} {f.describes}" for f in FORMATS.values())
    command = commands.add_parser(
        "convert",
        help="write recordings in a published format to a store",
        epilog=f"formats:\n{formats}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=_convert)
    command.add_argument("source", type=Path, help="file or directory of recordings")
    command.add_argument("out", type=Path, help="store to write")
    command.add_argument("--format", choices=FORMATS, help="default: recognised from the source")
    command.add_argument("--workers", type=int, help="reading processes (default: one per core)")
    command.add_argument("--dtype", default=DTYPES[0], choices=DTYPES, help="of the coordinates")
    command.add_argument("--on-error", default=ON_ERROR[0], choices=ON_ERROR,
                         help="what to do about a damaged clip")  # fmt: skip
    command.add_argument("--option", action="append", default=[], metavar="KEY=VALUE",
                         type=_option, help="option of the format, repeatable")  # fmt: skip
    command.add_argument("--prepare", choices=PREPARATIONS,
                         help="drop, fill or resample frames as published")  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace the store")

    command = commands.add_parser("info", help="describe a store")
    command.set_defaults(run=_info)
    command.add_argument("store", type=Path)
    command.add_argument("--json", action="store_true", help="print JSON")

    command = commands.add_parser("verify", help="read a store and compare every checksum")
    command.set_defaults(run=_verify)
    command.add_argument("store", type=Path)

    command = commands.add_parser("split", help="write the split of a protocol to a file")
    command.set_defaults(run=_split)
    command.add_argument("store", type=Path)
    command.add_argument("--protocol", required=True,
                         help=f"{', '.join(PROTOCOLS)} or extra:<key>")  # fmt: skip
    command.add_argument("--out", type=Path, required=True, help=".npz file to write")
    command.add_argument("--train", type=int, nargs="+", metavar="GROUP",
                         help="subjects (views, setups) to train on")  # fmt: skip
    command.add_argument("--share", type=float, default=0.8, help="to train on, of a random split")
    command.add_argument("--long-tail", nargs=2, metavar=("LARGEST", "FACTOR"),
                         help="keep a long-tailed part of the clips to train on")  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="of a random split or a long tail")
    return parser


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected key=value, got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _convert(args: argparse.Namespace) -> None:
    source = open_source(args.source, args.format, **dict(args.option))
    if args.prepare is not None:
        source = Prepared(source, args.prepare)
    done = convert(
        source,
        args.out,
        workers=args.workers,
        progress=sys.stderr.isatty(),
        dtype=args.dtype,
        on_error=args.on_error,
        overwrite=args.overwrite,
    )
    for reason in done.skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    print(
        f"{args.out}: {done.clips} clips of {done.frames} frames, "
        f"{args.out.stat().st_size / 1e6:.1f} MB; {done.left_out} left out by the rules of the "
        f"data set, {len(done.skipped)} skipped"
    )


def describe(path: Path) -> dict[str, Any]:
    """What a store holds, as plain values.

    Args:
        path: the store.

    Returns:
        Counts, names and the distribution of the lengths, ready for JSON.

    Raises:
        FileNotFoundError, ValueError: see :meth:`Clips.open`.
    """
    clips = Clips.open(path)
    low, median, high = np.percentile(clips.length, (0, 50, 100)).tolist()
    labels = np.bincount(clips.label, minlength=clips.num_classes).tolist()
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "identity": clips.identity,
        "clips": len(clips),
        "frames": len(clips.xyz),
        "persons": clips.num_persons,
        "joints": clips.num_joints,
        "channels": clips.xyz.shape[3],
        "confidence": clips.confidence,
        "dtype": clips.xyz.dtype.name,
        "layout": clips.layout,
        "fps": clips.fps,
        "length": {"min": low, "median": median, "mean": clips.length.mean().item(), "max": high},
        "classes": list(zip(clips.classes, labels, strict=True)),
        "subjects": _counts(clips.subject),
        "views": _counts(clips.view),
        "extra": sorted(clips.extra),
    }


def _counts(group: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(group, return_counts=True)
    return dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))


def _info(args: argparse.Namespace) -> None:
    found = describe(args.store)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    score = ", the last a score" if found["confidence"] else ""
    length = ", ".join(f"{key} {value:g}" for key, value in found["length"].items())
    print(f"""{found["path"]}: {found["bytes"] / 1e6:.1f} MB
identity  {found["identity"]}
clips     {found["clips"]} of {found["frames"]} frames; length {length}
frame     {found["persons"]} persons, {found["joints"]} joints ({found["layout"]}), \
{found["channels"]} channels {found["dtype"]}{score}; {found["fps"] or "unknown"} Hz
subjects  {_numbered(found["subjects"])}
views     {_numbered(found["views"])}
extra     {", ".join(found["extra"]) or "-"}
classes   {len(found["classes"])}""")
    for name, count in found["classes"]:
        print(f"  {count:>7} {name}")


def _numbered(counts: dict[str, int]) -> str:
    return f"{len(counts)}: " + ", ".join(f"{key} ({count})" for key, count in counts.items())


def _verify(args: argparse.Namespace) -> None:
    verify(args.store)
    print(f"{args.store}: sound")


def _split(args: argparse.Namespace) -> None:
    clips = Clips.open(args.store)
    train, test = split(clips, args.protocol, args.train, share=args.share, seed=args.seed)
    if args.long_tail is not None:
        largest, factor = args.long_tail
        train = long_tail(clips, train, int(largest), float(factor), args.seed)
    save_split(args.out, train, test, clips)
    print(f"{args.out}: {len(train)} clips to train on, {len(test)} to test, {args.protocol}")
