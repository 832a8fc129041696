"""Cases of contrastive losses."""

from __future__ import annotations

from functools import partial

import torch

from skelops.testing.cases import Case, register, relayout


def info_nce(draw, N=3, R=1, D=5, K=7, key=True, top=0, layout="contiguous"):
    def unit(*shape):
        return relayout(draw.normal(*shape, scale=D**-0.5), layout)

    scale = 2 + 8 * torch.rand(N, dtype=torch.float64, generator=draw.generator)
    return (
        unit(R, N, D),
        unit(N, D) if key else None,
        unit(K, D),
        scale.to(draw.norm_dtype).to(draw.device),
        top,
    )


_nce = partial(Case, build=info_nce)
register(
    "info_nce",
    _nce("queue", small=True),
    _nce("batch", dims=dict(R=2, N=4, K=4, key=False), small=True),
    _nce("mined", dims=dict(R=3, N=13, D=128, K=1029, top=1)),
    _nce("transposed", dims=dict(N=5, D=33, K=300, layout="transposed")),
)
