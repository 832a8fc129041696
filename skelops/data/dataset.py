"""Batches of clips, built whole by one op on the device that trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from skelops import _check
from skelops.data.clips import Clips
from skelops.data.transform import ClipTransform, Geometry, get_transform
from skelops.graph import conversion


class Batch(NamedTuple):
    """x (N, C, T, V, M), class y (N,) int64, and the clip (N,) int64 each sample comes from."""

    x: Tensor
    y: Tensor
    clip: Tensor


class ClipDataset(Dataset):
    """Samples of clips, with random augmentation (training) or in the test form.

    An index is a draw: draw d belongs to clip ``index[d % N]``, and its random numbers depend on
    ``(seed, d)`` alone. So a batch replays whatever the batch size, the order, the worker or the
    device; epochs go on counting, see :class:`DrawSampler`. In test every epoch is the first one.

    The coordinates stay where they are: in memory, in the memory-mapped store, or, with a CUDA
    device, in one copy in its memory.

    Args:
        clips: the clips.
        transform: a :class:`ClipTransform`, or the name of a published one.
        streams: streams of the sample, see :func:`skelops.data.make_streams`.
        index: (N,) the clips to use, e.g. one side of :func:`skelops.data.split`. Default: all.
        train: augment; else the test form, ``transform.num_clips`` samples per clip.
        repeat: passes over the clips per epoch.
        views: samples of each draw with independent augmentation, in training, or the transform of
            each of them, which all differ in their augmentation only; x is then
            (N, views, C, T, V, M).
        layout: convert the joints to this layout.
        part: joints to keep, or a part of the body, see :func:`skelops.data.make_streams`.
        seed: key of all random numbers.
        device: where to build batches.
        dtype: of x.

    Raises:
        ValueError: unknown transform, stream or layout, numbers out of range, or a transform that
            does not fit the clips.
        TypeError: ``index`` does not hold integers.

    Example:
        >>> from skelops.data import ClipDataset, synthetic
        >>> data = ClipDataset(synthetic.generate(16), "ctr_gcn", ["joint", "bone"], train=True)
        >>> x, y, clip = data.__getitems__(range(8))
        >>> x.shape
        torch.Size([8, 6, 64, 25, 2])
    """

    def __init__(
        self,
        clips: Clips,
        transform: ClipTransform | str = "ctr_gcn",
        streams: Sequence[str] | str = "joint",
        *,
        index: np.ndarray | None = None,
        train: bool = False,
        repeat: int = 1,
        views: int | Sequence[ClipTransform | str] = 1,
        layout: str | None = None,
        part: Sequence[int] | str | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        count = views if isinstance(views, int) else len(views)
        for name, value in (("repeat", repeat), ("views", count)):
            if value < 1:
                raise _check.fail("ClipDataset", f"{name} >= 1", value)
        self.clips, self.transform, self.train = clips, get_transform(transform), train
        self.repeat, self.seed, self.dtype = repeat, seed, dtype
        given = [self.transform] * count if isinstance(views, int) else views
        self.views = [get_transform(view) for view in given]
        self.index = _index(len(clips), index)
        self.device = torch.device(device)
        self.geometry = Geometry.of(clips, self.transform, layout)
        self.streams = self.transform.streams(streams, self.geometry.layout, part=part)
        self._streams = self.streams.to(self.device)
        self._conversion = None
        if layout is not None and layout != clips.layout:
            tables = conversion(clips.layout, layout)
            self._conversion = (tables[0].to(self.device), tables[1].to(self.device))
        self._label = torch.from_numpy(np.array(clips.label))
        self._xyz = _as_tensor(clips.xyz, self.device)

    @property
    def samples(self) -> int:
        """Samples per clip and pass."""
        return 1 if self.train else self.transform.num_clips

    def __len__(self) -> int:
        return len(self.index) * (self.repeat if self.train else self.samples)

    def clips_of(self, draws: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """(N,) draws, those of the first epoch in test, and the clip that each belongs to."""
        draw = torch.as_tensor(draws, dtype=torch.int64)
        if not self.train:
            draw = draw % max(len(self), 1)
        return draw, self.index[draw // self.samples % max(len(self.index), 1)]

    def __getitems__(self, draws: Sequence[int] | Tensor) -> Batch:
        """A batch of draws."""
        draw, clip = self.clips_of(draws)
        views = self.views if self.train else [self.transform]
        found = [self._view(clip, draw, i, view) for i, view in enumerate(views)]
        x = found[0] if len(found) == 1 else torch.stack(found, dim=1)
        y = self._label[clip].to(self.device, non_blocking=True)
        return Batch(x, y, clip.to(self.device, non_blocking=True))

    def _view(self, clip: Tensor, draw: Tensor, i: int, transform: ClipTransform) -> Tensor:
        plan = transform.plan(self.geometry, clip, draw, train=self.train, seed=self.seed, view=i)
        return plan.to(self.device).apply(self._xyz, self._streams, self._conversion, self.dtype)

    def __getitem__(self, draw: int) -> Batch:
        x, y, clip = self.__getitems__([draw])
        return Batch(x[0], y[0], clip[0])

    def __iter__(self) -> Iterator[Batch]:
        """The samples of the first epoch, one by one."""
        return map(self.__getitem__, range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_xyz": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._xyz = _as_tensor(self.clips.xyz, self.device)


def _index(clips: int, index: np.ndarray | None) -> Tensor:
    """(N,) int64 clips to use."""
    if index is None:
        return torch.arange(clips)
    found = torch.as_tensor(index)
    if found.is_floating_point() or found.dtype == torch.bool:
        raise TypeError(f"ClipDataset: expected index of integers, got {found.dtype}")
    _check.shape("ClipDataset", "index", found, "N")
    for wrong in found[(found < 0) | (found >= clips)][:1].tolist():
        raise _check.fail("ClipDataset", f"index in 0..{clips - 1}", wrong)
    return found.long()


def _as_tensor(xyz: np.ndarray, device: torch.device) -> Tensor:
    """The coordinates as a tensor, without a copy on a CPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(xyz)).to(device)


