"""HaLP (Shah et al., CVPR 2023, https://arxiv.org/abs/2304.00387) on CMD (Mao et al., ECCV 2022):
momentum contrast of recurrent encoders with positives hallucinated on the sphere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout, get_layout
from skelops.models._pretext import Pretext, register_pretext
from skelops.models._published import KeyPairs
from skelops.nn.momentum import Features, MomentumContrast

UNITS = ("", "_reverse")  # of nn.GRU's keys
# Of the three streams of the multi-modality model.
SUFFIXES = {"joint": "", "motion": "_motion", "bone": "_bone"}


class ForwardBiGRU(nn.Module):
    """Layers of two GRUs that both run forward in time; every layer sees both states of the last.

    The published network is driven frame by frame, so that "bidirectional" means two sets of
    weights. Layer by layer, the products with the input are one for all frames.

    Args:
        input_size: C of the frames.
        hidden_size: H of each of the two GRUs.
        num_layers: layers.

    Shape: (N, T, C) -> (N, 2 H), the states after the last frame.

    Source: the code of CMD, moco/GRU.py.
    """

    def __init__(self, input_size: int, hidden_size: int = 1024, num_layers: int = 3) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size, hidden_size, num_layers, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for layer in range(self.gru.num_layers):
            weights = (
                torch.stack([getattr(self.gru, f"{name}_l{layer}{unit}") for unit in UNITS])
                for name in names
            )
            x = ops.gru(x, *weights)
        return x[:, -1]


class BiGRU(nn.Module):
    """Encoder of CMD and HaLP, (N, C, T, V, M) -> (N, num_classes).

    Args:
        num_classes: outputs of the head.
        layout, in_channels, num_persons: of the input.
        hidden_size, num_layers: of :class:`ForwardBiGRU`.
        mlp: a head of two layers, as pre-training has it.
    """

    published_keys: KeyPairs = ()

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        in_channels: int = 3,
        num_persons: int = 2,
        hidden_size: int = 1024,
        num_layers: int = 3,
        mlp: bool = False,
    ) -> None:
        super().__init__()
        self.layout = get_layout(layout)
        self.in_channels, self.num_persons = in_channels, num_persons
        self.out_features = 2 * hidden_size
        width = in_channels * num_persons * self.layout.num_joints
        self.input_norm = nn.BatchNorm1d(width)
        self.encoder = ForwardBiGRU(width, hidden_size, num_layers)
        self.fc: nn.Module = nn.Linear(self.out_features, num_classes)
        for parameter in (*self.encoder.parameters(), self.fc.weight):
            if parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)
        if mlp:
            hidden = nn.Linear(self.out_features, self.out_features)
            self.fc = nn.Sequential(hidden, nn.ReLU(), self.fc)

    def pooled(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, 2 H), what the head looks at."""
        sizes = {"C": self.in_channels, "V": self.layout.num_joints, "M": self.num_persons}
        _check.shape(type(self).__name__, "x", x, "N C T V M", **sizes)
        return self.frame_features(x.permute(0, 2, 3, 1, 4).flatten(2))

    def frame_features(self, x: Tensor) -> Tensor:
        """(N, T, V C M) -> (N, 2 H)."""
        return self.encoder(self.input_norm(x.mT).mT)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pooled(x))


class Hallucination(MomentumContrast):
    """Momentum contrast with prototypes of the newest keys.

    Args:
        contrast: of :class:`MomentumContrast`.
        prototypes, window: of how many clusters, of how many of the newest keys.
        plus_plus: start of the clustering by k-means++, else at random points.
        momentum: as there.
    """

    prototypes: Tensor

    def __init__(
        self, *contrast, prototypes: int = 20, window: int = 256, plus_plus: bool = True, **kwargs
    ) -> None:
        super().__init__(*contrast, **kwargs)
        self.window, self.plus_plus = min(window, self.queue.shape[1]), plus_plus
        self.register_buffer("prototypes", self.bank[:prototypes].clone())

    def refresh(self, generator: torch.Generator | None = None) -> None:
        """Cluster the newest keys."""
        keys = ops.queue_recent(self.bank, self.queue_ptr, self.window)
        count = len(self.prototypes)
        if self.plus_plus:
            start = ops.sphere_kmeans_start(keys, count, generator=generator)
        else:
            start = keys[torch.randperm(len(keys), generator=generator)[:count].to(keys.device)]
        found, _ = ops.sphere_kmeans(keys, start, generator=generator)
        self.prototypes.copy_(found)


