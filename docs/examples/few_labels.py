"""Learn from clips without labels first, then from few with labels, against the labels alone."""

import argparse
import copy
import logging

import lightning
from torch import nn

from skelops.data import synthetic
from skelops.models import build_classifier
from skelops.train import Pretrainer, Recognizer, SkeletonDataModule

CLIPS = {"num_clips": 768, "window": 32, "transform": "mamp", "batch_size": 32}
CLIPS |= {"train_groups": synthetic.TRAIN_SUBJECTS, "transform_args": {"shortest": 16}}
ENCODER = {"width": 32, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_depth": 1}


def trainer(epochs: int) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def accuracy(encoder: nn.Module, epochs: int) -> float:
    """Of clips of unseen subjects, after fine-tuning on a twentieth of the labels."""
    labelled = SkeletonDataModule(**CLIPS, fraction=0.05, repeat=16)
    tuned = Recognizer(
        build_classifier(encoder, labelled.num_classes, layer_decay=0.8),
        labelled.num_classes, labelled.layout, labelled.num_persons,
        optimizer="adamw", lr=1e-3, weight_decay=0.05, schedule="cosine", warmup_epochs=1,
    )  # fmt: skip
    run = trainer(epochs)
    run.fit(tuned, labelled)
    return run.test(tuned, labelled, verbose=False)[0]["test_top1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60, help="without labels")
    parser.add_argument("--tuning-epochs", type=int, default=8, help="with labels")
    args = parser.parse_args()
    lightning.seed_everything(0, verbose=False)
    data = SkeletonDataModule(**CLIPS)
    pretrainer = Pretrainer(
        "mamp",
        data.layout,
        data.num_persons,
        data.in_channels,
        data.frames,
        ENCODER,
        lr=3e-3,
        warmup_epochs=2,
    )
    untrained = copy.deepcopy(pretrainer.model.encoder)
    run = trainer(args.epochs)
    run.fit(pretrainer, data)
    print(f"loss without labels: {run.callback_metrics['train_loss']:.3f}")
    learnt = accuracy(pretrainer.model.encoder, args.tuning_epochs)
    print(f"a twentieth of the labels, pre-trained:  {100 * learnt:.0f} %")
    alone = accuracy(untrained, args.tuning_epochs)
    print(f"a twentieth of the labels, from scratch: {100 * alone:.0f} %")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main()
