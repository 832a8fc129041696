"""Motion-guided masking of MAMP, against two full sorts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import skelops
from benchmarks import masked
from benchmarks.case import FORWARD, Draw, Variant, total_bytes
from benchmarks.data.case import DataCase, DataVariant, compiled


class MaskCase(DataCase):
    """A selection has no gradient; what has to agree is the mask."""

    def small(self) -> MaskCase:
        return self.resized(N=3)

    def _inputs(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        draw = Draw(device, dtype)
        return masked.clips(draw, self.sizes["N"]), masked.noise(draw, self.sizes["N"])

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        x, noise = self._inputs(device, dtype)
        made: dict[str, Variant] = {
            "ours": DataVariant(
                lambda: skelops.motion_mask(x, noise),
                lambda: {"removed": 1.0 - skelops.motion_mask(x, noise)[1].float()},
            )
        }
        for name in against:
            run = compiled(masked.masking, name)
            made[name] = DataVariant(
                lambda run=run: run(x, noise), lambda run=run: {"removed": run(x, noise)[1]}
            )
        return made

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        x, noise = (t.double() for t in self._inputs(device, dtype))
        return {"removed": masked.masking(x, noise)[1]}

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        """Difference, absolute value and sum per coordinate, two logarithms and a key per token."""
        x, noise = self._inputs("cpu", torch.float32)
        return 3.0 * x.numel() + 4.0 * noise.numel(), total_bytes((x, noise, ours.run()))


CASES = [
    MaskCase(
        "MAMP, 74 of 750 tokens", {"N": 128}, {FORWARD: {"eager": 10}},
        headline="motion-guided masking (forward)", gpu={"N": 256}, quick={"N": 16},
        peers=("eager", "compile"),
    ),
]  # fmt: skip
