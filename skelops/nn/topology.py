"""Graph of a convolution as parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelops import _check

MODES = ("fixed", "learnable", "importance", "offset", "normalised")


class Topology(nn.Module):
    """Adjacency (K, V, V) shared by a batch, fixed or learnable.

    Args:
        A: (K, V, V), e.g. ``get_layout("ntu25").adjacency("spatial")``.
        mode: "fixed" A; "learnable" A itself (2s-AGCN, CTR-GCN, ST-GCN++); "importance" A * PA with
            PA learnable from ones (ST-GCN); "offset" A + PA with PA learnable from about zero;
            "normalised" learnable A with columns of unit L2 norm.

    Raises:
        ValueError: an unknown mode, or A that is not (K, V, V).
    """

    def __init__(self, A: Tensor, mode: str = "learnable") -> None:
        super().__init__()
        if mode not in MODES:
            raise _check.fail("Topology", f"mode one of {', '.join(MODES)}", repr(mode))
        _check.shape("Topology", "A", A, "K V V", V=A.shape[-1])
        self.mode = mode
        if mode in ("learnable", "normalised"):
            self.A = nn.Parameter(A.clone())
        else:
            self.register_buffer("A", A.clone())
        if mode == "importance":
            self.PA = nn.Parameter(torch.ones_like(A))
        elif mode == "offset":
            self.PA = nn.Parameter(torch.empty_like(A).uniform_(-1e-6, 1e-6))

    def forward(self) -> Tensor:
        if self.mode == "importance":
            return self.A * self.PA
        if self.mode == "offset":
            return self.A + self.PA
        if self.mode == "normalised":
            return self.A / (torch.linalg.vector_norm(self.A, dim=1, keepdim=True) + 1e-4)
        return self.A

    def extra_repr(self) -> str:
        K, V, _ = self.A.shape
        return f"K={K}, V={V}, mode={self.mode!r}"
