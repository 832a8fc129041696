"""Pre-norm block of a vision transformer on packed q, k, v."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from skelops import ops
from skelops.nn.st_attention import STAttention


class DropPath(nn.Module):
    """Leaves out a branch for whole samples, at ``rate``, and scales the others by 1 / (1 - rate).

    Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return x
        keep = 1 - self.rate
        mask = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"{self.rate:.3g}"


class MLP(nn.Module):
    """Linear, GELU, Linear; keys ``fc1`` and ``fc2``."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        if not (isinstance(self.fc1, nn.Linear) and isinstance(self.fc2, nn.Linear)):
            return self.fc2(F.gelu(self.fc1(x)))  # quantised, or with an adapter
        return ops.mlp(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)


class TransformerBlock(nn.Module):
    r"""Pre-norm block, (N, L, C) -> (N, L, C), with the keys of timm and MAMP.

    .. math::
        y = x + \text{attn}(\text{LN}(x)), \qquad z = y + \text{mlp}(\text{LN}(y))

    The three steps can be called apart, for rows that are shared by samples or not needed:
    ``finish(x, attend(project(x)))``.

    Args:
        channels: C, a multiple of ``heads``.
        heads: H.
        mlp_ratio: hidden width of the MLP over C.
        qkv_bias, scale: see :class:`STAttention`.
        drop_path: rate of :class:`DropPath` for both branches.

    Source: Dosovitskiy et al., ViT, ICLR 2021; Mao et al., MAMP, ICCV 2023.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: float = 4.0,
        *,
        qkv_bias: bool = True,
        scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = STAttention(channels, heads, qkv_bias=qkv_bias, scale=scale)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, int(mlp_ratio * channels))
        self.drop_path = DropPath(drop_path)

    def project(self, x: Tensor) -> Tensor:
        """q, k, v of every row: (..., C) -> (..., 3 C)."""
        return self.attn.qkv(self.norm1(x))

    def attend(self, qkv: Tensor) -> Tensor:
        """What every row gathers from its sequence, before the projection: (N, L, C)."""
        return self.attn.mix(qkv)

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """The block's result for rows x that have gathered y."""
        x = x + self.drop_path(self.attn.proj(y))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, self.attend(self.project(x)))


def init_transformer(module: nn.Module) -> None:
    """For ``Module.apply``: Xavier-uniform linear layers with zero biases, as MAMP."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
