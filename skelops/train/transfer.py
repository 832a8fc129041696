"""What a pre-trained encoder is worth: a linear probe, fine-tuning, nearest neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from skelops import ops
from skelops.data import ClipDataset, ClipLoader
from skelops.models import LinearProbe, build_classifier
from skelops.train.data import SkeletonDataModule
from skelops.train.pretrain import (
    checkpoint_of,
    data_settings,
    load_encoder,
    read_run,
    run_folder,
)
from skelops.train.recognizer import Recognizer


class Probe(Recognizer):
    """A linear layer on an encoder that stays as it is, see :class:`skelops.models.LinearProbe`.

    Training clips that are not augmented (``SkeletonDataModule.augment``) are encoded once.

    Args:
        encoder: a run of :class:`skelops.train.Pretrainer`, its folder or its checkpoint.
        random: the encoder as it was initialised, to compare with.
        normalize: the features before the linear layer.
        optimizer, lr, nesterov, weight_decay, schedule, warmup_epochs: as MAMP's probe.
        settings: see :class:`Recognizer`.
    """

    def __init__(
        self,
        encoder: str,
        num_classes: int = 60,
        random: bool = False,
        normalize: bool = True,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float = 0.1,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: Literal["multistep", "cosine", "one_cycle", "plateau", "constant"] = "cosine",
        warmup_epochs: float = 0,
        **settings: Any,
    ) -> None:
        super().__init__(
            LinearProbe(load_encoder(encoder, random=random), num_classes, normalize),
            num_classes=num_classes,
            optimizer=optimizer,
            lr=lr,
            nesterov=nesterov,
            weight_decay=weight_decay,
            schedule=schedule,
            warmup_epochs=warmup_epochs,
            **settings,
        )
        self.features: Tensor | None = None  # of the training clips, zero where not encoded yet

    def training_step(self, batch: Sequence[Tensor], i: int) -> Tensor:
        x, y, clip = batch
        data = self.trainer.datamodule
        if not data.hparams["augment"] and self.hparams["mix_up"] is None:
            x = self._encoded(x, clip, len(data.clips))
        return super().training_step((x, y, clip), i)

    def _encoded(self, x: Tensor, clip: Tensor, num_clips: int) -> Tensor:
        if self.features is None:
            self.features = x.new_zeros(num_clips, self.model.encoder.num_features)
        if not self.features[clip].any(1).all():
            with torch.no_grad():
                self.features[clip] = self.model.encoder(x).to(x.dtype)
        return self.features[clip]


class FineTuner(Recognizer):
    """An encoder and a classifier trained together, see :func:`skelops.models.build_classifier`.

    Args:
        encoder: a run of :class:`skelops.train.Pretrainer`, its folder or its checkpoint.
        random: the encoder as it was initialised, to train from scratch.
        classifier: arguments of the classifier, such as MAMP's ``layer_decay``.
        optimizer, lr, min_lr, weight_decay, decay_norms, schedule, warmup_epochs, label_smoothing:
            as MAMP's fine-tuning.
        settings: see :class:`Recognizer`.
    """

    def __init__(
        self,
        encoder: str,
        num_classes: int = 60,
        random: bool = False,
        classifier: dict[str, Any] | None = None,
        optimizer: Literal["sgd", "adamw"] = "adamw",
        lr: float = 3e-4,
        min_lr: float = 1e-5,
        weight_decay: float = 0.05,
        decay_norms: bool = False,
        schedule: Literal["multistep", "cosine", "one_cycle", "plateau", "constant"] = "cosine",
        warmup_epochs: float = 5,
        label_smoothing: float = 0.1,
        **settings: Any,
    ) -> None:
        network = load_encoder(encoder, random=random)
        super().__init__(
            build_classifier(network, num_classes, **(classifier or {})),
            num_classes=num_classes,
            optimizer=optimizer,
            lr=lr,
            min_lr=min_lr,
            weight_decay=weight_decay,
            decay_norms=decay_norms,
            schedule=schedule,
            warmup_epochs=warmup_epochs,
            label_smoothing=label_smoothing,
            **settings,
        )


def load_recognizer(run: str | Path) -> Recognizer:
    """A finished run of ``fit``, ``probe`` or ``finetune``, on the CPU and in evaluation mode.

    Args:
        run: its folder or its checkpoint; nothing in it is executed.

    Raises:
        ValueError: no such run, not a checkpoint of one, or one that trained without labels.
    """
    path = checkpoint_of(run)
    try:
        settings = read_run(path)["hyper_parameters"]
        kind: type[Recognizer] = Recognizer
        if "encoder" in settings:
            kind = FineTuner if "classifier" in settings else Probe
        if "frames" in settings:
            raise ValueError("one that trained without labels, which skelops finetune completes")
        found = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True, start=None)
    except (EOFError, KeyError, RuntimeError, TypeError, ValueError, UnpicklingError) as error:
        raise ValueError(f"{run}: expected a checkpoint of skelops fit, got {error}") from error
    return found.eval()


def encode(
    encoder: nn.Module, dataset: ClipDataset, batch_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features (N, D) of unit norm and labels (N,) of clips in the test form."""
    encoder = encoder.to(device).eval()
    found = []
    with torch.no_grad():
        for x, y, _ in ClipLoader(dataset, batch_size, shuffle=False):
            found.append((F.normalize(encoder(x)), y))
    features, labels = zip(*found, strict=True)
    return torch.cat(features), torch.cat(labels)


