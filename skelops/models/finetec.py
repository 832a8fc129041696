"""FineTec (Zheng et al., AAAI 2026, https://arxiv.org/abs/2512.25067)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check
from skelops.dynamics import acceleration, velocity
from skelops.graph import Layout, get_layout
from skelops.models._registry import register_model
from skelops.models.st_gcn_pp import st_gcn_pp
from skelops.nn.completion import Completion, fill_frames
from skelops.nn.lagrangian import AccelerationNetwork

DYNAMIC_PARTS = 2
SMALLEST_CROP, DROPPED, SHEARED = 0.5, 0.4, 0.4


class PartMotion(NamedTuple):
    """How much joints (N, V) and parts (N, P) move per frame, the parts that move most (N, 2) in
    ascending order, and their joints (N, V) bool."""

    joints: Tensor
    parts: Tensor
    top: Tensor
    dynamic: Tensor


def part_motion(x: Tensor, parts: Sequence[Sequence[int]]) -> PartMotion:
    r"""Mean displacement of joints and of the parts they form.

    .. math::
        D_i = \frac{1}{T - 1} \sum_t \lVert S_{t+1,i} - S_{t,i} \rVert, \qquad
        \bar D_j = \frac{1}{|G_j|} \sum_{i \in G_j} D_i

    Args:
        x: (N, T, V, D).
        parts: joints of every part, two or more.
    """
    member = x.new_zeros(len(parts), x.shape[2])
    for row, joints in zip(member, parts, strict=True):
        row[list(joints)] = 1
    moved = x.diff(dim=1).norm(dim=-1).sum(1) / max(x.shape[1] - 1, 1)
    mean = moved @ (member / member.sum(1, keepdim=True)).mT
    top = mean.topk(DYNAMIC_PARTS, dim=1).indices.sort(dim=1).values
    return PartMotion(moved, mean, top, (member[top] > 0).any(1))


class Draws(NamedTuple):
    """What the perturbations draw, all uniform in [0, 1)."""

    crop: Tensor  # (N, 2) share of the frames, place
    drop: Tensor  # (N, T)
    shear: Tensor  # (N, D, D)
    flip: Tensor  # (N,)
    stream: Tensor  # (N,)

    @classmethod
    def of(cls, x: Tensor) -> Draws:
        """For x (N, T, V, D), from torch's generator."""
        N, T, _, D = x.shape
        sizes = (N, 2), (N, T), (N, D, D), (N,), (N,)
        return cls(*(torch.rand(*size, device=x.device) for size in sizes))


def perturb_dynamic(x: Tensor, center: Tensor, draws: Draws) -> Tensor:
    """Strong, in time and space: a random window stretched to all frames, random frames replaced by
    straight lines, and sheared about the hips. x (N, T, V, D), center (N, T, 1, D)."""
    T = x.shape[1]
    shear = SHEARED * (2 * draws.shear - 1).to(x.dtype)
    x = x + (x - center) @ shear[:, None]
    window = (SMALLEST_CROP + (1 - SMALLEST_CROP) * draws.crop[:, :1]) * (T - 1)
    at = draws.crop[:, 1:] * (T - 1 - window)
    at = at + window * torch.linspace(0, 1, T, device=x.device)
    low = at.floor().clamp(max=max(T - 2, 0)).long()
    weight = (at - low)[..., None, None].to(x.dtype)
    ends = (
        x.take_along_dim(i[..., None, None], 1) for i in (low, (low + 1).clamp(max=max(T - 1, 0)))
    )
    return fill_frames(torch.lerp(*ends, weight), draws.drop >= DROPPED)


def perturb_static(x: Tensor, mirror: Tensor, center: Tensor, draws: Draws) -> Tensor:
    """Weak, in space: half of the samples are mirrored about the hips. x (N, T, V, D), center
    (N, T, 1, D), mirror (V,) the joint that takes each place."""
    reflected = x[:, :, mirror]
    x0 = 2 * center[..., :1] - reflected[..., :1]
    reflected = torch.cat([x0, reflected[..., 1:]], -1)
    return torch.where((draws.flip < 0.5)[:, None, None, None], reflected, x)


class CrossFusion(nn.Module):
    """A stream plus what its joints find at those of several streams, by attention in every frame.

    Args:
        dims: D of the streams.
        width: of queries, keys and values.

    Shape: query (N, T, V, D), streams of that shape -> (N, T, V, D). Starts as the query itself.
    """

    def __init__(self, dims: int, width: int = 64) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(dims, width), nn.Linear(dims, width, bias=False)
        self.value, self.out = nn.Linear(dims, width), nn.Linear(width, dims)
        self.scale = width**0.5
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, query: Tensor, streams: Sequence[Tensor]) -> Tensor:
        context = torch.cat(list(streams), 2)
        # Keys and values are linear in the coordinates, among which attention is the same.
        unit = torch.eye(query.shape[-1], dtype=query.dtype, device=query.device)
        wanted = self.query(query) @ self.key(unit).mT / self.scale
        found = torch.softmax(wanted @ context.mT, -1) @ context
        return query + self.out(self.value(found))


