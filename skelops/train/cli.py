"""``skelops fit|validate|test|predict``: LightningCLI on the recogniser and the data module."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.cli import LightningCLI

from skelops.train.allocator import tune_allocator
from skelops.train.data import SkeletonDataModule
from skelops.train.recognizer import Recognizer

RECIPES = Path(__file__).parents[1] / "recipes"


class _CLI(LightningCLI):
    def add_arguments_to_parser(self, parser) -> None:
        for fact in ("num_classes", "layout", "num_persons"):
            parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")


def find_recipe(config: str) -> str:
    """The path of a recipe: a file, or the name of one that comes with skelops."""
    shipped = RECIPES / f"{Path(config).stem}.yaml"
    return config if Path(config).exists() or not shipped.exists() else str(shipped)


def main(args: Sequence[str], *, run: bool = True) -> LightningCLI:
    """Run a subcommand; ``--config`` also takes the name of a shipped recipe.

    Args:
        args: subcommand and its arguments, without the program name.
        run: False only builds model, data and trainer; ``args`` then has no subcommand.

    Raises:
        SystemExit: arguments that do not parse.
    """
    tune_allocator()
    args = list(args)
    for i, name in enumerate(args):
        if name in ("--config", "-c") and i + 1 < len(args):
            args[i + 1] = find_recipe(args[i + 1])
        elif name.startswith("--config="):
            args[i] = "--config=" + find_recipe(name.removeprefix("--config="))
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    return _CLI(
        Recognizer,
        SkeletonDataModule,
        args=args,
        run=run,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
    )
