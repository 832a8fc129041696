"""Clips of a source, split by a protocol, as Lightning loaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import lightning
import numpy as np
import torch

from skelops.data import (
    ClipDataset,
    ClipLoader,
    Clips,
    ClipTransform,
    RecordedDataset,
    RenderedDataset,
    class_counts,
    get_transform,
    load_split,
    long_tail,
    read,
    split,
    synthetic,
    tail_multipliers,
)
from skelops.data.longtail import check_counts


class SkeletonDataModule(lightning.LightningDataModule):
    """Loaders of :class:`skelops.data.Batch`: x (N, C, T, V, M), y (N,) and clip (N,).

    Batches are built on the device that trains, from the store where it lies: memory-mapped on a
    CPU, in one copy in the memory of a GPU. The clips that the protocol sets aside serve for
    validation and test, as in the published recipes: report the last epoch, never the best one.

    Args:
        source: "synthetic", a clip store, or anything :func:`skelops.data.read` opens.
        protocol: a protocol of :func:`skelops.data.split`.
        split_file: clips to train and test on, see :func:`skelops.data.load_split`; replaces
            ``protocol``.
        divide: per-clip array that tells the classes apart further, see
            :meth:`skelops.data.Clips.divide`.
        train_groups: subjects (views, setups) to train on. Default: those of the protocol, for the
            synthetic set its ``TRAIN_SUBJECTS``.
        fraction: share of the training clips that are kept, drawn with the seed (semi-supervised).
        long_tail: (largest, factor), keeps a long-tailed part of the training clips, see
            :func:`skelops.data.long_tail`.
        rebalance: show the clips of tail classes more often, see
            :func:`skelops.data.tail_multipliers`.
        transform: name of a published transform, see :data:`skelops.data.TRANSFORMS`.
        transform_args: changes to it, see :class:`skelops.data.ClipTransform`.
        window: frames T per sample. Default: those of the transform.
        streams: streams that the network sees, see :func:`skelops.data.make_streams`.
        augment: False shows the training clips once per epoch, as one sample of the test form each.
        views: samples of a training clip with independent augmentation, or the changes to the
            transform of each of them; of several, x is (N, views, C, T, V, M).
        layout: convert the joints to this layout.
        part: show the body, hand or leg only, see :func:`skelops.graph.body_part`; the layout that
            a network sees then is that of the part.
        modalities: show the clips as pictures: x of a batch is then a mapping of these, see
            :func:`skelops.data.render`. Default: joints.
        recorded: show those that were filmed: ``folders`` and further arguments of
            :class:`skelops.data.RecordedDataset`. Default: pictures are rendered.
        image_size: of the pictures.
        degrade: how bad the sensor of a modality is, see :class:`skelops.data.RenderedDataset`.
        batch_size: clips per batch and process.
        repeat: passes over the training clips per epoch.
        num_clips: size of the synthetic set.
        seed: of the synthetic set, the long tail, the augmentation and the order.
        num_workers: worker processes of the loaders; 0 is usually fastest, and needed on a GPU.

    Raises:
        ValueError: the source is damaged, the protocol leaves one side empty, or a class that
            ``long_tail`` or ``rebalance`` needs has no training clips.
    """

    def __init__(
        self,
        source: str = "synthetic",
        protocol: str = "cross_subject",
        split_file: str | None = None,
        divide: str | None = None,
        train_groups: Sequence[int] | None = None,
        fraction: float = 1.0,
        long_tail: tuple[int, float] | None = None,
        rebalance: bool = False,
        transform: str = "ctr_gcn",
        transform_args: dict[str, Any] | None = None,
        window: int | None = None,
        streams: Sequence[str] = ("joint",),
        augment: bool = True,
        views: int | list[dict[str, Any]] = 1,
        layout: str | None = None,
        part: str | None = None,
        modalities: Sequence[str] | None = None,
        recorded: dict[str, Any] | None = None,
        image_size: int = 32,
        degrade: dict[str, float] | None = None,
        batch_size: int = 64,
        repeat: int = 1,
        num_clips: int = 1536,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)

    @cached_property
    def clips(self) -> Clips:
        """All clips, read (or mapped) on first use."""
        h: Any = self.hparams
        made = h.source == "synthetic"
        clips = synthetic.generate(h.num_clips, h.seed) if made else read(h.source)
        return clips if h.divide is None else clips.divide(h.divide)

    @cached_property
    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Clips to train and to test on."""
        h: Any = self.hparams
        train, test = self._split()
        if not 0 < h.fraction <= 1:
            raise ValueError(f"SkeletonDataModule: expected fraction in (0, 1], got {h.fraction}")
        if h.fraction < 1:
            count = max(int(h.fraction * len(train)), 1)
            train = np.sort(np.random.default_rng(h.seed).permutation(train)[:count])
        if h.long_tail is not None:
            train = long_tail(self.clips, train, *h.long_tail, seed=h.seed)
        return train, test

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        h: Any = self.hparams
        if h.split_file is not None:
            return load_split(h.split_file, self.clips)
        groups = h.train_groups
        if groups is None and h.source == "synthetic" and h.protocol == "cross_subject":
            groups = synthetic.TRAIN_SUBJECTS
        return split(self.clips, h.protocol, groups)

    @property
    def transform(self) -> ClipTransform:
        h: Any = self.hparams
        changes = dict(h.transform_args or {})
        if h.window is not None:
            changes["frames"] = h.window
        return get_transform(h.transform, **changes)

    @property
    def num_classes(self) -> int:
        return self.clips.num_classes

    @property
    def class_counts(self) -> list[int]:
        """Training clips of each class."""
        h: Any = self.hparams
        count = class_counts(self.clips.label[self.index[0]], self.num_classes)
        if h.rebalance:
            check_counts("SkeletonDataModule", count, self.clips.classes)
        return count

    @property
    def layout(self) -> str:
        h: Any = self.hparams
        whole = h.layout or self.clips.layout
        return whole if h.part is None else f"{whole}_{h.part}"

    @property
    def num_persons(self) -> int:
        return self.transform.persons or self.clips.num_persons

    @property
    def frames(self) -> int:
        return self.transform.frames

    @property
    def in_channels(self) -> int:
        h: Any = self.hparams
        return self.clips.xyz.shape[3] * len(h.streams)

    def dataset(
        self,
        train: bool,
        device: torch.device | str = "cpu",
        *,
        augment: bool | None = None,
        **changes: Any,
    ) -> ClipDataset:
        """The training clips, augmented unless told not to, or the test clips; ``changes`` are of
        the transform."""
        h: Any = self.hparams
        transform, kind, pictures = replace(self.transform, **changes), ClipDataset, {}
        for option in ("recorded", "degrade"):
            if getattr(h, option) is not None and h.modalities is None:
                raise ValueError(f"SkeletonDataModule: expected modalities with {option}, got None")
        if h.recorded is not None and h.degrade is not None:
            raise ValueError("SkeletonDataModule: expected no degrade with recorded, got both")
        if h.modalities is not None:
            pictures = {"modalities": h.modalities, "image_size": h.image_size}
        if h.recorded is not None:
            kind, pictures = RecordedDataset, pictures | h.recorded
        elif h.modalities is not None:
            kind, pictures = RenderedDataset, pictures | {"degrade": h.degrade}
        return kind(
            self.clips,
            transform,
            list(h.streams),
            index=self.index[0 if train else 1],
            train=train if augment is None else augment,
            repeat=h.repeat,
            views=h.views
            if isinstance(h.views, int)
            else [get_transform(transform, **view) for view in h.views],
            layout=h.layout,
            part=h.part,
            seed=h.seed,
            device=device,
            **pictures,
        )

    def _loader(self, train: bool, **changes: Any) -> ClipLoader:
        h: Any = self.hparams
        trainer = self.trainer
        device = trainer.strategy.root_device if trainer else "cpu"
        return ClipLoader(
            self.dataset(train, device, **changes),
            h.batch_size,
            shuffle=train,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            num_workers=h.num_workers,
            multiplier=tail_multipliers(self.class_counts) if train and h.rebalance else None,
        )

    def train_dataloader(self) -> ClipLoader:
        h: Any = self.hparams
        if h.augment:
            return self._loader(train=True)
        if h.views != 1:
            raise ValueError(
                f"SkeletonDataModule: expected augment with views {h.views}, got False"
            )
        return self._loader(train=True, augment=False, num_clips=1)

    def val_dataloader(self) -> ClipLoader:
        """The test clips with one sample of each, as published trainings look at them."""
        return self._loader(train=False, num_clips=1)

    def test_dataloader(self) -> ClipLoader:
        return self._loader(train=False)

    predict_dataloader = test_dataloader
