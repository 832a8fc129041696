"""``skelops fit|validate|test|predict``: LightningCLI on the recogniser and the data module."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from skelops.train.allocator import tune_allocator
from skelops.train.callbacks import CALLBACKS
from skelops.train.checkpoint import AtomicCheckpointIO
from skelops.train.data import SkeletonDataModule
from skelops.train.recognizer import Recognizer

RECIPES = Path(__file__).parents[1] / "recipes"


class _CLI(LightningCLI):
    def add_arguments_to_parser(self, parser) -> None:
        for fact in ("num_classes", "layout", "num_persons", "in_channels", "class_counts"):
            parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")
        parser.link_arguments("data.batch_size", "model.batch_size")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(ModelCheckpoint, "step_checkpoint")
        for name in ("checkpoint", "step_checkpoint"):
            parser.set_defaults(
                {f"{name}.filename": "last", f"{name}.enable_version_counter": False}
            )
            parser.link_arguments(
                "trainer.default_root_dir", f"{name}.dirpath", compute_fn=_checkpoint_folder
            )
        parser.set_defaults(
            {"checkpoint.save_on_train_epoch_end": True, "step_checkpoint.every_n_train_steps": 0}
        )

    def before_instantiate_classes(self) -> None:
        if self.subcommand and self.config[self.subcommand].weights_only is None:
            self.config[self.subcommand].weights_only = True

    def instantiate_trainer(self, **kwargs: Any):
        given = self._get(self.config_init, "trainer")
        if given.logger is None:
            folder = given.default_root_dir
            kwargs["logger"] = [
                CSVLogger(folder, "csv"),
                TensorBoardLogger(folder, "tensorboard", version=""),
            ]
        callbacks: list[Any] = [callback() for callback in CALLBACKS]
        if given.logger is not False:
            callbacks.append(LearningRateMonitor("step"))
        kwargs["callbacks"] = [*(given.callbacks or []), *callbacks]
        kwargs["plugins"] = [*(given.plugins or []), AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)


def _checkpoint_folder(root: str) -> str:
    return f"{root}/checkpoints"


def find_recipe(config: str) -> str:
    """The path of a recipe: a file, or the name of one that comes with skelops.

    Args:
        config: a path, or a name such as ``ctr_gcn`` or ``model/ctr_gcn``.

    Raises:
        ValueError: neither; the message lists what there is.
    """
    if Path(config).is_file():
        return config
    shipped = sorted(path for path in RECIPES.rglob("*.yaml"))
    names = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in shipped]
    wanted = config.removesuffix(".yaml")
    found = [i for i, name in enumerate(names) if wanted in (name, name.split("/")[-1])]
    if len(found) != 1:
        which = f"one of {', '.join(names[i] for i in found)}" if found else f"{config!r}"
        raise ValueError(
            f"--config: expected a file or the name of a recipe, {', '.join(names)}; got {which}"
        )
    return str(shipped[found[0]])


def main(args: Sequence[str], *, run: bool = True) -> LightningCLI:
    """Run a subcommand; ``--config`` also takes the name of a shipped recipe, and several of them.

    Everything is written under ``trainer.default_root_dir``, by default ``runs/`` and the names of
    the recipes.

    Args:
        args: subcommand and its arguments, without the program name.
        run: False only builds model, data and trainer; ``args`` then has no subcommand.

    Raises:
        SystemExit: arguments that do not parse, or an unknown recipe.
    """
    tune_allocator()
    args, recipes = list(args), []
    for i, arg in enumerate(args):
        option, assigned, value = arg.partition("=")
        if option not in ("--config", "-c") or not (assigned or i + 1 < len(args)):
            continue
        try:
            recipe = find_recipe(value if assigned else args[i + 1])
        except ValueError as error:
            raise SystemExit(f"skelops: {error}") from None
        recipes.append(Path(recipe).stem)
        args[i if assigned else i + 1] = f"{option}={recipe}" if assigned else recipe
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    return _CLI(
        Recognizer,
        SkeletonDataModule,
        args=args,
        run=run,
        seed_everything_default=0,
        trainer_defaults={"default_root_dir": f"runs/{'-'.join(recipes) or 'default'}"},
        save_config_kwargs={"overwrite": True},
    )
