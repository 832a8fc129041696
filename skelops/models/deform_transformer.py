"""3D Deformable Transformer (Kim, Ahn and Ko, ICCV 2023, https://arxiv.org/abs/2212.05638)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from skelops import _check
from skelops.graph import get_layout
from skelops.models.m_mixer import check_modalities
from skelops.nn.deform_attention import CrossAttention, DeformAttention3d
from skelops.nn.linear import Linear
from skelops.nn.st_attention import STAttention
from skelops.nn.video_resnet import VideoResNet


def joint_pool(features: Tensor, keypoints: Tensor, sigma: float = 1.0) -> Tensor:
    r"""Features around the joints of every frame, weighted by a Gaussian of the distance.

    .. math::
        j = \frac{\sum_p w(p) F(p)}{\sum_p w(p) + 10^{-6}}, \qquad
        w(p) = \mathrm{score} \; e^{-|p - \mathrm{joint}|^2 / 2 \sigma^2}

    The Gaussian is a product of one of rows and one of columns, so no map is made.

    Args:
        features: (N, C, T, H, W).
        keypoints: (N, 3, T, V, M): x and y in [-1, 1] from the left and upper to the right and
            lower border, and the score.
        sigma: in cells of the features.

    Returns:
        (N, T, M V, C), joints of one person after those of the other.

    Raises:
        ValueError: shapes do not fit.
    """
    _check.shape("joint_pool", "features", features, "N C T H W")
    N, _, T, H, W = features.shape
    _check.shape("joint_pool", "keypoints", keypoints, "N 3 T V M", N=N, T=T, **{"3": 3})
    points = keypoints.permute(1, 0, 2, 4, 3).flatten(3)  # (3, N, T, M V)

    def near(x: Tensor, size: int) -> Tensor:
        cell = torch.arange(size, device=x.device, dtype=x.dtype)
        at = ((x + 1) * size - 1) / 2
        return torch.exp(-(cell - at.unsqueeze(-1)).square() / (2 * sigma**2))

    columns, rows = near(points[0], W), near(points[1], H)
    score = points[2].clamp(min=0).unsqueeze(-1)
    by_row = torch.einsum("ntjx,nctyx->ntjyc", columns.to(features.dtype), features)
    pooled = score * torch.einsum("ntjy,ntjyc->ntjc", rows.to(features.dtype), by_row)
    total = score * (columns.sum(-1) * rows.sum(-1)).unsqueeze(-1)
    return pooled / (total + 1e-6)


class LocalJointStride(nn.Module):
    """Attention within each frame, in windows of a person's joints and half a person's stride.

    A window also holds the modal tokens. Where windows overlap their results are averaged, and
    those of the modal tokens over all windows and frames.

    Shape: pose (N, T, J, D), modal (N, K, D), kept (N, T, J) -> the same two.
    """

    def __init__(self, channels: int, heads: int, joints: int, window: int) -> None:
        super().__init__()
        stride = -(-window // 2)
        starts = [*range(0, joints - window, stride), joints - window]
        index = torch.tensor(starts)[:, None] + torch.arange(window)
        self.register_buffer("index", index, persistent=False)  # (windows, V)
        share = 1 / torch.bincount(index.flatten(), minlength=joints)
        self.register_buffer("share", share[:, None], persistent=False)
        self.attention = STAttention(channels, heads)

    def forward(self, pose: Tensor, modal: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        N, T, J, D = pose.shape
        (windows, V), K = self.index.shape, modal.shape[1]
        if windows == 1:
            local, mask = pose[:, :, None], kept[:, :, None]
        else:
            local, mask = pose[:, :, self.index], kept[:, :, self.index]
        shared = modal[:, None, None].expand(N, T, windows, K, D)
        tokens = torch.cat([local, shared], 3).flatten(0, 2)
        mask = torch.cat([mask, mask.new_ones(N, T, windows, K)], 3).flatten(0, 2)
        found = self.attention(tokens, key_mask=mask).view(N, T, windows, V + K, D)
        local, shared = found.split([V, K], 3)
        if windows == 1:
            joined = local[:, :, 0]
        else:
            joined = pose.new_zeros(N, T, J, D, dtype=local.dtype)
            joined = joined.index_add(2, self.index.flatten(), local.flatten(2, 3)) * self.share
        return joined, shared.mean((1, 2))


class _Block(nn.Module):
    def __init__(
        self, dim: int, heads: int, groups: int, joints: int, window: int, drop_path: float
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.da = DeformAttention3d(dim, heads, groups)
        self.ljs = LocalJointStride(dim, heads, joints, window)
        self.tsa = CrossAttention(dim, heads)
        for name in ("da", "ljs", "tsa", "ffn"):
            self.add_module(f"ln_{name}", nn.LayerNorm(dim))
        self.ffn = nn.Sequential(Linear(dim, 4 * dim), nn.GELU(), Linear(4 * dim, dim))

    def _drop(self, *parts: Tensor) -> list[Tensor]:
        """Leave a sample's residual parts out at random, all or none."""
        if not self.training or not self.drop_path:
            return list(parts)
        kept = torch.rand(len(parts[0]), device=parts[0].device) >= self.drop_path
        scale = kept.to(parts[0].dtype) / (1 - self.drop_path)
        return [p * scale.view(-1, *[1] * (p.dim() - 1)) for p in parts]

    def forward(
        self, z: Tensor, pose: Tensor, modal: Tensor, kept: Tensor, frames: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z (N, T, H, W, D), pose (N, T, J, D), modal (N, 2, D); kept (N, T, J) joints."""
        K = modal.shape[1]
        (update,) = self._drop(self.da(self.ln_da(z), self.ln_da(modal)))
        z = z + update[:, :-K].reshape(z.shape)
        modal = modal + update[:, -K:]

        local, shared = self._drop(*self.ljs(self.ln_ljs(pose), self.ln_ljs(modal), kept))
        pose, modal = pose + local, modal + shared

        strided = torch.cat([z[:, frames].flatten(2, 3), pose[:, frames]], 2)
        seen = torch.cat([kept.new_ones(*strided.shape[:2], z.shape[2] * z.shape[3]),
                          kept[:, frames]], 2)  # fmt: skip
        tokens = self.ln_tsa(strided).flatten(1, 2)
        (update,) = self._drop(self.tsa(self.ln_tsa(modal), tokens, seen.flatten(1)))
        modal = modal + update

        parts = [z.flatten(1, 3), pose.flatten(1, 2), modal]
        joined = torch.cat(parts, 1)
        (update,) = self._drop(self.ffn(self.ln_ffn(joined)))
        ends = [part.shape[1] for part in parts]
        found = (joined + update).split(ends, 1)
        return found[0].reshape(z.shape), found[1].reshape(pose.shape), found[2]


class DeformTransformer(nn.Module):
    r"""Video and pose, mixed by 3-D deformable, local joint stride and temporal stride attention.

    {"rgb": (N, 3, T, H, W), "keypoints": (N, 3, T, V, M)} -> logits (N, num_classes). Key-points
    are x and y in [-1, 1] of the picture, and the score; who has no score above 0 in a frame is
    absent there and attended to by none. Two modal tokens, one of either side, carry information
    between pictures and poses; the head sees their mean.

    The paper's code is not public; this follows its text and, where that is silent, the choices of
    its predecessor STAR-Transformer and of the 2-D deformable attention transformer.

    Args:
        num_classes: of the head.
        layout: joints V.
        num_persons: M.
        frames: T.
        image_size: H = W.
        dim: D of the tokens.
        depth: blocks.
        heads: of every attention.
        groups: sets of places in the token search.
        widths: channels of the stages of the backbone; the pose tokens look at the second one.
        blocks: residual blocks per stage of the backbone.
        stride: every ``stride``-th frame takes part in the temporal attention, from another first
            frame in each block.
        drop_path: probability that a block leaves a residual part of a sample out.

    Raises:
        ValueError: on input, a missing modality, or one of other frames, joints or picture size.

    Example:
        >>> model = DeformTransformer(60, num_persons=1)
        >>> x = {"rgb": torch.randn(1, 3, 16, 224, 224), "keypoints": torch.rand(1, 3, 16, 25, 1)}
        >>> model(x).shape
        torch.Size([1, 60])
    """

    MODALITIES = ("rgb", "keypoints")

    def __init__(
        self,
        num_classes: int = 60,
        layout: str = "ntu25",
        *,
        num_persons: int = 2,
        frames: int = 16,
        image_size: int = 224,
        dim: int = 512,
        depth: int = 6,
        heads: int = 8,
        groups: int = 4,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 2,
        stride: int = 2,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        down = 2 ** len(widths)
        if image_size % down or len(widths) < 2:
            expected = f"image_size of whole {down} x {down} cells and two stages or more"
            raise _check.fail("DeformTransformer", expected, (image_size, tuple(widths)))
        V = get_layout(layout).num_joints
        self.joints, self.persons, self.frames = V, num_persons, frames
        self.image_size, self.stride = image_size, stride
        self.backbone = VideoResNet(3, widths, depth=blocks, mixed=True, pool=False)
        self.visual = nn.Linear(widths[-1], dim)
        self.pose = nn.Linear(widths[1], dim)
        cells = (image_size // down) ** 2
        self.pos_t = nn.Parameter(torch.randn(frames, 1, dim) * 0.02)
        self.pos_s = nn.Parameter(torch.randn(cells, dim) * 0.02)
        self.pos_j = nn.Parameter(torch.randn(num_persons * V, dim) * 0.02)
        self.cmt = nn.Parameter(torch.randn(2, dim) * 0.02)
        block = (dim, heads, groups, num_persons * V, V, drop_path)
        self.blocks = nn.ModuleList([_Block(*block) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        check_modalities("DeformTransformer", x, self.MODALITIES)
        rgb, keypoints = (x[name] for name in self.MODALITIES)
        T, S, V, M = self.frames, self.image_size, self.joints, self.persons
        sizes = {"3": 3, "T": T, "H": S, "W": S, "V": V, "M": M}
        _check.shape("DeformTransformer", "rgb", rgb, "N 3 T H W", **sizes)
        _check.shape("DeformTransformer", "keypoints", keypoints, "N 3 T V M", **sizes)
        stages = self.backbone(rgb)
        z = self.visual(stages[-1].movedim(1, -1))
        z = z + (self.pos_t + self.pos_s).view(T, *z.shape[2:])
        seen = (keypoints[:, 2] > 0).any(2)  # (N, T, M)
        kept = seen.repeat_interleave(V, 2)
        pose = self.pose(joint_pool(stages[1], keypoints)) + self.pos_j + self.pos_t
        pose = pose * kept.unsqueeze(-1)
        modal = self.cmt.expand(len(z), -1, -1)
        for i, block in enumerate(self.blocks):
            frames = slice(i % self.stride, None, self.stride)
            z, pose, modal = block(z, pose, modal, kept, frames)
        return self.head(self.norm(modal.mean(1)))
