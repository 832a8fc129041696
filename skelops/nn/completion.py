"""Frames that are missing from a motion: filled by straight lines, or in context of a whole one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelops import _check
from skelops.nn.mixer import MixerBlock

SMALL_ERROR = 1e-4
APART = 2  # blocks before the motion and the example meet


def fill_frames(x: Tensor, kept: Tensor) -> Tensor:
    """Missing frames on straight lines between their neighbours; at the ends the nearest one.

    Args:
        x: (N, T, ...).
        kept: (N, T) bool, True = kept.

    Returns:
        x's shape; kept frames are the same, samples without any become their last frame.
    """
    T = x.shape[1]
    t = torch.arange(T, device=x.device)
    known = kept[:, None]  # (N, 1, T): ONNX has no running maximum
    before = torch.where(known & (t <= t[:, None]), t, -1).amax(-1)
    after = torch.where(known & (t >= t[:, None]), t, T).amin(-1)
    low = torch.where(before < 0, after, before).clamp(max=T - 1)
    high = torch.where(after == T, low, after)
    weight = (t - low) / (high - low).clamp(min=1)
    shape = (*x.shape[:2], *[1] * (x.dim() - 2))
    first, last = (x.gather(1, at.view(shape).expand_as(x)) for at in (low, high))
    return torch.lerp(first, last, weight.to(x.dtype).view(shape))


def gap_size(kept: Tensor) -> Tensor:
    """Distance of every frame to the nearest that is kept, as a share of the motion: (N, T)."""
    T = kept.shape[1]
    t = torch.arange(T, device=kept.device)
    away = (t[:, None] - t).abs().expand(len(kept), T, T)
    return away.masked_fill(~kept[:, None], T).amin(2) / T


class Completion(nn.Module):
    """Missing frames from the kept ones, as a whole motion with the same gaps shows by example.

    The example is the sequence of a bank that is closest to the kept frames. It comes twice, with
    the gaps filled by straight lines and whole; the motion comes with its own gaps filled and, in
    place of the whole one, the bank's mean pose. Both pairs, one after the other along time, pass
    the same first blocks; their mean passes the others, which give what straight lines lack, in
    proportion to the gap: of the example in the first half, of the motion in the second one. To the
    motion a learned share of what the example's lines lack is added.

    Args:
        joints, dims: V, D.
        frames: T of all motions.
        layers: blocks, which mix frames and coordinates by turns.
        bank: sequences to keep as examples.

    Source: Zheng et al., FineTec, AAAI 2026, context-aware completion; the arrangement is that of
    Skeleton-in-Context (Wang et al., CVPR 2024) with the blocks of siMLPe.
    """

    def __init__(
        self, joints: int, dims: int, frames: int, layers: int = 24, bank: int = 64
    ) -> None:
        super().__init__()
        n = joints * dims
        self.frames = frames
        self.embed = nn.Linear(n + 1, n)  # coordinates, and whether the frame is kept
        self.blocks = nn.ModuleList(
            MixerBlock(n, 2 * frames, spatial=i % 2 == 1) for i in range(layers)
        )
        self.out = nn.Linear(n, n)
        self.transfer = nn.Parameter(torch.zeros(()))
        self.register_buffer("bank", torch.zeros(bank, frames, n))
        nn.init.xavier_uniform_(self.out.weight, gain=1e-8)
        nn.init.zeros_(self.out.bias)

    @property
    def ready(self) -> bool:
        """Whether there are examples, from a checkpoint or from ``remember``."""
        return bool(self.bank.any())

    def remember(self, x: Tensor) -> None:
        """Take whole motions (B, T, V, D) as the bank; a shorter one is repeated."""
        sequences = x.flatten(2)
        if sequences.shape[1:] != self.bank.shape[1:] or not len(sequences):
            wanted = f"motions of {' x '.join(map(str, self.bank.shape[1:]))} values"
            raise _check.fail("Completion", wanted, _check.shape_text(x.shape))
        self.bank.copy_(sequences[torch.arange(len(self.bank)) % len(sequences)])

    def _complete(self, filled: Tensor, kept: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, n) motions and examples -> both, completed."""
        masked = fill_frames(prompt, kept)
        prior = self.bank.mean((0, 1)).expand_as(filled)
        pairs = torch.cat([torch.cat([filled, prior], 1), torch.cat([masked, prompt], 1)])
        flag = kept.to(filled)[..., None]
        flag = torch.cat([flag, torch.ones_like(flag)], 1).repeat(2, 1, 1)
        h = self.embed(torch.cat([pairs, flag], 2)).mT
        for block in self.blocks[:APART]:
            h = block(h)
        h = h.unflatten(0, (2, -1)).mean(0)
        for block in self.blocks[APART:]:
            h = block(h)
        example, motion = self.out(h.mT).chunk(2, 1)
        scale = gap_size(kept)[..., None].to(filled)
        shown = self.transfer * (prompt - masked)
        return filled + shown + scale * motion, masked + scale * example

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """x (N, T, V, D) and kept (N, T), True = kept -> x with the other frames completed."""
        filled = fill_frames(x, kept).flatten(2)
        found = self._complete(filled, kept, self._example(filled, kept))[0].view_as(x)
        return torch.where(kept[..., None, None], x, found)

    def _example(self, filled: Tensor, kept: Tensor) -> Tensor:
        """The sequence of the bank that is closest to the kept frames, (N, T, n)."""
        weight, bank = kept.to(filled), self.bank
        # Squared distances to every example over the kept frames, but for a term of the motion.
        distance = weight @ bank.square().sum(2).mT
        distance = distance - 2 * (weight[..., None] * filled).flatten(1) @ bank.flatten(1).mT
        return self.bank[distance.argmin(1)]

    def loss(self, x: Tensor, kept: Tensor) -> Tensor:
        """Squared errors of positions and velocities of whole motions (N, T, V, D) and of their
        examples, from the frames kept.

        Each relative to that of straight lines, so that short gaps count as much as long ones,
        whose errors are a hundred times as large. The paper has the errors of positions alone;
        motions that are completed by these tremble. siMLPe has those of velocities, too.
        """
        whole, filled = x.flatten(2), fill_frames(x, kept).flatten(2)
        prompt = self._example(filled, kept)
        motion, shown = self._complete(filled, kept, prompt)
        compared = [(motion, whole, filled), (shown, prompt, fill_frames(prompt, kept))]
        compared += [tuple(y.diff(dim=1) for y in each) for each in compared]

        def error(a: Tensor, b: Tensor) -> Tensor:
            return (a - b).square().mean((1, 2))

        return sum(
            (error(a, b) / (error(lines, b) + SMALL_ERROR)).mean() for a, b, lines in compared
        )
