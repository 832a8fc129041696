"""Attention to tokens found at learned places of a volume."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check, ops
from skelops.nn.linear import Linear


class TokenSearch3d(nn.Module):
    r"""3D token search: a strided grid of places that moves with what the volume holds.

    .. math:: p = \rho + 2 \tanh(o(Z)) \; \mathrm{stride}, \qquad
        Z'_{s g} = \mathrm{trilinear}(Z_g, p_{s g})

    with :math:`\rho` the centres of the grid and o a depthwise and a pointwise convolution, shared
    by the groups. The last starts at zero: training starts from the strided grid.

    Args:
        channels: D of the tokens.
        groups: G sets of places, for D / G channels each.
        kernel: (t, y, x) of the depthwise convolution.
        stride: (t, y, x) of the grid.

    Shape: (N, T, H, W, D) -> (N, S, D), S = T' H' W' places.

    Source: Kim, Ahn and Ko, ICCV 2023, section 3.2; in 2-D: Xia et al., Vision Transformer with
    Deformable Attention, CVPR 2022.
    """

    REACH = 2.0  # cells of the grid

    def __init__(
        self,
        channels: int,
        groups: int = 4,
        kernel: tuple[int, int, int] = (3, 5, 5),
        stride: tuple[int, int, int] = (2, 2, 2),
    ) -> None:
        super().__init__()
        if channels % groups:
            raise _check.fail("TokenSearch3d", f"channels of {groups} groups", channels)
        self.groups, self.stride = groups, stride
        width = channels // groups
        padding = tuple(k // 2 for k in kernel)
        self.dw = nn.Conv3d(width, width, kernel, stride, padding, groups=width)
        self.pw = nn.Conv3d(width, 3, 1, bias=False)
        nn.init.zeros_(self.pw.weight)

    def places(self, z: Tensor) -> Tensor:
        """(N, T, H, W, D) -> (N, S, G, 1, 3) in units of cells."""
        N, T, H, W, _ = z.shape
        grouped = z.unflatten(-1, (self.groups, -1)).permute(0, 4, 5, 1, 2, 3).flatten(0, 1)
        offset = self.pw(F.gelu(self.dw(grouped)))  # (N G, 3, T', H', W')
        offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
        size = offset.new_tensor([T, H, W])
        steps = offset.new_tensor(offset.shape[2:])
        axes = [torch.arange(n, device=z.device, dtype=offset.dtype) for n in offset.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)  # (S, 3)
        cell = size / steps
        moved = (
            grid[:, None]
            + 0.5
            + self.REACH * torch.tanh(offset.view(N, self.groups, 3, -1).permute(0, 3, 1, 2))
        )
        return (moved * cell - 0.5).unsqueeze(3)

    def forward(self, z: Tensor) -> Tensor:
        value = z.unflatten(-1, (self.groups, -1))
        return ops.deform_sample_3d(value, self.places(z)).flatten(2)


class CrossAttention(nn.Module):
    """Multi-head attention with keys of other tokens: (N, L, D), (N, S, D) -> (N, L, D).

    ``kept`` (N, S) is True for the keys that count.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise _check.fail("CrossAttention", f"channels of {heads} heads", channels)
        self.heads = heads
        self.q, self.k = Linear(channels, channels), Linear(channels, channels)
        self.v, self.proj = Linear(channels, channels), Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        q, k, v = (
            layer(t).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, t in ((self.q, x), (self.k, tokens), (self.v, tokens))
        )
        mask = None if kept is None else kept[:, None, None]
        return self.proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class DeformAttention3d(CrossAttention):
    """3D deformable attention: queries of all tokens, keys of those that a search finds.

    Args:
        channels: D.
        heads: of the attention.
        groups: of the search.

    Shape: volume (N, T, H, W, D), modal tokens (N, K, D) -> (N, T H W + K, D), both updated.
    """

    def __init__(self, channels: int, heads: int = 8, groups: int = 4) -> None:
        super().__init__(channels, heads)
        self.offset = TokenSearch3d(channels, groups)

    def forward(self, z: Tensor, modal: Tensor) -> Tensor:  # type: ignore[override]
        queries = torch.cat([z.flatten(1, 3), modal], 1)
        return super().forward(queries, torch.cat([self.offset(z), modal], 1))
