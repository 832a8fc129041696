"""Heat-map volumes of a batch, against the published generator and against batched PyTorch.

The published one draws map by map with NumPy, each sample for itself; PyTorch fills whole planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, NUMPY, Variant
from benchmarks.data.case import DataCase, DataVariant, compiled
from skelops.nn.pose_heatmap import COCO_LIMBS

V, SIZE, SIGMA, EPS = 17, 56, 0.6, 1e-3
JOINTS = tuple((v, v) for v in range(V))


def _numpy_maps(points: np.ndarray, scores: np.ndarray, pairs: Sequence) -> np.ndarray:
    """(K, T, H, W) of one sample, points (M, T, V, 2)."""
    M, T = scores.shape[:2]
    maps = np.zeros((len(pairs), T, SIZE, SIZE), np.float32)
    for k, (i, j) in enumerate(pairs):
        for t in range(T):
            for m in range(M):
                peak = min(scores[m, t, i], scores[m, t, j])
                if peak >= EPS:
                    _numpy_draw(maps[k, t], points[m, t, i], points[m, t, j], peak,
                                scores[m, t, i])  # fmt: skip
    return maps


def _numpy_draw(plane, a, b, peak, score_a) -> None:
    length = ((a - b) ** 2).sum()
    if length < 1:
        b, peak = a, score_a
    low, high = np.minimum(a, b) - 3 * SIGMA, np.maximum(a, b) + 3 * SIGMA
    (x0, y0), (x1, y1) = np.maximum(low.astype(int), 0), np.minimum(high.astype(int) + 1, SIZE)
    x, y = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)[:, None]
    if x.size == 0 or y.size == 0:
        return
    from_a = (x - a[0]) ** 2 + (y - a[1]) ** 2
    distance = from_a
    if length >= 1:
        from_b = (x - b[0]) ** 2 + (y - b[1]) ** 2
        along = ((from_a - from_b + length) / (2 * length))[..., None]
        nearest = a + along * (b - a)
        between = (x - nearest[..., 0]) ** 2 + (y - nearest[..., 1]) ** 2
        along = along[..., 0]
        distance = np.where(along <= 0, from_a, np.where(along >= 1, from_b, between))
    patch = np.exp(-distance / 2 / SIGMA**2) * peak
    plane[y0:y1, x0:x1] = np.maximum(plane[y0:y1, x0:x1], patch)


def _torch_maps(points: Tensor, scores: Tensor, pairs: Sequence) -> Tensor:
    """(N, K, T, H, W), points (N, M, T, V, 2): every map of every person, then the largest."""
    first, second = (torch.tensor(ends, device=points.device) for ends in zip(*pairs, strict=True))
    point = points.permute(0, 3, 2, 1, 4)  # (N, V, T, M, 2)
    score = scores.permute(0, 3, 2, 1)
    a, b = point[:, first], point[:, second]
    peak = torch.minimum(score[:, first], score[:, second])
    length = (a - b).square().sum(-1)
    short = length < 1
    b = torch.where(short[..., None], a, b)
    peak = torch.where(short, score[:, first], peak)
    at = torch.arange(SIZE, device=points.device)
    low = (torch.minimum(a, b) - 3 * SIGMA).trunc().clamp(min=0)
    high = (torch.maximum(a, b) + 3 * SIGMA).trunc() + 1
    inside = (at >= low[..., None]) & (at < high[..., None])  # (..., 2, pixels)
    offset = at - a[..., None]
    if all(i == j for i, j in pairs):
        curve = torch.where(inside, torch.exp(-offset.square() / (2 * SIGMA**2)), 0)
        shown = torch.where(peak >= EPS, peak, 0)[..., None, None]
        return (shown * curve[..., 1, :, None] * curve[..., 0, None, :]).amax(3)
    x, y = offset[..., 0, None, :], offset[..., 1, :, None]
    dx, dy = ((b - a)[..., i, None, None] for i in (0, 1))
    along = ((x * dx + y * dy) / torch.where(short, 1, length)[..., None, None]).clamp(0, 1)
    distance = (x - along * dx).square() + (y - along * dy).square()
    value = peak[..., None, None] * torch.exp(-distance / (2 * SIGMA**2))
    drawn = inside[..., 0, None, :] & inside[..., 1, :, None] & (peak >= EPS)[..., None, None]
    return torch.where(drawn, value, 0).amax(3)


@dataclass(frozen=True)
class HeatmapCase(DataCase):
    """Args: pairs of joints, a map each."""

    pairs: Sequence[tuple[int, int]] = JOINTS

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        points, scores = self._poses(device)

        def ours() -> Tensor:
            return skelops.pose_heatmap(
                points, scores, SIZE, SIZE, joints=False, limbs=self.pairs, sigma=SIGMA, dtype=dtype
            )

        def published() -> Tensor:
            samples = zip(points.cpu().numpy(), scores.cpu().numpy(), strict=True)
            maps = [torch.from_numpy(_numpy_maps(p, s, self.pairs)) for p, s in samples]
            return torch.stack(maps).to(device, dtype)

        def formula(name: str):
            make = compiled(_torch_maps, name)
            return lambda: make(points, scores, self.pairs).to(dtype)

        made = {"ours": ours}
        for name in against:
            made[name] = published if name == NUMPY else formula(name)
        return {
            name: DataVariant(run, lambda run=run: {"maps": run()}) for name, run in made.items()
        }

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        points, scores = self._poses(device)
        return {"maps": _torch_maps(points.double(), scores.double(), self.pairs)}

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        points, _ = self._poses("cpu")
        maps = ours.run()
        drawn = int((maps != 0).sum())
        # An exponential, taken as 20 operations, per pixel that is not zero.
        return 20 * drawn, maps.nbytes + 1.5 * points.nbytes

    def _poses(self, device: str) -> tuple[Tensor, Tensor]:
        """People that fill about half of the picture, moving."""
        N, M, T = (self.sizes[name] for name in "NMT")
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        place = 0.5 + 0.15 * normal(N, M, 1, 1, 2) + 0.15 * normal(N, M, 1, V, 2)
        points = SIZE * (place + 0.01 * normal(N, M, T, V, 2))
        scores = (0.8 + 0.1 * normal(N, M, T, V)).clamp(0, 1)
        return points.to(device), scores.to(device)


def _case(kind: str, pairs: Sequence, numpy: float) -> HeatmapCase:
    return HeatmapCase(
        f"{kind}, M=2 T=48, 56 x 56", {"N": 16, "M": 2, "T": 48}, {FORWARD: {NUMPY: numpy}},
        headline=f"heat-maps of {kind} (forward)", gpu={"N": 64}, quick={"N": 2}, pairs=pairs,
    )  # fmt: skip


CASES = [_case("joints", JOINTS, 50), _case("limbs", COCO_LIMBS, 100)]
