"""EPAM-Net (Abdelkawy et al., Neurocomputing 2025, https://arxiv.org/abs/2408.05421)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skelops import _check, ops
from skelops.graph import Layout, get_layout
from skelops.models._published import KeyPairs, load_published, published_keys, read_state
from skelops.models._registry import register_model
from skelops.models.m_mixer import check_modalities
from skelops.nn import ConvNorm3d, HeatmapNet

# As in ahmed-nady/Multimodal-Action-Recognition.
_STREAM: KeyPairs = (
    (r"\blayers\.(\d+)\.", lambda match: f"layer{int(match[1]) + 1}."),
    (r"\bstem\.", "conv1_s."),
    (r"\btop\.", "conv5."),
    (r"\bse\.", "se_module."),
    (r"\bfc\.", "cls_head.fc_cls."),
    (r"(?<![^.])(conv1_s|layer\d+|conv5)\.", r"backbone.\g<0>"),
)
_WHOLE: KeyPairs = (
    *_STREAM,
    (r"^(rgb|pose)\.(backbone|cls_head)", r"\1_\2"),
    (r"^guidance\.", "attention_module."),
    (r"^attention_module\.(g|phi|theta|conv_out)\.", r"\g<0>conv."),
)
PUBLISHED_KEYS = {"stream": _STREAM, "whole": _WHOLE}

WIDTHS = (24, 48, 96, 192)
# Of every stream: blocks of each stage, channels of the input, stride of the stem, and one in how
# many channels shifts each way.
STREAMS = {
    "rgb": {"blocks": (3, 5, 11, 7), "in_channels": 3, "stem_stride": 2, "fold_div": 8},
    "pose": {"blocks": (5, 11, 7), "in_channels": 17, "stem_stride": 1, "fold_div": 4},
}
EXPANSION = 2.25
RGB_STEP = 3  # frames of the pose stream from one frame of the RGB stream to the next


def se_width(channels: int, ratio: float = 1 / 16) -> int:
    """Hidden channels of squeeze and excitation: a multiple of eight near a share of all."""
    wanted = channels * ratio
    width = max(8, int(wanted + 4) // 8 * 8)
    return width + 8 if width < 0.9 * wanted else width


class SqueezeExcitation(nn.Module):
    """x * sigmoid(fc2(relu(fc1(mean over frames and pixels)))), (N, C, T, H, W)."""

    def __init__(self, channels: int, ratio: float = 1 / 16) -> None:
        super().__init__()
        width = se_width(channels, ratio)
        self.fc1 = nn.Conv3d(channels, width, 1)
        self.fc2 = nn.Conv3d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3, 4), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))


class XShiftBlock(nn.Module):
    """Block of X3D whose only look at other frames is a temporal shift of its input.

    (N, C, T, H, W) -> (N, C', T, H', W').

    Args:
        in_channels, hidden, out_channels: widths of the bottleneck, which widens.
        stride: of pixels.
        fold_div: one in how many channels shifts each way.
        se_ratio: of squeeze and excitation, or None for none.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        stride: int = 1,
        fold_div: int = 8,
        se_ratio: float | None = None,
    ) -> None:
        super().__init__()
        step = (1, stride, stride)
        project = stride != 1 or in_channels != out_channels
        self.downsample = ConvNorm3d(in_channels, out_channels, stride=step) if project else None
        self.conv1 = ConvNorm3d(in_channels, hidden, fold_div=fold_div)
        self.conv2 = ConvNorm3d(hidden, hidden, (1, 3, 3), step, groups=hidden)
        self.conv3 = ConvNorm3d(hidden, out_channels)
        self.se = None if se_ratio is None else SqueezeExcitation(hidden, se_ratio)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training or torch.is_grad_enabled()) and x.is_cpu:
            return self._inferred(x)
        y = self.conv2(self.conv1(x), relu=False)
        y = F.silu(y if self.se is None else self.se(y))
        return self.conv3(y, x, self.downsample)

    def _inferred(self, x: Tensor) -> Tensor:
        (w1, b1), (w2, b2), (w3, b3) = (c.folded() for c in (self.conv1, self.conv2, self.conv3))
        shortcut, squeeze = None, None
        if self.downsample is not None:
            w4, b4 = self.downsample.folded()
            shortcut, b3 = w4.flatten(1), b3 + b4
        if self.se is not None:
            fc1, fc2 = self.se.fc1, self.se.fc2
            squeeze = fc1.weight.flatten(1), fc1.bias, fc2.weight.flatten(1), fc2.bias
        return ops.x3d_block(
            x, w1.flatten(1), b1, w2[:, 0, 0], b2,
            w3.flatten(1), b3, shortcut, squeeze,
            fold_div=self.conv1.fold_div, stride=self.conv2.conv.stride[1],
        )  # fmt: skip


