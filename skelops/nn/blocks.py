"""Units and blocks: a graph convolution, then a temporal one, each with a fused residual tail."""

from __future__ import annotations

from torch import Tensor, nn

from skelops.nn.norm import at_inference, bn_act_add, conv_bn, tail
from skelops.nn.pointwise import pointwise_conv
from skelops.nn.recompute import recomputed


class Shortcut(nn.Module):
    """Residual of a unit: nothing, the input, or a convolution whose BN the unit's tail applies.

    Args:
        in_channels, out_channels: C and C'; a convolution is needed if they differ.
        stride: in time; a convolution is needed if not 1.
        enabled: False for no residual.
        kernel_size, padding_mode: of the convolution.

    Shape: (N, C, T, V) -> (N, C', ceil(T / stride), V) and its BN, or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        enabled: bool = True,
        kernel_size: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.enabled = enabled
        self.conv = self.bn = None
        if enabled and (in_channels != out_channels or stride != 1):
            self.conv = nn.Conv2d(
                in_channels,
                out_channels,
                (kernel_size, 1),
                stride=(stride, 1),
                padding=((kernel_size - 1) // 2, 0),
                padding_mode=padding_mode,
            )
            self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor | None, nn.BatchNorm2d | None]:
        if not self.enabled:
            return None, None
        if self.conv is None:
            return x, None
        if at_inference(x, self.bn):
            return conv_bn(x, self.conv, self.bn, relu=False), None
        return pointwise_conv(self.conv, x), self.bn


def end_unit(
    conv: nn.Module,
    bn: nn.BatchNorm2d,
    x: Tensor,
    *graph: Tensor,
    residual: Tensor | None = None,
    res_bn: nn.BatchNorm2d | None = None,
    relu: bool = True,
    dropout: float = 0.0,
) -> Tensor:
    """relu(bn(conv(x)) + res_bn(residual)), by ``conv.infer`` as one op at inference.

    Args:
        conv: a convolution over joints or frames, its result not yet normalised.
        bn: the normalisation.
        x: (N, C, T, V).
        graph: further arguments of ``conv``.
        residual, res_bn, relu, dropout: see ``skelops.nn.norm.bn_act_add``.
    """
    if hasattr(conv, "infer") and dropout == 0 and at_inference(x, bn):
        return conv.infer(x, *graph, **tail([bn], residual, res_bn, relu=relu))
    return bn_act_add(conv(x, *graph), bn, residual, res_bn, relu=relu, dropout=dropout)


class GraphUnit(nn.Module):
    """relu(BN(graph(x)) + D(x)), with gates if there are any.

    Args:
        graph: a graph convolution C -> C', e.g. ``CTRGraphConv``; its method ``unit`` computes all
            but the gates, if it has one.
        in_channels, out_channels: C and C'.
        residual: with D, the input or, if C differs from C', conv1x1 + BN.
        gates: e.g. ``Gates``, applied to the result.
        norm_weight: initial weight of the BN.

    Shape: (N, C, T, V) -> (N, C', T, V).
    """

    def __init__(
        self,
        graph: nn.Module,
        in_channels: int,
        out_channels: int,
        *,
        residual: bool = True,
        gates: nn.Module | None = None,
        norm_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.graph = graph
        self.bn = nn.BatchNorm2d(out_channels)
        self.down = Shortcut(in_channels, out_channels, enabled=residual)
        self.gates = gates
        nn.init.constant_(self.bn.weight, norm_weight)

    def forward(self, x: Tensor, *graph: Tensor) -> Tensor:
        """``graph``: further arguments of the graph convolution."""
        residual, res_bn = self.down(x)
        if hasattr(self.graph, "unit"):
            y = self.graph.unit(x, self.bn, residual, res_bn, *graph)
        else:
            y = end_unit(self.graph, self.bn, x, *graph, residual=residual, res_bn=res_bn)
        return y if self.gates is None else self.gates(y)


class TemporalUnit(nn.Module):
    """relu(dropout(BN(temporal(x))) + r), the second half of every block.

    Args:
        temporal: a temporal convolution, its last normalisation as ``bn``, not yet applied.
        dropout: between the two.
        inner_relu: a rectifier before r is added (CTR-GCN in PYSKL).
        relu: the rectifier at the end.

    Shape: (N, C, T, V) and r (N, C', T', V) or None, with its BN or None -> (N, C', T', V).
    """

    def __init__(
        self,
        temporal: nn.Module,
        dropout: float = 0.0,
        inner_relu: bool = False,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.temporal = temporal
        self.dropout = nn.Dropout(dropout)
        self.inner_relu, self.relu = inner_relu, relu

    def forward(
        self, x: Tensor, residual: Tensor | None = None, res_bn: nn.BatchNorm2d | None = None
    ) -> Tensor:
        temporal, bn = self.temporal, self.temporal.bn
        if not self.inner_relu:
            p = self.dropout.p if self.training else 0.0
            end = {"residual": residual, "res_bn": res_bn, "relu": self.relu, "dropout": p}
            return end_unit(temporal, bn, x, **end)
        y = self.dropout(end_unit(temporal, bn, x))
        if res_bn is not None:
            return bn_act_add(residual, res_bn, y, relu=self.relu)
        y = y if residual is None else y + residual
        return y.relu() if self.relu else y


class STBlock(nn.Module):
    """Spatio-temporal block: relu(tcn(gcn(x)) + R(x)).

    Args:
        gcn: unit over joints, C -> C'.
        temporal: a temporal convolution C' -> C', see ``TemporalUnit``.
        in_channels, out_channels, stride: of the block.
        residual: with R, the input or conv1x1 + BN.
        dropout, inner_relu: see ``TemporalUnit``.

    Shape: (N, C, T, V) -> (N, C', ceil(T / stride), V).

    Source: Yan et al., ST-GCN, AAAI 2018, section 3.4.
    """

    def __init__(
        self,
        gcn: nn.Module,
        temporal: nn.Module,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        residual: bool = True,
        dropout: float = 0.0,
        inner_relu: bool = False,
    ) -> None:
        super().__init__()
        self.gcn = gcn
        self.tcn = TemporalUnit(temporal, dropout, inner_relu)
        self.residual = Shortcut(in_channels, out_channels, stride, enabled=residual)

    def forward(self, x: Tensor, *graph: Tensor) -> Tensor:
        """``graph``: further arguments of the unit over joints."""
        y = self.gcn(x, *graph)
        with recomputed(y):
            return self.tcn(y, *self.residual(x))
