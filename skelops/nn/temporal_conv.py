"""Temporal convolutions; they return z, before their last normalisation ``bn``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skelops import _check, ops
from skelops.nn import norm
from skelops.nn.convolve import convolve
from skelops.nn.norm import bn_act_add, count_batch, pointwise_unit
from skelops.nn.packed import Packed, Part, init_conv, norm_parts
from skelops.nn.pointwise import pointwise_conv
from skelops.nn.recompute import recomputed

Branch = tuple[int, int] | str


class TemporalConv(nn.Module):
    """Convolution over frames and the normalisation to follow.

    Args:
        in_channels, out_channels: C and C'.
        kernel_size: odd.
        stride, dilation: in time.
        padding_mode: of the frames before the first and behind the last, see ``nn.Conv2d``.

    Shape: (N, C, T, V) -> (N, C', ceil(T / stride), V).

    Source: Yan et al., ST-GCN, AAAI 2018, section 3.2 (kernel 9).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 9,
        stride: int = 1,
        dilation: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            (kernel_size, 1),
            stride=(stride, 1),
            padding=(dilation * (kernel_size - 1) // 2, 0),
            dilation=(dilation, 1),
            padding_mode=padding_mode,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.conv, x)


def of_one_size(kernels: Sequence[Tensor]) -> list[Tensor]:
    """(w, w, k) each: smaller kernels with zeros around them."""
    kernels = list(kernels)
    sizes = [w.shape[-1] for w in kernels]
    most = max(sizes, default=0)
    gaps = [(most - size) // 2 for size in sizes]
    return [F.pad(w, (g, g)) if g else w for w, g in zip(kernels, gaps, strict=True)]


class MultiScaleTemporalConv(Packed):
    """Branches over several time scales, concatenated; see ``skelops.ops.ms_temporal_conv``.

    Args:
        in_channels, out_channels: C and C'.
        branches: (kernel size, dilation) of every convolution, then "max" for a max-pool over three
            frames, then "1x1", in this order. MS-TCN of CTR-GCN: (5, 1), (5, 2), "max", "1x1";
            ST-GCN++: (3, 1) to (3, 4), "max", "1x1".
        stride: in time.
        widths: channels of every branch; C' in equal parts if None, the rest to the first.
        transform: follow the branches by BN, ReLU and a 1x1 convolution (ST-GCN++).
        mean_joint: append the mean over joints as a further one and add what becomes of it to
            every joint, weighted by the first V of so many learnable weights (DG-STGCN).
        padding_mode: see the op.

    Shape: (N, C, T, V) -> (N, C', ceil(T / stride), V).

    Raises:
        ValueError: branches in another order, or widths that do not fit.

    Source: Liu et al., MS-G3D, CVPR 2020, section 3.4; Chen et al., CTR-GCN, ICCV 2021, section
    3.4; Duan et al., ST-GCN++ and DG-STGCN, 2022.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        branches: Sequence[Branch] = ((5, 1), (5, 2), "max", "1x1"),
        stride: int = 1,
        *,
        widths: Sequence[int] | None = None,
        transform: bool = False,
        mean_joint: int | None = None,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        convs = [tuple(b) for b in branches if not isinstance(b, str)]
        self.pool, self.plain = "max" in branches, "1x1" in branches
        kinds = [*convs, *["max"] * self.pool, *["1x1"] * self.plain]
        if kinds != [b if isinstance(b, str) else tuple(b) for b in branches]:
            what = 'branches (kernel, dilation) ..., then "max", then "1x1"'
            raise _check.fail("MultiScaleTemporalConv", what, branches)
        if widths is None:
            least = out_channels // len(kinds)
            widths = [out_channels - least * (len(kinds) - 1)] + [least] * (len(kinds) - 1)
        hidden = sum(widths)
        if len(widths) != len(kinds) or min(widths) < 1 or (hidden != out_channels > 0) > transform:
            what = f"widths of {len(kinds)} branches that sum to {out_channels}"
            raise _check.fail("MultiScaleTemporalConv", what, list(widths))
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.kernel_size = max([k for k, _ in convs], default=1)
        self.widths, self.convs, self.padding_mode = list(widths), convs, padding_mode
        self.weight = nn.Parameter(torch.empty(hidden, in_channels))
        self.bias = nn.Parameter(torch.empty(hidden))
        self.conv_weights = nn.ParameterList(
            torch.empty(w, w, k) for w, (k, _) in zip(widths, convs, strict=False)
        )
        self.conv_biases = nn.ParameterList(
            torch.empty(w) for w, _ in zip(widths, convs, strict=False)
        )
        self.norm = nn.BatchNorm2d(hidden - self.plain * self.widths[-1])
        self.add_coeff = nn.Parameter(torch.zeros(mean_joint)) if mean_joint else None
        self.transform = (
            nn.Sequential(nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, out_channels, 1))
            if transform
            else None
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.reset_parameters()

    def _rows(self) -> list[slice]:
        ends = torch.tensor(self.widths).cumsum(0).tolist()
        return [slice(end - width, end) for end, width in zip(ends, self.widths, strict=True)]

    def reset_parameters(self, kaiming: bool = False) -> None:
        for rows, width in zip(self._rows(), self.widths, strict=True):
            weight, bias = self.weight[rows], self.bias[rows]
            init_conv(weight, bias, self.weight.shape[1], width, kaiming)
        for weight, bias in zip(self.conv_weights, self.conv_biases, strict=True):
            fan = weight[0].numel()
            init_conv(weight, bias, fan, fan, kaiming)
        if kaiming:
            for bn in (self.norm, self.bn):
                nn.init.normal_(bn.weight, 1.0, 0.02)

    def published(self) -> dict[str, Part]:
        C = self.weight.shape[1]
        parts: dict[str, Part] = {}
        for i, rows in enumerate(self._rows()):
            width, branch = self.widths[i], f"branches.{i}"
            plain = self.plain and i == len(self.widths) - 1
            conv = branch if plain and self.transform is not None else f"{branch}.0"
            parts[f"{conv}.weight"] = Part("weight", (rows,), (width, C, 1, 1))
            parts[f"{conv}.bias"] = Part("bias", (rows,), (width,))
            if not plain:
                parts.update(norm_parts(f"{branch}.1", "norm", rows))
            if i < len(self.convs):
                shape = (*self.conv_weights[i].shape, 1)
                parts[f"{branch}.3.conv.weight"] = Part(f"conv_weights.{i}", (), shape)
                parts[f"{branch}.3.conv.bias"] = Part(f"conv_biases.{i}", (), (width,))
            if self.transform is None:
                last = "3.bn" if i < len(self.convs) else "1" if plain else "4"
                parts.update(norm_parts(f"{branch}.{last}", "bn", rows))
        return parts

    def forward(self, x: Tensor) -> Tensor:
        V = x.shape[-1]
        y = ops.ms_temporal_conv(
            self._with_mean(x),
            self.weight,
            self.bias,
            of_one_size(self.conv_weights),
            list(self.conv_biases),
            self.norm.weight,
            self.norm.bias,
            self.norm.running_mean,
            self.norm.running_var,
            dilations=[d for _, d in self.convs],
            training=self.norm.training,
            stride=self.stride,
            padding_mode=self.padding_mode,
            momentum=count_batch(self.norm),
            eps=self.norm.eps,
        )
        y = self._without_mean(y, V)
        if self.transform is not None:
            y = bn_act_add(y, self.transform[0])
            with recomputed(y):
                y = pointwise_conv(self.transform[2], y)
        return y

    def infer(self, x: Tensor, **tail: Any) -> Tensor:
        """The unit that ends by ``tail``, without gradients: ``ops.ms_temporal_unit``."""
        end = tail if self.transform is None else norm.tail([self.transform[0]])
        if self.add_coeff is None:
            y = self._branches(x, **end)
        else:
            z = self._without_mean(self._branches(self._with_mean(x), relu=False), x.shape[-1])
            y = norm.apply_tail(z, **end)
        return y if self.transform is None else pointwise_unit(y, self.transform[2], **tail)

    def _branches(self, x: Tensor, **tail: Any) -> Tensor:
        return ops.ms_temporal_unit(
            x,
            self.weight,
            self.bias,
            of_one_size(self.conv_weights),
            list(self.conv_biases),
            norm.norm_pieces([self.norm]),
            widths=self.widths[: len(self.widths) - self.plain],
            dilations=[d for _, d in self.convs],
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding_mode=self.padding_mode,
            inner_eps=self.norm.eps,
            **tail,
        )

    def _with_mean(self, x: Tensor) -> Tensor:
        return x if self.add_coeff is None else torch.cat([x, x.mean(-1, keepdim=True)], -1)

    def _without_mean(self, y: Tensor, V: int) -> Tensor:
        if self.add_coeff is None:
            return y
        # A copy of the mean joint, so that y as a whole is not kept for the backward.
        return torch.addcmul(y[..., :V], y[..., V:].contiguous(), self.add_coeff[:V])