class XShiftNet(nn.Module):
    """A stream: X3D with temporal shifts, (N, C, T, H, W) -> logits (N, num_classes).

    Args:
        num_classes: of the head.
        in_channels: C, colours or heat-maps.
        blocks: of each stage, which halves the pixels and doubles the channels.
        base_channels: of the stem and the first stage.
        stem_stride: of pixels.
        fold_div: one in how many channels shifts each way.
        se_ratio: of squeeze and excitation, in every other block.
        dropout: in front of the head.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 17,
        *,
        blocks: Sequence[int] = STREAMS["pose"]["blocks"],
        base_channels: int = WIDTHS[0],
        stem_stride: int = 1,
        fold_div: int = 4,
        se_ratio: float = 1 / 16,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        C = base_channels
        self.stem = ConvNorm3d(in_channels, C, (1, 3, 3), (1, stem_stride, stem_stride))
        self.layers = nn.ModuleList()
        for i, count in enumerate(blocks):
            width = base_channels * 2**i
            stage = nn.Sequential()
            for j in range(count):
                stage.append(
                    XShiftBlock(
                        C, int(EXPANSION * width), width, 2 if j == 0 else 1, fold_div,
                        None if j % 2 else se_ratio,
                    )
                )  # fmt: skip
                C = width
            self.layers.append(stage)
        self.channels = int(EXPANSION * C)
        self.top = ConvNorm3d(C, self.channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.channels, num_classes)
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)
        for module in self.modules():
            if isinstance(module, XShiftBlock):
                nn.init.zeros_(module.conv3.bn.weight)
        self.published_keys = PUBLISHED_KEYS["stream"]

    def features(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C', T, H', W')."""
        x = self.stem(x)
        for stage in self.layers:
            x = stage(x)
        return self.top(x)

    def head(self, x: Tensor) -> Tensor:
        """Features (N, C', T, H', W') -> logits."""
        return self.fc(self.dropout(x.mean((2, 3, 4))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SpatialAttention(nn.Module):
    """sigmoid(BN(conv([max, mean] over channels))), (N, C, T, H, W) -> (N, 1, T, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 1, (1, 7, 7), padding=(0, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        found = torch.stack([x.amax(1), x.mean(1)], dim=1)
        return torch.sigmoid(self.bn(self.conv(found)))


class PoseGuidance(nn.Module):
    """Where and when the pose stream looks: a map (N, 1, T, H, W) for the features of the other.

    Args:
        nested: the map is the attention to pixels times that to frames, which is derived from it;
            else ("serial") to frames alone, derived from what the attention to pixels leaves of
            the other stream's features, and of shape (N, 1, T, 1, 1).
    """

    def __init__(self, nested: bool = True) -> None:
        super().__init__()
        self.nested = nested
        self.spatial = SpatialAttention()
        self.conv_temporal_attention = nn.Conv1d(1, 1, 7, padding=3, bias=False)

    def forward(self, pose: Tensor, rgb: Tensor | None = None) -> Tensor:
        where = self.spatial(pose)
        pooled = where if self.nested else rgb * where
        when = torch.sigmoid(self.conv_temporal_attention(pooled.mean((1, 3, 4))[:, None]))
        when = when[..., None, None]
        return where * when if self.nested else when


class FrameGuidance(nn.Module):
    """The map of ``PoseGuidance`` from convolutions of the pose, and a network over all frames."""

    def __init__(self, channels: int, frames: int = 16) -> None:
        super().__init__()
        self.conv_ch_compress = nn.Conv3d(channels, 1, (1, 3, 3), padding=(0, 1, 1))
        self.conv_sptial_attention = nn.Conv3d(1, 1, (1, 7, 7), padding=(0, 3, 3))
        self.fc1 = nn.Linear(frames, frames, bias=False)
        self.fc2 = nn.Linear(frames, frames, bias=False)

    def forward(self, pose: Tensor, rgb: Tensor | None = None) -> Tensor:
        squeezed = torch.relu(self.conv_ch_compress(pose))
        where = torch.sigmoid(self.conv_sptial_attention(squeezed))
        pooled = where.mean((1, 3, 4))
        when = torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))
        return where * when[:, None, :, None, None]


class NonLocalGuidance(nn.Module):
    """rgb + the mean of what all its places hold, weighted by their products with the pose.

    Args:
        channels, pose_channels: of the pictures' and the pose's features.
        reduction: channels over those of the products.
        softmax: of the products, which are divided by the square root of their channels if
            ``scaled``; else they are weights as they are, over the number of places.
    """

    def __init__(
        self,
        channels: int,
        pose_channels: int,
        reduction: int = 2,
        *,
        softmax: bool = False,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.softmax, self.scale = softmax, hidden**-0.5 if scaled else 1.0
        self.g, self.phi = nn.Conv3d(channels, hidden, 1), nn.Conv3d(channels, hidden, 1)
        self.theta = nn.Conv3d(pose_channels, hidden, 1)
        self.conv_out = nn.Conv3d(hidden, channels, 1)

    def forward(self, pose: Tensor, rgb: Tensor) -> Tensor:
        theta, phi, g = (
            f(x).flatten(2) for f, x in ((self.theta, pose), (self.phi, rgb), (self.g, rgb))
        )
        if self.softmax:
            rows = (x.mT for x in (theta, phi, g))
            mixed = F.scaled_dot_product_attention(*rows, scale=self.scale).mT
        else:  # What is multiplied first does not matter: no matrix of all places.
            mixed = (g @ phi.mT / g.shape[-1]) @ theta
        return rgb + self.conv_out(mixed.unflatten(2, pose.shape[2:]))


def stream(
    name: str,
    num_classes: int,
    in_channels: int,
    blocks: Mapping[str, Sequence[int]] | None = None,
    **options: Any,
) -> XShiftNet:
    """The stream "rgb" or "pose" as published, but for ``blocks`` of it, if given."""
    changes = {"in_channels": in_channels} | ({"blocks": blocks[name]} if blocks else {})
    return XShiftNet(num_classes, **(STREAMS[name] | changes), **options)


def _guidance(kind: str, channels: int, pose_channels: int, frames: int) -> nn.Module:
    if kind in ("nested", "serial"):
        return PoseGuidance(kind == "nested")
    if kind == "frames":
        return FrameGuidance(pose_channels, frames)
    if kind == "non_local":
        return NonLocalGuidance(channels, pose_channels)
    known = '"nested", "serial", "frames" or "non_local"'
    raise _check.fail("EPAMNet", f"guidance {known}", repr(kind))


class EPAMNet(nn.Module):
    r"""Two streams, of which the pose tells the pictures where to look.

    .. math:: R' = R + R \cdot A(P), \qquad logits = head_{rgb}(R'), \; head_{pose}(P)

    Pictures (N, 3, T, H, W) and heat-maps (N, K, 3 T, H', W') -> their logits, (N, num_classes)
    each; the prediction is the sum, see :meth:`predict`. Features of both streams have to agree in
    pixels: 224 x 224 pictures and 56 x 56 maps, or any others in that proportion.

    Args:
        num_classes: of both heads.
        in_channels: K, heat-maps.
        guidance: "nested", as in the published checkpoints, or one of the ablations "serial",
            "frames" (for T = ``frames`` only) and "non_local".
        base_channels: of both streams.
        blocks: of each stage of "rgb" and "pose", where not as published.
        frames: T, for "frames".
        dropout: in front of the heads.

    Raises:
        ValueError: unknown guidance; in ``forward``, frames or features that disagree.

    Published: NTU RGB+D 60 X-Sub 96.1 %, X-View 99.0 %, 2.54 M parameters, 16 pictures.
    """

    def __init__(
        self,
        num_classes: int = 60,
        in_channels: int = 17,
        *,
        guidance: str = "nested",
        base_channels: int = WIDTHS[0],
        blocks: Mapping[str, Sequence[int]] | None = None,
        frames: int = 16,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.rgb, self.pose = (
            stream(name, num_classes, maps, blocks, base_channels=base_channels, dropout=dropout)
            for name, maps in (("rgb", 3), ("pose", in_channels))
        )
        self.guidance = _guidance(guidance, self.rgb.channels, self.pose.channels, frames)
        self.published_keys = PUBLISHED_KEYS["whole"]

    def forward(self, rgb: Tensor, heatmap: Tensor) -> tuple[Tensor, Tensor]:
        """-> logits of the guided pictures and of the pose."""
        T = rgb.shape[2]
        if heatmap.shape[2] != RGB_STEP * T:
            expected = f"{RGB_STEP * T} frames of heat-maps for {T} pictures"
            raise _check.fail("EPAMNet", expected, heatmap.shape[2])
        R, P = self.rgb.features(rgb), self.pose.features(heatmap)
        seen = P[:, :, ::RGB_STEP]
        if R.shape[2:] != seen.shape[2:]:
            expected = f"heat-maps with features of {_check.shape_text(R.shape[2:])}"
            raise _check.fail("EPAMNet", expected, _check.shape_text(seen.shape[2:]))
        guided = self.guidance(seen, R)
        if not isinstance(self.guidance, NonLocalGuidance):
            guided = R + R * guided
        return self.rgb.head(guided), self.pose.head(P)

    def predict(self, rgb: Tensor, heatmap: Tensor) -> Tensor:
        """The sum of both logits, (N, num_classes)."""
        return torch.stack(self(rgb, heatmap)).sum(0)


def epam_loss(rgb_logits: Tensor, pose_logits: Tensor, target: Tensor) -> Tensor:
    """Sum of both streams' cross-entropies; target (N,) labels, or (N, num_classes) shares."""
    return F.cross_entropy(rgb_logits, target) + F.cross_entropy(pose_logits, target)


@register_model("epam_net_pose")
class EPAMNetPose(HeatmapNet):
    """The pose stream of EPAM-Net on a skeleton sequence, (N, C, T, V, M) -> (N, num_classes).

    Args:
        num_classes, layout: see ``skelops.nn.HeatmapNet``.
        options: further ones of ``skelops.nn.HeatmapNet`` and of ``XShiftNet``.

    Published: with the RGB stream, see ``EPAMNet``; 0.53 M parameters, 48 frames of 56 x 56 pixels.
    """

    def __init__(self, num_classes: int = 60, layout: str | Layout = "coco17", **options) -> None:
        super().__init__(XShiftNet, num_classes, layout, **options)


# Of pictures in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EPAMNetVideo(nn.Module):
    """EPAM-Net, or one of its streams, on videos and the joints that were found in them.

    A mapping of "rgb" (N, 3, T, S, S) in [0, 1] and "keypoints" (N, 3, T, V, M), x and y in
    [-1, 1] of the picture and score (0 for missing) -> logits (N, num_classes): of both streams, or
    of the one. With both, T is a multiple of three, and every third picture is looked at.

    Args:
        num_classes: of the heads.
        layout: of the joints.
        modalities: "rgb", "keypoints" or both.
        size: H and W of the heat-maps; with both, a fourth of S.
        sigma: of the Gaussians, in pixels.
        options: further ones of ``EPAMNet``, or of ``XShiftNet``.

    Raises:
        ValueError: other modalities; on input, a missing one, or modalities of different clips or
            frames.
    """

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "coco17",
        *,
        modalities: Sequence[str] = ("rgb", "keypoints"),
        size: Sequence[int] = (56, 56),
        sigma: float = 0.6,
        **options: Any,
    ) -> None:
        super().__init__()
        self.modalities, self.size, self.sigma = tuple(modalities), tuple(size), sigma
        self.num_joints = get_layout(layout).num_joints
        if sorted(modalities) == ["keypoints", "rgb"]:
            self.net: nn.Module = EPAMNet(num_classes, self.num_joints, **options)
        elif self.modalities == ("rgb",):
            self.net = stream("rgb", num_classes, 3, **options)
        elif self.modalities == ("keypoints",):
            self.net = stream("pose", num_classes, self.num_joints, **options)
        else:
            expected = "modalities rgb, keypoints or both"
            raise _check.fail("EPAMNetVideo", expected, ", ".join(modalities) or "none")
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1, 1), persistent=False)
        self.published_keys = ((r"^net\.", ""), *self.net.published_keys)

    def load_stream(self, modality: str, state: Mapping[str, Tensor]) -> None:
        """Fill a stream of both with one that was trained alone; it may have other classes, of
        which the head is left as it is.

        Args:
            modality: "rgb" or "keypoints".
            state: state_dict of an ``EPAMNetVideo`` of that modality, an ``EPAMNetPose`` or an
                ``XShiftNet``, or a published one.

        Raises:
            ValueError: another modality, a network of one stream, or a state_dict that lacks a
                part of the stream or has one of another shape.
        """
        name = {"rgb": "rgb", "keypoints": "pose"}.get(modality)
        if name is None or not isinstance(self.net, EPAMNet):
            expected = "a stream, rgb or keypoints, of both"
            raise _check.fail("EPAMNetVideo", expected, f"{modality} of {self.modalities}")
        stream = self.net.get_submodule(name)
        published = {part.source: key for key, part in published_keys(stream).items()}
        # Of ours in a wrapper, of both of ours, or of both of the published ones.
        alone = rf"^(net\.)?({name}[._])?"
        own = {re.sub(alone, "", key): value for key, value in read_state(state).items()}
        given = {published.get(key, key): value for key, value in own.items()}
        missing = load_published(stream, given, strict=False).missing
        if missing:
            raise _check.fail("EPAMNetVideo", f"a state_dict with {missing[0]}", "none")

    def forward(self, x: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        check_modalities("EPAMNetVideo", x, self.modalities)
        inputs = {}
        if "rgb" in self.modalities:
            seen = x["rgb"] if self.modalities == ("rgb",) else x["rgb"][:, :, ::RGB_STEP]
            inputs["rgb"] = (seen - self.mean) / self.std
        if "keypoints" in self.modalities:
            inputs["heatmap"] = self.heatmap(x["keypoints"])
        return self.net(*inputs.values())

    def heatmap(self, keypoints: Tensor) -> Tensor:
        """(N, 3, T, V, M) -> (N, V, T, H, W), in place with the picture."""
        V = {"V": self.num_joints, "3": 3}
        _check.shape("EPAMNetVideo", "keypoints", keypoints, "N 3 T V M", **V)
        at = keypoints.permute(0, 4, 2, 3, 1)
        H, W = self.size
        point = (at[..., :2] + 1) / 2 * at.new_tensor([W, H])
        return ops.pose_heatmap(
            point.contiguous(), at[..., 2].contiguous(), H, W, sigma=self.sigma, convention="epam"
        )
