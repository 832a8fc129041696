"""Batches for recognition: a dataset that assembles a whole batch at once, and its loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from skelops.data import transforms
from skelops.data.clips import Clips
from skelops.graph import get_layout

CENTER = {"ntu25": 1, "nw_ucla20": 1}  # middle of the spine; elsewhere the root of the layout


class ClipDataset(Dataset):
    """Clips cropped, resized, rotated (training) and turned into one modality.

    An index is a draw: draw d is clip ``d % N``, and its random numbers depend on ``(seed, d)``
    alone. So a batch replays whatever the batch size, the order or the worker; epochs go on
    counting, see :class:`DrawSampler`.

    Args:
        clips: the clips; coordinates are centred once, here.
        window: frames T per sample.
        modality: one of :data:`skelops.data.transforms.MODALITIES`.
        train: random crop and rotation instead of the central crop.
        repeat: passes over the clips per epoch.
        p: bounds of the random crop, as shares of the clip.
        shortest: random crops are not shorter than this, in frames, unless the clip is.
        rotation: largest angle of the random rotation about x, y and z, radians.
        unit_box: scale each clip to the unit box, see :func:`skelops.data.transforms.unit_box`.
        seed: seed of all random numbers.

    Example:
        >>> from skelops.data import ClipDataset, loader, synthetic
        >>> data = ClipDataset(synthetic.generate(16), window=32, train=True)
        >>> x, y = next(iter(loader(data, batch_size=8)))
        >>> x.shape, y.shape  # (N, C, T, V, M) float32, (N,) int64
        (torch.Size([8, 3, 32, 25, 2]), torch.Size([8]))
    """

    def __init__(
        self,
        clips: Clips,
        window: int = 64,
        modality: str = "joint",
        *,
        train: bool = False,
        repeat: int = 1,
        p: tuple[float, float] = (0.5, 1.0),
        shortest: int = 64,
        rotation: float | tuple[float, float, float] = 0.3,
        unit_box: bool = False,
        seed: int = 0,
    ) -> None:
        if modality not in transforms.MODALITIES:
            raise ValueError(
                f"ClipDataset: expected modality in {transforms.MODALITIES}, got {modality!r}"
            )
        for name, value in (("window", window), ("repeat", repeat)):
            if value < 1:
                raise ValueError(f"ClipDataset: expected {name} >= 1, got {value}")
        self.window, self.modality, self.train, self.repeat = window, modality, train, repeat
        self.p, self.unit_box, self.seed = p, unit_box, seed
        self.rotation = torch.tensor(rotation, dtype=torch.float64)
        self.shortest = shortest
        self.parents = get_layout(clips.layout).parents
        joint = CENTER.get(clips.layout)
        if joint is None:
            joint = next(j for j, parent in enumerate(self.parents) if j == parent)
        self.xyz = torch.from_numpy(transforms.center(clips.xyz, clips.length, joint))
        self.start = torch.from_numpy(clips.offset[:-1])
        self.length = torch.from_numpy(clips.length)
        self.label = torch.from_numpy(clips.label)

    def __len__(self) -> int:
        return len(self.label) * self.repeat

    def __getitems__(self, draws: Sequence[int]) -> tuple[Tensor, Tensor]:
        """x (N, C, T, V, M) float32 and labels (N,) int64 of a batch of draws."""
        clip = torch.as_tensor(draws) % len(self.label)
        if self.train:
            noise = torch.from_numpy(uniform(self.seed, np.asarray(draws), 5))
            start, size = transforms.train_crop(
                self.length[clip], noise[:, :2], self.p, self.shortest
            )
        else:
            start, size = transforms.test_crop(self.length[clip])
        x = transforms.resize(self.xyz, self.start[clip] + start, size, self.window)
        if self.train and self.rotation.any():
            x = transforms.rotate(x, self.rotation * (2 * noise[:, 2:] - 1))
        if self.unit_box:
            x = transforms.unit_box(x)
        x = transforms.modality(x, self.modality, self.parents)
        return x.permute(0, 4, 1, 3, 2).contiguous(), self.label[clip]

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor]:
        x, y = self.__getitems__([draw])
        return x[0], y[0]


def uniform(seed: int, draws: np.ndarray, count: int) -> np.ndarray:
    """(N, count) float64 uniform in [0, 1) for draws (N,): SplitMix64 (Steele et al., 2014)."""

    def mix(z: np.ndarray) -> np.ndarray:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    step = np.uint64(0x9E3779B97F4A7C15)
    key = mix(np.array([seed], np.uint64) * step + step)
    counter = np.asarray(draws, np.uint64)[:, None] * np.uint64(count)
    z = mix(key + (counter + np.arange(1, count + 1, dtype=np.uint64)) * step)
    return (z >> np.uint64(11)) * 2.0**-53


class DrawSampler(DistributedSampler):
    """Draws of a :class:`ClipDataset`: epoch e counts from ``e * len(dataset)``, shuffled or not.

    Splits an epoch over ``num_replicas`` processes; ``set_epoch`` is called by Lightning.
    """

    def __iter__(self) -> Iterator[int]:
        base = self.epoch * len(self.dataset)  # type: ignore[arg-type]
        return (base + i for i in super().__iter__())


def loader(
    dataset: ClipDataset,
    batch_size: int = 64,
    *,
    shuffle: bool | None = None,
    num_replicas: int = 1,
    rank: int = 0,
    num_workers: int = 0,
) -> DataLoader:
    """A loader of whole batches (x, y), see :meth:`ClipDataset.__getitems__`.

    Args:
        dataset: the clips.
        batch_size: clips per batch; the last batch of a training epoch is dropped if it is smaller.
        shuffle: shuffle each epoch, seeded by the dataset. Default: when training.
        num_replicas: processes that share an epoch.
        rank: index of this process.
        num_workers: worker processes; assembling a batch is cheap, so 0 is usually fastest.
    """
    shuffle = dataset.train if shuffle is None else shuffle
    sampler = DrawSampler(dataset, num_replicas, rank, shuffle=shuffle, seed=dataset.seed)
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        collate_fn=_as_is,
        num_workers=num_workers,
        drop_last=dataset.train and len(sampler) > batch_size,
    )


def _as_is(batch: Any) -> Any:
    return batch
