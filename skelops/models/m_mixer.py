"""M-Mixer (Lee et al., WACV 2023, https://arxiv.org/abs/2208.11314, and its extension with CFEM,
https://arxiv.org/abs/2311.12344)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import get_layout
from skelops.nn.video_resnet import VideoResNet

CHANNELS = {"rgb": 3, "depth": 1, "infrared": 1, "skeleton": 3}
CONTENTS = ("cfem", "mean")


def check_modalities(op: str, x: Mapping[str, Tensor], wanted: Sequence[str]) -> None:
    """All modalities there, (N, C, T, ...) each, of the same clips and frames."""
    if not isinstance(x, Mapping):
        raise TypeError(f"{op}: expected a mapping of modalities, got {type(x).__name__}")
    if any(name not in x for name in wanted):
        raise _check.fail(op, f"modalities {', '.join(wanted)}", ", ".join(x) or "none")
    for name in wanted:
        if x[name].dim() != 5:
            shape = _check.shape_text(x[name].shape)
            raise _check.fail(op, f"{name} of shape (N, C, T, H, W) or (N, C, T, V, M)", shape)
    for what, axis in (("clips", 0), ("frames", 2)):
        counts = [x[name].shape[axis] for name in wanted]
        if any(count != counts[0] for count in counts):
            raise _check.fail(op, f"as many {what} of {', '.join(wanted)}", counts)


class FrameEncoder(nn.Module):
    """ResNet-18 on the frames of a video: (N, C, T, H, W) -> (N, T, widths[-1])."""

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        self.out_channels = widths[-1]
        self.net = VideoResNet(in_channels, widths)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[-1].mean((3, 4)).mT


class SkeletonEncoder(nn.Module):
    """Joints of every frame, by two layers: (N, C, T, V, M) -> (N, T, D), persons averaged."""

    def __init__(self, in_channels: int, num_joints: int, dim: int) -> None:
        super().__init__()
        self.out_channels = dim
        self.fc1 = nn.Linear(in_channels * num_joints, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        joints = x.permute(0, 4, 2, 1, 3).flatten(3)  # (N, M, T, C V)
        return self.fc2(F.gelu(self.fc1(joints))).mean(1)


class CFEM(nn.Module):
    r"""Complementary features: what a modality's query finds in the frames of the others.

    .. math::
        B_i = \{W f_{j,t} + e_j + \mathrm{pos}_t : j \ne i\}, \quad
        y = \mathrm{LN}(q_i + \mathrm{MHA}(q_i, B_i, B_i)), \quad
        c_i = \mathrm{LN}(y + \mathrm{FFN}(y))

    The queries of all modalities share one attention over the frames of all, each blind to its own.

    Shape: S times (N, T, D_f) -> (N, S, D).
    """

    def __init__(
        self, modalities: int, features: int, dim: int, *, heads: int = 8, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if dim % heads or dim % 2:
            raise _check.fail("CFEM", f"dim even and of {heads} heads", dim)
        self.heads = heads
        self.bank = nn.Linear(features, dim)
        self.query = nn.Parameter(torch.randn(modalities, dim) * 0.02)
        self.mod_embed = nn.Parameter(torch.randn(modalities, dim) * 0.02)
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        f = torch.stack(list(features), 1)  # (N, S, T, D_f)
        N, S, T, _ = f.shape
        D = self.query.shape[1]
        bank = self.bank(f) + self.mod_embed[:, None] + _sinusoid(T, D, f)
        k, v = self.kv(bank.flatten(1, 2)).unflatten(-1, (2, self.heads, -1)).unbind(2)
        q = self.q(self.query).unflatten(-1, (self.heads, -1)).expand(N, -1, -1, -1)
        kept = ~torch.eye(S, dtype=torch.bool, device=f.device).repeat_interleave(T, 1)
        mixed = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), kept)
        mixed = self.proj(mixed.transpose(1, 2).flatten(2))
        y = self.norm1(self.query + self.dropout(mixed))
        return self.norm2(y + self.dropout(self.fc2(F.gelu(self.fc1(y)))))


def _sinusoid(T: int, D: int, like: Tensor) -> Tensor:
    """(T, D) sines and cosines of the frame (Vaswani et al., 2017)."""
    rate = torch.exp(torch.arange(0, D, 2, device=like.device) * (-math.log(1e4) / D))
    angle = torch.arange(T, device=like.device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(like.dtype)


class MCU(nn.Module):
    r"""Multi-modal contextualisation unit of one modality.

    .. math::
        a_t &= \tanh(\mathrm{LN}(W_f f_t)), \qquad b = \tanh(\mathrm{LN}(W_g g)) \\
        s_t &= \sigma(\mathrm{LN}(W_s [a_t; b])), \qquad u_t = s_t a_t + (1 - s_t) b

    and the recurrence of :func:`skelops.mcu_scan` on u, which the units of all modalities share a
    call of. Its weights are [u-part | h-part], one matrix per gate.

    Args:
        features: D_f of f.
        content: channels of g.
        dim: D.
        norm: layer normalisation in front of every activation; else biases.
    """

    GATES = reads = ("r", "z", "h")  # whose weights are taken, not called

    def __init__(self, features: int, content: int, dim: int, norm: bool = True) -> None:
        super().__init__()
        self.dim, self.norm = dim, norm
        inputs = {"f": features, "g": content, "s": 2 * dim, **dict.fromkeys(self.GATES, 2 * dim)}
        for name, width in inputs.items():
            layer = nn.Linear(width, dim, bias=not norm)
            nn.init.xavier_uniform_(layer.weight)
            self.add_module(name, layer)
            self.add_module(f"ln_{name}", nn.LayerNorm(dim) if norm else nn.Identity())
        # Early states change slowly.
        nn.init.constant_((self.ln_z if norm else self.z).bias, -1.0)

    def _gates(self) -> list[nn.Linear]:
        return [self.get_submodule(gate) for gate in self.GATES]

    def mixed(self, f: Tensor, g: Tensor) -> Tensor:
        """(N, T, D_f), (N, content) -> the terms (N, T, 3 D) of the gates without the state."""
        a = torch.tanh(self.ln_f(self.f(f)))
        b = torch.tanh(self.ln_g(self.g(g)))[:, None].expand_as(a)
        s = torch.sigmoid(self.ln_s(self.s(torch.cat([a, b], -1))))
        weight = torch.cat([gate.weight[:, : self.dim] for gate in self._gates()])
        bias = None if self.norm else torch.cat([gate.bias for gate in self._gates()])
        return F.linear(torch.lerp(b, a, s), weight, bias)

    def recurrent(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Weights (3 D, D) of the state, and the normalisations (3, D)."""
        weight = torch.cat([gate.weight[:, self.dim :] for gate in self._gates()])
        if not self.norm:
            return weight, None, None
        norms = [self.get_submodule(f"ln_{gate}") for gate in self.GATES]
        return weight, torch.stack([n.weight for n in norms]), torch.stack([n.bias for n in norms])


