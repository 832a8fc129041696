"""Graph convolution with a topology per sample, and the gates that follow it in AAGCN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from skelops import ops
from skelops.nn.norm import at_inference
from skelops.nn.packed import Packed, Part, init_conv
from skelops.nn.pointwise import in_float32_here, pointwise
from skelops.nn.recompute import recomputed
from skelops.nn.topology import Topology


class AdaptiveGraphConv(Packed):
    r"""Graph convolution on a topology that also depends on the sample.

    .. math::
        S_{nkuv} &= \tanh\Big(\frac{1}{C_e T} \sum_{ct} a_{nkctu} b_{nkctv}\Big), \qquad
        a, b = W^{a,b} x + b^{a,b} \\
        z_{nctw} &= \sum_k \sum_v (A_{kvw} + \alpha S_{nkvw}) \sum_i W_{kci} x_{nitv} + b_{kc}

    Args:
        in_channels, out_channels: C and C'.
        A: (K, V, V) adjacency.
        embed_channels: C_e of the embeddings a and b; None leaves S out.
        topology: see ``Topology``.

    Shape: (N, C, T, V) -> (N, C', T, V).

    Source: Shi et al., 2s-AGCN, CVPR 2019, eq. 3, in the form of Shi et al., MS-AAGCN, TIP 2020.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A: Tensor,
        embed_channels: int | None = None,
        topology: str = "learnable",
    ) -> None:
        super().__init__()
        K = A.shape[0]
        self.embed_channels = embed_channels
        self.topology = Topology(A, topology)
        self.weight = nn.Parameter(torch.empty(K, out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(K, out_channels))
        if embed_channels is not None:
            self.alpha = nn.Parameter(torch.zeros(1))
            self.embed_weight = nn.Parameter(torch.empty(2, K, embed_channels, in_channels))
            self.embed_bias = nn.Parameter(torch.empty(2, K, embed_channels))
        self.reset_parameters()

    def reset_parameters(self, kaiming: bool = False) -> None:
        """The published initialisation, whichever is asked for."""
        init_conv(self.weight, self.bias, 0, self.weight.numel(), kaiming=True)
        if self.embed_channels is not None:
            init_conv(self.embed_weight, self.embed_bias, 0, self.embed_channels, kaiming=True)

    def published(self) -> dict[str, Part]:
        K, out, C = self.weight.shape
        sets = [("conv_d", "", ())]
        if self.embed_channels is not None:
            sets += [("conv_a", "embed_", (0,)), ("conv_b", "embed_", (1,))]
        parts = {}
        for name, prefix, first in sets:
            rows = self.embed_channels if first else out
            for k in range(K):
                index = (*first, k)
                parts[f"{name}.{k}.weight"] = Part(f"{prefix}weight", index, (rows, C, 1, 1))
                parts[f"{name}.{k}.bias"] = Part(f"{prefix}bias", index, (rows,))
        return parts

    def relations(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """S (N, K, V, V)."""
        return torch.tanh(inner_products(x, self.weight.shape[0], [weight], [bias]))

    def forward(self, x: Tensor) -> Tensor:
        return ops.graph_conv(x, self.graph(x), self.weight, self.bias.sum(0), transposed=True)

    def infer(self, x: Tensor, **tail: Any) -> Tensor:
        """The unit that ends by ``tail``, without gradients: ``ops.graph_unit``."""
        options = {"bias_after": True, "transposed": True}
        return ops.graph_unit(x, self.graph(x), self.weight, self.bias, **options, **tail)

    def graph(self, x: Tensor) -> Tensor:
        """A + alpha S, (N, K, V, V), or A alone."""
        A = self.topology()
        if self.embed_channels is not None:
            embedding = (x, self.embed_weight, self.embed_bias)
            if self.training:
                # The embeddings are 1.5 times as large as x: cheaper to compute again than to keep.
                options = {"use_reentrant": False, "preserve_rng_state": False}
                S = checkpoint(self.relations, *embedding, **options)
            else:
                S = self.relations(*embedding)
            A = A + self.alpha * S
        return A


def inner_products(
    x: Tensor, subsets: int, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """a^T b / (C_e T) of two 1x1 transforms a and b of x: (N, K, V, V).

    Args:
        x: (N, C, T, V).
        subsets: K.
        weights, biases: (2, K, C_e, C) and (2, K, C_e), or pieces of them one after the other.
    """
    N, C, _, V = x.shape
    if at_inference(x):
        embedded = ops.temporal_unit(x, weights, biases, relu=False)
    else:
        weight = torch.cat([w.reshape(-1, C) for w in weights])
        embedded = pointwise(x, weight, torch.cat([b.flatten() for b in biases]))
    pairs = embedded.view(N, 2, subsets, -1, V)
    a, b = pairs.unbind(1)
    alone = at_inference(x) or in_float32_here(x)
    return (_Pairs.apply(pairs) if alone else a.mT @ b) / pairs.shape[3]


class _Pairs(torch.autograd.Function):
    """a^T b for a and b (N, K, D, V) in one tensor (N, 2, K, D, V), a sample at a time: a product
    of all of them would copy a and b first, and their gradients into one tensor."""

    @staticmethod
    def forward(ctx, pairs: Tensor) -> Tensor:
        ctx.save_for_backward(pairs)
        N, _, K, _, V = pairs.shape
        found = pairs.new_empty(N, K, V, V)
        for (a, b), out in zip(pairs, found, strict=True):
            torch.bmm(a.mT, b, out=out)
        return found

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (pairs,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            a, b = pairs.unbind(1)
            return torch.stack([b @ grad.mT, a @ grad], 1)
        found = torch.empty_like(pairs)
        for (a, b), g, (da, db) in zip(pairs, grad, found, strict=True):
            torch.bmm(b, g.mT, out=da)
            torch.bmm(a, g, out=db)
        return found


class Gates(nn.Module):
    r"""Attention over joints, frames and channels, one after the other: y <- y + y g.

    .. math::
        g^V = \sigma(\mathrm{conv}(\mathrm{mean}_T\, y)), \quad
        g^T = \sigma(\mathrm{conv}(\mathrm{mean}_V\, y)), \quad
        g^C = \sigma(W_2\, \mathrm{relu}(W_1\, \mathrm{mean}_{TV}\, y))

    The three are found from y alone and applied at once; only y is kept for the backward.

    Args:
        channels: C.
        num_joints: V; the kernel over joints is V, or V - 1 if V is even.
        kernel_size: over frames.
        reduction: of the hidden channels.

    Shape: (N, C, T, V) -> (N, C, T, V).

    Source: Shi et al., MS-AAGCN, TIP 2020, section 3.4.
    """

    def __init__(
        self, channels: int, num_joints: int, kernel_size: int = 9, reduction: int = 2
    ) -> None:
        super().__init__()
        joints = num_joints - 1 + num_joints % 2
        self.conv_ta = nn.Conv1d(channels, 1, kernel_size, padding=(kernel_size - 1) // 2)
        self.conv_sa = nn.Conv1d(channels, 1, joints, padding=(joints - 1) // 2)
        self.fc1c = nn.Linear(channels, channels // reduction)
        self.fc2c = nn.Linear(channels // reduction, channels)
        nn.init.xavier_normal_(self.conv_sa.weight)
        nn.init.kaiming_normal_(self.fc1c.weight)
        nn.init.zeros_(self.fc1c.bias)
        for module in (self.conv_ta, self.fc2c):
            nn.init.zeros_(module.weight)
        for module in (self.conv_ta, self.conv_sa, self.fc2c):
            nn.init.zeros_(module.bias)

    def forward(self, y: Tensor) -> Tensor:
        return apply_gates(y, self)


def apply_gates(y: Tensor, layers: nn.Module) -> Tensor:
    """The gates of ``layers``: its ``conv_sa``, ``conv_ta``, ``fc1c`` and ``fc2c``."""
    N, C, T, V = y.shape
    with recomputed(y):
        joints = 1 + torch.sigmoid(_along(ops.temporal_mean(y), layers.conv_sa))  # (N, 1, V)
        # Means of the gated tensor follow from the gates: y (1 + g) need not be written for them.
        over_joints = (y.reshape(N, C * T, V) @ joints.transpose(1, 2)).view(N, C, T) / V
        frames = 1 + torch.sigmoid(_along(over_joints, layers.conv_ta))  # (N, 1, T)
        over_frames = (over_joints * frames).mean(-1)
        channels = 1 + torch.sigmoid(layers.fc2c(torch.relu(layers.fc1c(over_frames))))  # (N, C)
        return _Scale.apply(y, (channels[..., None] * frames)[..., None], joints[:, :, None])


def _along(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """A convolution along the last axis of (N, C, L) to one channel, padded to L."""
    size = conv.kernel_size[0]
    if at_inference(x):
        y = ops.temporal_unit(x[..., None], conv.weight, conv.bias, kernel_size=size, relu=False)
        return y.squeeze(-1)
    if not in_float32_here(x):
        return conv(x)
    # What every tap gives at every place, then the sum of the diagonals: a row of them is one
    # longer. PyTorch's convolution takes two to twelve times as long for one channel.
    length = x.shape[2]
    taps = F.pad(conv.weight[0].mT @ x, (conv.padding[0], conv.padding[0])).flatten(1)
    rows = F.pad(taps, (0, size)).view(len(x), size, length + size)
    return rows[:, None, :, :length].sum(2) + conv.bias


class _Scale(torch.autograd.Function):
    """y a b for a (N, C, T, 1) and b (N, 1, 1, V), keeping no product."""

    @staticmethod
    def forward(ctx, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(y, a, b)
        ctx.again = _Scale.again
        return (y * a).mul_(b)

    @staticmethod
    def again(ctx) -> Tensor:
        """See ``skelops.nn.recompute``."""
        # The backward takes these: under a checkpoint a tensor is unpacked only once.
        y, a, b = ctx.peeked = vars(ctx).get("peeked") or ctx.saved_tensors
        return (y * a).mul_(b)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, a, b = vars(ctx).pop("peeked", None) or ctx.saved_tensors
        N, C, T, V = y.shape
        product = (grad * y).reshape(N, C * T, V)
        grad_a = (product @ b.view(N, V, 1)).view(a.shape)
        grad_b = (a.reshape(N, 1, C * T) @ product).view(b.shape)
        return (grad * a).mul_(b), grad_a, grad_b