def few(label: Tensor, shots: int, seed: int) -> Tensor:
    """Rows of at most so many clips of each class, drawn with a seed."""
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    order = order.to(label.device)
    order = order[label[order].argsort(stable=True)]
    sorted_label = label[order]
    rank = torch.arange(len(label), device=label.device)
    return order[rank - torch.searchsorted(sorted_label, sorted_label) < shots]


def main(argv: Sequence[str]) -> dict[str, float]:
    """``skelops knn RUN``: accuracy of nearest neighbours among the training clips, by the cosine
    of the features; written to ``knn.json`` in the folder of the run.

    Args:
        argv: arguments, see ``skelops knn --help``.

    Returns:
        Top-1 by name, ``k=1``, ....

    Raises:
        SystemExit: arguments that do not parse.
        ValueError: not a run that trained without labels.
    """
    parser = ArgumentParser(prog="skelops knn", description="nearest neighbours of a run's encoder")
    parser.add_argument("run", type=str, help="folder or checkpoint of a run of skelops fit")
    parser.add_argument("--k", type=list[int], default=[1, 2, 5, 10], help="neighbours that vote")
    parser.add_argument("--temperature", type=float | None, help="weigh votes by exp(cos / t)")
    parser.add_argument("--shots", type=int | None, help="training clips per class to look among")
    parser.add_argument("--random", action="store_true", help="the encoder as initialised")
    parser.add_argument("--seed", type=int, default=0, help="of the random encoder and the shots")
    parser.add_argument("--device", type=str | None, help="by default the GPU, if there is one")
    parser.add_class_arguments(SkeletonDataModule, "data")
    if argv and not argv[0].startswith("-"):
        recorded = data_settings(argv[0]).items()
        parser.set_defaults({f"data.{name}": value for name, value in recorded})
    options = parser.parse_args(list(argv))
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(options.seed)
    encoder = load_encoder(options.run, random=options.random)
    data = SkeletonDataModule(**options.data.as_dict())
    sets = [
        encode(
            encoder,
            data.dataset(train, device, num_clips=1, augment=False),
            data.hparams["batch_size"],
            device,
        )
        for train in (True, False)
    ]
    (bank, label), (test, truth) = sets
    if options.shots is not None:
        chosen = few(label, options.shots, options.seed)
        bank, label = bank[chosen], label[chosen]
    found = {}
    for k in options.k:
        score = ops.knn_vote(
            test, bank, label, data.num_classes, k=k, temperature=options.temperature
        )
        found[f"k={k}"] = (score.argmax(1) == truth).float().mean().item()
        print(f"k = {k:<3} top-1 {100 * found[f'k={k}']:.1f} %")
    name = "knn-random.json" if options.random else "knn.json"
    (run_folder(options.run) / name).write_text(json.dumps(found, indent=1) + "\n")
    return found
