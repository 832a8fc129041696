"""HiCLR (Zhang et al., AAAI 2023, https://arxiv.org/abs/2211.13466): contrast along growing
augmentations, every view following the similarities of an easier one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skelops import _check, ops
from skelops.graph import Layout, get_layout
from skelops.models._pretext import Pretext, register_pretext
from skelops.models._published import KeyPairs
from skelops.models._registry import graph_of
from skelops.models.halp import BiGRU
from skelops.models.st_gcn import make_block
from skelops.nn import GraphConv, GraphUnit, SkeletonNet
from skelops.nn.momentum import Features, MomentumContrast

# (channels, stride) of the blocks.
GCN_STAGES = ((16, 1),) * 4 + ((32, 2),) + ((32, 1),) * 2 + ((64, 2), (64, 1), (256, 1))
# (channels, width of a head, stride) of the blocks, after 32 channels.
DSTA_STAGES = (
    (32, 16, 1), (32, 16, 1), (64, 16, 2), (64, 16, 1),
    (128, 32, 2), (128, 32, 1), (128, 32, 1), (256, 32, 1),
)  # fmt: skip


def _importance(match: re.Match) -> str:
    return f"edge_importance{int(match[1]) + 1}"


BLOCK_KEYS: KeyPairs = (
    (r"\bgcn\.graph\.", "gcn."),
    (r"\bgcn\.bn\.", "tcn.0."),
    (r"\btcn\.temporal\.conv\.", "tcn.2."),
    (r"\btcn\.temporal\.bn\.", "tcn.3."),
    (r"\bresidual\.conv\.", "residual.0."),
    (r"\bresidual\.bn\.", "residual.1."),
)
GCN_KEYS: KeyPairs = (
    (r"\bblocks\.", "st_gcn_networks."),
    *BLOCK_KEYS,
    (r"\bedge_importance\.(\d+)", _importance),
)


def drop_edges(A: Tensor, kept: Tensor, rate: float | Tensor) -> Tensor:
    """A with the edges that are not ``kept`` taken out, the others divided by 1 - rate."""
    return A * kept / (1 - rate)


def add_edges(A: Tensor, drawn: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    """A with the ``drawn`` edges where it has none, scaled back to its sum.

    Source: Zhang et al., HiCLR, AAAI 2023, section 3.2.
    """
    added = drawn * (A == 0) * weight
    total = A.sum()
    return (A + added) * (total / (total + added.sum()))


def swap_statistics(x: Tensor, style: Tensor, per_frame: bool = False) -> Tensor:
    """Clips x (N, C, T, V, M) with the means and deviations of ``style``, another clip each.

    Per person and coordinate, over all frames and joints or, ``per_frame``, over the joints of
    every frame. An augmentation of the paper that the release does not use.

    Source: Zhang et al., HiCLR, AAAI 2023, section 3.2.
    """

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, 3 if per_frame else (2, 3), keepdim=True)
        return mean, (variance + 1e-5).sqrt()

    (own, scale), (mean, deviation) = statistics(x), statistics(style)
    return (x - own) / scale * deviation + mean


def head(fc: nn.Linear, mlp: bool) -> nn.Module:
    """The head, or that of pre-training: two layers."""
    if not mlp:
        return fc
    return nn.Sequential(nn.Linear(fc.in_features, fc.in_features), nn.ReLU(), fc)


class HiCLRGCN(SkeletonNet):
    """ST-GCN of a quarter of the width, (N, C, T, V, M) -> (N, num_classes).

    One adjacency for all blocks, each of which weighs its edges.

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        graph: kind of adjacency, or one (K, V, V).
        stages: (channels, stride) of the blocks.
        block_dropout: behind the temporal convolutions but the first.
        drop, add: largest rates of edges dropped and added in training, drawn per block; off in
            the release.
        mlp: the head of pre-training.
        net: further arguments of ``skelops.nn.SkeletonNet``.

    Published (linear evaluation, NTU RGB+D 60 X-Sub, joint): 77.3 %, 0.84 M parameters.
    """

    A: Tensor

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        graph: str | Tensor = "stgcn_spatial",
        stages: Sequence[tuple[int, int]] = GCN_STAGES,
        block_dropout: float = 0.5,
        drop: float = 0.0,
        add: float = 0.0,
        mlp: bool = False,
        **net,
    ) -> None:
        A = graph_of(graph, layout, "official")
        K = len(A)

        def unit(C: int, out: int) -> nn.Module:
            return GraphUnit(GraphConv(C, out, K), C, out, residual=False)

        block = make_block(unit, tcn_dropout=block_dropout)
        super().__init__(block, num_classes, layout, stages=stages, input_norm="VC", **net)
        self.drop, self.add = drop, add
        self.out_features = self.fc.in_features
        self.fc = head(self.fc, mlp)
        self.register_buffer("A", A.clone())
        self.edge_importance = nn.ParameterList(torch.ones_like(A) for _ in stages)
        self.published_keys = GCN_KEYS
        reinitialise_(self)

    def graph(self) -> Tensor:
        """The adjacency of a block, with edges dropped and added in training."""
        A = self.A
        if self.training and self.drop:
            rate = self.drop * torch.rand((), device=A.device)
            A = drop_edges(A, torch.rand_like(A) >= rate, rate)
        if self.training and self.add:
            A = add_edges(A, torch.rand_like(A) < self.add * torch.rand((), device=A.device))
        return A

    def trunk(self, x: Tensor) -> Tensor:
        for block, importance in zip(self.blocks, self.edge_importance, strict=True):
            x = block(x, self.graph() * importance)
        return x


class JointAttentionBlock(nn.Module):
    """Spatial attention and temporal convolution of HiCLR's transformer.

    Args:
        in_channels, out_channels: C and C'.
        head_width: channels of a query.
        stride: in time.
        num_joints: V.
        num_frames: T of the stored position code, the same for all frames; any T is fine.
        heads: S.
        dropout: in front of the last rectifier.

    Shape: (N, C, T, V) -> (N, C', ceil(T / stride), V).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        head_width: int,
        stride: int = 1,
        *,
        num_joints: int = 25,
        num_frames: int = 50,
        heads: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        C, out, V = in_channels, out_channels, num_joints
        self.heads = heads
        self.alphas = nn.Parameter(torch.ones(1, heads, 1, 1))
        self.attention0s = nn.Parameter(torch.full((1, heads, V, V), 1 / V))
        # Published as a buffer of zeros that attention starts from.
        self.register_buffer("atts", torch.zeros(1, heads, V, V))
        self.pes = JointPosition(C, V, num_frames)
        self.in_nets = nn.Conv2d(C, 2 * heads * head_width, 1)
        self.out_nets = _conv_bn(heads * C, out)
        self.ff_nets = _conv_bn(out, out)
        self.out_nett = _conv_bn(out, out, 7, stride)
        wider = out != C or stride != 1
        self.downs1 = _conv_bn(C, out) if wider else nn.Identity()
        self.downs2 = _conv_bn(C, out) if wider else nn.Identity()
        self.downt2 = _conv_bn(out, out, 1, stride) if wider else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def attention(self, x: Tensor) -> Tensor:
        """(N, C, T, V) -> (N, S, V, V), column v over the joints that joint v gathers from."""
        q, k = self.in_nets(self.pes(x)).unflatten(1, (2, self.heads, -1)).unbind(1)
        q, k = q.flatten(2, 3), k.flatten(2, 3)
        return (q.mT @ k / q.shape[2]).tanh() * self.alphas + self.attention0s

    def forward(self, x: Tensor) -> Tensor:
        gathered = torch.einsum("nctu,nsuv->nsctv", x, self.attention(x)).flatten(1, 2)
        y = F.leaky_relu(self.downs1(x) + self.out_nets(gathered), 0.1)
        y = F.leaky_relu(self.downs2(x) + self.ff_nets(y), 0.1)
        return F.leaky_relu(self.dropout(self.downt2(y)) + self.out_nett(y), 0.1)


class JointPosition(nn.Module):
    """Adds the sinusoidal code of each joint's number, x (N, C, T, V) for any T."""

    pe: Tensor

    def __init__(self, channels: int, num_joints: int, num_frames: int) -> None:
        super().__init__()
        rate = torch.exp(torch.arange(0, channels, 2) * (-math.log(1e4) / channels))
        angle = torch.arange(num_joints)[:, None] * rate
        code = torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :channels].T
        self.register_buffer("pe", code[None, :, None].repeat(1, 1, num_frames, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, :, :1]


def _conv_bn(C: int, out: int, kernel_size: int = 1, stride: int = 1) -> nn.Sequential:
    size, padding = (kernel_size, 1), (kernel_size // 2, 0)
    return nn.Sequential(nn.Conv2d(C, out, size, (stride, 1), padding), nn.BatchNorm2d(out))


class HiCLRDSTA(nn.Module):
    """Transformer over joints, (N, C, T, V, M) -> (N, num_classes).

    Args:
        num_classes: outputs of the head.
        layout, in_channels, num_persons: of the input.
        num_frames: T of the stored position codes; any T is fine.
        stages: (channels, width of a head, stride) of the blocks.
        heads: S.
        block_dropout: of the blocks: 0.5 in pre-training, 0 after.
        mlp: the head of pre-training.

    Published: 1.56 M parameters.
    """

    published_keys: KeyPairs = ()

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        in_channels: int = 3,
        num_persons: int = 2,
        num_frames: int = 50,
        stages: Sequence[tuple[int, int, int]] = DSTA_STAGES,
        heads: int = 3,
        block_dropout: float = 0.0,
        mlp: bool = False,
    ) -> None:
        super().__init__()
        self.layout = get_layout(layout)
        self.in_channels, self.num_persons = in_channels, num_persons
        C, T = stages[0][0], num_frames
        self.proj = nn.Conv2d(in_channels, C, 1)
        self.input_map = nn.Sequential(nn.BatchNorm2d(C), nn.LeakyReLU(0.1))
        blocks = []
        for out, head_width, stride in stages:
            joints = {"num_joints": self.layout.num_joints, "num_frames": T, "heads": heads}
            blocks.append(
                JointAttentionBlock(C, out, head_width, stride, dropout=block_dropout, **joints)
            )
            C, T = out, -(-T // stride)
        self.graph_layers = nn.ModuleList(blocks)
        self.out_features = C
        self.fc = head(nn.Linear(C, num_classes), mlp)
        reinitialise_(self)

    def pooled(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, C'), what the head looks at."""
        sizes = {"C": self.in_channels, "V": self.layout.num_joints}
        _check.shape(type(self).__name__, "x", x, "N C T V M", **sizes)
        N, _, _, _, M = x.shape
        y = self.input_map(self.proj(x.permute(0, 4, 1, 2, 3).flatten(0, 1)))
        for block in self.graph_layers:
            y = block(y)
        return y.mean((2, 3)).unflatten(0, (N, M)).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pooled(x))


@torch.no_grad()
def reinitialise_(module: nn.Module) -> None:
    """Weights from N(0, 0.02), those of normalisations from N(1, 0.02), biases 0: as released."""
    for child in module.modules():
        if isinstance(child, (nn.Conv2d, nn.Linear, GraphConv)):
            child.weight.normal_(0, 0.02)
            child.bias.zero_()
        elif isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            child.weight.normal_(1, 0.02)
            child.bias.zero_()


MASKS = ("joints", "shared_joints", "frames")


def draw_mask(
    T: int, V: int, ratio: float, kind: str = "joints", generator: torch.Generator | None = None
) -> Tensor:
    """(T, V) bool, True = kept, for a share ``ratio`` of what is masked.

    Args:
        T, V: frames and joints.
        ratio: masked joints of a frame, or masked frames.
        kind: "joints" of every frame, "shared_joints" the same of all frames, or "frames".
        generator: of the draws.
    """
    if kind == "frames":
        order = torch.rand(T, 1, generator=generator).argsort(0).argsort(0)
        return (order < T * (1 - ratio)).expand(T, V)
    order = torch.rand(T if kind == "joints" else 1, V, generator=generator)
    return (order.argsort(1).argsort(1) >= int(ratio * V)).expand(T, V)


ENCODERS = {"st_gcn": HiCLRGCN, "dsta": HiCLRDSTA, "gru": BiGRU}


class HiCLRStep(NamedTuple):
    """What a step of pre-training gives.

    Args:
        loss: to minimise.
        terms: its parts by name.
        keys: (N, D), for ``enqueue`` after the backward.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    keys: Tensor


@register_pretext("hiclr")
class HiCLR(MomentumContrast, Pretext):
    """Pre-training on four views of growing augmentation.

    ``step = model(views)``, ``step.loss.backward()``, ``model.enqueue(step.keys)``. Query and key
    encoders start from different weights, as released.

    Args:
        layout, num_frames, in_channels, num_persons: of the input.
        encoder: "st_gcn", "dsta" or "gru".
        encoder_kwargs: further arguments of it.
        width: D of the embedding.
        queue_size, momentum, temperature: of the contrast.
        mask_ratio: share of the joints of every frame that the last view lacks: their coordinates
            are one learned number, ``mask_param``. The pattern is one for the whole batch.
        mask_kind: of the pattern, see :func:`draw_mask`; the release uses the first.
        mine: nearest neighbours per view that count as positives while ``mining`` is set.
        mine_from: the epoch that sets it.

    Source: section 3; the defaults are those of the release.
    """

    def __init__(
        self,
        layout: str | Layout = "ntu25",
        num_frames: int = 50,
        *,
        in_channels: int = 3,
        num_persons: int = 2,
        encoder: str = "st_gcn",
        encoder_kwargs: dict | None = None,
        width: int = 128,
        queue_size: int = 32768,
        momentum: float = 0.999,
        temperature: float = 0.07,
        mask_ratio: float = 0.1,
        mask_kind: str = "joints",
        mine: int = 1,
        mine_from: int = 150,
    ) -> None:
        if encoder not in ENCODERS:
            raise _check.fail("HiCLR", f"encoder one of {', '.join(ENCODERS)}", repr(encoder))
        if mask_kind not in MASKS:
            raise _check.fail("HiCLR", f"mask_kind one of {', '.join(MASKS)}", repr(mask_kind))
        sizes: dict = {"in_channels": in_channels, "num_persons": num_persons, "mlp": True}
        if encoder != "gru":
            sizes["block_dropout"] = 0.5
        if encoder == "dsta":
            sizes["num_frames"] = num_frames
        kwargs = {**sizes, **(encoder_kwargs or {})}
        query, key = (ENCODERS[encoder](width, layout, **kwargs) for _ in range(2))
        super().__init__(query, key, width, queue_size, momentum)
        self.layout = query.layout
        self.temperature, self.mine = temperature, mine
        self.mask_kind, self.mask_ratio = mask_kind, mask_ratio
        self.mining, self.mine_from = False, mine_from
        self.mask_param = nn.Parameter(torch.zeros(1))
        self.published_keys: KeyPairs = query.published_keys

    @property
    def encoder(self) -> Features:
        return Features(self.encoder_q)

    def start_epoch(self, epoch: int) -> None:
        self.mining = epoch >= self.mine_from

    def loss(self, x: Tensor, clip: Tensor) -> Tensor:
        """x (N, 4, C, T, V, M), see ``forward``."""
        step = self(x.unbind(1))
        self.pending = step.keys
        return step.loss

    def draw(self, T: int, generator: torch.Generator | None = None) -> Tensor:
        """(T, V) bool, True = kept."""
        return draw_mask(T, self.layout.num_joints, self.mask_ratio, self.mask_kind, generator)

    def forward(
        self,
        views: Sequence[Tensor],
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> HiCLRStep:
        """``views``: basic, basic, strong, strong (N, C, T, V, M) of the same clips: a query, the
        key, and two queries of which the last is masked.

        ``mask``: (T, V) bool, True = kept. Default: drawn from ``generator``.
        """
        basic, key_view, strong, masked = views
        if mask is None:
            mask = self.draw(masked.shape[2], generator)
        kept = mask.to(masked.device)[:, :, None]
        masked = torch.where(kept, masked, self.mask_param.to(masked.dtype))
        q = torch.stack([self.query(x) for x in (basic, strong, masked)])
        key = self.key(key_view)
        mine = self.mine if self.mining else 0
        parts = ops.directional_clustering_loss(
            q, key, self.bank, temperature=self.temperature, mine=mine
        )
        names = ("info_nce", "strong", "masked")
        terms = dict(zip(names, parts.unbind(), strict=True))
        return HiCLRStep(parts[0] + parts[1:].sum() / 2, terms, key)
