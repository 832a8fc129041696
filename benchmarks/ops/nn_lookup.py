"""Nearest entries of a queue against the published similarities, mask and arg-max."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import skelops
from benchmarks.case import FORWARD, Draw, Variant, total_bytes
from benchmarks.data.case import DataCase, DataVariant, compiled

WIDTH = 256


def _peer(z: Tensor, queue: Tensor, queue_id: Tensor, ids: Tensor) -> Tensor:
    similarity = z @ queue.T
    return similarity.masked_fill(queue_id == ids[:, None], -1).argmax(1)


@dataclass(frozen=True)
class LookupCase(DataCase):
    peers: tuple[str, ...] = ("eager", "compile")

    def small(self) -> LookupCase:
        return self.resized(N=6, K=200)

    def _inputs(self, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        draw, N, K = Draw(device, dtype), self.sizes["N"], self.sizes["K"]
        rows = (F.normalize(draw.normal(size, WIDTH).detach()) for size in (N, K))
        ids = (torch.arange(size, device=device) for size in (K, N))
        return *rows, *ids

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        z, queue, queue_id, ids = self._inputs(device, dtype)

        def variant(search) -> DataVariant:
            # Rounding may choose among neighbours that are equally near.
            def nearest() -> dict[str, Tensor]:
                return {"similarity": (z * queue[search(z, queue, queue_id, ids)]).sum(1)}

            return DataVariant(lambda: search(z, queue, queue_id, ids), nearest)

        made = {"ours": variant(skelops.nn_lookup)}
        return made | {name: variant(compiled(_peer, name)) for name in against}

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        z, queue, *ids = (
            t.double() if t.is_floating_point() else t for t in self._inputs(device, dtype)
        )
        return {"similarity": (z * queue[_peer(z, queue, *ids)]).sum(1)}

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        pairs = self.sizes["N"] * self.sizes["K"]
        moved = total_bytes((self._inputs("cpu", torch.float32), ours.run()))
        return pairs * (2 * WIDTH + 1), moved


CASES = [
    LookupCase(
        f"N={N} K=32768", {"N": N, "K": 32768}, {FORWARD: {"eager": 1, "compile": 1}},
        headline="nearest of a queue of 32768, N=128 (forward)" if N == 128 else "",
        gpu={"N": 32 * N}, quick={"N": 8},
    )
    for N in (32, 128)
]  # fmt: skip
