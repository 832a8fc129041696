"""Blocks of a post-norm transformer on the fused attention, with the keys of PyTorch's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skelops import _check, ops
from skelops.nn.linear import Linear

NARROW = 64  # channels up to which hidden units are not worth writing to memory


class PackedAttention(nn.Module):
    r"""Multi-head attention of ``nn.MultiheadAttention`` (batch first) on ``st_attention``.

    Keys are PyTorch's: ``in_proj_weight``, ``in_proj_bias``, ``out_proj.{weight,bias}``.

    Args:
        channels: C, a multiple of ``heads``.
        heads: H.
        dropout: of the attention weights in training, which then takes PyTorch's own attention:
            the fused one never has the weights at hand.

    Shape: query, key, value (N, L, C) -> (N, L, C); key defaults to query, value to key.

    Raises:
        ValueError: channels that the heads do not divide, or keys of another length.

    Source: Vaswani et al., NeurIPS 2017, section 3.2.2.
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % heads:
            raise _check.fail("PackedAttention", f"channels of {heads} heads", channels)
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.projections: nn.ModuleList | None = None
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def unpack(self) -> None:
        """From here on q, k and v have a layer each, in place of the packed parameters."""
        parts = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        self.projections = nn.ModuleList()
        for weight, bias in parts:
            layer = Linear(*weight.shape[::-1])
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.projections.append(layer)
        del self.in_proj_weight, self.in_proj_bias

    def forward(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None
    ) -> Tensor:
        if key is not None and key.shape != query.shape:
            expected = f"keys of the shape of the queries {_check.shape_text(query.shape)}"
            raise _check.fail("PackedAttention", expected, _check.shape_text(key.shape))
        key = query if key is None else key
        sources = (query, key, key if value is None else value)
        if self.projections is not None:
            parts = [layer(x) for layer, x in zip(self.projections, sources, strict=True)]
            qkv = torch.cat(parts, -1)
        elif key is query is sources[2]:
            qkv = ops.linear(query, self.in_proj_weight, self.in_proj_bias)
        else:
            weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
            qkv = torch.cat([*map(ops.linear, sources, weights, biases)], -1)
        return self.out_proj(self._attend(qkv))

    def _attend(self, qkv: Tensor) -> Tensor:
        p = self.dropout.p if self.training else 0.0
        if p == 0:
            return ops.st_attention(qkv, self.heads)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p).transpose(1, 2).flatten(2)


class PostNormBlock(nn.Module):
    r"""A layer of ``nn.TransformerEncoder``: post-norm, ReLU, batch first.

    .. math::
        a = \text{LN}_1(x + \text{Attention}(x)), \qquad
        y = \text{LN}_2(a + W_2\, \text{relu}(W_1 a + b_1) + b_2)

    Keys are those of ``nn.TransformerEncoderLayer``. Dropout acts behind the attention, on the
    hidden units and behind the second product, as there.

    Args:
        channels: C.
        heads: of the attention.
        hidden: units of the feed-forward.
        dropout: rate.
        attention_dropout: of the attention weights, see ``PackedAttention``; ``dropout`` if None.

    Shape: (N, L, C) -> (N, L, C).

    Source: Vaswani et al., NeurIPS 2017, section 3.1.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int = 2048,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.self_attn = PackedAttention(channels, heads, attention_dropout)
        self.linear1 = Linear(channels, hidden)
        self.linear2 = Linear(hidden, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm1(x + self.dropout(self.self_attn(x)))
        return self.norm2(a + self.dropout(self.feed_forward(a)))

    def feed_forward(self, x: Tensor) -> Tensor:
        packed = isinstance(self.linear1, nn.Linear) and isinstance(self.linear2, nn.Linear)
        if x.shape[-1] > NARROW or not packed:  # quantised, or with an adapter
            return self.linear2(self.dropout(F.relu(self.linear1(x))))
        first, second = self.linear1, self.linear2
        p = self.dropout.p if self.training else 0.0
        weights = (first.weight, first.bias, second.weight, second.bias)
        return ops.narrow_ffn(x, *weights, dropout=p)
