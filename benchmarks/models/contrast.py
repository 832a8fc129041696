"""Parts of contrastive pre-training and its evaluation, each against the published form of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import skelops
from benchmarks.case import FAISS, FORWARD, TRAINING, Arguments, Case, Draw, Variant, total_bytes
from benchmarks.data.case import DataCase, DataVariant
from skelops.ops import knn_vote

WIDTH, PROTOTYPES, MOMENTUM, CLASSES = 128, 20, 0.999, 60


def _unit(draw: Draw, *shape: int) -> Tensor:
    return F.normalize(draw.normal(*shape).detach(), dim=1)


def _draw_positives(draw: Draw, B: int, S: int) -> Arguments:
    picked = torch.randint(PROTOTYPES - 1, (B, S), generator=draw.generator)
    return {
        "q": _unit(draw, B, WIDTH).requires_grad_(),
        "key": _unit(draw, B, WIDTH),
        "prototypes": _unit(draw, PROTOTYPES, WIDTH),
        "pick": picked.to(draw.device),
        "u": draw.constant(0.1 + 0.7 * torch.rand(B, S, generator=draw.generator)),
    }


def _positives(q: Tensor, key: Tensor, prototypes: Tensor, pick: Tensor, u: Tensor) -> Tensor:
    found = skelops.hallucinate_positives(q, key, prototypes, pick, u)
    return (found.similarity * found.kept).sum() / found.kept.sum()


def _published_positives(
    q: Tensor, key: Tensor, prototypes: Tensor, pick: Tensor, u: Tensor
) -> Tensor:
    """HaLP's: every positive is written, and the prototypes once per positive."""
    S = pick.shape[1]
    with torch.no_grad():
        order = (key @ prototypes.T).argsort(1)
        p = prototypes[order.gather(1, pick)].flatten(0, 1)
        closest = order[:, -1].repeat_interleave(S)
        k, p0 = key.repeat_interleave(S, 0), prototypes[closest]
        every = prototypes.repeat(len(k), 1, 1)
        omega = (k * p).sum(1, keepdim=True).acos()
        slope = (1 - (p * p0).sum(1, keepdim=True)) / (
            (k * p0).sum(1, keepdim=True) - (k * p).sum(1, keepdim=True)
        )
        t_max = (omega.sin() / (slope + omega.cos())).atan() / omega
        t = (1 - u.reshape(-1, 1)) * t_max
        z = ((1 - t) * omega).sin() / omega.sin() * k + (t * omega).sin() / omega.sin() * p
        z = F.normalize(z, dim=1)
        nearest = torch.bmm(every, z[:, :, None])[:, :, 0].argmax(1)
        kept = nearest == torch.bmm(every, k[:, :, None])[:, :, 0].argmax(1)
    return ((q.repeat_interleave(S, 0) * z).sum(1) * kept).sum() / kept.sum()


def _positives_flops(B: int, S: int) -> dict[str, float]:
    forward = 2 * B * WIDTH * (2 * PROTOTYPES + 1) + B * S * 4 * PROTOTYPES
    return {FORWARD: forward, TRAINING: 2 * forward}


