"""Cases of contrastive losses."""

from __future__ import annotations

from functools import partial

import torch

from skelops import ops
from skelops._library import OPS
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


def _public(q, key, bank, scale, top):
    return ops.info_nce(q, key, bank, temperature=1 / scale, normalize=False)


_nce = partial(Case, build=info_nce)
register(
    "info_nce",
    _nce("queue", small=True, public=_public),
    _nce("transposed", dims=dict(N=5, D=33, K=1029, layout="transposed"), public=_public),
    # What the op returns is a part of what the public function does.
    _nce("batch", dims=dict(R=2, N=4, K=4, key=False), small=True, public=OPS["info_nce"]),
    _nce("mined", dims=dict(R=3, N=13, D=128, K=130, top=1), public=OPS["info_nce"]),
)
