"""Cases of losses."""

from __future__ import annotations

from functools import partial

import torch

from skelops import ops
from skelops._library import OPS
from skelops.testing.cases import Case, register, relayout


def mixup_cross_entropy(
    draw, N=3, K=5, mix="batch", weight=True, smoothing=0.1, scale=2.0, outside=False,
    weightless=False, layout="contiguous",
):  # fmt: skip
    def label():
        found = torch.randint(K, (N,), generator=draw.generator).to(draw.device)
        found[: N // 2] = K if outside else found[: N // 2]
        return relayout(found, layout)

    shares = {"batch": (), "sample": (N,)}
    share = torch.rand(shares.get(mix, ()), dtype=torch.float64, generator=draw.generator)
    weights = draw.variance(K)
    return (
        relayout(draw.normal(N, K, scale=scale), layout),
        label(),
        label() if mix else None,
        relayout(share.to(draw.norm_dtype).to(draw.device), layout) if mix else None,
        relayout(weights * (not weightless), layout) if weight else None,
        smoothing,
    )


def _public(logits, label, label_b, mix, weight, smoothing):
    return ops.mixup_cross_entropy(
        logits, label, label_b, mix, weight=weight, label_smoothing=smoothing
    )


_loss = partial(Case, build=mixup_cross_entropy, public=_public)
# Labels that the public function refuses on a CPU.
_outside = partial(
    Case, build=partial(mixup_cross_entropy, outside=True), public=OPS["mixup_cross_entropy"]
)
for mix in (None, "batch", "sample"):
    for weight in (True, False):
        for smoothing in (0.1, 0.0):
            name = f"{mix or 'one_label'}-{'weight' if weight else 'plain'}-{smoothing}"
            dims = {"mix": mix, "weight": weight, "smoothing": smoothing}
            register("mixup_cross_entropy", _loss(name, dims=dims, small=True))
register(
    "mixup_cross_entropy",
    _loss("ntu60", dims=dict(N=16, K=60, smoothing=0.0)),
    _loss("ntu120_samples", dims=dict(N=64, K=120, mix="sample")),
    _loss("kinetics", dims=dict(N=67, K=400, mix=None, weight=False)),
    _loss("many_rows", dims=dict(N=1025, K=129, mix="sample")),
    _loss("two_classes", dims=dict(N=13, K=2)),
    _loss("one_class", dims=dict(N=5, K=1, smoothing=0.0)),
    _loss("one_sample", dims=dict(N=1, K=17)),
    _loss("confident", dims=dict(N=13, K=60, scale=40.0)),
    _outside("outside", dims=dict(N=13, K=17)),
    _outside("outside_samples", dims=dict(N=12, K=17, mix="sample")),
    _loss("weightless", dims=dict(N=5, K=17, weightless=True)),
    _loss("transposed", dims=dict(N=13, K=60, layout="transposed")),
    _loss("sliced", dims=dict(N=13, K=60, mix="sample", layout="sliced")),
    _loss("expanded", dims=dict(N=13, K=60, layout="expanded")),
)


def affinity_contrastive_loss(
    draw, N=3, K=8, D=5, classes=3, affinity=None, temperature=0.5, margin=0.0, eps=0.0, own=False,
    empty=0, layout="contiguous",
):  # fmt: skip
    def labels(count):
        return torch.randint(classes, (count,), generator=draw.generator).to(draw.device)

    label, memory_label = labels(N), labels(K)
    memory_label[:empty] = -1
    if own:
        memory_label[K - N :] = label
    near = torch.rand(classes, classes, generator=draw.generator) < (affinity or 0)
    scale = D**-0.25
    varied = temperature * (1 + torch.rand(N, dtype=torch.float64, generator=draw.generator))
    return (
        relayout(draw.normal(N, D, scale=scale), layout),
        relayout(draw.normal(K, D, scale=scale), layout),
        relayout(label, layout),
        relayout(memory_label, layout),
        None if affinity is None else near.to(draw.device),
        varied.to(draw.norm_dtype).to(draw.device),
        margin,
        eps,
        own,
    )


def _public_affinity(feature, memory, label, memory_label, affinity, temperature, margin, eps, own):
    return ops.affinity_contrastive_loss(
        feature, memory, label, memory_label, affinity, temperature, margin=margin, eps=eps, own=own
    )


_affinity = partial(Case, build=affinity_contrastive_loss, public=_public_affinity)
register(
    "affinity_contrastive_loss",
    _affinity("queue", dims=dict(margin=0.1, eps=1e-6, own=True, empty=2), small=True),
    _affinity("classes", dims=dict(affinity=0.5), small=True),
    _affinity("ntu120", dims=dict(N=13, K=120, D=33, classes=120, affinity=0.2)),
    _affinity("memory", dims=dict(N=30, K=203, D=64, classes=7, margin=0.1, own=True, eps=1e-6)),
    _affinity("sliced", dims=dict(N=5, K=9, layout="sliced")),
)
