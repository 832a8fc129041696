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


def _ids(draw, size, least, most):
    ids = torch.randint(least, most, (size,), generator=draw.generator)
    return ids.to(draw.device)


def nn_lookup(draw, N=3, D=5, K=7, people=4, layout="contiguous"):
    z, queue = (relayout(draw.normal(rows, D, scale=D**-0.5), layout) for rows in (N, K))
    return z, queue, _ids(draw, K, -1, people), _ids(draw, N, 0, people)


_lookup = partial(Case, build=nn_lookup, public=ops.nn_lookup, backward=False)
register(
    "nn_lookup",
    _lookup("small", small=True),
    _lookup("queue", dims=dict(N=130, D=48, K=1029, people=200)),
    _lookup("own", dims=dict(N=5, D=33, K=130, people=1, layout="transposed")),
)


def nn_contrastive_loss(draw, N=3, P=4, D=5, scale=5.0, offset=0, layout="contiguous"):
    rows = (relayout(draw.normal(size, D, scale=D**-0.5), layout) for size in (N + P, N))
    return *rows, scale, offset


def _contrast(pred, neighbour, scale, offset):
    idx = torch.arange(neighbour.shape[0], device=pred.device)
    return ops.nn_contrastive_loss(pred, neighbour, idx, 1 / scale, offset)


_contrastive = partial(Case, build=nn_contrastive_loss, public=_contrast)
register(
    "nn_contrastive_loss",
    _contrastive("small", small=True),
    _contrastive("gathered", dims=dict(N=130, P=151, D=48, offset=77, scale=14.0)),
    _contrastive("transposed", dims=dict(N=17, P=0, D=129, layout="transposed")),
)
