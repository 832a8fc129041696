"""Heat-maps of skeleton sequences, for networks that look at them as at a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout, get_layout

# The limbs of PYSKL's NTU RGB+D configurations; the order of the maps belongs to a checkpoint.
COCO_LIMBS = (
    (0, 5), (0, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (11, 13), (13, 15), (6, 12), (12, 14),
    (14, 16), (0, 1), (0, 2), (1, 3), (2, 4), (11, 12),
)  # fmt: skip
MAPS = ("joint", "limb", "both")


class PoseHeatmap(nn.Module):
    """Joints as (N, C, T, V, M) -> heat-maps (N, K, T, H, W); has no parameters.

    The first two coordinates are the picture: those of a 2-D pose, or a 3-D one seen along its
    third axis. Each clip is scaled so that a square around all that is seen of it, ``padding``
    wider than its longer side, fills the map. A joint whose coordinates are all zero is missing.

    Args:
        layout: of the joints.
        maps: "joint", "limb" (the bones of the layout; of ``coco17`` the published limbs) or
            "both".
        size: H and W.
        sigma: of the Gaussians, in pixels.
        padding: share of the longer side.
        confidence: the third coordinate is the score of a joint; else all that is seen scores one.

    Raises:
        ValueError: other maps.
    """

    def __init__(
        self,
        layout: str | Layout = "coco17",
        maps: str = "joint",
        size: Sequence[int] = (56, 56),
        sigma: float = 0.6,
        padding: float = 0.25,
        confidence: bool = False,
    ) -> None:
        super().__init__()
        if maps not in MAPS:
            raise _check.fail("PoseHeatmap", f"maps one of {', '.join(MAPS)}", repr(maps))
        layout = get_layout(layout)
        self.layout, self.size, self.sigma = layout, tuple(size), sigma
        self.padding, self.confidence, self.joints = padding, confidence, maps != "limb"
        bones = [(p, v) for v, p in enumerate(layout.parents) if p != v]
        limbs = COCO_LIMBS if layout.name == "coco17" else tuple(bones)
        self.limbs = limbs if maps != "joint" else ()
        self.channels = layout.num_joints * self.joints + len(self.limbs)

    def forward(self, x: Tensor) -> Tensor:
        _check.shape("PoseHeatmap", "x", x, "N C T V M", V=self.layout.num_joints)
        H, W = self.size
        x = x.permute(0, 4, 2, 3, 1)
        point, seen = x[..., :2], (x != 0).any(-1)
        score = torch.where(seen, x[..., 2], 0) if self.confidence else seen.to(x.dtype)
        if x.numel():
            point = self.fitted(point, seen)
        return ops.pose_heatmap(
            point.contiguous(), score, H, W, joints=self.joints, limbs=self.limbs, sigma=self.sigma
        )

    def fitted(self, point: Tensor, seen: Tensor) -> Tensor:
        """Pixels of points (N, M, T, V, 2), each sample within its square."""
        seen, everyone = seen[..., None], (1, 2, 3)
        low = torch.where(seen, point, torch.inf).amin(everyone, keepdim=True)
        high = torch.where(seen, point, -torch.inf).amax(everyone, keepdim=True)
        side = (high - low).amax(-1, keepdim=True) * (1 + self.padding)
        side = side.clamp(min=torch.finfo(point.dtype).tiny)
        size = point.new_tensor(self.size[::-1])
        return ((point - (low + high) / 2) / side + 0.5) * size


class HeatmapNet(nn.Module):
    """A network on the heat-maps of a skeleton sequence, (N, C, T, V, M) -> (N, num_classes).

    ``model.net`` takes heat-maps made elsewhere, (N, K, T, H, W).

    Args:
        make: ``make(num_classes, K, **net)``, the network.
        num_classes: of the head.
        layout: of the joints, of two dimensions or three.
        maps, size, sigma, padding, confidence: of the heat-maps, see ``PoseHeatmap``.
        num_persons, in_channels: of the data; any will do.
        net: further arguments of the network.
    """

    def __init__(
        self,
        make: Callable[..., nn.Module],
        num_classes: int = 60,
        layout: str | Layout = "coco17",
        *,
        maps: str = "joint",
        size: Sequence[int] = (56, 56),
        sigma: float = 0.6,
        padding: float = 0.25,
        confidence: bool = False,
        num_persons: int = 2,
        in_channels: int = 2,
        **net,
    ) -> None:
        super().__init__()
        self.heatmap = PoseHeatmap(layout, maps, size, sigma, padding, confidence)
        self.net = make(num_classes, self.heatmap.channels, **net)
        self.published_keys = ((r"^net\.", ""), *self.net.published_keys)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.heatmap(x))
