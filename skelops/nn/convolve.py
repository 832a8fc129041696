"""Convolutions by the op that computes them fastest."""

from __future__ import annotations

from torch import Tensor, nn

from skelops import ops
from skelops.nn.pointwise import in_float32_here, pointwise_conv

# Below, transforming features and weights takes as long as the multiplications that it saves.
MIN_CHANNELS, MIN_FRAMES, POSITIONS_PER_CHANNEL = 32, 16, 3


def convolve(conv: nn.Module, x: Tensor) -> Tensor:
    """conv(x); by ``ops.temporal_conv`` where that is faster, see also ``pointwise_conv``.

    Args:
        conv: any module; what is not a plain ``nn.Conv2d`` over frames or 1x1 is called.
        x: (N, C, T, V).

    Returns:
        (N, C', T', V).
    """
    if _over_frames(conv) and _pays(conv, x):
        return ops.temporal_conv(x, conv.weight[..., 0], conv.bias, conv.stride[0])
    return pointwise_conv(conv, x)


def _over_frames(conv: nn.Module) -> bool:
    """Whether a layer is a convolution over frames with zeros around them."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size[0] > 1
        and conv.kernel_size[0] % 2 == 1
        and conv.kernel_size[1] == 1
        and conv.padding == (conv.kernel_size[0] // 2, 0)
        and conv.padding_mode == "zeros"
        and conv.stride[1] == 1
        and conv.dilation == (1, 1)
        and conv.groups == 1
    )


def _pays(conv: nn.Conv2d, x: Tensor) -> bool:
    stride = conv.stride[0]
    frames = (x.shape[2] - 1) // stride + 1
    positions = x.shape[0] * frames * x.shape[3]
    return (
        in_float32_here(x)
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
        and frames >= MIN_FRAMES
        and positions >= POSITIONS_PER_CHANNEL * stride * conv.in_channels
    )