@register_model("finetec")
class FineTec(nn.Module):
    r"""Fine-grained actions from motions with missing frames, (N, C, T, V, M) -> (N, num_classes).

    Frames in which a person is all zero are missing. They are completed by example
    (``Completion``, pre-trained and then frozen). In training the two parts of the body that move
    most and the other three are perturbed, each in a stream of its own, and a sample is one of the
    three streams, drawn anew, with what attention finds in all of them; in a test all three are the
    completed motion. Of every stream the accelerations that differences give and those of learned
    Lagrangian dynamics are fused,

    .. math:: a = \mathrm{Fusion}(\hat a, M^{-1} \tau - \hat C - \hat g)

    Two ST-GCN++ see positions and accelerations.

    Without ``completion`` missing frames lie on straight lines, without ``decomposition`` there is
    one stream, without ``physics`` accelerations are differences. Without all three it is the two
    networks on a linearly interpolated motion.

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        in_channels: C, coordinates, 2 or 3.
        num_persons: M.
        frames: T of all motions, fixed by the completion.
        completion: arguments of ``skelops.nn.completion.Completion``, or False.
        decomposition: whether to perturb, in training.
        physics: arguments of ``skelops.nn.lagrangian.AccelerationNetwork``, or False.
        fusion_width: of the attention.
        acceleration_weight: of the distance between fused accelerations and those of differences,
            a further term of the training loss, see ``auxiliary_loss``.
        net: further arguments of ST-GCN++.

    Published: Gym288 top-1 81.5, 79.7, 78.1 % with a quarter, half and three quarters of the frames
    missing. The paper leaves sizes open; docstrings say whose they are.

    Source: section 3; layers that the paper does not give are those of PhysMoP and PYSKL.
    """

    def __init__(
        self,
        num_classes: int = 288,
        layout: str | Layout = "coco17",
        *,
        in_channels: int = 2,
        num_persons: int = 1,
        frames: int = 48,
        completion: Mapping | bool = True,
        decomposition: bool = True,
        physics: Mapping | bool = True,
        fusion_width: int = 64,
        acceleration_weight: float = 0.1,
        **net,
    ) -> None:
        super().__init__()
        layout = get_layout(layout)
        self.layout, self.frames, self.in_channels = layout, frames, in_channels
        self.decomposition, self.acceleration_weight = decomposition, acceleration_weight
        V, D = layout.num_joints, in_channels
        names = layout.joint_names
        if len(layout.parts) < DYNAMIC_PARTS or not {"left_hip", "right_hip"} <= set(names):
            raise _check.fail("finetec", "a layout with parts of the body and hips", layout.name)
        self.hips = [names.index(f"{side}_hip") for side in ("left", "right")]
        self.register_buffer("mirror", torch.tensor(layout.mirror), persistent=False)
        self.completion = self.physics = self.fusion = None
        if completion is not False:
            options = {} if completion is True else completion
            self.completion = Completion(V, D, frames, **options).requires_grad_(False)
        if physics is not False:
            self.physics = AccelerationNetwork(V * D, **({} if physics is True else physics))
            self.fuse_physics = CrossFusion(D, fusion_width)
        if decomposition:
            self.fusion = nn.ModuleDict(
                {name: CrossFusion(D, fusion_width) for name in ("position", "acceleration")}
            )
        options = {"in_channels": D, "num_persons": num_persons} | net
        self.head = nn.ModuleDict(
            {
                name: st_gcn_pp(num_classes, layout, **options)
                for name in ("position", "acceleration")
            }
        )
        self._distance: Tensor | None = None
        self.published_keys = ()

    def complete(self, x: Tensor) -> Tensor:
        """(N, T, V, D) -> the same motions without missing frames."""
        kept = (x != 0).flatten(2).any(2)
        return fill_frames(x, kept) if self.completion is None else self.completion(x, kept)

    def streams(self, base: Tensor, draws: Draws) -> list[Tensor]:
        """The motions (N, T, V, D), with their dynamic and with their static parts perturbed."""
        moving = part_motion(base, list(self.layout.parts.values())).dynamic[:, None, :, None]
        center = base[:, :, self.hips].mean(2, keepdim=True)
        dynamic = torch.where(moving, perturb_dynamic(base, center, draws), base)
        static = torch.where(moving, base, perturb_static(base, self.mirror, center, draws))
        return [base, dynamic, static]

    def accelerations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Motions (N, T, V, D) -> their accelerations by differences, and fused with dynamics."""
        observed = acceleration(x, dim=1)
        if self.physics is None:
            return observed, observed
        both = torch.cat([x, x - x[:, :, self.hips].mean(2, keepdim=True)], -1).flatten(2)
        found = self.physics(both, velocity(both, first="zero")).view_as(x)
        return observed, self.fuse_physics(observed, [observed, found])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> logits (N, num_classes)."""
        sizes = {"C": self.in_channels, "V": self.layout.num_joints}
        if self.completion is not None:
            sizes["T"] = self.frames
        _check.shape("finetec", "x", x, "N C T V M", **sizes)
        N, _, _, _, M = x.shape
        base = self.complete(x.permute(0, 4, 2, 3, 1).flatten(0, 1))
        streams, drawn = base[None], 0
        if self.training and self.decomposition:
            draws = Draws.of(base)
            streams = torch.stack(self.streams(base, draws))
            drawn = (draws.stream * len(streams)).long(), torch.arange(len(base), device=x.device)
        observed, found = self.accelerations(streams.flatten(0, 1))
        self._distance = F.mse_loss(found, observed)

        def seen(name: str, each: Tensor) -> Tensor:
            one = each[drawn]
            return one if self.fusion is None else self.fusion[name](one, each.unbind())

        def clips(y: Tensor) -> Tensor:
            return y.unflatten(0, (N, M)).permute(0, 4, 2, 3, 1)

        position, moved = seen("position", streams), seen("acceleration", found.view_as(streams))
        return self.head["position"](clips(position)) + self.head["acceleration"](clips(moved))

    def auxiliary_loss(self) -> Tensor:
        """Distance of the accelerations of the last motions to those by differences, a further term
        of the training loss."""
        distance, self._distance = self._distance, None
        if distance is None:
            raise RuntimeError("finetec: expected a forward before auxiliary_loss, got none")
        return self.acceleration_weight * distance
