"""Multi-head self-attention among joint-frame tokens, in the form of a vision transformer's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from skelops import ops
from skelops.nn.linear import Linear


class STAttention(nn.Module):
    r"""Self-attention of a transformer block: projection of ``st_attention`` of one qkv layer.

    Keys are those of timm and MAMP: ``qkv.weight``, ``qkv.bias``, ``proj.weight``, ``proj.bias``.

    Args:
        channels: C, a multiple of ``heads``.
        heads: H.
        qkv_bias: whether the qkv layer has one.
        joints: V of relative biases and of structures.
        joint_bias: learn a bias (H, V, V) per pair of joints, from zero.
        max_lag: learn a bias (H, 2 * max_lag + 1) per time lag, from zero; none if None.
        structure: further keyword arguments of every call of ``st_attention``: ``within``,
            ``window``, ``scale``.

    Shape: (N, L, C) -> (N, L, C); with ``cu_seqlens`` (P, C) -> (P, C).

    Source: Vaswani et al., NeurIPS 2017; Mao et al., MAMP, ICCV 2023.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        qkv_bias: bool = True,
        joints: int = 1,
        joint_bias: bool = False,
        max_lag: int | None = None,
        **structure: Any,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"STAttention: expected channels of {heads} heads, got {channels}")
        self.heads, self.joints, self.structure = heads, joints, structure
        self.qkv = Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = Linear(channels, channels)
        bias = torch.zeros(heads, joints, joints) if joint_bias else None
        self.joint_bias = nn.Parameter(bias) if bias is not None else None
        lags = None if max_lag is None else torch.zeros(heads, 2 * max_lag + 1)
        self.lag_bias = nn.Parameter(lags) if lags is not None else None

    def forward(self, x: Tensor, **tokens: Any) -> Tensor:
        """``tokens``: arguments of the batch, such as ``key_mask`` and ``cu_seqlens``."""
        return self.proj(self.mix(self.qkv(x), **tokens))

    def mix(self, qkv: Tensor, **tokens: Any) -> Tensor:
        """The attention alone, (N, L, 3 C) -> (N, L, C)."""
        return ops.st_attention(
            qkv,
            self.heads,
            joints=self.joints,
            joint_bias=self.joint_bias,
            lag_bias=self.lag_bias,
            **self.structure,
            **tokens,
        )
