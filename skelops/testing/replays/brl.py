"""The long-tailed parts of BRL: its sampler, mix-up and loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skelops import graph, mixup_cross_entropy
from skelops.data import (
    BalancedSampler,
    ClipDataset,
    Clips,
    PartialMixUp,
    class_balanced_weights,
    long_tail_counts,
    tail_multipliers,
)
from skelops.testing.replay import Case, NotUnderstood, Replay, replays

REPOSITORY = "firework8/BRL"
PROFILES = {"xset_train": (400, 0.01), "train": (100, 0.1)}  # of a split, else:
NTU = (600, 0.01)
SECOND_STAGE = 19


def counts(split: str, num_classes: int) -> list[int]:
    return long_tail_counts(*PROFILES.get(split, NTU), num_classes)


def labelled(count: list[int]) -> Clips:
    """As many clips of each class, of one frame."""
    label = np.repeat(np.arange(len(count)), count)
    frames = np.ones((len(label), 1, 25, 3), np.float32)
    classes = tuple(map(str, range(len(count))))
    return Clips(frames, np.ones(len(label)), label, classes, "ntu25")


@replays(REPOSITORY, "ClassSpecificDistributedSampler")
def sampler(case: Case) -> Replay:
    names, times = case.meta["output_names"], case.kwargs["times"]

    def call(_: Tensor) -> list[Tensor]:
        found = {}
        for split in (name.removeprefix("count_") for name in names if name.startswith("count_")):
            count = counts(split, len(case.arrays[f"out.count_{split}"]))
            multiplier = tail_multipliers(count)
            clips = labelled(count)
            dataset = ClipDataset(clips, "none", train=True, repeat=times)
            draws = torch.tensor(list(BalancedSampler(dataset, multiplier)))
            label = torch.from_numpy(clips.label)[draws % len(clips)]
            found |= {
                f"count_{split}": torch.tensor(count),
                f"prob_{split}": torch.tensor(multiplier),
                f"drawn_{split}": label.bincount(minlength=len(count)),
            }
        return [found[name] for name in names]

    return Replay(call)


@replays(REPOSITORY, "rebalance_mix_up")
@replays(REPOSITORY, "base_mix_up")
def mix_up(case: Case) -> Replay:
    kwargs = case.kwargs
    layout = {25: "ntu25", 20: "nw_ucla20"}.get(case.arrays["in.keypoint"].shape[3])
    if layout is None or (kwargs["split"] == "train") != (layout == "nw_ucla20"):
        raise NotUnderstood(f"{case.kind} of the split {kwargs['split']}")
    module = PartialMixUp(
        counts(kwargs["split"], kwargs["num_classes"]),
        graph.get_layout(layout),
        ratio=kwargs["ratio"],
        alpha=kwargs["alpha"],
        imbalance=kwargs["im_k"] if case.kind == "rebalance_mix_up" else None,
    )

    def call(keypoint: Tensor, label: Tensor, chosen: Tensor, partner: Tensor) -> list[Tensor]:
        x = keypoint.permute(0, 4, 2, 3, 1)
        found = module.to(x.device)(x, label, chosen.cpu(), partner.cpu())
        mix = found.mix.view(1).to(keypoint.dtype)
        return [found.x.permute(0, 4, 2, 3, 1), found.label, found.label_b, mix]

    return Replay(call)


@replays(REPOSITORY, "heads/mixhead.py")
def action_aware_loss(case: Case) -> Replay:
    count = counts(case.kwargs["split"], case.kwargs["num_classes"])

    def call(z: Tensor, label_a: Tensor, label_b: Tensor, mix: Tensor) -> list[Tensor]:
        found, visits = {}, 0
        for epoch in case.kwargs["epochs"]:
            weight = torch.ones(len(count))
            if epoch >= SECOND_STAGE:  # the published object counts the epochs that it sees
                weight = class_balanced_weights(count, flipped=visits % 2 == 1)
                visits += 1
            weight = weight.to(z)
            loss = mixup_cross_entropy(z, label_a, label_b, mix.view(()), weight=weight)
            found |= {f"loss_e{epoch}": loss.view(1), f"weight_e{epoch}": weight}
        return [found[name] for name in case.meta["output_names"]]

    return Replay(call)
