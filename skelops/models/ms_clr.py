"""MS-CLR (2025, https://arxiv.org/abs/2508.14889): contrast across skeleton conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout, conversion, get_layout
from skelops.models._pretext import Pretext, register_pretext
from skelops.models._published import KeyPairs
from skelops.models._registry import register_model
from skelops.models.hiclr import BLOCK_KEYS, HiCLRStep, reinitialise_
from skelops.nn import GraphConv, GraphUnit, STBlock, TemporalConv, make_stages
from skelops.nn.momentum import Features, MomentumContrast
from skelops.nn.simam import simam_drop

# Where the published graph of a convention has its centre, if not where the layout has it.
CENTERS = {"smpl24": 9}
CONVENTIONS = {
    "ntu25": "ntu-rgb+d",
    "smpl24": "smpl_24",
    "smplx42": "smplx_42",
    "berkeley_mhad43": "berkeley_mhad_43",
}
SUBSETS = 3


def _convention(match: re.Match) -> str:
    return match[1] + CONVENTIONS.get(match[2], match[2])


# As in 3Dwe-ai/ms-clr.
PUBLISHED_KEYS: KeyPairs = (
    (r"((?:^|\.)(?:A_|data_bn\.|edge_importance\.|fc\.))([a-z][a-z_]*\d+)\b", _convention),
    (r"\bblocks\.", "st_gcn_networks."),
    *BLOCK_KEYS,
)


def padded(x: Tensor, joints: int, dims: int = 1) -> Tensor:
    """Zeros behind the joints, which are the last ``dims`` axes."""
    return F.pad(x, (0, joints - x.shape[-1]) * dims)


@register_model("ms_clr")
class UnifiedSTGCN(nn.Module):
    """ST-GCN of quarter width that reads several skeletons, (N, C, T, V, M) -> (N, num_classes).

    Each layout has its input normalisation, graph and edge importances; everything else is shared.
    In training all skeletons have as many joints as the largest one: the additional ones are zero
    at the input, get values from the biases, and take part in the statistics of all normalisations
    but that of the input, as published. In evaluation they cannot reach the others and are not
    computed.

    Args:
        num_classes: outputs.
        layout: one, or several; a batch is of one.
        in_channels: C of the input.
        base_channels: of the first of ten blocks; the last one has sixteen times as many.
        head: "linear"; "mlp", with a hidden layer, for training on pretexts; or "ensemble", a
            linear one for each layout.
        dropout: in all blocks but the first.
        num_persons: M, any.

    Shape: see ``forward``.

    Published (linear probe): NTU RGB+D 60 X-Sub 76.1 % (joint), 80.9 % (3 streams), 88.0 % (3
    streams, ensemble of skeletons).
    """

    def __init__(
        self,
        num_classes: int = 60,
        layout: str | Layout | Sequence[str | Layout] = ("ntu25", "smplx42"),
        *,
        in_channels: int = 3,
        base_channels: int = 16,
        head: str = "linear",
        dropout: float = 0.5,
        num_persons: int = 2,
    ) -> None:
        super().__init__()
        if head not in ("linear", "mlp", "ensemble"):
            raise _check.fail("ms_clr", 'head "linear", "mlp" or "ensemble"', repr(head))
        several = [layout] if isinstance(layout, (str, Layout)) else list(layout)
        layouts = [get_layout(one) for one in several]
        self.layouts = {one.name: one for one in layouts}
        if not layouts or len(self.layouts) < len(layouts):
            got = [one.name for one in layouts]
            raise _check.fail("ms_clr", "different layouts, at least one", got)
        self.in_channels, self.num_persons = in_channels, num_persons
        self.num_joints = V = max(one.num_joints for one in layouts)
        stages = make_stages(base_channels)
        stages[-1] = (16 * base_channels, 1)
        self.data_bn = nn.ModuleDict()
        self.edge_importance = nn.ModuleDict()
        for name, one in self.layouts.items():
            self.register_buffer(f"A_{name}", padded(adjacency(one), V, dims=2))
            self.data_bn[name] = nn.BatchNorm1d(in_channels * one.num_joints)
            ones = (nn.Parameter(torch.ones(SUBSETS, V, V)) for _ in stages)
            self.edge_importance[name] = nn.ParameterList(ones)
        widths = [in_channels, *(width for width, _ in stages)]
        self.blocks = nn.ModuleList(
            self._block(C, out, stride, i == 0, dropout)
            for i, (C, (out, stride)) in enumerate(zip(widths, stages, strict=False))
        )
        self.out_features = widths[-1]
        self.fc = self._head(head, widths[-1], num_classes)
        self.published_keys = PUBLISHED_KEYS
        reinitialise_(self)

    @staticmethod
    def _block(C: int, out: int, stride: int, first: bool, dropout: float) -> STBlock:
        gcn = GraphUnit(GraphConv(C, out, SUBSETS), C, out, residual=False)
        tcn = TemporalConv(out, out, 9, stride)
        drop = 0.0 if first else dropout
        return STBlock(gcn, tcn, C, out, stride, residual=not first, dropout=drop)

    def _head(self, kind: str, width: int, num_classes: int) -> nn.Module:
        if kind == "ensemble":
            return nn.ModuleDict({name: nn.Linear(width, num_classes) for name in self.layouts})
        last = nn.Linear(width, num_classes)
        if kind == "linear":
            return last
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), last)

    def layout_of(self, x: Tensor, layout: str | None = None) -> str:
        """The name given, or that of the only layout with as many joints as x (N, C, T, V, M)."""
        if layout is None:
            fits = [k for k, one in self.layouts.items() if one.num_joints == x.shape[3]]
            if len(fits) == 1:
                return fits[0]
            expected = f"x with the joints of one of {', '.join(self.layouts)}, or its name"
            raise _check.fail("ms_clr", expected, f"{x.shape[3]} joints")
        if layout not in self.layouts:
            raise _check.fail("ms_clr", f"layout one of {', '.join(self.layouts)}", repr(layout))
        return layout

    def features(self, x: Tensor, layout: str | None = None) -> Tensor:
        """(N, C, T, V, M) -> (N * M, C', T', V), of the layout's own joints."""
        name = self.layout_of(x, layout)
        V = self.layouts[name].num_joints
        _check.shape("ms_clr", "x", x, "N C T V M", C=self.in_channels, V=V)
        N, C, T, _, M = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(N * M, V * C, T)
        x = self.data_bn[name](x).view(N * M, V, C, T).permute(0, 2, 3, 1)
        joints = self.num_joints if self.training else V
        x = padded(x, joints) if joints > V else x.contiguous()
        A = getattr(self, f"A_{name}")[:, :joints, :joints]
        for block, importance in zip(self.blocks, self.edge_importance[name], strict=True):
            x = block(x, A * importance[:, :joints, :joints])
        return x[..., :V]

    def pooled(self, x: Tensor, layout: str | None = None) -> Tensor:
        """(N, C, T, V, M) -> (N, C'), what linear evaluation looks at."""
        return self.mean(self.features(x, layout), x)

    def mean(self, y: Tensor, x: Tensor) -> Tensor:
        """Features (N * M, C', T', V) of x -> (N, C')."""
        return ops.temporal_mean(y).unflatten(0, (x.shape[0], x.shape[-1])).mean((1, 3))

    def forward(self, x: Tensor, layout: str | None = None) -> Tensor:
        """(N, C, T, V, M) -> (N, num_classes).

        ``layout`` may be left out where no other one has V joints.
        """
        return self.classify(self.pooled(x, layout), x, layout)

    def with_drop(self, x: Tensor, layout: str | None = None) -> tuple[Tensor, Tensor]:
        """As ``forward``, and what it gives without the parts that it attends to most."""
        y = self.features(x, layout)
        whole, rest = (self.classify(self.mean(z, x), x, layout) for z in (y, simam_drop(y)))
        return whole, rest

    def classify(self, y: Tensor, x: Tensor, layout: str | None = None) -> Tensor:
        """Features (N, C') of x -> (N, num_classes)."""
        if isinstance(self.fc, nn.ModuleDict):
            return self.fc[self.layout_of(x, layout)](y)
        return self.fc(y)

    def ensemble(self, clips: Mapping[str, Tensor]) -> Tensor:
        """Mean of the outputs for the same clips in several layouts."""
        return torch.stack([self(x, name) for name, x in clips.items()]).mean(0)


