"""A pre-training step of HiCLR with its four views: as published, feeders that make one view at a
time and a network of separate calls, against ours from the clips to the updated weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.case import Variant
from benchmarks.data.case import DataCase, DataVariant
from benchmarks.data.feeders import METHODS
from benchmarks.network import STEP, V
from skelops.data import ClipDataset, Clips, get_transform
from skelops.models import HiCLR, published_state
from skelops.models.hiclr import GCN_STAGES

T, M, WIDTH, TAU, MOMENTUM = 50, 2, 128, 0.07, 0.999
VIEWS = ("hiclr_basic", "hiclr_basic", "hiclr_strong", "hiclr_strong")
MASKED = 0.1


class _Graph(nn.Module):
    """1x1 convolution, then the joints of each of three graphs."""

    def __init__(self, C: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, 3 * out, 1)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        y = self.conv(x).unflatten(1, (3, -1))
        return torch.einsum("nkctv,kvw->nctw", y, A).contiguous()


class _Block(nn.Module):
    def __init__(self, C: int, out: int, stride: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.gcn = _Graph(C, out)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(out),
            nn.Dropout(0.0 if first else dropout, inplace=True),
        )
        self.residual: nn.Module | None = None if first else nn.Identity()
        if not first and (out != C or stride != 1):
            self.residual = nn.Sequential(nn.Conv2d(C, out, 1, (stride, 1)), nn.BatchNorm2d(out))

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        y = self.tcn(self.gcn(x, A))
        return F.relu(y if self.residual is None else y + self.residual(x), inplace=True)


class _Encoder(nn.Module):
    """(N, 3, T, 25, M) -> (N, WIDTH)."""

    def __init__(self, A: Tensor, dropout: float) -> None:
        super().__init__()
        self.register_buffer("A", A)
        self.data_bn = nn.BatchNorm1d(3 * V)
        blocks, C = [], 3
        for i, (out, stride) in enumerate(GCN_STAGES):
            blocks.append(_Block(C, out, stride, dropout, first=i == 0))
            self.register_parameter(f"edge_importance{i + 1}", nn.Parameter(torch.ones_like(A)))
            C = out
        self.st_gcn_networks = nn.ModuleList(blocks)
        self.fc = nn.Sequential(nn.Linear(C, C), nn.ReLU(), nn.Linear(C, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        N, C, T, V, M = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(N * M, V * C, T))
        x = x.view(N * M, V, C, T).permute(0, 2, 3, 1).contiguous()
        for i, block in enumerate(self.st_gcn_networks):
            x = block(x, self.A * getattr(self, f"edge_importance{i + 1}"))
        return self.fc(x.mean((2, 3)).view(N, M, -1).mean(1))


class EagerHiCLR(nn.Module):
    """Four views (N, 3, T, 25, M) and the mask of the last one -> loss."""

    def __init__(self, A: Tensor, queue: int, dropout: float) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = (_Encoder(A, dropout) for _ in range(2))
        self.encoder_k.requires_grad_(False)
        self.mask_param = nn.Parameter(torch.zeros(1))
        self.register_buffer("queue", F.normalize(torch.randn(WIDTH, queue), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))

    def forward(self, views: Sequence[Tensor], kept: Tensor) -> Tensor:
        basic, key_view, strong, masked = views
        masked = masked * kept[:, :, None] + self.mask_param * ~kept[:, :, None]
        q = [F.normalize(self.encoder_q(x), dim=1) for x in (basic, strong, masked)]
        with torch.no_grad():
            pairs = zip(self.encoder_k.parameters(), self.encoder_q.parameters(), strict=True)
            for average, p in pairs:
                average.data = average.data * MOMENTUM + p.data * (1 - MOMENTUM)
            key = F.normalize(self.encoder_k(key_view), dim=1)
        queue = self.queue.clone()
        logits = [torch.cat([(b * key).sum(1, keepdim=True), b @ queue], 1) / TAU for b in q]
        loss = F.cross_entropy(logits[0], torch.zeros(len(key), dtype=torch.int64))
        for target, found in pairwise(logits):
            share = F.softmax(target.detach(), dim=1)
            loss = loss - (share * F.log_softmax(found, dim=1)).sum(1).mean() / 2
        with torch.no_grad():
            first = int(self.queue_ptr)
            self.queue[:, first : first + len(key)] = key.T
            self.queue_ptr[0] = (first + len(key)) % queue.shape[1]
        return loss


def _update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=1e-3, momentum=0.9, weight_decay=1e-4)


@dataclass(frozen=True)
class StepCase(DataCase):
    """What agrees is the loss and its gradient, of the same views, without dropout."""

    directions: ClassVar[tuple[str, ...]] = (STEP,)
    gpu: ClassVar[dict[str, int]] = {"N": 128}
    quick: ClassVar[dict[str, int]] = {"N": 8}
    slack: ClassVar[float] = 100.0  # a rectifier at zero decides for itself in single precision
    peers: tuple[str, ...] = ("eager",)

    def small(self) -> StepCase:
        return replace(self, sizes={"N": 3, "queue": 12})

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        bench = _Bench(self.sizes["N"], self.sizes["queue"], device, dtype)
        return {"ours": bench.ours(), **{name: bench.eager() for name in against}}

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        bench = _Bench(self.sizes["N"], self.sizes["queue"], device, torch.float64)
        return bench.eager().outcome()

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        """Three views forward and backward, one forward; every activation of a block once."""
        macs, values, C, frames = 0, 0, 3, T
        for out, stride in GCN_STAGES:
            macs += frames * V * 3 * out * (C + V)
            frames = (frames - 1) // stride + 1
            macs += frames * V * 9 * out * out
            values += 4 * frames * V * out
            C = out
        passes = self.sizes["N"] * M * (3 * 3 + 1)
        return 2.0 * macs * passes, 4.0 * values * passes


class _Bench:
    """Clips, and both pipelines over them."""

    def __init__(self, N: int, queue: int, device: str, dtype: torch.dtype) -> None:
        self.N, self.queue, self.device, self.dtype = N, queue, device, dtype
        random = np.random.default_rng(0)
        xyz = random.standard_normal((4 * N * T, M, V, 3), dtype=np.float32)
        self.clips = Clips(xyz, np.full(4 * N, T), np.zeros(4 * N, int), ("any",), "ntu25")
        self.turn = 0

    def next(self) -> range:
        self.turn += 1
        begin = self.turn * self.N % len(self.clips)
        return range(begin, begin + self.N)

    def _module(self, dropout: float) -> HiCLR:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = HiCLR(
                "ntu25", T, queue_size=self.queue, encoder_kwargs={"block_dropout": dropout}
            )
        return module.to(self.device, self.dtype)

    def _published(self, dropout: float) -> EagerHiCLR:
        ours = self._module(dropout)
        module = EagerHiCLR(ours.encoder_q.A.cpu(), self.queue, dropout)
        module = module.to(self.device, self.dtype)
        module.load_state_dict(published_state(ours))
        return module

    def _fixed(self) -> tuple[Tensor, Tensor]:
        """(N, 4, 3, T, V, M) and (T, V)"""
        drawn = torch.Generator().manual_seed(0)
        x = torch.randn(self.N, len(VIEWS), 3, T, V, M, generator=drawn)
        kept = torch.rand(T, V, generator=drawn) >= MASKED
        return x.to(self.device, self.dtype), kept.to(self.device)

    def _outcome(self, module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
        loss.backward()
        encoder = {n: p.grad for n, p in module.encoder_q.named_parameters()}
        norms = torch.stack([g.double().norm() for g in encoder.values() if g is not None])
        return {
            "loss": loss.detach(),
            "norm of the gradient": norms.norm(),
            "gradient of the first edges": next(
                g for n, g in encoder.items() if n in ("edge_importance1", "edge_importance.0")
            ),
        }

    def ours(self) -> DataVariant:
        basic = get_transform("hiclr_basic", center=False)
        views = [get_transform(name, center=False) for name in VIEWS]
        data = ClipDataset(
            self.clips, basic, train=True, views=views, device=self.device, dtype=self.dtype
        )
        module = self._module(0.5)
        optimizer = _optimizer(module)

        def run() -> None:
            x, _, clip = data.__getitems__(self.next())
            _update(module.loss(x, clip), optimizer)
            module.end_step()

        def outcome() -> dict[str, Tensor]:
            module = self._module(0.0)
            x, kept = self._fixed()
            return self._outcome(module, module(x.unbind(1), kept).loss)

        return DataVariant(run, outcome)

    def eager(self) -> DataVariant:
        stored = [
            np.ascontiguousarray(self.clips[n].transpose(3, 0, 2, 1)) for n in range(4 * self.N)
        ]
        methods = [METHODS[name] for name in VIEWS]
        module = self._published(0.5)
        optimizer = _optimizer(module)

        def view(method, clip: np.ndarray) -> np.ndarray:
            numbers = {k: np.random.rand(c).astype(np.float32) for k, c in method.drawn.items()}
            return method.per_clip(clip, numbers, T).astype(np.float32)

        def run() -> None:
            samples = [[view(method, stored[n]) for method in methods] for n in self.next()]
            views = [torch.from_numpy(np.stack(each)) for each in zip(*samples, strict=True)]
            order = torch.rand(T, V).argsort(1).argsort(1)
            kept = (order >= int(MASKED * V)).to(self.device)
            views = [x.to(self.device, self.dtype) for x in views]
            _update(module(views, kept), optimizer)

        def outcome() -> dict[str, Tensor]:
            module = self._published(0.0)
            x, kept = self._fixed()
            return self._outcome(module, module(x.unbind(1), kept))

        return DataVariant(run, outcome)


CASES = [
    StepCase(
        "pre-training step with its four views", {"N": 32, "queue": 32768},
        targets={STEP: {"eager": 3.0}}, headline="HiCLR, pre-training step with its four views",
    ),
]  # fmt: skip
