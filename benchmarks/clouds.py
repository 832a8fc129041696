"""Searches in point clouds against what PyTorch offers; results have no gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.case import Draw, Variant, total_bytes
from benchmarks.data.case import DataCase, DataVariant, compiled

Search = Callable[[Tensor, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class CloudCase(DataCase):
    """Q queries, the first points of a cloud of L; a search gives what has to agree by name."""

    ours: Search | None = None
    peer: Search | None = None
    flops: float = 8  # per query and point

    def small(self) -> CloudCase:
        return self.resized(N=2, L=200, Q=40)

    def _inputs(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        points = Draw(device, dtype).normal(self.sizes["N"], self.sizes["L"], 3).detach()
        return points[:, : self.sizes["Q"]].contiguous(), points

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        inputs = self._inputs(device, dtype)

        def variant(run: Search) -> DataVariant:
            return DataVariant(lambda: run(*inputs), lambda: run(*inputs))

        made = {"ours": variant(self.ours)}
        return made | {name: variant(compiled(self.peer, name)) for name in against}

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        return dict(self.peer(*(t.double() for t in self._inputs(device, dtype))))

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        inputs = self._inputs("cpu", torch.float32)
        pairs = self.sizes["N"] * self.sizes["L"] * self.sizes["Q"]
        return self.flops * pairs, total_bytes((inputs, dict(ours.run())))