class MMixer(nn.Module):
    """Modality mixer: every modality's frames in the light of what the others show.

    A mapping of modalities -> logits (N, num_classes). "rgb" is (N, 3, T, H, W), "depth" and
    "infrared" (N, 1, T, H, W), "skeleton" (N, 3, T, V, M); as an alternative all are given as
    features (N, T, D_f), see :meth:`classify`. All have the same T, and none may be missing.

    The paper's code is not public; where its text leaves a choice open, ``norm``, ``content`` and
    ``reset_after`` are there to change it.

    Args:
        num_classes: of the head.
        modalities: two or more of "rgb", "depth", "infrared" and "skeleton".
        dim: D of the units.
        widths: channels of the stages of the image encoders, ResNet-18 by default.
        content: "cfem", a learned query into the frames of the others, or "mean", their averages
            over time.
        norm: layer normalisation in the units.
        reset_after: see :func:`skelops.mcu_scan`.
        heads: of CFEM.
        layout: joints of "skeleton".
        dropout: of CFEM.

    Raises:
        ValueError: unknown modalities or less than two; on input, a missing one, or modalities of
            different clips or frames.

    Example:
        >>> model = MMixer(60, ("rgb", "depth"))
        >>> x = {"rgb": torch.randn(2, 3, 16, 224, 224), "depth": torch.randn(2, 1, 16, 224, 224)}
        >>> model(x).shape
        torch.Size([2, 60])
    """

    def __init__(
        self,
        num_classes: int = 60,
        modalities: Sequence[str] = ("rgb", "depth"),
        *,
        dim: int = 512,
        widths: Sequence[int] = (64, 128, 256, 512),
        content: str = "cfem",
        norm: bool = True,
        reset_after: bool = False,
        heads: int = 8,
        layout: str = "ntu25",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        known = all(name in CHANNELS for name in modalities)
        if not known or len(set(modalities)) != len(modalities) or len(modalities) < 2:
            expected = f"two or more of {', '.join(CHANNELS)}"
            raise _check.fail("MMixer", expected, ", ".join(modalities) or "none")
        if content not in CONTENTS:
            raise _check.fail("MMixer", f"content in {CONTENTS}", repr(content))
        self.modalities, self.reset_after = tuple(modalities), reset_after
        features, joints = widths[-1], get_layout(layout).num_joints
        self.encoder = nn.ModuleDict(
            {
                name: SkeletonEncoder(CHANNELS[name], joints, features)
                if name == "skeleton"
                else FrameEncoder(CHANNELS[name], widths)
                for name in modalities
            }
        )
        S, others = len(modalities), (len(modalities) - 1) * features
        self.cfem = None
        if content == "cfem":
            self.cfem = CFEM(S, features, dim, heads=heads, dropout=dropout)
        given = others if self.cfem is None else dim
        self.mcu = nn.ModuleDict({name: MCU(features, given, dim, norm) for name in modalities})
        self.fc = nn.Linear(S * dim, num_classes)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        check_modalities("MMixer", x, self.modalities)
        return self.classify([self.encoder[name](x[name]) for name in self.modalities])

    def classify(self, features: Sequence[Tensor]) -> Tensor:
        """(N, T, D_f) of every modality, in their order -> logits (N, num_classes)."""
        h = self.contextualise(features)[:, :, -1]  # (S, N, D)
        return self.fc(h.transpose(0, 1).flatten(1))

    def contextualise(self, features: Sequence[Tensor]) -> Tensor:
        """(N, T, D_f) of every modality -> states (S, N, T, D) of the units."""
        units: list[Any] = [self.mcu[name] for name in self.modalities]
        content = self._content(features)
        pre = [unit.mixed(f, g) for unit, f, g in zip(units, features, content, strict=True)]
        tables = zip(*(unit.recurrent() for unit in units), strict=True)
        weight, *norms = (None if t[0] is None else torch.stack(t) for t in tables)
        return ops.mcu_scan(torch.stack(pre), weight, *norms, reset_after=self.reset_after)

    def _content(self, features: Sequence[Tensor]) -> list[Tensor]:
        if self.cfem is not None:
            return list(self.cfem(features).unbind(1))
        means = [f.mean(1) for f in features]
        return [torch.cat(means[:i] + means[i + 1 :], -1) for i in range(len(means))]
