"""ACLNet (Liu et al., IEEE TBIOM 2026): a dynamic-group GCN with affinity contrastive learning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout
from skelops.models._published import KeyPairs
from skelops.models._registry import register_model
from skelops.models.dg_stgcn import DGSTGCN
from skelops.models.st_gcn import PUBLISHED_KEYS as BACKBONE_KEYS

PUBLISHED_KEYS: KeyPairs = (
    (r"^(inter|intra)\.project\.", r"cls_head.\1_loss.cl_fc."),
    *BACKBONE_KEYS,
)


class InterClassLoss(nn.Module):
    r"""Tells a class from those it is confused with: affinity loss on means of classes.

    From ``start`` epochs on, confusions of the training batches are counted; in the epochs after
    it each class gets a superclass, see ``superclasses``, and is contrasted with its members at a
    temperature that rises with their number. The memory is per process.

    Args:
        num_classes: C.
        graph_size: V * V, entries of the learned graph.
        width: of the projection.
        start: epochs without any of it.
        momentum: of the means.
        top, overlap: see ``superclasses``.
        temperatures: of superclasses with at most ``top``, at most twice as many, and more members.

    Source: section 3.3; firework8/ACLNet, which has the further quirks kept here: of two classes
    the less often confused one counts by the number of clips, and members enter without weights.
    """

    def __init__(
        self,
        num_classes: int,
        graph_size: int,
        width: int = 256,
        *,
        start: int = 30,
        momentum: float = 0.9,
        top: int = 10,
        overlap: int = 4,
        temperatures: Sequence[float] = (0.1, 0.5, 1.0),
    ) -> None:
        super().__init__()
        self.project = nn.Linear(graph_size, width)
        self.start, self.momentum, self.top, self.overlap = start, momentum, top, overlap
        self.epoch, self.outdated = -1, True
        C = num_classes
        for name, value in (
            ("mean", torch.randn(C, width)),
            ("confusion", torch.zeros(C, C, dtype=torch.int64)),
            ("superclass", torch.zeros(C, C, dtype=torch.bool)),
            ("temperature", torch.ones(C)),
            ("temperatures", torch.tensor(temperatures)),
        ):
            self.register_buffer(name, value, persistent=False)

    def start_epoch(self, epoch: int, begun: bool = False) -> None:
        """Superclasses are found anew by the first batch of an epoch, unless it has ``begun``."""
        if epoch != self.epoch:
            self.epoch, self.outdated = epoch, not begun

    def forward(self, graph: Tensor, label: Tensor, logits: Tensor) -> Tensor:
        """graph (N, V * V), label (N,), logits (N, C) -> ()."""
        feature = self.project(graph)
        predicted = logits.detach().argmax(1)
        with torch.no_grad():
            if self.epoch >= self.start:
                self.confusion += confusions(label, predicted, len(self.confusion))
            if self.epoch > self.start and self.outdated:
                self.superclass.copy_(superclasses(self.confusion, self.top, self.overlap))
                size = self.superclass.sum(1)
                step = (size > self.top).long() + (size > 2 * self.top)
                self.temperature.copy_(self.temperatures[step])
                self.outdated = False
        mean = self.updated(feature, label, predicted == label)
        self.mean.copy_(mean.detach())
        if self.epoch <= self.start:
            return 0 * feature.sum()  # every parameter has a gradient, as DDP expects
        return ops.affinity_contrastive_loss(
            F.normalize(feature, dim=1),
            F.normalize(mean, dim=1),
            label,
            torch.arange(len(mean), device=label.device),
            self.superclass,
            self.temperature[label],
        ).mean()

    def updated(self, feature: Tensor, label: Tensor, right: Tensor) -> Tensor:
        """Means (C, D) after a batch: only samples that were recognised count."""
        classes = torch.arange(len(self.mean), device=label.device)
        member = ((classes[:, None] == label) & right).to(feature.dtype)
        count = member.sum(1, keepdim=True)
        mean = member @ feature / count.clamp(min=1)
        return torch.where(count > 0, torch.lerp(mean, self.mean, self.momentum), self.mean)


def confusions(label: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """What a batch adds to the counts (C, C): mistakes a -> b, and n_a times those b -> a."""
    classes = torch.arange(num_classes, device=label.device)
    true, found = (classes[:, None] == y for y in (label, predicted))
    # Products of small integers are exact in float32, and quick on any device.
    wrong = (true & (label != predicted)).float() @ found.float().T
    clips = true.sum(1, keepdim=True)
    return wrong.long() + clips * wrong.T.long()


def superclasses(confusion: Tensor, top: int = 10, overlap: int = 4) -> Tensor:
    """(C, C) bool: b belongs to the superclass of a, as one of its ``top`` confusions or as another
    class that shares more than ``overlap`` of them.

    Of equally frequent ones the smaller number comes first; classes that were never confused, and
    the class itself, may be among them.
    """
    C = len(confusion)
    order = torch.sort(confusion, dim=1, descending=True, stable=True).indices[:, :top]
    near = torch.zeros_like(confusion, dtype=torch.bool).scatter_(1, order, True)
    shared = near.float() @ near.float().T
    other = ~torch.eye(C, dtype=torch.bool, device=confusion.device)
    return near | ((shared > overlap) & other)


class IntraClassLoss(nn.Module):
    """Pulls the learned graphs of a class together, with a margin, against a queue of recent ones.

    Args:
        graph_size: V * V, entries of the learned graph.
        width: of the projection.
        memory: clips in the queue; until it is full the loss is 0. It is per process.
        temperature, margin: of the loss.

    Source: section 3.4.
    """

    def __init__(
        self,
        graph_size: int,
        width: int = 256,
        *,
        memory: int = 512,
        temperature: float = 0.1,
        margin: float = 0.1,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(graph_size, width)
        self.temperature, self.margin = temperature, margin
        self.register_buffer("memory", torch.zeros(memory, width), persistent=False)
        empty = torch.full((memory,), -1)
        self.register_buffer("memory_label", empty, persistent=False)

    def forward(self, graph: Tensor, label: Tensor) -> Tensor:
        """graph (N, V * V), label (N,) -> (); the oldest clips leave the queue."""
        N, size = len(label), len(self.memory)
        if size < N:
            raise _check.fail("IntraClassLoss", f"a batch of at most memory={size} clips", N)
        feature = F.normalize(self.project(graph), dim=1)
        memory = torch.cat([self.memory[N:], feature])
        memory_label = torch.cat([self.memory_label[N:], label])
        loss = ops.affinity_contrastive_loss(
            feature,
            memory,
            label,
            memory_label,
            temperature=self.temperature,
            margin=self.margin,
            eps=1e-6,
            own=True,
        ).mean()
        self.memory.copy_(memory.detach())
        self.memory_label.copy_(memory_label)
        return loss * (memory_label[0] >= 0)


@register_model("aclnet")
class ACLNet(DGSTGCN):
    """Affinity contrastive network, (N, C, T, V, M) -> logits (N, num_classes).

    The backbone is DG-STGCN's at one and a half times its width. Given labels, it also returns the
    weighted sum of two contrastive losses on the mean learned graph of the last block; without,
    nothing of them is computed.

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        base_channels: of the first of the ten published blocks.
        weights: of the inter- and intra-class loss; without them (0, 0) there are none.
        width: of their projections.
        start: see ``InterClassLoss``.
        memory: see ``IntraClassLoss``; 512 for NTU RGB+D and PKU, 1024 for NTU RGB+D 120.
        net: further arguments of ``DGSTGCN`` and ``skelops.nn.SkeletonNet``.

    Published: NTU RGB+D 60 X-Sub 91.4 % (joint), 93.1 % (2 streams), 93.6 % (6 streams).
    """

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        base_channels: int = 96,
        weights: tuple[float, float] = (0.1, 0.1),
        width: int = 256,
        start: int = 30,
        memory: int = 512,
        **net,
    ) -> None:
        super().__init__(num_classes, layout, base_channels=base_channels, **net)
        self.weights = tuple(weights)
        self.takes_labels = any(self.weights)
        if self.takes_labels:
            size = self.layout.num_joints**2
            self.inter = InterClassLoss(num_classes, size, width, start=start)
            self.intra = IntraClassLoss(size, width, memory=memory)
        self.published_keys = PUBLISHED_KEYS

    def start_epoch(self, epoch: int, begun: bool = False) -> None:
        """Tell the losses the epoch, before each batch or each epoch of a training."""
        if self.takes_labels:
            self.inter.start_epoch(epoch, begun)

    def features_and_graph(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, T, V, M) -> features (N * M, C', T', V) and the learned graph (N, V * V)."""
        *blocks, last = self.blocks
        y = self.normalised(x)
        for block in blocks:
            y = block(y)
        graph = last.gcn.graph.mean_graph(y).unflatten(0, (-1, x.shape[-1])).mean(1)
        return last(y), graph.flatten(1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """(N, C, T, V, M) -> logits (N, num_classes), and with labels (N,) the further loss ()."""
        if label is None or not self.takes_labels:
            return super().forward(x)
        y, graph = self.features_and_graph(x)
        logits = self.fc(self.dropout(self.mean(y, x.shape[-1])))
        with torch.autocast(x.device.type, enabled=False):
            graph = graph.to(self.intra.memory.dtype)
            losses = self.inter(graph, label, logits), self.intra(graph, label)
        return logits, sum(w * loss for w, loss in zip(self.weights, losses, strict=True) if w)
