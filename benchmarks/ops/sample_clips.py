"""Training batches from a store of clips, against published feeders and batched PyTorch.

The cases give every form what it needs to draw nothing but noise: the op its plan, batched PyTorch
its tables, a feeder the uniform numbers of each clip. In the cases named "pipeline" every form
draws for itself: a batch of a :class:`skelops.data.ClipDataset`, of other clips at each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from benchmarks.case import FORWARD, NUMPY, Variant
from benchmarks.data.case import DataCase, DataVariant, compiled
from benchmarks.data.feeders import FOUR, JOINT, METHODS, batched, with_streams
from skelops.data import ClipDataset, Clips
from skelops.data.transform import _Stream, get_transform
from skelops.ops import _philox, random_uniform

BATCHES = 4  # that the store of a "pipeline" holds


@dataclass(frozen=True)
class ClipCase(DataCase):
    """Batches of one method.

    Args:
        method: name of the transform in both skelops and the feeders.
        streams: of the batch.
        layout: of the joints.
        lengths: least and most frames of a clip.
        pipeline: whether drawing is part of the work.
        half: whether the batch is float16.
    """

    method: str = "ctr_gcn"
    streams: tuple[str, ...] = FOUR
    layout: str = "ntu25"
    lengths: tuple[int, int] = (40, 130)
    pipeline: bool = False
    half: bool = False

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        dtype = torch.float16 if self.half else dtype
        bench = _Bench(self, device)
        made: dict[str, Variant] = {"ours": bench.ours(dtype)}
        for name in against:
            made[name] = bench.feeder(dtype) if name == NUMPY else bench.batched(name, dtype)
        return made

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        return {"batch": _Bench(self, device).plain(torch.float64)}

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        """Blend, transform and differences of every point; every frame of the crops read once."""
        batch = ours.outcome()["batch"]
        bench = _Bench(self, "cpu")
        points = batch.numel() // len(self.streams)
        read = bench.frames_read() * bench.xyz[0].numel() * bench.xyz.element_size()
        wrote = batch.numel() * batch.element_size()
        return points * (2 + 6 + len(self.streams) - 1), read + wrote


class _Bench:
    """The clips of a case, and the ways to make a batch of the first N."""

    def __init__(self, case: ClipCase, device: str):
        self.case, self.device, self.method = case, device, METHODS[case.method]
        self.batch, V, M = (case.sizes[name] for name in "NVM")
        random = np.random.default_rng(0)
        count = self.batch * (BATCHES if case.pipeline else 1)
        length = random.integers(*case.lengths, count, endpoint=True)
        xyz = random.standard_normal((length.sum(), M, V, 3), dtype=np.float32)
        self.clips = Clips(xyz, length, np.zeros(count, int), ("any",), case.layout)
        # Feeders read clips that have been centred, and so do we.
        self.transform = get_transform(case.method, center=False)
        self.xyz = torch.from_numpy(xyz).to(device)
        offset = torch.from_numpy(self.clips.offset).to(device)
        self.bounds = torch.stack([offset[:-1], offset[1:]], dim=1)
        self.parents = torch.tensor(self.method.parents, device=device)
        self.turn = 0

    # Random numbers

    @cached_property
    def recorded(self) -> dict[str, Tensor]:
        """The uniform numbers behind skelops' batch of the first clips."""
        draw = torch.arange(self.batch, device=self.device)
        return {
            kind: random_uniform(draw, count, seed=0, stream=_Stream[kind.upper()])
            for kind, count in self.method.drawn.items()
        }

    @cached_property
    def noise(self) -> Tensor:
        """The normal numbers behind it, (N, 3, T, V, M) float64."""
        shape = (3, self.method.frames, *self.xyz.shape[2:0:-1])
        draw = torch.arange(self.batch, device=self.device)
        return _philox.normal(draw, 0, 0, _Stream.NOISE, int(np.prod(shape))).view(-1, *shape)

    def next(self) -> slice:
        """The clips of the next batch."""
        self.turn += 1
        begin = self.turn * self.batch % len(self.clips)
        return slice(begin, begin + self.batch)

    # Ours

    def ours(self, dtype: torch.dtype) -> DataVariant:
        data = ClipDataset(
            self.clips, self.transform, self.case.streams, train=True, device=self.device,
            dtype=dtype,
        )  # fmt: skip
        first = torch.arange(self.batch)
        plan = self.transform.plan(data.geometry, first, first, train=True).to(self.device)
        streams = data.streams.to(self.device)

        def run() -> Tensor:
            if self.case.pipeline:
                chosen = self.next()
                return data.__getitems__(range(chosen.start, chosen.stop)).x
            return plan.apply(self.xyz, streams, dtype=dtype)

        return DataVariant(run, lambda: {"batch": data.__getitems__(first).x})

    def frames_read(self) -> int:
        """Frames that a batch needs of the store, each counted once."""
        tables = self.method.tables(self.recorded, self.first, self.method.frames, self.xyz)
        last = tables.frame if tables.following is None else tables.following
        needed = torch.cat([tables.frame, last], dim=1)
        return sum(len(row.unique()) for row in needed)

    # Batched PyTorch

    @property
    def first(self) -> Tensor:
        return self.bounds[: self.batch]

    def plain(self, dtype: torch.dtype) -> Tensor:
        xyz = self.xyz.to(dtype)
        tables = self.method.tables(self.recorded, self.first, self.method.frames, xyz)
        return batched(xyz, tables, self.parents, self.case.streams, self.noise.to(dtype))

    def batched(self, name: str, dtype: torch.dtype) -> DataVariant:
        method, frames, xyz = self.method, self.method.frames, self.xyz
        make = compiled(self._batched(dtype), name)
        tables = method.tables(self.recorded, self.first, frames, xyz)

        def run() -> Tensor:
            if not self.case.pipeline:
                return make(tables)
            drawn = {
                kind: torch.rand(self.batch, count, device=self.device)
                for kind, count in method.drawn.items()
            }
            return make(method.tables(drawn, self.bounds[self.next()], frames, xyz))

        return DataVariant(run, lambda: {"batch": make(tables, self.noise.float())})

    def _batched(self, dtype: torch.dtype) -> Callable[..., Tensor]:
        def make(tables, noise: Tensor | None = None) -> Tensor:
            return batched(self.xyz, tables, self.parents, self.case.streams, noise).to(dtype)

        return make

    # Feeders

    def feeder(self, dtype: torch.dtype) -> DataVariant:
        method, recorded = self.method, {k: u.cpu().numpy() for k, u in self.recorded.items()}
        stored = self._stored()

        def sample(clip: int, numbers: dict[str, np.ndarray]) -> np.ndarray:
            x = method.per_clip(np.array(stored[clip]), numbers, method.frames)
            return with_streams(x, method.parents, self.case.streams).astype(np.float32)

        def collate(samples: list[np.ndarray]) -> Tensor:
            return torch.stack([torch.from_numpy(x) for x in samples]).to(self.device, dtype)

        def numbers(n: int) -> dict[str, np.ndarray]:
            if not self.case.pipeline:
                return {kind: u[n % self.batch] for kind, u in recorded.items()}
            return {k: np.random.rand(c).astype(np.float32) for k, c in method.drawn.items()}

        def run() -> Tensor:
            chosen = self.next() if self.case.pipeline else slice(0, self.batch)
            return collate([sample(n, numbers(n)) for n in range(chosen.start, chosen.stop)])

        def check() -> dict[str, Tensor]:
            noise = self.noise.cpu().numpy()
            each = [{k: u[n] for k, u in recorded.items()} for n in range(self.batch)]
            return {
                "batch": collate([sample(n, u | {"noise": noise[n]}) for n, u in enumerate(each)])
            }

        return DataVariant(run, check)

    def _stored(self) -> np.ndarray | list[np.ndarray]:
        """Clips as feeders hold them: a list, or an array (N, C, T, V, M) padded in time."""
        clips = [self.clips[n] for n in range(len(self.clips))]
        if self.method.padded is None:
            return clips
        padded = np.zeros((len(clips), self.method.padded, *clips[0].shape[1:]), np.float32)
        for row, clip in zip(padded, clips, strict=True):
            row[: len(clip)] = clip
        turned = padded.transpose(0, 4, 1, 3, 2)
        return np.ascontiguousarray(turned) if self.method.contiguous else turned


