"""Graph convolutions with a topology per sample and channel; they return z, not yet normalised."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skelops import _check, ops
from skelops.nn.norm import conv_bn, pointwise_unit
from skelops.nn.packed import Packed, Part, init_conv
from skelops.nn.topology import Topology


class CTRGraphConv(Packed):
    r"""Channel-wise topology refinement (CTR-GC) of K subsets in one op.

    See ``skelops.ops.ctr_graph_conv``; the embeddings p and q are 1x1 transforms of the temporal
    mean of x, which commutes with them.

    Args:
        in_channels, out_channels: C and C'.
        A: (K, V, V) adjacency.
        rel_channels: R, channels of the relations.
        topology: see ``Topology``.
        transposed: False contracts the columns of the refined graph (CTR-GCN), True its rows
            (PYSKL).

    Shape: (N, C, T, V) -> (N, C', T, V).

    Source: Chen et al., CTR-GCN, ICCV 2021, section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A: Tensor,
        rel_channels: int,
        topology: str = "learnable",
        *,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        K = A.shape[0]
        self.transposed = transposed
        self.topology = Topology(A, topology)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.weight12 = nn.Parameter(torch.empty(2, K, rel_channels, in_channels))
        self.bias12 = nn.Parameter(torch.empty(2, K, rel_channels))
        self.weight3 = nn.Parameter(torch.empty(K, out_channels, in_channels))
        self.bias3 = nn.Parameter(torch.empty(K, out_channels))
        self.weight4 = nn.Parameter(torch.empty(K, out_channels, rel_channels))
        self.bias4 = nn.Parameter(torch.empty(K, out_channels))
        self.reset_parameters()

    def reset_parameters(self, kaiming: bool = False) -> None:
        for weight, bias in (
            (self.weight12, self.bias12),
            (self.weight3, self.bias3),
            (self.weight4, self.bias4),
        ):
            init_conv(weight, bias, weight.shape[-1], weight.shape[-2], kaiming)

    def published(self) -> dict[str, Part]:
        parts = {}
        for i in range(1, 5):
            name, first = ("12", (i - 1,)) if i < 3 else (str(i), ())
            *_, rows, columns = getattr(self, f"weight{name}").shape
            for k in range(self.weight3.shape[0]):
                index, conv = (*first, k), f"convs.{k}.conv{i}"
                parts[f"{conv}.weight"] = Part(f"weight{name}", index, (rows, columns, 1, 1))
                parts[f"{conv}.bias"] = Part(f"bias{name}", index, (rows,))
        return parts

    def forward(self, x: Tensor, A: Tensor | None = None, alpha: Tensor | None = None) -> Tensor:
        """A and alpha take the place of the module's own if given."""
        p, q = joint_embeddings(x, self.weight12, self.bias12)
        return ops.ctr_graph_conv(
            x,
            self.topology() if A is None else A,
            p,
            q,
            self.alpha if alpha is None else alpha,
            self.weight4,
            self.bias4,
            self.weight3,
            self.bias3,
            transposed=self.transposed,
        )

    def infer(
        self, x: Tensor, A: Tensor | None = None, alpha: Tensor | None = None, **tail: Any
    ) -> Tensor:
        """The unit that ends by ``tail``, without gradients: ``ops.ctr_graph_unit``."""
        return ops.ctr_graph_unit(
            x,
            self.topology() if A is None else A,
            self.alpha if alpha is None else alpha,
            self.weight12,
            self.bias12,
            self.weight4,
            self.bias4,
            self.weight3,
            self.bias3,
            transposed=self.transposed,
            **tail,
        )


def joint_embeddings(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """1x1 transforms of the temporal mean: weight (S, K, R, C) -> S tensors (N, K, R, V)."""
    e = F.conv1d(ops.temporal_mean(x), weight.flatten(0, 2)[..., None], bias.flatten())
    return e.unflatten(1, weight.shape[:3]).unbind(1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softmax": partial(torch.softmax, dim=-2),
}


class DynamicGraphConv(Packed):
    r"""DG-GCN: every one of K groups of channels has a graph refined by sample and channel.

    .. math::
        f &= \mathrm{relu}(BN(W^{pre} x)), \qquad p, q = W^{1,2}\, \mathrm{mean}_T(x) \\
        G_{nkcuv} &= A_{kuv} + \alpha \tanh(p_{nkcu} - q_{nkcv})
                     + \beta\, \mathrm{softmax}_u\Big(\sum_c p_{nkcu} q_{nkcv}\Big) \\
        z &= W^{post} \Big[\sum_v f_{nkctv} G_{nkcvw}\Big]

    Args:
        in_channels, out_channels: C and C'.
        A: (K, V, V) adjacency.
        width: channels of a group; C' / K if None.
        channel_wise: use the term of alpha.
        joint_wise: use the term of beta.
        per_subset: an alpha and a beta for every group instead of the first ones for all.
        per_frame: refine the graph of every frame by p and q of the frame, without the mean.
        channel_act, joint_act: of the terms of alpha and beta, one of ``ACTIVATIONS``; "softmax" is
            over u. Others than "tanh" in the term of alpha materialise the graphs of all channels.

    Shape: (N, C, T, V) -> (N, C', T, V).

    Raises:
        ValueError: no channel in a group, or another activation.

    Source: Duan et al., DG-STGCN, 2022, section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A: Tensor,
        width: int | None = None,
        *,
        channel_wise: bool = True,
        joint_wise: bool = True,
        per_subset: bool = False,
        per_frame: bool = False,
        channel_act: str = "tanh",
        joint_act: str = "softmax",
    ) -> None:
        super().__init__()
        K = A.shape[0]
        self.channel_wise, self.joint_wise = channel_wise, joint_wise
        self.per_subset, self.per_frame = per_subset, per_frame
        self.channel_act, self.joint_act = channel_act, joint_act
        self.width = out_channels // K if width is None else width
        if self.width < 1:
            raise _check.fail("DynamicGraphConv", "at least one channel in a group", self.width)
        for act in (channel_act, joint_act):
            if act not in ACTIVATIONS:
                expected = f"an activation of {', '.join(ACTIVATIONS)}"
                raise _check.fail("DynamicGraphConv", expected, repr(act))
        hidden = K * self.width
        self.topology = Topology(A)
        # Published with one entry per subset, of which the first one acts unless ``per_subset``.
        self.alpha = nn.Parameter(torch.zeros(K))
        self.beta = nn.Parameter(torch.zeros(K))
        self.pre = nn.Sequential(nn.Conv2d(in_channels, hidden, 1), nn.BatchNorm2d(hidden))
        self.post = nn.Conv2d(hidden, out_channels, 1)
        if channel_wise or joint_wise:
            self.weight12 = nn.Parameter(torch.empty(2, K, self.width, in_channels))
            self.bias12 = nn.Parameter(torch.empty(2, K, self.width))
        self.reset_parameters()

    def reset_parameters(self, kaiming: bool = False) -> None:
        if self.channel_wise or self.joint_wise:
            K, width, C = self.weight12.shape[1:]
            init_conv(self.weight12, self.bias12, C, K * width, kaiming)

    def published(self) -> dict[str, Part]:
        parts = {}
        if self.channel_wise or self.joint_wise:
            rows, C = self.bias12[0].numel(), self.weight12.shape[-1]
            for i in range(2):
                parts[f"conv{i + 1}.weight"] = Part("weight12", (i,), (rows, C, 1, 1))
                parts[f"conv{i + 1}.bias"] = Part("bias12", (i,), (rows,))
        return parts

    def forward(self, x: Tensor) -> Tensor:
        return self.post(self._hidden(x))

    def infer(self, x: Tensor, **tail: Any) -> Tensor:
        """The unit that ends by ``tail``, without gradients."""
        return pointwise_unit(self._hidden(x), self.post, **tail)

    def _hidden(self, x: Tensor) -> Tensor:
        """(N, K * width, T, V), what ``post`` sees."""
        N, _, T, V = x.shape
        f = conv_bn(x, self.pre[0], self.pre[1])
        if self.per_frame:
            x, f = frames_as_samples(x), frames_as_samples(f)
        A = self.topology()
        f = f.view(f.shape[0], A.shape[0], self.width, -1, V)
        if not (self.channel_wise or self.joint_wise):
            return dynamic_graph_conv(f, A).view(N, -1, T, V)
        z = dynamic_graph_conv(
            f,
            A,
            *joint_embeddings(x, self.weight12, self.bias12),
            *self._strengths(),
            self.channel_act,
            self.joint_act,
        )
        return z.view(N, T, -1, V).transpose(1, 2) if self.per_frame else z

    def _strengths(self) -> tuple[Tensor | None, Tensor | None]:
        """alpha and beta, (1,) or (K,), or None where the term is not used."""
        K = len(self.alpha) if self.per_subset else 1
        alpha = self.alpha[:K] if self.channel_wise else None
        return alpha, self.beta[:K] if self.joint_wise else None

    def mean_graph(self, x: Tensor) -> Tensor:
        """What the sample adds to A, averaged over groups and channels: x -> (N, V, V).

        The graphs themselves are not materialised: they are contracted with unit vectors.
        """
        N, V = len(x), x.shape[-1]
        x = frames_as_samples(x) if self.per_frame else x
        p, q = joint_embeddings(x, self.weight12, self.bias12)
        S, K, R, _ = p.shape
        alpha, beta = self._strengths()
        A = p.new_zeros(K, V, V)
        if beta is not None:
            A = joint_term(p, q, beta / K, self.joint_act)
        if alpha is None:
            graph = A.sum(-3).expand(S, V, V)
        elif self.channel_act == "tanh":
            unit = torch.eye(V, dtype=p.dtype, device=p.device).expand(S, K, V, V)
            mean = (alpha / (K * R)).view(-1, 1, 1).expand(K, 1, R)
            graph = ops.ctr_graph_conv(unit, A, p, q, p.new_ones(1), mean, transposed=True)[:, 0]
        else:
            graph = A.sum(-3) + channel_term(p, q, alpha, self.channel_act).mean((1, 2))
        return graph.reshape(N, -1, V, V).mean(1)


def frames_as_samples(x: Tensor) -> Tensor:
    """(N, C, T, V) -> (N * T, C, 1, V)."""
    return x.transpose(1, 2).flatten(0, 1).unsqueeze(2)


def channel_term(p: Tensor, q: Tensor, alpha: Tensor, act: str) -> Tensor:
    """alpha act(p_u - q_v): (N, K, C, V, V) of p and q (N, K, C, V) and alpha (1,) or (K,)."""
    return alpha.view(-1, 1, 1, 1) * ACTIVATIONS[act](p.unsqueeze(-1) - q.unsqueeze(-2))


def joint_term(p: Tensor, q: Tensor, beta: Tensor, act: str) -> Tensor:
    """beta act(sum_c p_u q_v): (N, K, V, V) of p and q (N, K, C, V) and beta (1,) or (K,)."""
    return beta.view(-1, 1, 1) * ACTIVATIONS[act](torch.einsum("nkcu,nkcv->nkuv", p, q))


def dynamic_graph_conv(
    f: Tensor,
    A: Tensor,
    p: Tensor | None = None,
    q: Tensor | None = None,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    channel_act: str = "tanh",
    joint_act: str = "softmax",
) -> Tensor:
    """Groups f (N, K, C, T, V), each on its graph G of ``DynamicGraphConv``, (N, K * C, T, V).

    Args:
        f: features of the groups.
        A: (K, V, V).
        p, q: (N, K, C, V), for ``alpha`` and ``beta``.
        alpha: (1,) or (K,), weight of the channel-wise term; None for none.
        beta: (1,) or (K,), weight of the joint-wise term; None for none.
        channel_act, joint_act: of these terms, see ``DynamicGraphConv``.
    """
    N, K, C, T, V = f.shape
    if beta is not None:
        A = A + joint_term(p, q, beta, joint_act)
    A = A.expand(N, K, V, V)
    if alpha is not None and channel_act != "tanh":
        G = A.unsqueeze(2) + channel_term(p, q, alpha, channel_act)
        return torch.einsum("nkctv,nkcvw->nkctw", f, G).flatten(1, 2)
    # Groups do not mix in the ops: they are further samples with a graph of their own.
    A = A.reshape(N * K, 1, V, V)
    if alpha is None:
        z = ops.graph_conv(f.reshape(N * K, C, T, V), A, transposed=True)
        return z.view(N, K * C, T, V)
    shared = None
    if len(alpha) > 1:  # The op has one for all samples, and is linear in the features.
        shared = ops.graph_conv(f.reshape(N * K, C, T, V), A, transposed=True)
        f, A, alpha = f * alpha.view(-1, 1, 1, 1), torch.zeros_like(A), torch.ones_like(alpha[:1])
    p, q = (e.reshape(N * K, 1, C, V) for e in (p, q))
    z = ops.ctr_graph_conv(f.reshape(N * K, C, T, V), A, p, q, alpha, transposed=True)
    return (z if shared is None else z + shared).view(N, K * C, T, V)
