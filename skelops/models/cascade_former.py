"""CascadeFormer (Peng et al., 2025, https://arxiv.org/abs/2509.00692)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout, get_layout
from skelops.models._pretext import Pretext, register_pretext
from skelops.models._registry import register_model
from skelops.nn import PackedAttention, PostNormBlock

VERSIONS = ("1.0", "1.1", "1.2")
HIDDEN = 2048  # of every feed-forward, whatever the width


class Size(NamedTuple):
    """A published configuration.

    Args:
        channels: width d; in version 1.2 ``channels_12``.
        heads, depth: of T1 and of T2.
        positions: length of the table of positions.
        large: as on NTU RGB+D, with the feed-forward in the cross-attention, the deep head and the
            joint embedding of d / V channels; else as on Penn Action and N-UCLA.
    """

    channels: int
    channels_12: int
    heads: int
    depth: int
    positions: int
    large: bool


SIZES = {
    "base": Size(256, 256, 8, 4, 2048, False),
    "ntu_xview": Size(512, 600, 8, 12, 64, True),
    "ntu_xsub": Size(768, 800, 16, 16, 64, True),
}


def select_person(x: Tensor) -> tuple[Tensor, Tensor]:
    """The person of every clip with the largest sum of absolute coordinates.

    Args:
        x: (N, C, T, V, M). Values that are not finite count as 0.

    Returns:
        y: (N, T, V, C), and the person's index, (N,) int64; the first one of equal persons.
    """
    _check.shape("cascade_former", "x", x, "N C T V M")
    index = x.detach().abs().where(x.isfinite(), 0).sum((1, 2, 3)).argmax(1)
    chosen = index.view(-1, 1, 1, 1, 1).expand(*x.shape[:4], 1)
    return x.gather(4, chosen).squeeze(4).permute(0, 2, 3, 1), index


class SpatialTransformer(nn.Module):
    """The joints of every frame as tokens of one transformer layer (version 1.2).

    Args:
        joints: V.
        in_channels: C.
        channels: width of the result per frame; of the joints ``channels`` / V.
        heads: of the attention.
        output: None gives (N, T, ``channels``); else joints have all ``channels`` and the result
            that many each, (N, T, V, output).
        dropout: see ``PostNormBlock``.

    Shape: (N, T, V, C) -> (N, T, channels), or (N, T, V, output).
    """

    def __init__(
        self,
        joints: int,
        in_channels: int,
        channels: int,
        heads: int,
        output: int | None = None,
        **dropout: float | None,
    ) -> None:
        super().__init__()
        width = channels if output else channels // joints
        if width * (1 if output else joints) != channels or width % heads:
            what = f"channels of {joints} joints with {heads} heads"
            raise _check.fail("SpatialTransformer", what, channels)
        self.joint_embedding = nn.Linear(in_channels, width)
        self.encoder = Encoder(width, heads, 1, **dropout)
        self.output_proj = nn.Linear(width, output) if output else None

    def forward(self, x: Tensor) -> Tensor:
        N, T = x.shape[:2]
        y = self.encoder(self.joint_embedding(x.flatten(0, 1))).unflatten(0, (N, T))
        return y.flatten(2) if self.output_proj is None else self.output_proj(y)


class Encoder(nn.Module):
    """``depth`` post-norm blocks, (N, L, C) -> (N, L, C)."""

    def __init__(self, channels: int, heads: int, depth: int, **dropout: float | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PostNormBlock(channels, heads, HIDDEN, **dropout) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class T1(nn.Module):
    r"""Frames as tokens: what is pre-trained by reconstructing masked joints.

    Args:
        layout: name of a registered layout, or a ``Layout``.
        in_channels: C.
        version: how a frame becomes a vector: "1.0" its coordinates; "1.1" those of two
            convolutions along the joints; "1.2" those of a ``SpatialTransformer``.
        size: one of ``SIZES``, or a ``Size``.
        dropout, attention_dropout: see ``skelops.nn.PostNormBlock``.

    Shape: (N, C, T, V, M) -> features (N, d), of one person in the mean over frames.

    Raises:
        ValueError: an unknown version or size; clips longer than the table of positions.
    """

    published_keys = ()
    published_aliases = ((r"\bembedding\.(weight|bias)$", r"joint_embedding.\1"),)

    def __init__(
        self,
        layout: str | Layout = "ntu25",
        in_channels: int = 3,
        version: str = "1.0",
        size: str | Sequence = "base",
        dropout: float = 0.1,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        version = str(version)  # a number in a recipe
        if version not in VERSIONS:
            what = f"version one of {', '.join(VERSIONS)}"
            raise _check.fail("cascade_former", what, repr(version))
        self.size = size = get_size(size)
        self.layout, self.in_channels, self.version = get_layout(layout), in_channels, version
        joints = self.layout.num_joints
        d = self.num_features = size.channels_12 if version == "1.2" else size.channels
        rates = {"dropout": dropout, "attention_dropout": attention_dropout}
        self.pos_embedding = nn.Parameter(torch.empty(1, size.positions, d))
        nn.init.trunc_normal_(self.pos_embedding, std=0.02)
        C = in_channels
        if version == "1.1":
            convs = nn.Conv1d(C, C, 3, padding=1), nn.ReLU(), nn.Conv1d(C, C, 1)
            self.joint_conv = nn.Sequential(*convs)
        if version == "1.2":
            output = None if size.large else C
            self.spatial_transformer = SpatialTransformer(joints, C, d, size.heads, output, **rates)
        if version != "1.2" or not size.large:
            self.joint_embedding = nn.Linear(joints * C, d)
        self.transformer_encoder = Encoder(d, size.heads, size.depth, **rates)
        self.reconstruction_head = nn.Linear(d, joints * C)

    def frames(self, x: Tensor) -> Tensor:
        """(N, T, V, C) -> (N, T, d), every frame for itself."""
        if self.version == "1.1":
            x = self.joint_conv(x.flatten(0, 1).mT).mT.unflatten(0, x.shape[:2])
        if self.version == "1.2":
            x = self.spatial_transformer(x)
        return self.joint_embedding(x.flatten(2)) if hasattr(self, "joint_embedding") else x

    def tokens(self, x: Tensor) -> Tensor:
        """(N, T, V, C) of one person -> (N, T, d)."""
        sizes = {"V": self.layout.num_joints, "C": self.in_channels}
        _check.shape("cascade_former", "x", x, "N T V C", **sizes)
        T, longest = x.shape[1], self.pos_embedding.shape[1]
        if longest < T:
            raise _check.fail("cascade_former", f"at most {longest} frames", T)
        return self.transformer_encoder(self.frames(x) + self.pos_embedding[:, :T])

    def reconstruct(self, x: Tensor) -> Tensor:
        """(N, T, V, C) -> (N, T, V, C)."""
        return self.reconstruction_head(self.tokens(x)).view(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(select_person(x)[0]).mean(1)

    def classifier(self, num_classes: int, **options) -> CascadeFormer:
        """The network that fine-tuning starts from; it shares this T1."""
        return CascadeFormer(num_classes, t1=self, **options)


class CrossAttention(nn.Module):
    r"""Attention from one sequence to another, with the residual and norm behind it.

    Args:
        channels, heads: of the attention.
        feed_forward: add one of the same width, and its norm (NTU RGB+D).
        dropout: rate.
        attention_dropout: see ``skelops.nn.PackedAttention``; ``dropout`` if None.

    Shape: (N, L, C), (N, L, C) -> (N, L, C).
    """

    published_keys = ()

    def __init__(
        self,
        channels: int,
        heads: int,
        feed_forward: bool = False,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.cross_attention = PackedAttention(channels, heads, attention_dropout)
        self.dropout = nn.Dropout(dropout)
        if feed_forward:
            self.norm1 = nn.LayerNorm(channels)
            units = nn.Linear(channels, channels), nn.Linear(channels, channels)
            self.ffn = nn.Sequential(units[0], nn.ReLU(), nn.Dropout(dropout), units[1])
            self.norm2 = nn.LayerNorm(channels)
        else:
            self.norm = nn.LayerNorm(channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor | None = None) -> Tensor:
        y = query + self.dropout(self.cross_attention(query, key, value))
        if hasattr(self, "norm"):
            return self.norm(y)
        y = self.norm1(y)
        return self.norm2(y + self.dropout(self.ffn(y)))


class T2(nn.Module):
    """The task transformer: frames as tokens, without positions, (N, T, d) -> (N, T, d)."""

    published_keys = ()

    def __init__(self, channels: int, heads: int, depth: int, **dropout: float | None) -> None:
        super().__init__()
        self.encoder = Encoder(channels, heads, depth, **dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class Head(nn.Module):
    """(N, d) -> logits (N, num_classes); ``hidden``: with a layer in between (NTU RGB+D)."""

    published_keys = ()

    def __init__(self, channels: int, num_classes: int, hidden: bool = False) -> None:
        super().__init__()
        if hidden:
            self.net = nn.Sequential(
                nn.LayerNorm(channels),
                nn.Dropout(0.3),
                nn.Linear(channels, channels),
                nn.ReLU(),
                nn.Dropout(0.3),
                nn.Linear(channels, num_classes),
            )
        else:
            self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if hasattr(self, "net") else self.fc(x)


def get_size(size: str | Sequence) -> Size:
    """A published size by name; a ``Size``, or its fields as a recipe gives them."""
    if not isinstance(size, str):
        return Size(*size)
    if size not in SIZES:
        raise _check.fail("cascade_former", f"size one of {', '.join(SIZES)}", repr(size))
    return SIZES[size]


@register_model("cascade_former")
class CascadeFormer(nn.Module):
    r"""Pre-trained frame transformer, task transformer and cross-attention from one to the other.

    .. math::
        x_1 = T_1(x), \quad x_2 = T_2(x_1), \quad
        y = \text{head}\big(\text{mean}_t\, \text{cross}(x_1, x_2)\big)

    (N, C, T, V, M) -> logits (N, num_classes). Of several persons the one with the largest sum of
    absolute coordinates is seen. Padded frames are frames like all others, as published.
    The four parts, ``t1``, ``t2``, ``cross_attn`` and ``head``, are published as a file each:
    ``load_published(model.t1, "t1.pt")``; all together they are one state_dict with these prefixes.

    Args:
        num_classes: of the head.
        layout: name of a registered layout, or a ``Layout``.
        version: "1.0", "1.1" or "1.2", see ``T1``.
        size: "base" (Penn Action, N-UCLA), "ntu_xview", "ntu_xsub", or a ``Size``.
        in_channels: C of the input.
        num_persons: accepted as by every model; any number will do.
        cross_heads: heads of the cross-attention. The published inference scripts for Penn Action
            and N-UCLA take 4 where training has 8; the weights fit either.
        dropout: of T1; of the others as published, 0.1, or 0.2 for NTU RGB+D.
        attention_dropout: of all attention weights; None for the rates as published. With 0 the
            fused attention also trains.
        t1: a pre-trained T1 to share; layout, version, size, in_channels and dropout are its own.

    Raises:
        ValueError: an unknown version or size; clips longer than the table of positions.

    Published: NTU RGB+D 60 X-Sub 81.01, X-View 88.17; N-UCLA 91.16 (1.1); Penn Action 94.66 %.
    """

    published_keys = ()
    published_aliases = T1.published_aliases

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        version: str = "1.0",
        size: str | Sequence = "ntu_xview",
        in_channels: int = 3,
        num_persons: int = 1,
        cross_heads: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        t1: T1 | None = None,
    ) -> None:
        super().__init__()
        if t1 is None:
            t1 = T1(layout, in_channels, version, size, dropout, attention_dropout)
        self.t1 = t1
        self.t1.reconstruction_head.requires_grad_(False)  # no part of what is trained here
        self.layout, size, d = t1.layout, t1.size, t1.num_features
        rates = {"dropout": 0.2 if size.large else 0.1, "attention_dropout": attention_dropout}
        self.t2 = T2(d, size.heads, size.depth, **rates)
        self.cross_attn = CrossAttention(d, cross_heads or size.heads, size.large, **rates)
        self.head = Head(d, num_classes, size.large)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> logits (N, num_classes)."""
        return self.classify(select_person(x)[0])

    def classify(self, x: Tensor) -> Tensor:
        """(N, T, V, C) of one person -> logits (N, num_classes)."""
        x1 = self.t1.tokens(x)
        return self.head(self.cross_attn(x1, self.t2(x1)).mean(1))