def _encoder(hidden: int, seed: int) -> nn.Module:
    """HaLP's parameters: 49.5 M at 1024 units."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gru = nn.GRU(150, hidden, 3, bidirectional=True)
        head = (nn.Linear(2 * hidden, 2 * hidden), nn.Linear(2 * hidden, WIDTH))
        return nn.ModuleList([gru, *head])


@torch.no_grad()
def _published_momentum(average: nn.Module, module: nn.Module) -> None:
    for a, p in zip(average.parameters(), module.parameters(), strict=True):
        a.data = a.data * MOMENTUM + p.data * (1 - MOMENTUM)


@dataclass(frozen=True)
class MomentumCase(DataCase):
    peers: tuple[str, ...] = ("eager",)

    def small(self) -> MomentumCase:
        return self.resized(hidden=8)

    def _modules(self, device: str, dtype: torch.dtype) -> list[nn.Module]:
        return [_encoder(self.sizes["hidden"], seed).to(device, dtype) for seed in (0, 1)]

    def _variant(self, update: Callable, device: str, dtype: torch.dtype) -> DataVariant:
        pair = self._modules(device, dtype)

        def updated() -> dict[str, Tensor]:
            average, module = self._modules(device, dtype)
            update(average, module)
            return {"parameters": torch.cat([p.detach().flatten() for p in average.parameters()])}

        return DataVariant(lambda: update(*pair), updated)

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        made: dict[str, Variant] = {
            "ours": self._variant(skelops.ops.momentum_update_, device, dtype)
        }
        return made | {name: self._variant(_published_momentum, device, dtype) for name in against}

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        return self._variant(_published_momentum, device, torch.float64).outcome()

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        count = sum(p.numel() for p in _encoder(self.sizes["hidden"], 0).parameters())
        return 3 * count, 12 * count


@dataclass(frozen=True)
class RetrievalCase(DataCase):
    """Votes of the k most similar of a bank; ``faiss`` only finds them, exactly, by products."""

    peers: tuple[str, ...] = ("eager", FAISS) if importlib.util.find_spec("faiss") else ("eager",)

    def small(self) -> RetrievalCase:
        return self.resized(N=20, B=200)

    def _inputs(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        draw = Draw(device, dtype)
        x, bank = (_unit(draw, self.sizes[name], 256) for name in "NB")
        label = torch.randint(CLASSES, (len(bank),), generator=draw.generator)
        return x, bank, label.to(device)

    def _published(self, x: Tensor, bank: Tensor, label: Tensor) -> Tensor:
        near = (x @ bank.T).topk(self.sizes["k"], 1).indices
        return F.one_hot(label[near], CLASSES).sum(1).to(x.dtype)

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        x, bank, label = self._inputs(device, dtype)

        def variant(vote: Callable[[], Tensor]) -> DataVariant:
            return DataVariant(vote, lambda: {"score": vote()})

        def found() -> Tensor:
            near = torch.from_numpy(index.search(x.float().cpu().numpy(), self.sizes["k"])[1])
            return F.one_hot(label[near], CLASSES).sum(1).to(x.dtype)

        made: dict[str, Variant] = {
            "ours": variant(lambda: knn_vote(x, bank, label, CLASSES, k=self.sizes["k"]))
        }
        if "eager" in against:
            made["eager"] = variant(lambda: self._published(x, bank, label))
        if FAISS in against:
            import faiss

            faiss.omp_set_num_threads(torch.get_num_threads())
            index = faiss.IndexFlatIP(256)
            index.add(bank.float().cpu().numpy())
            made[FAISS] = variant(found)
        return made

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        x, bank, label = self._inputs(device, dtype)
        return {"score": self._published(x.double(), bank.double(), label)}

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        N, B = (self.sizes[name] for name in "NB")
        return 2 * 256 * N * B, total_bytes((self._inputs("cpu", torch.float32), ours.run()))


CASES = [
    Case(
        "hallucinated positives, 100 of 64 keys", {"B": 64, "S": 100}, _draw_positives, _positives,
        _published_positives, _positives_flops, targets={TRAINING: {"eager": 30}},
        activations=("q", "key", "prototypes", "pick", "u"), gpu={}, quick={"B": 8},
        headline="positives of HaLP, 100 of 64 keys",
    ),
    MomentumCase(
        "momentum update of 49.5 M parameters", {"hidden": 1024}, {FORWARD: {"eager": 4}},
        gpu={}, quick={"hidden": 128},
        headline="momentum update of 49.5 M parameters",
    ),
    RetrievalCase(
        "20 nearest of 40000 features", {"N": 4000, "B": 40000, "k": 20}, {FORWARD: {FAISS: 1}},
        gpu={}, quick={"N": 200},
        headline="20 nearest of 40000 features (forward)",
    ),
]  # fmt: skip