class DrawSampler(DistributedSampler):
    """Draws of a :class:`ClipDataset`: epoch e counts from ``e * len(dataset)``, shuffled or not.

    Splits an epoch over ``num_replicas`` processes so that the batches of all ranks together are
    the batch of a single process; ``set_epoch`` is called by Lightning.

    Attributes:
        skip: draws that the next iteration leaves out, to go on within this epoch.
    """

    skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; another one begins at its first draw."""
        self.skip = self.skip if epoch == self.epoch else 0
        super().set_epoch(epoch)

    def epoch_draws(self) -> Sequence[int]:
        """The draws of this epoch, in the order before shuffling."""
        size = len(self.dataset)  # type: ignore[arg-type]
        return range(self.epoch * size, (self.epoch + 1) * size)

    def __iter__(self) -> Iterator[int]:
        draws = self.epoch_draws()
        order = list(super().__iter__())[self.skip :]
        self.skip = 0
        return iter([draws[i] for i in order])


class BalancedSampler(DrawSampler):
    """Draws that show the clips of some classes more often than those of others.

    An epoch has every clip of a class ``floor(m)`` times, m being its multiplier times the
    dataset's ``repeat``, and ``floor((m - floor(m)) n)`` of its n clips once more, drawn without
    replacement anew in each epoch. Each time is another draw, with another augmentation.

    Args:
        dataset: the clips.
        multiplier: (K,) how often a pass shows each class, see
            :func:`skelops.data.tail_multipliers`.
        num_replicas, rank, shuffle, seed: as of :class:`DrawSampler`.

    Raises:
        ValueError: not one multiplier per class, or a negative one, or nothing to draw.

    Source: the sampler of BRL (Liu et al., arXiv 2308.14024).
    """

    def __init__(
        self,
        dataset: ClipDataset,
        multiplier: Sequence[float],
        num_replicas: int = 1,
        rank: int = 0,
        *,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        K = dataset.clips.num_classes
        if len(multiplier) != K or min(multiplier) < 0:
            raise _check.fail("BalancedSampler", f"{K} multipliers >= 0", list(multiplier))
        label = torch.from_numpy(dataset.clips.label[dataset.index.numpy()])
        self._members = [(label == c).nonzero()[:, 0] for c in range(K)]
        times = [m * dataset.repeat for m in multiplier]
        self._whole = [int(m) for m in times]
        self._rest = [
            int(m % 1 * len(members)) for m, members in zip(times, self._members, strict=True)
        ]
        self._clips = len(dataset.index)
        size = sum(self.class_draws())
        if not size:
            raise _check.fail("BalancedSampler", "something to draw", 0)
        super().__init__(range(size), num_replicas, rank, shuffle=shuffle, seed=seed)

    def class_draws(self) -> list[int]:
        """Draws of each class per epoch."""
        parts = zip(self._whole, self._rest, self._members, strict=True)
        return [whole * len(members) + rest for whole, rest, members in parts]

    def epoch_draws(self) -> Sequence[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        passes = 1 + max(self._whole)
        base = self.epoch * passes * self._clips
        draws = []
        for whole, rest, members in zip(self._whole, self._rest, self._members, strict=True):
            draws += [members + k * self._clips for k in range(whole)]
            chosen = torch.randperm(len(members), generator=generator)[:rest]
            draws.append(members[chosen] + whole * self._clips)
        return (base + torch.cat(draws)).tolist()


class ClipLoader:
    """Batches of a :class:`ClipDataset`, each built by one call on the dataset's device.

    Needs no worker processes: a batch of 64 clips takes a few milliseconds on a CPU core, and on a
    GPU it is queued behind the training step. Any other torch ``DataLoader`` works, with a
    :class:`DrawSampler` and ``collate_fn=lambda batch: batch``.

    Args:
        dataset: the clips.
        batch_size: clips per batch and process.
        shuffle: shuffle each epoch, keyed by the dataset's seed. Default: when training.
        drop_last: leave out the last batch if it is smaller. Default: when training, unless it is
            the only one.
        num_replicas: processes that share an epoch.
        rank: index of this process.
        num_workers: worker processes, for datasets on a CPU.
        multiplier: how often a pass shows each class, see :class:`BalancedSampler`. Default: once.

    Raises:
        ValueError: ``batch_size`` below 1, no clips, or multipliers that do not fit.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int = 64,
        *,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        num_replicas: int = 1,
        rank: int = 0,
        num_workers: int = 0,
        multiplier: Sequence[float] | None = None,
    ) -> None:
        if batch_size < 1:
            raise _check.fail("ClipLoader", "batch_size >= 1", batch_size)
        if not len(dataset):
            raise _check.fail("ClipLoader", "at least one clip", 0)
        shuffle = dataset.train if shuffle is None else shuffle
        self.dataset, self.batch_size = dataset, batch_size
        given: dict[str, Any] = {"shuffle": shuffle, "seed": dataset.seed}
        self.sampler = (
            DrawSampler(dataset, num_replicas, rank, **given)
            if multiplier is None
            else BalancedSampler(dataset, multiplier, num_replicas, rank, **given)
        )
        if drop_last is None:
            drop_last = dataset.train and len(self.sampler) > batch_size
        self._loader = DataLoader(
            dataset,
            batch_size,
            sampler=self.sampler,
            drop_last=drop_last,
            collate_fn=_as_is,
            num_workers=num_workers,
            generator=torch.Generator(),  # leaves the global one alone
        )
        self.batch_sampler = self._loader.batch_sampler
        self._done = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        first = self.sampler.skip // self.batch_size
        for i, batch in enumerate(self._loader, first):
            self._done = i + 1
            yield batch
        self._done = 0

    def state_dict(self) -> dict[str, int]:
        """Epoch and batches handed out; after loading, the next iteration goes on from there."""
        return {"epoch": self.sampler.epoch, "batch": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.set_epoch(state["epoch"])
        self.sampler.skip = state["batch"] % len(self) * self.batch_size


def _as_is(batch: Any) -> Any:
    return batch