@register_pretext("cascade_former_pretrain")
class CascadeFormerPretext(Pretext):
    r"""Pre-training of T1: the mean squared error of masked slots (frame, joint).

    .. math::
        loss = \frac{1}{C R} \sum_{ntvc} (1 - mask_{ntv}) \big(\hat x_{ntvc} - x_{ntvc}\big)^2

    with :math:`\hat x` reconstructed from x with the R masked slots at zero. Fine-tuning is that of
    the ``CascadeFormer`` of this T1.

    Args:
        layout, version, size, in_channels, num_persons, dropout, attention_dropout: see
            ``CascadeFormer``.
        num_frames: the longest clips, in place of the table of positions of ``size``.
        mask_ratio: share of masked slots.

    Published: masked are 30 % of the slots. On Penn Action, 94.66 % after this, 89.98 % with whole
    frames masked, 91.10 % without pre-training.
    """

    published_keys = ((r"^encoder\.", ""),)
    published_aliases = T1.published_aliases

    def __init__(
        self,
        layout: str | Layout = "ntu25",
        num_frames: int | None = None,
        *,
        version: str = "1.0",
        size: str | Sequence = "ntu_xview",
        in_channels: int = 3,
        num_persons: int | None = None,
        mask_ratio: float = 0.3,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        size = get_size(size)
        if num_frames is not None:
            size = size._replace(positions=num_frames)
        self.mask_ratio = mask_ratio
        self.encoder = T1(layout, in_channels, version, size, dropout, attention_dropout)

    def loss(self, x: Tensor, clip: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """``noise`` (N, T * V) chooses the masked slots, see ``skelops.slot_mask``."""
        x, _ = select_person(x)
        if noise is None:
            noise = torch.rand(len(x), x.shape[1] * x.shape[2], device=x.device)
        masked, mask = ops.slot_mask(x, noise, mask_ratio=self.mask_ratio)
        found = self.encoder.reconstruct(masked).flatten(1, 2)
        options = {"segment": 1, "stride": 0, "normalise": False}
        return ops.masked_motion_loss(x, found, mask.flatten(1), **options)
