"""PhysMoP: human motion from a data-driven and a physics-driven prediction, fused frame by frame.

Zhang et al., Incorporating Physics Principles for Precise Human Motion Prediction, WACV 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from skelops.nn.lagrangian import InverseMassNetwork
from skelops.nn.mixer import Mixer


class Prediction(NamedTuple):
    """Motions (N, past + future, D) that begin with the given past, and the share of the data."""

    data: Tensor
    physics: Tensor
    fusion: Tensor
    weight: Tensor  # (N, future, 1)


class PhysMoP(nn.Module):
    r"""Motion prediction by q_{t+1} = 2 q_t - q_{t-1} + dt^2 M^-1 (J - C).

    .. math:: q = (1 - w)\,q^{\text{physics}} + w\,q^{\text{data}}, \qquad w = \tanh(f)^2

    Args:
        dim: D, coordinates: 3 of the root's translation and 60 joint angles.
        past, future: frames.
        layers: of the data branch; the others have a third of them.
        dt: time between frames.
    """

    published_keys = (
        (r"^acceleration\.actuation\.(\d)\.", lambda m: f"jactuation_net_FC{int(m[1]) // 2 + 1}."),
        (r"^acceleration\.inverse_mass\.(\d)\.", lambda m: f"M_net_FC{int(m[1]) // 2 + 1}."),
        (r"^acceleration\.bias\.(\d)\.", lambda m: f"C_net_FC{int(m[1]) // 2 + 1}."),
        (r"^embed\.", "motion_fc_in."),
        (r"^data\.", "motion_mlp."),
        (r"^data_out\.", "motion_fc_out."),
        (r"^recent\.", "motion_mlp_ode."),
        (r"^summary\.", "motion_feats_fc."),
        (r"^fuse_in_(data|physics)\.", r"fusion_net.motion_fc_in_\1."),
        (r"^fuse_(data|physics)\.", r"fusion_net.motion_mlp_fusion_\1."),
        (r"^fuse_out\.", "fusion_net.motion_fc_out."),
        (r"\.(\d+)\.fc\.(weight|bias)$", r".mlps.\1.fc0.fc.\2"),
        (r"\.(\d+)\.(alpha|beta)$", r".mlps.\1.norm0.\2"),
        (r"^", "regressor."),
    )

    def __init__(
        self, dim: int = 63, past: int = 25, future: int = 25, layers: int = 48, dt: float = 1 / 25
    ) -> None:
        super().__init__()
        self.past, self.future, self.dt = past, future, dt
        self.embed = nn.Linear(dim, dim)
        self.data = Mixer(dim, past, layers)
        self.data_out = nn.Linear(dim, dim)
        self.recent = Mixer(dim, 3, layers // 3)
        self.summary = nn.Linear(past * dim, dim)
        self.acceleration = InverseMassNetwork(4 * dim, dim)
        self.fuse_in_data, self.fuse_in_physics = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.fuse_data = Mixer(dim, past, layers // 3)
        self.fuse_physics = Mixer(dim, past, layers // 3)
        self.fuse_out = nn.Linear(3 * dim, 1)
        nn.init.xavier_uniform_(self.data_out.weight, gain=1e-8)
        nn.init.zeros_(self.data_out.bias)

    def accelerate(self, summary: Tensor, window: Tensor) -> Tensor:
        """Acceleration (N, D) in the middle of a window (N, 3, D), given the clip's summary."""
        state = self.recent(self.embed(window)).flatten(1)
        return self.acceleration(torch.cat([summary, state], 1))

    def step(self, summary: Tensor, window: Tensor) -> Tensor:
        """The frame after a window."""
        acceleration = self.accelerate(summary, window)
        return 2 * window[:, 2] - window[:, 1] + acceleration * self.dt**2

    def _roll(self, summary: Tensor, q: Tensor, data: Tensor, weight: Tensor | None) -> Tensor:
        frames = list(q.unbind(1))
        for t in range(self.future):
            following = self.step(summary, torch.stack(frames[-3:], 1))
            if weight is not None:
                following = (1 - weight[:, t]) * following + weight[:, t] * data[:, t]
            frames.append(following)
        return torch.stack(frames, 1)

    def forward(self, q: Tensor) -> Prediction:
        """q (N, past, D)."""
        features = self.data(self.embed(q))
        summary = self.summary(features.flatten(1))
        data = self.data_out(features) + q[:, -1:]
        physics = self._roll(summary, q, data, None)
        # The fusion learns from both predictions without changing them.
        seen = [t.detach() for t in (data, physics[:, self.past :], features)]
        parts = [
            self.fuse_data(self.fuse_in_data(seen[0])),
            self.fuse_physics(self.fuse_in_physics(seen[1])),
            seen[2],
        ]
        time = torch.arange(self.future, device=q.device, dtype=q.dtype) / self.future
        weight = self.fuse_out(torch.cat(parts, 2) + time[:, None]).tanh().square()
        fusion = self._roll(summary, q, data, weight)
        return Prediction(torch.cat([q, data], 1), physics, fusion, weight)
