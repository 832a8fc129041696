"""SkeletonMAE and SSL (Yan et al., ICCV 2023, https://arxiv.org/abs/2307.08476).

No code was published with the paper. What it states is done as stated; what it leaves open is
marked "ours".
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout, get_layout
from skelops.models._pretext import Pretext, register_pretext
from skelops.models._registry import graph_of, register_model
from skelops.nn import GINConv, MultiScaleTemporalConv, TemporalUnit, bn_act_add, kaiming_
from skelops.ops._tokens import ranked

# Of a layer, in GraphMAE (THUDM/GraphMAE).
PUBLISHED_KEYS = (
    (r"\blinear(1|2)\b", lambda m: f"apply_func.mlp.linears.{int(m[1]) - 1}"),
    (r"\bnorm1\b", "apply_func.mlp.norms.0"),
    (r"\bact1\b", "apply_func.mlp.activations.0"),
    (r"\bnorm2\b", "apply_func.norm"),
    (r"\bact2\b", "apply_func.act"),
)
# Six parts as in the paper, which gives their sizes; the joints of each are ours.
COCO_PARTS = {
    "head": (0, 1, 2, 3, 4),
    "torso": (5, 6, 11, 12),
    "left_arm": (7, 9),
    "right_arm": (8, 10),
    "left_leg": (13, 15),
    "right_leg": (14, 16),
}
MASKED = ("right_arm", "right_leg")


def body_parts(layout: str | Layout) -> dict[str, tuple[int, ...]]:
    """The parts that are masked as a whole: those of the paper, or those of the layout."""
    layout = get_layout(layout)
    return COCO_PARTS if layout.name == "coco17" else dict(layout.parts)


class GINEncoder(nn.Module):
    """Layers of ``GINConv`` on the skeleton's tree, (N, C, T, V) -> (N, C', T, V), frame by frame.

    Args:
        in_channels, hidden, out_channels: widths at the input, inside and behind the last layer.
        layout: the tree (that of PYSKL), or an adjacency (V, V) without the joints themselves.
        depth: layers, 3 as published.
        plain: the last layer is without its normalisation and activation.
    """

    published_keys = PUBLISHED_KEYS

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        layout: str | Layout | Tensor = "coco17",
        depth: int = 3,
        plain: bool = False,
    ) -> None:
        super().__init__()
        A = layout
        if not isinstance(A, Tensor):
            A = (graph_of("binary", layout) - graph_of("identity", layout))[0]
        widths = [in_channels, *[hidden] * (depth - 1), out_channels]
        self.layers = nn.ModuleList(
            GINConv(widths[i], hidden, widths[i + 1], A, plain and i == depth - 1)
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class FrameEncoder(nn.Module):
    """What is pre-trained: embedded joints and their encoder.

    Args:
        layout, num_frames, num_persons, in_channels, width, depth: see ``SkeletonMAE``.

    Shape: (N, C, T, V, M) -> features (N, width), summed over joints, averaged over frames and
    persons.
    """

    def __init__(
        self,
        layout: str | Layout = "coco17",
        num_frames: int = 64,
        *,
        in_channels: int = 2,
        num_persons: int = 2,
        width: int = 64,
        depth: int = 3,
    ) -> None:
        super().__init__()
        self.layout, self.num_features = get_layout(layout), width
        self.num_frames, self.num_persons = num_frames, num_persons
        self.embed = nn.Linear(in_channels, width)
        self.gin = GINEncoder(width, width, width, self.layout, depth)

    def embedded(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N * M, T, V, width)."""
        sizes = {"C": self.embed.in_features, "V": self.layout.num_joints}
        _check.shape("skeleton_mae", "x", x, "N C T V M", **sizes)
        return self.embed(x.permute(0, 4, 2, 3, 1).flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.gin(self.embedded(x).permute(0, 3, 1, 2)).sum(-1).mean(-1)
        return y.unflatten(0, (x.shape[0], -1)).mean(1)

    def classifier(self, num_classes: int, **options) -> SSL:
        """The network that fine-tuning starts from."""
        return SSL(num_classes, encoder=self, **options)


@register_pretext("skeleton_mae")
class SkeletonMAE(Pretext):
    r"""Graph masked autoencoder of single frames: whole body parts are to be reconstructed.

    The embedded joints X of masked parts are replaced by a learned vector; of what encoder and
    decoder make of it, :math:`\hat X`, the masked joints give the scaled cosine error

    .. math:: loss = \frac{1}{R} \sum_{masked} \big(1 - \cos(\hat x_i, x_i)\big)^\beta

    As in GraphMAE, a linear layer leads from encoder to decoder and masked joints are set to zero
    behind it. X carries no gradient as a target (ours: the embedding is learned, and could
    make every joint the same).

    Args:
        layout: joints V.
        num_frames, num_persons: of fine-tuning. Here frames are independent, and the persons of a
            clip are rows of their own, absent ones too.
        in_channels: C, 2 for poses in an image.
        width: D of the embedding, the encoder and the decoder.
        depth: layers of the encoder.
        masked: names of the parts that are masked in all frames, or a number of parts that are
            drawn for every skeleton. Parts are those of ``body_parts``.
        beta: exponent.
        literal: divide by R^beta, as the equation reads.

    Raises:
        ValueError: an unknown part, more parts than there are, or none.

    Published: encoders pre-trained so, fine-tuned on FineGym, 91.8 % mean class accuracy; without
    pre-training 86.3 %.
    """

    published_keys = PUBLISHED_KEYS

    def __init__(
        self,
        layout: str | Layout = "coco17",
        num_frames: int = 64,
        *,
        in_channels: int = 2,
        num_persons: int = 2,
        width: int = 64,
        depth: int = 3,
        masked: Sequence[str] | int = MASKED,
        beta: float = 2.0,
        literal: bool = False,
    ) -> None:
        super().__init__()
        layout = get_layout(layout)
        self.parts, self.masked = body_parts(layout), masked
        self.beta, self.literal = beta, literal
        fixed = () if isinstance(masked, int) else tuple(masked)
        known = masked <= len(self.parts) if isinstance(masked, int) else {*fixed} <= {*self.parts}
        if not masked or not known:
            what = f"masked parts of {', '.join(self.parts)}"
            raise _check.fail("skeleton_mae", what, masked)
        V = layout.num_joints
        inside = torch.zeros(len(self.parts), V, dtype=torch.bool)
        for row, joints in zip(inside, self.parts.values(), strict=True):
            row[list(joints)] = True
        self.register_buffer("inside", inside, persistent=False)
        hidden = [i for i, name in enumerate(self.parts) if name in fixed]
        self.register_buffer("kept", ~inside[hidden].any(0), persistent=False)
        sizes = {"in_channels": in_channels, "num_persons": num_persons}
        self.encoder = FrameEncoder(layout, num_frames, **sizes, width=width, depth=depth)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.register_buffer("zero", torch.zeros(width), persistent=False)
        self.encoder_to_decoder = nn.Linear(width, width, bias=False)
        self.decoder = GINEncoder(width, width, width, layout, 1, plain=True)

    def joint_mask(self, skeletons: int, noise: Tensor | None = None) -> Tensor:
        """True = kept: (V,), or (skeletons, V) by the noise (skeletons, parts) where drawn."""
        if not isinstance(self.masked, int):
            return self.kept
        if noise is None:
            noise = torch.rand(skeletons, len(self.parts), device=self.inside.device)
        return ~(ranked(noise, self.masked)[:, :, None] & self.inside).any(1)

    def loss(self, x: Tensor, clip: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """``noise`` (N * M, parts): see ``joint_mask``."""
        target = self.encoder.embedded(x)
        mask = self.joint_mask(len(target), noise)
        y = ops.part_mask(target, self.mask_token.to(target.dtype), mask)
        y = self.encoder.gin(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.encoder_to_decoder(y)
        y = ops.part_mask(y, self.zero.to(y.dtype), mask)
        y = self.decoder(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        options = {"beta": self.beta, "literal": self.literal}
        return ops.masked_cosine_loss(y, target.detach().to(y.dtype), mask, **options)


class STRL(nn.Module):
    r"""Spatial-temporal representation learning: a layer around encoders of single frames.

    .. math::
        SM(H)_v = \sum_u G(H)_u + R H_v, \qquad H' = \text{TCN}(\text{relu}(SM(H) W))

    with one encoder G per person, R a 1x1 convolution, and (ours) batch normalisation in front of
    the rectifier, a 1x1 convolution to the encoder's width in front where H has another, and the
    multi-scale temporal convolution of CTR-GCN.

    Args:
        encoders: one per person, D -> D.
        width: D.
        in_channels, out_channels: C and C'.

    Shape: (N, C, T, V, M) -> (N, C', T, V, M).
    """

    def __init__(
        self, encoders: nn.ModuleList, width: int, in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        self.encoders = encoders
        self.project = nn.Conv2d(in_channels, width, 1) if in_channels != width else None
        self.residual = nn.Conv2d(width, width, 1)
        self.weight = nn.Conv2d(width, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)
        self.tcn = TemporalUnit(MultiScaleTemporalConv(out_channels, out_channels))
        for part in (self.project, self.residual, self.weight, self.tcn):
            if part is not None:
                kaiming_(part)

    def sm(self, x: Tensor, encoder: nn.Module) -> Tensor:
        """(N, D, T, V) of one person -> (N, D, T, V)."""
        return encoder(x).sum(-1, keepdim=True) + self.residual(x)

    def forward(self, x: Tensor) -> Tensor:
        N, _, _, _, M = x.shape
        rows = x.movedim(4, 1).flatten(0, 1)
        rows = rows if self.project is None else self.project(rows)
        people = rows.unflatten(0, (N, M)).unbind(1)
        y = torch.stack([*map(self.sm, people, self.encoders)], 1).flatten(0, 1)
        y = bn_act_add(self.weight(y), self.bn)
        return self.tcn(y, y).unflatten(0, (N, M)).movedim(1, 4)


@register_model("ssl_strl")
class SSL(nn.Module):
    """Skeleton sequence learning: STRL layers on (pre-trained) encoders of single frames.

    (N, C, T, V, M) -> logits (N, num_classes). Every layer and person has an encoder of its own
    (ours: between layers), all of them from the same weights; persons are averaged in front of the
    classifier, Linear, ReLU, Linear (ours).

    Args:
        num_classes: of the logits.
        layout: joints V.
        num_frames: the longest clips, of the learned table of positions.
        channels: width behind every STRL layer, 3 layers as published (ours: their widths).
        dropout: in front of the classifier.
        encoder: the pre-trained one, whose weights are copied; its settings replace all others.
        settings: ``in_channels``, ``num_persons`` (of one encoder each), ``width`` and ``depth``,
            see ``SkeletonMAE``.

    Raises:
        ValueError: clips longer than the table, or of another number of persons.

    Published: NTU RGB+D 60 X-Sub 92.8, X-View 96.5; NTU RGB+D 120 X-Sub 84.8, X-Set 85.7 %, from
    17 joints in images.
    """

    published_keys = PUBLISHED_KEYS

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "coco17",
        num_frames: int = 64,
        *,
        channels: Sequence[int] = (64, 128, 256),
        dropout: float = 0.0,
        encoder: FrameEncoder | None = None,
        **settings: int,
    ) -> None:
        super().__init__()
        if encoder is None:
            encoder = FrameEncoder(layout, num_frames, **settings)
        self.layout, self.num_persons = encoder.layout, encoder.num_persons
        width, num_frames = encoder.num_features, encoder.num_frames
        self.embed = copy.deepcopy(encoder.embed)
        self.temp_embed = nn.Parameter(torch.empty(1, width, num_frames, 1, 1))
        nn.init.trunc_normal_(self.temp_embed, std=0.02)

        def encoders() -> nn.ModuleList:
            return nn.ModuleList(copy.deepcopy(encoder.gin) for _ in range(self.num_persons))

        widths = [width, *channels]
        self.layers = nn.ModuleList(
            STRL(encoders(), width, widths[i], C) for i, C in enumerate(channels)
        )
        self.dropout = nn.Dropout(dropout)
        hidden = widths[-1]
        self.fc = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        V, M, C = self.layout.num_joints, self.num_persons, self.embed.in_features
        _check.shape("skeleton_mae", "x", x, "N C T V M", C=C, V=V, M=M)
        T, longest = x.shape[2], self.temp_embed.shape[2]
        if longest < T:
            raise _check.fail("skeleton_mae", f"at most {longest} frames", T)
        y = self.embed(x.movedim(1, -1)).movedim(-1, 1) + self.temp_embed[:, :, :T]
        for layer in self.layers:
            y = layer(y)
        return self.fc(self.dropout(y.mean((2, 3, 4))))