class HaLPStep(NamedTuple):
    """What a step of pre-training gives.

    Args:
        loss: to minimise.
        terms: its parts by name, sums over the streams.
        keys: (S, N, D), for ``enqueue`` after the backward.
        queries: (S, N, D).
    """

    loss: Tensor
    terms: dict[str, Tensor]
    keys: Tensor
    queries: Tensor


@register_pretext("halp")
class HaLP(Pretext):
    """Pre-training: InfoNCE, hallucinated positives and, of several streams, CMD's distillation.

    ``step = model(views)``, ``step.loss.backward()``, ``model.enqueue(step.keys)``. With
    ``mu=0`` and three streams this is CMD.

    Args:
        layout, in_channels, num_persons: of the input, all its streams.
        num_frames: any.
        streams: ("joint",), another one alone, or ("joint", "motion", "bone"), channels of the
            input in this order.
        hidden_size, num_layers: of :class:`BiGRU`.
        width: D of the embedding.
        mlp: a head of two layers; else of one.
        queue_size, momentum, temperature: of the contrast.
        mu: weight of the hallucinated positives; 0 for none.
        positives_from: the first epoch with them. They attract without repelling: where the keys
            are still alike, they make all of them one.
        hardness: their u is uniform in [0, hardness]; None for the farthest points.
        positives: S of each key.
        skip: prototypes most similar to the key that no positive lies towards, at least 1.
        prototypes: number of them.
        refresh_every: steps between two clusterings.
        top, teacher_temperature, student_temperature: of :func:`skelops.cmd_loss`; ``top`` is at
            most ``queue_size``.

    Positives do not begin before 2 K + 1 clips have been seen. As published, that count is not
    saved.
    """

    def __init__(
        self,
        layout: str | Layout = "ntu25",
        num_frames: int | None = None,
        *,
        in_channels: int = 3,
        num_persons: int = 2,
        streams: Sequence[str] = ("joint",),
        hidden_size: int = 1024,
        num_layers: int = 3,
        width: int = 128,
        mlp: bool = True,
        queue_size: int = 16384,
        momentum: float = 0.999,
        temperature: float = 0.07,
        mu: float = 2.0,
        positives_from: int = 0,
        hardness: float | None = 0.8,
        positives: int = 100,
        skip: int = 1,
        prototypes: int = 20,
        refresh_every: int = 10,
        top: int = 8192,
        teacher_temperature: float = 0.05,
        student_temperature: float = 0.1,
    ) -> None:
        super().__init__()
        several = len(streams) > 1
        if not streams or len(set(streams)) < len(streams) or not set(streams) <= set(SUFFIXES):
            raise _check.fail("HaLP", f"streams among {', '.join(SUFFIXES)}", list(streams))
        if not 1 <= skip < prototypes:
            raise _check.fail("HaLP", f"skip in 1..{prototypes - 1}", skip)
        self.layout = get_layout(layout)
        if in_channels % len(streams):
            raise _check.fail("HaLP", f"channels of {len(streams)} streams", in_channels)
        self.pending: Tensor | None = None
        self.temperature, self.mu, self.hardness = temperature, mu, hardness
        self.positives_from, self.epoch = positives_from, positives_from
        self.positives, self.candidates = positives, prototypes - skip
        self.refresh_every = refresh_every
        self.distillation = {
            "top": min(top, queue_size),
            "teacher_temperature": teacher_temperature,
            "student_temperature": student_temperature,
        }
        self.seen, self.since = 0, refresh_every  # clips; steps since the last clustering

        def encoder() -> BiGRU:
            return BiGRU(
                width, layout, in_channels=in_channels // len(streams), num_persons=num_persons,
                hidden_size=hidden_size, num_layers=num_layers, mlp=mlp,
            )  # fmt: skip

        def contrast() -> Hallucination:
            query, key = encoder(), encoder()
            key.load_state_dict(query.state_dict())
            return Hallucination(
                query, key, width, queue_size, momentum, prototypes=prototypes,
                plus_plus=not several,
            )  # fmt: skip

        self.streams = nn.ModuleDict({name: contrast() for name in streams})
        self.published_keys: KeyPairs = tuple(
            pair
            for name in streams
            for pair in (
                (rf"^streams\.{name}\.(encoder_[qk]|queue_ptr|queue)\b",
                 rf"\1{SUFFIXES[name] if several else ''}"),
                (rf"^streams\.{name}\.prototypes", f"prototypes{f'_{name[0]}' * several}"),
            )
        )  # fmt: skip

    @property
    def encoder(self) -> Features:
        """The encoder of the first stream."""
        return Features(next(iter(self.streams.values())).encoder_q)

    def encoder_loaded(self) -> None:
        next(iter(self.streams.values())).encoder_loaded()

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def loss(self, x: Tensor, clip: Tensor) -> Tensor:
        """x (N, 2, C, T, V, M), see ``forward``."""
        step = self(x.unbind(1))
        self.pending = step.keys
        return step.loss

    def end_step(self) -> None:
        if self.training and self.pending is not None:
            self.enqueue(self.pending)
        self.pending = None

    @property
    def clusters(self) -> bool:
        """Whether enough clips have been seen for prototypes."""
        queue = next(iter(self.streams.values())).queue
        return self.mu > 0 and self.seen > 2 * queue.shape[1]

    @property
    def hallucinates(self) -> bool:
        """Whether there are prototypes and it is late enough."""
        return self.clusters and self.epoch >= self.positives_from

    def draw(self, N: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(pick, u) for N keys, see :func:`skelops.hallucinate_positives`."""
        size = (N, self.positives)
        u = torch.rand(size, generator=generator) * (self.hardness or 0.0)
        return torch.randint(self.candidates, size, generator=generator), u

    def forward(
        self,
        views: Sequence[Tensor],
        draws: Sequence[tuple[Tensor, Tensor]] | None = None,
        generator: torch.Generator | None = None,
    ) -> HaLPStep:
        """``views``: two (N, S C, T, V, M) of the same clips, for the queries and the keys.

        ``draws``: (pick, u) per stream, for positives in any case. Default: from ``generator``.
        """
        S = len(self.streams)
        contrasts = list(self.streams.values())
        queries = [c.query(x) for c, x in zip(contrasts, views[0].chunk(S, 1), strict=True)]
        keys = [c.key(x) for c, x in zip(contrasts, views[1].chunk(S, 1), strict=True)]
        terms = {
            "info_nce": sum(
                ops.info_nce(q, k, c.bank, temperature=self.temperature, normalize=False).mean()
                for q, k, c in zip(queries, keys, contrasts, strict=True)
            )
        }
        if draws is None and self.hallucinates:
            draws = [self.draw(len(k), generator) for k in keys]
        if draws is not None:
            terms["positives"] = self.mu * sum(
                self._positives(q, k, c.prototypes, *(d.to(q.device) for d in drawn))
                for q, k, c, drawn in zip(queries, keys, contrasts, draws, strict=True)
            )
        q, k = torch.stack(queries), torch.stack(keys)
        if S > 1:
            banks = torch.stack([c.bank for c in contrasts])
            terms["distillation"] = ops.cmd_loss(q, k, banks, **self.distillation)
        return HaLPStep(sum(terms.values()), terms, k, q)

    def _positives(self, q: Tensor, k: Tensor, prototypes: Tensor, pick: Tensor, u: Tensor):
        found = ops.hallucinate_positives(q, k, prototypes, pick, u, farthest=self.hardness is None)
        total = (found.similarity * found.kept).sum() / (found.kept.sum() + 1e-8)
        return -total / self.temperature

    def enqueue(self, keys: Tensor, generator: torch.Generator | None = None) -> None:
        """Keep the keys of a step, after its backward; cluster them when it is time."""
        for contrast, key in zip(self.streams.values(), keys, strict=True):
            contrast.enqueue(key)
        self.seen += len(keys[0])
        self.since += 1
        if self.clusters and self.since >= self.refresh_every:
            self.since = 0
            for contrast in self.streams.values():
                contrast.refresh(generator)
