"""Pre-training of a network's completion of missing frames, before the network itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from skelops.data import ClipDataset, ClipLoader
from skelops.data.plan import GAPS, kept_frames
from skelops.data.transform import SEVERITIES
from skelops.nn.completion import Completion, fill_frames


def motions(x: Tensor) -> Tensor:
    """Persons of a batch (N, C, T, V, M) who are in every frame: (N', T, V, C)."""
    each = x.permute(0, 4, 2, 3, 1).flatten(0, 1)
    return each[(each != 0).flatten(2).any(2).all(1)]


def whole_motions(dataset: ClipDataset, batch_size: int) -> Iterator[Tensor]:
    """Batches of whole motions (N, T, V, C) without end."""
    loader = ClipLoader(dataset, min(batch_size, len(dataset)))
    epoch = 0
    while True:
        loader.sampler.set_epoch(epoch)
        yield from (motions(batch.x) for batch in loader)
        epoch += 1


def draw_gaps(
    count: int, frames: int, generator: torch.Generator | None = None, device=None
) -> Tensor:
    """Which frames are kept of samples with a gap of a random kind and share each, (N, T) bool.

    Shares are those of minor, moderate and severe corruption. At least a frame is kept.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    shares = torch.tensor([*SEVERITIES.values()], device=device)
    share = shares[(uniform(count) * len(shares)).long()]
    lost = (share * frames).round().clamp(max=frames - 1).long()
    noise = uniform(count, frames)
    return kept_frames((uniform(count) * len(GAPS)).long(), lost, noise)


class PretrainCompletion(Callback):
    """Trains ``model.completion`` on whole training clips with gaps drawn anew in every step, and
    fills its bank with such clips; before the first epoch, once.

    A checkpoint holds the completion: a run that resumes goes on with it. The distance to the test
    clips' lost joints is logged as ``completion_error``, that of straight lines as
    ``linear_error``, in units of the samples.

    Args:
        steps, batch_size: of the pre-training.
        lr: peak of Adam's rate, which falls by a cosine.
        seed: of the gaps.

    Source: FineTec trains 40 000 steps at a rate of 1e-5.
    """

    def __init__(
        self, steps: int = 40000, batch_size: int = 64, lr: float = 1e-5, seed: int = 0
    ) -> None:
        self.steps, self.batch_size, self.lr, self.seed = steps, batch_size, lr, seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        completion = getattr(pl_module.model, "completion", None)
        if completion is None or completion.ready:
            return
        data = trainer.datamodule
        self.train(completion, data.dataset(True, pl_module.device, missing=0.0))
        found, linear = self.errors(
            completion,
            data.dataset(False, pl_module.device, num_clips=1),
            data.dataset(False, pl_module.device, num_clips=1, missing=0.0),
        )
        rank_zero_info(f"completion: error {found:.4f}, of straight lines {linear:.4f}")
        for logger in trainer.loggers:
            logger.log_metrics({"completion_error": found, "linear_error": linear}, step=0)

    def train(self, completion: Completion, dataset: ClipDataset) -> None:
        """Fill the bank with clips and train; the parameters are frozen afterwards as before."""
        batches = whole_motions(dataset, self.batch_size)
        bank: list[Tensor] = []
        while sum(map(len, bank)) < min(len(completion.bank), len(dataset)):
            bank.append(next(batches))
        completion.remember(torch.cat(bank))
        completion.requires_grad_(True)
        optimizer = torch.optim.Adam(completion.parameters(), self.lr)
        scheduler = CosineAnnealingLR(optimizer, self.steps)
        generator = torch.Generator(dataset.device).manual_seed(self.seed)
        with torch.enable_grad():
            for x in islice(batches, self.steps):
                kept = draw_gaps(len(x), x.shape[1], generator, x.device)
                optimizer.zero_grad()
                completion.loss(x, kept).backward()
                optimizer.step()
                scheduler.step()
        completion.requires_grad_(False)

    @torch.no_grad()
    def errors(
        self, completion: Completion, lossy: ClipDataset, whole: ClipDataset
    ) -> tuple[float, float]:
        """Mean distance of lost joints to the whole clips, by completion and by straight lines."""
        found = linear = count = 0.0
        for a, b in zip(*(ClipLoader(d, self.batch_size) for d in (lossy, whole)), strict=True):
            x, y = (batch.x.permute(0, 4, 2, 3, 1).flatten(0, 1) for batch in (a, b))
            seen = (y != 0).flatten(2).any(2)
            kept = (x != 0).flatten(2).any(2)
            lost = seen & ~kept & kept.any(1, keepdim=True)
            found += (completion(x, kept) - y)[lost].norm(dim=-1).sum().item()
            linear += (fill_frames(x, kept) - y)[lost].norm(dim=-1).sum().item()
            count += lost.sum().item() * x.shape[2]
        return found / max(count, 1), linear / max(count, 1)
