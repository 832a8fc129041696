"""``skelops fit|validate|test|predict|probe|finetune``: LightningCLI on our modules and data."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from yaml import safe_load

from skelops.models import list_pretexts
from skelops.train.allocator import tune_allocator
from skelops.train.callbacks import CALLBACKS
from skelops.train.checkpoint import AtomicCheckpointIO
from skelops.train.data import SkeletonDataModule
from skelops.train.optimizing import Optimized
from skelops.train.pretrain import Pretrainer, data_settings, run_folder
from skelops.train.recognizer import Recognizer
from skelops.train.transfer import FineTuner, Probe

RECIPES = Path(__file__).parents[1] / "recipes"
TRANSFERS: dict[str, type[Recognizer]] = {"probe": Probe, "finetune": FineTuner}
TRANSFER_EPOCHS = 100
TRANSFER_HELP = (
    "RUN is the folder or a checkpoint of a run of fit without labels; the options are fit's."
)


class _CLI(LightningCLI):
    def add_arguments_to_parser(self, parser) -> None:
        for fact in self.model_class.FACTS:
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

    ``probe RUN`` and ``finetune RUN`` fit on what a run of ``fit`` without labels has learnt, with
    its data settings, and predict the test clips.

    Everything is written under ``trainer.default_root_dir``, by default ``runs/`` and the names of
    the recipes, or a folder of that name in the one of the run.

    Args:
        args: subcommand and its arguments, without the program name.
        run: False only builds model, data and trainer; ``args`` then has no subcommand.

    Raises:
        SystemExit: arguments that do not parse, an unknown recipe or not a run.
    """
    tune_allocator()
    try:
        args, recipes = _with_recipes(args)
        transfer = args[0] if run and args and args[0] in TRANSFERS else None
        if transfer is None:
            model, folder = _module_class(args), f"runs/{'-'.join(recipes) or 'default'}"
            epochs = {}
        elif args[1:2] in (["-h"], ["--help"]):
            print(f"skelops {transfer} RUN [options]: {TRANSFER_HELP}\n", flush=True)
            args, model, folder, epochs = ["fit", "--help"], TRANSFERS[transfer], transfer, {}
        else:
            epochs = {"max_epochs": TRANSFER_EPOCHS}
            given, args = args, _on_run(args)
            model, folder = TRANSFERS[transfer], f"{run_folder(given[1])}/{transfer}"
    except ValueError as error:
        raise SystemExit(f"skelops: {error}") from None
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    cli = _CLI(
        model,
        SkeletonDataModule,
        args=args,
        run=run,
        seed_everything_default=0,
        parser_kwargs={"prog": "skelops"},
        trainer_defaults={"default_root_dir": folder, **epochs},
        save_config_kwargs={"overwrite": True},
    )
    if transfer is not None:
        cli.trainer.predict(cli.model, cli.datamodule, return_predictions=False)
    return cli


def _with_recipes(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments with the paths of recipes for their names, and the names."""
    args, recipes = list(args), []
    for i, arg in enumerate(args):
        option, assigned, value = arg.partition("=")
        if option not in ("--config", "-c") or not (assigned or i + 1 < len(args)):
            continue
        recipe = find_recipe(value if assigned else args[i + 1])
        recipes.append(Path(recipe).stem)
        args[i if assigned else i + 1] = f"{option}={recipe}" if assigned else recipe
    return args, recipes


def _module_class(args: Sequence[str]) -> type[Optimized]:
    """What trains the model that the arguments name last: with labels or without."""
    model = None
    for i, arg in enumerate(args):
        option, assigned, value = arg.partition("=")
        value = value if assigned else (args[i + 1] if i + 1 < len(args) else "")
        if option in ("--config", "-c"):
            given = safe_load(Path(value).read_text(encoding="utf-8")) or {}
            model = (given.get("model") or {}).get("model", model)
        elif option == "--model.model":
            model = value
    return Pretrainer if model in list_pretexts() else Recognizer


def _on_run(args: Sequence[str]) -> list[str]:
    """``probe RUN ...`` as ``fit`` on the data of the run."""
    if len(args) < 2 or args[1].startswith("-"):
        raise ValueError(f"{args[0]}: expected the folder or a checkpoint of a run first")
    settings = {
        "data": data_settings(args[1]) | {"views": 1},
        "model": {"encoder": args[1]},
    }
    return ["fit", "--config", json.dumps(settings), *args[2:]]
