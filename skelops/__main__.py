"""``python -m skelops``, or ``skelops``: one table of all commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

# command: (module whose main(args) runs it, whether main also takes the command, what it does)
COMMANDS = {
    "info": ("skelops.info", False, "versions, CPU features, and the backend of each op"),
    "demo": ("skelops.demo", False, "train on the embedded data in minutes and draw the results"),
    "data": ("skelops.data.cli", False, "convert, info, verify, split: recordings and clip stores"),
    "view": ("skelops.view", False, "draw a clip as a picture, an animation or a web page"),
    "fit": ("skelops.train.cli", True, "train: --config ctr_gcn_small --config synthetic"),
    "validate": ("skelops.train.cli", True, "evaluate on the validation clips"),
    "test": ("skelops.train.cli", True, "evaluate a checkpoint: --config ... --ckpt_path ..."),
    "predict": ("skelops.train.cli", True, "class scores of the test clips"),
    "export": ("skelops.export", False, "a trained network as ONNX, torch.export or machine code"),
    "stream": ("skelops.stream", False, "class scores while the frames come in, from JSON lines"),
    "ensemble": ("skelops.train.ensemble", False, "fuse the scores of several streams"),
    "bench-train": ("skelops.train.bench", False, "training speed and memory of a model"),
}  # fmt: skip
USAGE = "\n".join(
    ["usage: skelops <command> [options]", "", "commands:"]
    + [f"  {name:<12} {what}" for name, (_, _, what) in COMMANDS.items()]
    + ["options of a command: skelops <command> --help"]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``skelops`` command; returns the exit status."""
    command, *args = list(sys.argv[1:] if argv is None else argv) or [""]
    if command not in COMMANDS:
        asked = command in ("", "-h", "--help")
        print(USAGE if asked else f"skelops: expected a command, got {command!r}\n{USAGE}",
              file=sys.stdout if asked else sys.stderr)  # fmt: skip
        return 0 if asked else 2
    module, takes_command, _ = COMMANDS[command]
    import_module(module).main([command, *args] if takes_command else args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