def _case(
    name: str, method: str, streams: Sequence[str] = FOUR, V: int = 25, M: int = 2,
    eager: float = 0, numpy: float = 0, rate: float = 0, **options,
) -> ClipCase:  # fmt: skip
    wanted = {"eager": eager, NUMPY: numpy, "rate": rate}
    return ClipCase(
        name,
        {"N": 256, "T": METHODS[method].frames, "V": V, "M": M},
        {FORWARD: {peer: bound for peer, bound in wanted.items() if bound}},
        method=method,
        streams=tuple(streams),
        **options,
    )


_PREPARED = {"lengths": (50, 50)}
_DRAWN = {"pipeline": True, "peers": ("eager", NUMPY)}
CASES = [
    _case(
        "CTR-GCN, 4 streams", "ctr_gcn", eager=4, numpy=20, rate=30e3,
        headline="batch of crops, resized and rotated, 4 streams (forward)",
    ),
    _case("CTR-GCN, 4 streams, float16", "ctr_gcn", half=True),
    _case("CTR-GCN, 4 streams, pipeline", "ctr_gcn", eager=4, numpy=20, rate=30e3, **_DRAWN),
    _case(
        "NW-UCLA, 4 streams", "nw_ucla", V=20, M=1, layout="nw_ucla20", lengths=(20, 70),
    ),
    _case("MAMP", "mamp", JOINT),
    _case("HiCLR basic view", "hiclr_basic", JOINT, **_PREPARED),
    _case(
        "HiCLR strong view", "hiclr_strong", JOINT, numpy=50, rate=20e3, **_PREPARED,
        headline="strong views of HiCLR (forward)",
    ),
    _case(
        "HiCLR strong view, pipeline", "hiclr_strong", JOINT, numpy=50, rate=20e3, **_PREPARED,
        **_DRAWN,
    ),
]  # fmt: skip
