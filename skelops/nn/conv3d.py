"""Convolution over frames and pixels with its normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skelops import ops
from skelops.nn.norm import bn_act_add


class ConvNorm3d(nn.Module):
    """relu(BN(conv(x)) + shortcut), the normalisation and what follows in one pass.

    (N, C, T, H, W) -> (N, C', T', H', W'), padded by half of the kernel.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel: frames, rows and columns of the kernel.
        stride: of frames, rows and columns.
        groups: of the convolution.
        fold_div: shift one in how many channels of the input each way in time before a convolution
            of one pixel; None for no shift.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int] = (1, 1, 1),
        stride: Sequence[int] = (1, 1, 1),
        groups: int = 1,
        fold_div: int | None = None,
    ) -> None:
        super().__init__()
        self.fold_div = fold_div
        padding = [(k - 1) // 2 for k in kernel]
        self.conv = nn.Conv3d(
            in_channels, out_channels, tuple(kernel), tuple(stride), tuple(padding),
            groups=groups, bias=False,
        )  # fmt: skip
        self.bn = nn.BatchNorm3d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution with the normalisation by its running statistics."""
        bn = self.bn
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        return self.conv.weight * scale[
            :, None, None, None, None
        ], bn.bias - bn.running_mean * scale

    def forward(
        self,
        x: Tensor,
        shortcut: Tensor | None = None,
        projection: ConvNorm3d | None = None,
        *,
        relu: bool = True,
    ) -> Tensor:
        """The shortcut is added as it is, or convolved and normalised by its projection."""
        if self.fold_div is None:
            y = self.conv(x)
        else:
            y = ops.shift_conv(x, self.conv.weight.flatten(1), self.fold_div)
        shape = y.shape[3:]
        if projection is not None:
            shortcut = projection.conv(shortcut)
        if shortcut is not None:
            shortcut = shortcut.flatten(3)
        bn = None if projection is None else projection.bn
        return bn_act_add(y.flatten(3), self.bn, shortcut, bn, relu=relu).unflatten(3, shape)
