"""Partial mix-up: some samples of a batch get the lower body of another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skelops import _check
from skelops.data.transform import joint_named
from skelops.graph import Layout, get_layout


class Mixed(NamedTuple):
    """x (N, C, T, V, M), its labels (N,), and the share of the first: () or (N,) float32; what
    :func:`skelops.mixup_cross_entropy` takes."""

    x: Tensor
    label: Tensor
    label_b: Tensor
    mix: Tensor


def lower_body(layout: str | Layout) -> tuple[int, ...]:
    """The legs and the middle of the hips.

    Raises:
        ValueError: the layout has no legs.
    """
    layout = get_layout(layout)
    if "left_leg" not in layout.parts:
        raise _check.fail("partial mix-up", "a layout with legs", layout.name)
    hips = joint_named(layout, "spine_base", "hip_center", "pelvis", "mid_hip", "waist", "hip")
    legs = {*layout.parts["left_leg"], *layout.parts["right_leg"]}
    return tuple(sorted(legs if hips is None else legs | {hips}))


class PartialMixUp(nn.Module):
    """Rebalanced partial mix-up of BRL: the upper body of a sample, the lower body of a partner.

    The share of the sample's own label is ``alpha``, 0 if its class has more than ``imbalance``
    times the training clips of its partner's and 1 if the partner's has: the rarer of two uneven
    classes takes all.

    As published, three things are not as one would expect, all of them gone with
    ``published=False``: the joints of a mixed sample stay in the order upper body, lower body; a
    chosen sample right after a mixed one is passed over; and the share of the last mixed sample
    counts for the whole batch (0 if none is mixed, which then makes no difference).

    Args:
        count: training clips of each class.
        layout: joint layout of the samples.
        ratio: of the samples of a batch that are chosen, rounded down.
        alpha: share of a sample's own label.
        imbalance: see above; None for ``alpha`` in all cases.
        published: as in the published code.

    Raises:
        ValueError: a layout without legs, or numbers out of range.

    Source: Liu et al., arXiv 2308.14024, section 3.3, and the code of BRL.
    """

    def __init__(
        self,
        count: Sequence[int],
        layout: str | Layout,
        *,
        ratio: float = 1 / 16,
        alpha: float = 0.64,
        imbalance: float | None = 3,
        published: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("ratio", ratio), ("alpha", alpha)):
            if not 0 <= value <= 1:
                raise _check.fail("PartialMixUp", f"{name} in [0, 1]", value)
        self.ratio, self.alpha, self.imbalance = ratio, alpha, imbalance
        self.published = published
        V = get_layout(layout).num_joints
        lower = lower_body(layout)
        upper = [v for v in range(V) if v not in lower]
        tables = {"count": torch.tensor(count), "upper": torch.tensor(upper)}
        tables |= {"lower": torch.tensor(lower)}
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Chosen samples, and a partner for each that is mixed, for :meth:`forward`.

        Args:
            noise: (2 N,) uniform in [0, 1), on the CPU, for a batch of N.

        Returns:
            chosen, partner: int64. A batch of one has no partners: it stays as it is.
        """
        N = len(noise) // 2
        chosen = noise[:N].argsort()[: int(self.ratio * N)]
        values = noise[N:].tolist()
        pairs = zip(self._walk(chosen.tolist(), N), values, strict=False)
        partner = [left[int(u * len(left))] for (_, left), u in pairs]
        return chosen, torch.tensor(partner, dtype=torch.int64)

    def _walk(self, chosen: Sequence[int], N: int) -> Iterator[tuple[int, list[int]]]:
        """The samples that are mixed, each with those that may be its partner."""
        wanted, left, place = set(chosen), list(range(N)), 0
        while place < len(left):
            if left[place] not in wanted:
                place += 1
                continue
            sample = left.pop(place)
            if left:
                yield sample, left
            place += self.published  # the place was taken by the next, who is passed over

    def forward(self, x: Tensor, label: Tensor, chosen: Tensor, partner: Tensor) -> Mixed:
        """Mix a batch.

        Args:
            x: (N, C, T, V, M), not changed.
            label: (N,) int64.
            chosen: (n,) int64, samples to mix.
            partner: int64, whose lower body each mixed sample gets, in rising order of these;
                see :meth:`draw`.
        """
        mixed = [i for i, _ in self._walk(chosen.tolist(), len(x))][: len(partner)]
        if not mixed:
            none = torch.zeros((), device=x.device)
            return Mixed(x, label, label, none if self.published else none.expand(len(x)))
        i = torch.tensor(mixed).to(x.device, non_blocking=True)
        j = partner.to(x.device, non_blocking=True)
        own, other = x[i], x[j]
        if self.published:
            joints = [own.index_select(3, self.upper), other.index_select(3, self.lower)]
            joined = torch.cat(joints, dim=3)
        else:
            joined = own.index_copy(3, self.lower, other.index_select(3, self.lower))
        share = self._share(self.count[label[i]], self.count[label[j]])
        label_b = label.index_copy(0, i, label[j])
        if self.published:
            mix = share[-1]
        else:
            mix = torch.ones(len(x), device=x.device).index_copy(0, i, share)
        return Mixed(x.index_copy(0, i, joined), label, label_b, mix)

    def _share(self, own: Tensor, other: Tensor) -> Tensor:
        share = torch.full(own.shape, self.alpha, device=own.device)
        if self.imbalance is None:
            return share
        share = share.masked_fill(other > self.imbalance * own, 1.0)
        return share.masked_fill(own > self.imbalance * other, 0.0)
