"""MS-CLR (2025, https://arxiv.org/abs/2508.14889): contrast across skeleton conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout, get_layout
from skelops.models._published import UNIT_KEYS, KeyPairs
from skelops.models._registry import register_model
from skelops.nn import GraphConv, GraphUnit, STBlock, TemporalConv, make_stages
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
    *UNIT_KEYS,
    (r"((?:^|\.)(?:A_|data_bn\.|edge_importance\.|fc\.))([a-z][a-z_]*\d+)\b", _convention),
    (r"\bblocks\.(\d+)\.", r"st_gcn_networks.\1."),
    (r"\bgcn\.bn\.", "tcn.0."),
    (r"\btcn\.conv\.", "tcn.2."),
    (r"\btcn\.bn\.", "tcn.3."),
    (r"\bresidual\.conv\.", "residual.0."),
    (r"\bresidual\.bn\.", "residual.1."),
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
        self.fc = self._head(head, widths[-1], num_classes)
        self.published_keys = PUBLISHED_KEYS
        self.apply(reset_parameters)

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

    def pooled(self, y: Tensor, num_persons: int) -> Tensor:
        """Features (N * M, C', T', V) -> (N, C'), the mean over frames, joints and persons."""
        return ops.temporal_mean(y).unflatten(0, (-1, num_persons)).mean((1, 3))

    def forward(self, x: Tensor, layout: str | None = None) -> Tensor:
        """(N, C, T, V, M) -> (N, num_classes).

        ``layout`` may be left out where no other one has V joints.
        """
        return self.classify(self.pooled(self.features(x, layout), x.shape[-1]), x, layout)

    def with_drop(self, x: Tensor, layout: str | None = None) -> tuple[Tensor, Tensor]:
        """As ``forward``, and what it gives without the parts that it attends to most."""
        y = self.features(x, layout)
        return tuple(
            self.classify(self.pooled(z, x.shape[-1]), x, layout) for z in (y, simam_drop(y))
        )

    def classify(self, y: Tensor, x: Tensor, layout: str | None = None) -> Tensor:
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


def reset_parameters(module: nn.Module) -> None:
    """Weights N(0, 0.02), those of normalisations N(1, 0.02), biases 0, as in AimCLR and HiCLR."""
    if isinstance(module, (nn.Conv2d, nn.Linear, GraphConv)):
        nn.init.normal_(module.weight, 0, 0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(module.weight, 1, 0.02)
        nn.init.zeros_(module.bias)


class MSCLR(nn.Module):
    """Momentum contrast of clips under several skeleton conventions, on AimCLR.

    Two views of one skeleton are queries, one strongly augmented, and a view of a possibly other
    skeleton is the key. A call is a step of training, see ``forward``.

    Args:
        layout, in_channels, base_channels, dropout: see ``UnifiedSTGCN``.
        feature_dim: of the embeddings.
        queue_size: K, a multiple of the batch.
        momentum: of the key encoder.
        temperature: of all logits.
        topk: with mining, entries of the queue that each query branch adds to the positives.

    Source: section 3; Guo et al., AimCLR, AAAI 2022.
    """

    def __init__(
        self,
        layout: str | Layout | Sequence[str | Layout] = ("ntu25", "smplx42"),
        *,
        in_channels: int = 3,
        base_channels: int = 16,
        dropout: float = 0.5,
        feature_dim: int = 128,
        queue_size: int = 32768,
        momentum: float = 0.999,
        temperature: float = 0.07,
        topk: int = 1,
    ) -> None:
        super().__init__()
        encoder = dict(in_channels=in_channels, base_channels=base_channels, dropout=dropout)
        self.encoder_q = UnifiedSTGCN(feature_dim, layout, head="mlp", **encoder)
        # As published, initialised for itself.
        self.encoder_k = UnifiedSTGCN(feature_dim, layout, head="mlp", **encoder)
        self.encoder_k.requires_grad_(False)
        self.momentum, self.temperature, self.topk = momentum, temperature, topk
        queue = F.normalize(torch.randn(queue_size, feature_dim), dim=1)
        self.register_buffer("queue", queue.T)  # (D, K) as published; in memory keys are rows
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))
        self.published_keys = PUBLISHED_KEYS

    def forward(
        self,
        strong: Tensor,
        basic: Tensor,
        key: Tensor,
        layout: str | None = None,
        key_layout: str | None = None,
        *,
        mine: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Views (N, C, T, V, M) -> losses (): contrast, and alignment of both strong branches.

        The key encoder follows the other one before it looks at the key, and the keys enter the
        queue afterwards.

        Args:
            strong, basic: views of a clip in ``layout``.
            key: a basic view of it in ``key_layout``.
            layout, key_layout: see ``UnifiedSTGCN.forward``.
            mine: nearest entries of the queue are positives, too.
        """
        q = F.normalize(self.encoder_q(basic, layout), dim=1)
        extreme = (F.normalize(y, dim=1) for y in self.encoder_q.with_drop(strong, layout))
        with torch.no_grad():
            self.follow()
            k = F.normalize(self.encoder_k(key, key_layout), dim=1)
        topk = self.topk if mine else 0
        queue = self.queue.T.clone()  # the backward needs it as it is now
        losses = aimclr_loss(q, k, tuple(extreme), queue, self.temperature, topk)
        self.push(k)
        return losses

    @torch.no_grad()
    def follow(self) -> None:
        """Parameters of the key encoder follow the query encoder's; statistics are its own."""
        ours, theirs = (list(e.parameters()) for e in (self.encoder_k, self.encoder_q))
        torch._foreach_lerp_(ours, theirs, 1 - self.momentum)

    @torch.no_grad()
    def push(self, k: Tensor) -> None:
        """Keys (N, D) take the places of the oldest ones."""
        N, size = len(k), self.queue.shape[1]
        if N > size:
            raise _check.fail("ms_clr", f"a batch of at most queue_size={size} clips", N)
        place = (self.queue_ptr + torch.arange(N, device=k.device)) % size
        self.queue.T.index_copy_(0, place, k)
        self.queue_ptr.add_(N).remainder_(size)


def aimclr_loss(
    q: Tensor,
    k: Tensor,
    extreme: Sequence[Tensor],
    queue: Tensor,
    temperature: float = 0.07,
    topk: int = 0,
) -> tuple[Tensor, ...]:
    r"""Contrast of a query, and alignment of its strong branches with the query's distribution.

    With :math:`\ell_b = [q_b \cdot k, q_b \cdot Q] / \tau` and :math:`p = softmax(\ell_q)`, which
    is held fixed:

    .. math::
        L_q = -\frac{1}{|P|} \sum_{j \in P} \log p_j, \qquad
        L_b = -\sum_j p_j \log softmax(\ell_b)_j

    Args:
        q, k: (N, D) unit vectors; k without gradient.
        extreme: B branches (N, D).
        queue: (K, D) unit vectors.
        temperature: :math:`\tau`.
        topk: largest entries of the queue that each of the branches adds to the positives.

    Returns:
        B + 1 losses (), means over the batch; training minimises the first plus the others' mean.

    Source: Guo et al., AimCLR, AAAI 2022, eq. 3, 7 and 9.
    """
    branches = [q, *extreme]
    memory = [torch.einsum("nd,kd->nk", b, queue) for b in branches]
    logits = [
        torch.cat([(b * k).sum(1, keepdim=True), m], 1) / temperature
        for b, m in zip(branches, memory, strict=True)
    ]
    logs = [z.log_softmax(1) for z in logits]
    positive = torch.zeros_like(logits[0])
    positive[:, 0] = 1
    for m in memory if topk else ():
        positive.scatter_(1, m.topk(topk, dim=1).indices + 1, 1.0)
    contrast = -(positive * logs[0]).sum(1) / positive.sum(1)
    target = logs[0].detach().exp()
    return (contrast.mean(), *(-(target * log).sum(1).mean() for log in logs[1:]))
