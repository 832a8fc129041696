"""``python -m skelops``: info, demo, fit, validate, test, predict."""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """usage: skelops <command> [options]

commands:
  info       versions, CPU features, and which backend answers for each op
  demo       train on the embedded synthetic data in minutes and draw the results
  fit        train: skelops fit --config ctr_gcn_synthetic
  validate   evaluate on the validation clips
  test       evaluate a checkpoint: skelops test --config ... --ckpt_path ...
  predict    class scores of the test clips
options of a command: skelops <command> --help"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``skelops`` command; returns the exit status."""
    command, *args = list(sys.argv[1:] if argv is None else argv) or [""]
    if command == "info":
        from skelops import info

        info.main()
    elif command == "demo":
        from skelops import demo

        demo.main(args)
    elif command in ("fit", "validate", "test", "predict"):
        from skelops.train import cli

        cli.main([command, *args])
    else:
        asked = command in ("", "-h", "--help")
        print(USAGE if asked else f"skelops: expected a command, got {command!r}\n{USAGE}",
              file=sys.stdout if asked else sys.stderr)  # fmt: skip
        return 0 if asked else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
