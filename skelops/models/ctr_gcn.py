"""CTR-GCN (Chen et al., ICCV 2021, https://arxiv.org/abs/2107.12213)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from skelops import _check
from skelops.graph import Layout
from skelops.models._published import OFFICIAL_BLOCKS, UNIT_KEYS, KeyPairs
from skelops.models._registry import graph_of, register_model
from skelops.nn import (
    AdaptiveGraphConv,
    CTRGraphConv,
    GraphUnit,
    MultiScaleTemporalConv,
    SkeletonNet,
    STBlock,
    TemporalConv,
    kaiming_,
)

# As in Uason-Chen/CTR-GCN, and as in PYSKL.
_OFFICIAL: KeyPairs = (
    (r"\btopology\.A$", "PA"),
    *UNIT_KEYS,
    *OFFICIAL_BLOCKS,
)
_PYSKL: KeyPairs = (
    *UNIT_KEYS,
    (r"^blocks\.", "net."),
    (r"\.(gcn|tcn)\.", r".\g<1>1."),
    (r"^fc\.", "cls_head.fc_cls."),
    (r"^(A|data_bn|net)\b", r"backbone.\1"),
)
# As in skelemoa/psumnet.
_PSUMNET: KeyPairs = ((r"\bblocks\.", "layers."), *_OFFICIAL)
PUBLISHED_KEYS = {
    "official": _OFFICIAL,
    "baseline": _OFFICIAL,
    "pyskl": _PYSKL,
    "psumnet": _PSUMNET,
}


def rel_channels(in_channels: int, variant: str = "official", reduction: int = 8) -> int:
    """R of CTR-GC: the published exceptions for the coordinates at the input."""
    few = in_channels in ((3, 6) if variant == "psumnet" else (3, 6, 9))
    few = in_channels <= 16 if variant == "pyskl" else few
    return 8 if few else max(in_channels // reduction, 1)


@register_model("ctr_gcn")
class CTRGCN(SkeletonNet):
    """Channel-wise topology refinement GCN, (N, C, T, V, M) -> logits (N, num_classes).

    Args:
        num_classes, layout: see ``skelops.nn.SkeletonNet``.
        variant: "official" (Uason-Chen/CTR-GCN); "pyskl", which contracts the other side of the
            refined graph and rectifies the temporal module; "psumnet" (skelemoa/psumnet), with
            fewer relations at the input; "baseline", the static network of the official repository.
        graph: kind of adjacency, or one (K, V, V); "spatial", or three identities (baseline).
        topology: see ``skelops.nn.Topology``; "learnable", or "normalised" (baseline).
        branches: of the temporal module, see ``skelops.nn.MultiScaleTemporalConv``.
        tcn_dropout: behind the temporal modules but the first.
        net: further arguments of ``skelops.nn.SkeletonNet``.

    Published: NTU RGB+D 60 X-Sub 92.4 % (4 streams), 1.45 M parameters, 64 frames.
    """

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout = "ntu25",
        *,
        variant: str = "official",
        graph: str | Tensor | None = None,
        topology: str | None = None,
        branches: Sequence = ((5, 1), (5, 2), "max", "1x1"),
        tcn_dropout: float = 0.0,
        **net,
    ) -> None:
        if variant not in PUBLISHED_KEYS:
            known = ", ".join(PUBLISHED_KEYS)
            raise _check.fail("ctr_gcn", f"variant one of {known}", repr(variant))
        pyskl = variant == "pyskl"
        if variant == "baseline":
            A = (
                graph_of("identity", layout).repeat(3, 1, 1)
                if graph is None
                else graph_of(graph, layout)
            )
        else:
            A = graph_of("spatial" if graph is None else graph, layout, variant)

        def block(C: int, out: int, stride: int, first: bool) -> nn.Module:
            if variant == "baseline":
                conv = AdaptiveGraphConv(C, out, A, topology=topology or "normalised")
                temporal = TemporalConv(out, out, 5, stride)
            else:
                R = rel_channels(C, variant)
                conv = CTRGraphConv(C, out, A, R, topology or "learnable", transposed=pyskl)
                temporal = MultiScaleTemporalConv(out, out, branches, stride)
            gcn = GraphUnit(conv, C, out, norm_weight=1e-6)
            return STBlock(
                gcn,
                temporal,
                C,
                out,
                stride,
                residual=not first,
                dropout=0.0 if first else tcn_dropout,
                inner_relu=pyskl,
            )

        super().__init__(block, num_classes, layout, head_std=0.01 if pyskl else None, **net)
        if pyskl:
            self.register_buffer("A", A)
        self.published_keys = PUBLISHED_KEYS[variant]
        kaiming_(self)
