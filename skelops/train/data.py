"""Clips of a source, split by a protocol, as Lightning loaders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import lightning
from torch.utils.data import DataLoader

from skelops.data import ClipDataset, Clips, loader, read, split, synthetic


class SkeletonDataModule(lightning.LightningDataModule):
    """Loaders of batches x (N, C, T, V, M) float32 and y (N,) int64.

    The clips that the protocol sets aside serve for validation and test, as in the published
    recipes: report the last epoch, never the best one.

    Args:
        source: "synthetic", or a path for :func:`skelops.data.read`.
        protocol: "cross_subject" or "cross_view".
        train_groups: subjects (views) to train on. Default: that of :func:`skelops.data.split`, for
            the synthetic set its ``TRAIN_SUBJECTS``.
        window: frames T per sample.
        batch_size: clips per batch and process.
        modality: "joint", "bone", "joint_motion" or "bone_motion".
        repeat: passes over the training clips per epoch.
        num_clips: size of the synthetic set.
        rotation: largest angle of the random rotation about x, y and z, radians.
        unit_box: scale each clip to the unit box, as published for NW-UCLA.
        p: bounds of the random crop, as shares of the clip.
        seed: of the synthetic set, the augmentation and the order.
        num_workers: worker processes of the loaders.

    Raises:
        ValueError: the source is damaged or the protocol leaves one side empty.
    """

    def __init__(
        self,
        source: str = "synthetic",
        protocol: str = "cross_subject",
        train_groups: Sequence[int] | None = None,
        window: int = 64,
        batch_size: int = 64,
        modality: str = "joint",
        repeat: int = 1,
        num_clips: int = 1536,
        rotation: float | tuple[float, float, float] = 0.3,
        unit_box: bool = False,
        p: tuple[float, float] = (0.5, 1.0),
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()

    @cached_property
    def clips(self) -> tuple[Clips, Clips]:
        """Training and test clips, read on first use."""
        h: Any = self.hparams
        made = h.source == "synthetic"
        clips = synthetic.generate(h.num_clips, h.seed) if made else read(h.source)
        groups = h.train_groups
        if groups is None and made and h.protocol == "cross_subject":
            groups = synthetic.TRAIN_SUBJECTS
        return split(clips, h.protocol, groups)

    @property
    def num_classes(self) -> int:
        return self.clips[0].num_classes

    @property
    def layout(self) -> str:
        return self.clips[0].layout

    @property
    def num_persons(self) -> int:
        return self.clips[0].num_persons

    def _loader(self, train: bool) -> DataLoader:
        h: Any = self.hparams
        ranks = self.trainer
        dataset = ClipDataset(
            self.clips[0 if train else 1],
            h.window,
            h.modality,
            train=train,
            repeat=h.repeat if train else 1,
            p=tuple(h.p),
            rotation=h.rotation,
            unit_box=h.unit_box,
            seed=h.seed,
        )
        return loader(
            dataset,
            h.batch_size,
            num_replicas=ranks.world_size if ranks else 1,
            rank=ranks.global_rank if ranks else 0,
            num_workers=h.num_workers,
        )

    def train_dataloader(self) -> DataLoader:
        return self._loader(train=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(train=False)

    test_dataloader = predict_dataloader = val_dataloader
