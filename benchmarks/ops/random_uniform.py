"""Random numbers by key, against generators that depend on the order of the calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, NUMPY, Variant, total_bytes
from benchmarks.data.case import DataCase, DataVariant, compiled

ROUNDS = 10
QUANTILES = 20


class UniformCase(DataCase):
    """Numbers of different generators agree in their distribution only."""

    def small(self) -> UniformCase:
        """Enough numbers for their quantiles."""
        return self.resized(N=200, count=5000)

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        shape = self.sizes["N"], self.sizes["count"]
        draw = torch.arange(shape[0], device=device)
        generator = np.random.default_rng(0)
        made = {"ours": _variant(lambda: skelops.random_uniform(draw, shape[1], seed=0))}
        for name in against:
            rand = compiled(torch.rand, name)
            made[name] = _variant(
                (lambda: torch.from_numpy(generator.random(shape, np.float32)))
                if name == NUMPY
                else (lambda rand=rand: rand(shape, device=device))
            )
        return made

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        return {"quantiles": _levels()}

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        """Two products and four logical operations per round and two numbers."""
        numbers = ours.run()
        return 3.0 * ROUNDS * numbers.numel(), total_bytes(numbers)


def _levels() -> Tensor:
    return torch.arange(QUANTILES + 1, dtype=torch.float64) / QUANTILES


def _variant(numbers: Callable[[], Tensor]) -> DataVariant:
    def check() -> dict[str, Tensor]:
        """Quantiles, least and largest number to half a hundredth."""
        ordered = numbers().flatten().double().cpu().sort().values
        found = ordered[(_levels() * (len(ordered) - 1)).long()]
        return {"quantiles": (found * 100).round() / 100}

    return DataVariant(numbers, check)


CASES = [
    UniformCase(
        "7500 numbers per clip", {"N": 256, "count": 7500}, {FORWARD: {"eager": 1, NUMPY: 1}}
    ),
]