def adjacency(layout: Layout) -> Tensor:
    """(3, V, V), around the published centre."""
    center = CENTERS.get(layout.name, layout.center)
    return replace(layout, center=center).adjacency("stgcn_spatial")


@register_pretext("ms_clr")
class MSCLR(MomentumContrast, Pretext):
    """Momentum contrast of clips under several skeleton conventions, on AimCLR.

    ``step = model(strong, basic, key)``, ``step.loss.backward()``, ``model.enqueue(step.keys)``.
    Two views of one skeleton are queries, one of them strongly augmented; the key is a view of the
    same clips in a skeleton that may be another one. Query and key encoders start from different
    weights, as released.

    ``loss`` does all that from clips of one layout, which it converts: the published skeletons are
    those that a pose network found in the images under each convention.

    Args:
        layout: of the clips.
        skeletons: layouts to convert them to, see ``skelops.graph.conversion``; none for AimCLR.
        num_frames: of the clips, any.
        in_channels, num_persons, base_channels, dropout: see ``UnifiedSTGCN``.
        width: D of the embedding.
        mlp: a head of two layers; else of one.
        queue_size, momentum, temperature: of the contrast.
        mine: nearest neighbours per branch that count as positives, from epoch ``mine_from`` on.
        mine_from: the first epoch with them; before that ``mining`` is False.

    Source: section 3; Guo et al., AimCLR, AAAI 2022.
    """

    def __init__(
        self,
        layout: str | Layout = "ntu25",
        skeletons: Sequence[str | Layout] = ("smpl24",),
        *,
        num_frames: int = 50,
        in_channels: int = 3,
        num_persons: int = 2,
        base_channels: int = 16,
        dropout: float = 0.5,
        width: int = 128,
        mlp: bool = True,
        queue_size: int = 32768,
        momentum: float = 0.999,
        temperature: float = 0.07,
        mine: int = 1,
        mine_from: int = 150,
    ) -> None:
        query, key = (
            UnifiedSTGCN(
                width,
                [layout, *skeletons],
                in_channels=in_channels,
                num_persons=num_persons,
                base_channels=base_channels,
                dropout=dropout,
                head="mlp" if mlp else "linear",
            )
            for _ in range(2)
        )
        super().__init__(query, key, width, queue_size, momentum)
        self.temperature, self.mine, self.mine_from = temperature, mine, mine_from
        self.mining = False
        self.layouts = tuple(query.layouts)
        self.published_keys = PUBLISHED_KEYS

    @property
    def encoder(self) -> Features:
        """The encoder that pre-training is for, as it sees clips of the first layout."""
        return Features(self.encoder_q, self.layouts[0])

    def start_epoch(self, epoch: int) -> None:
        self.mining = epoch >= self.mine_from

    def converted(self, x: Tensor, layout: str) -> Tensor:
        """(N, C, T, V, M) of the first layout -> (N, C, T, V', M) of another one."""
        own, other = (self.encoder_q.layouts[name] for name in (self.layouts[0], layout))
        if own is other:
            return x
        return torch.einsum("nctvm,wv->nctwm", x, conversion_matrix(own, other, x.dtype, x.device))

    def forward(
        self,
        strong: Tensor,
        basic: Tensor,
        key_view: Tensor,
        layout: str | None = None,
        key_layout: str | None = None,
    ) -> HiCLRStep:
        """Views (N, C, T, V, M) of the same clips: two queries in ``layout``, the key in
        ``key_layout``; these may be left out where the joints tell them."""
        queries = (self.encoder_q(basic, layout), *self.encoder_q.with_drop(strong, layout))
        key = self.key(key_view, key_layout)
        parts = ops.directional_clustering_loss(
            torch.stack(queries).float(),
            key,
            self.bank,
            temperature=self.temperature,
            targets=(None, 0, 0),
            mine=self.mine if self.mining else 0,
        )
        terms = dict(zip(("info_nce", "strong", "dropped"), parts.unbind(), strict=True))
        return HiCLRStep(parts[0] + parts[1:].sum() / 2, terms, key)

    def loss(self, x: Tensor, clip: Tensor) -> Tensor:
        """Views (N, 3, C, T, V, M) of clips, strong, basic and key -> (); ``end_step`` then writes
        the keys into the queue.

        The layouts of queries and key are drawn independently, for a whole batch, from torch's
        random numbers on the CPU: processes with the same seed draw alike.
        """
        if x.dim() != 6 or x.shape[1] != 3:
            expected = "x of shape (N, views, C, T, V, M) with views=3"
            raise _check.fail("ms_clr", expected, _check.shape_text(x.shape))
        layout, key_layout = (
            self.layouts[i] for i in torch.randint(len(self.layouts), (2,)).tolist()
        )
        strong, basic, key = x.unbind(1)
        step = self(
            self.converted(strong, layout),
            self.converted(basic, layout),
            self.converted(key, key_layout),
            layout,
            key_layout,
        )
        self.pending = step.keys
        # Every parameter has a gradient in every step, as DDP expects.
        others = [
            parameter.sum()
            for name in self.layouts
            if name != layout
            for part in (self.encoder_q.data_bn[name], self.encoder_q.edge_importance[name])
            for parameter in part.parameters()
        ]
        return step.loss + 0 * sum(others)


@cache
def conversion_matrix(
    source: Layout, target: Layout, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(V_target, V_source): rows of weights, see ``skelops.graph.conversion``."""
    index, weight = conversion(source, target)
    matrix = torch.zeros(target.num_joints, source.num_joints)
    return matrix.scatter_add_(1, index, weight).to(device, dtype)
