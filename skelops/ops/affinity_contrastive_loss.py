"""Supervised contrast with chosen negatives: mean over positives of log(1 + e^(L - s + m)) - m."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def affinity_contrastive_loss(
    feature: Tensor,
    memory: Tensor,
    label: Tensor,
    memory_label: Tensor,
    affinity: Tensor | None = None,
    temperature: Tensor | float = 0.1,
    *,
    margin: float = 0.0,
    eps: float = 0.0,
    own: bool = False,
) -> Tensor:
    r"""Contrastive loss of every sample against a memory, one positive at a time.

    .. math::
        s_{nk} = \frac{f_n \cdot m_k}{\tau_n}, \qquad
        \ell_n = -\frac{1}{|P_n|} \sum_{j \in P_n} \log
        \frac{e^{s_{nj}}}{e^{s_{nj} - \delta} + \sum_{k \in A_n} e^{s_{nk}}
        + \epsilon\, e^{\max_k s_{nk}}}

    P are the rows of the memory with the sample's label, A those of the classes that its class has
    an affinity with. Other positives are not in the denominator; a positive whose class has an
    affinity with itself counts twice there. Rows and samples with a negative label, such as empty
    places, take no part; a sample without positives has the loss 0. Nothing is normalised here.

    With class means as the memory, superclasses as the affinity and the temperature of every
    sample's superclass it is ACLNet's inter-class loss; with a queue of features that ends in those
    of the batch (``own``), no affinity and a margin it is the intra-class one.

    Args:
        feature: (N, D).
        memory: (K, D), feature's dtype; gets a gradient, too.
        label: (N,) int64.
        memory_label: (K,) int64.
        affinity: (Y, Y) bool, of the classes 0..Y-1; None for all classes but the sample's own.
            Larger labels have none.
        temperature: a number, or (N,) per sample, in float32 or feature's dtype.
        margin: :math:`\delta`.
        eps: :math:`\epsilon`, of a term that keeps the denominator from 0; no gradient goes
            through its maximum.
        own: the last N rows of the memory are the samples; none is its own positive or negative.

    Returns:
        (N,) losses in float32, or float64 for float64 features; in an autocast region too. For the
        backward the scores (N, K) are kept.

    Raises:
        ValueError: shapes or devices do not fit, ``own`` with a memory smaller than the batch, a
            negative ``eps``, a temperature that is not positive (of a tensor on a CPU only).
        TypeError: features are not floating point or differ in dtype, labels are not int64,
            ``affinity`` is not bool.

    Backends: cpu, triton, reference.

    Example:
        >>> f = torch.nn.functional.normalize(torch.randn(16, 256), dim=1)
        >>> y = torch.randint(60, (16,))
        >>> affinity_contrastive_loss(f, f, y, y, margin=0.1, own=True).shape
        torch.Size([16])

    Source: Liu et al., ACLNet, IEEE TBIOM 2026, section 3.
    """
    op = "affinity_contrastive_loss"
    _check.tensors(op, feature=feature, memory=memory)
    _check.shape(op, "feature", feature, "N D")
    N, D = feature.shape
    _check.shape(op, "memory", memory, "K D", D=D)
    _check_dtype(op, "label", label, torch.int64, feature.device)
    _check.shape(op, "label", label, "N", N=N)
    _check_dtype(op, "memory_label", memory_label, torch.int64, feature.device)
    _check.shape(op, "memory_label", memory_label, "K", K=memory.shape[0])
    if affinity is not None:
        _check_dtype(op, "affinity", affinity, torch.bool, feature.device)
        _check.shape(op, "affinity", affinity, "Y Y", Y=affinity.shape[-1])
    if own and memory.shape[0] < N:
        raise _check.fail(op, f"a memory of at least N={N} rows with own", memory.shape[0])
    if not isinstance(temperature, Tensor):
        _check_temperature(op, temperature)
        temperature = feature.new_full((N,), temperature, dtype=_precision(feature))
    elif temperature.device.type == "cpu" and not torch.compiler.is_compiling():
        for value in temperature[~(temperature > 0)][:1].tolist():
            _check_temperature(op, value)
    _check.norm_tensors(op, feature, temperature=temperature)
    _check.shape(op, "temperature", temperature, "N", N=N)
    if eps < 0:
        raise _check.fail(op, "eps >= 0", eps)
    loss, _, _ = _op(
        feature, memory, label, memory_label, affinity, temperature, float(margin), float(eps), own
    )
    return loss


def _check_temperature(op: str, value: float) -> None:
    if not value > 0:
        raise _check.fail(op, "temperature > 0", value)


def _check_dtype(
    op: str, name: str, value: Tensor, dtype: torch.dtype, device: torch.device
) -> None:
    if not isinstance(value, Tensor) or value.dtype != dtype:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{op}: expected {name} of dtype {dtype}, got {got}")
    if value.device != device:
        raise _check.fail(op, f"{name} on the device {device} of feature", value.device)


def _precision(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _roles(label, memory_label, affinity, own) -> tuple[Tensor, Tensor, Tensor]:
    """(N, K) bool: positives, negatives, and rows that take part."""
    N, K = len(label), len(memory_label)
    present = (label >= 0)[:, None] & (memory_label >= 0)
    positive = present & (label[:, None] == memory_label)
    if affinity is None:
        negative = present & ~positive
    else:
        known = [(y >= 0) & (y < len(affinity)) for y in (label, memory_label)]
        negative = known[0][:, None] & known[1]
        if len(affinity):
            row = affinity[label.where(known[0], 0)]
            negative = negative & row[:, memory_label.where(known[1], 0)]
    if own:
        other = torch.arange(K, device=label.device) - (K - N) != torch.arange(
            N, device=label.device
        ).unsqueeze(1)
        positive, negative = positive & other, negative & other
    return positive, negative, present


def _reference(feature, memory, label, memory_label, affinity, temperature, margin, eps, own):
    dtype = _precision(feature)
    s = feature.to(dtype) @ memory.to(dtype).T / temperature.to(dtype)[:, None]
    positive, negative, present = _roles(label, memory_label, affinity, own)
    if eps > 0 and s.shape[1]:
        # As one more negative, at the largest score.
        top = s.detach().masked_fill(~present, -math.inf).amax(1, keepdim=True)
        t = torch.cat([s, top + math.log(eps)], 1)
        negative = torch.cat([negative, present.any(1, keepdim=True)], 1)
    else:
        t = s
    none = ~negative.any(1, keepdim=True)
    t = t.masked_fill(~negative, -math.inf)
    lse = t.masked_fill(none, 0).logsumexp(1, keepdim=True)
    z = (lse - s + margin).masked_fill(~positive | none, -math.inf)
    excess = z.masked_fill(~positive | none, 0)
    term = torch.logaddexp(excess, torch.zeros_like(excess)).masked_fill(none, 0) - margin
    count = positive.sum(1)
    share = 1 / count.clamp(min=1).to(dtype)
    loss = (term * positive).sum(1) * share
    with torch.no_grad():
        pull = z.sigmoid().sum(1) * share
        lse = lse.masked_fill(none, -math.inf)[:, 0]
        notes = torch.stack([lse, pull, share * (count > 0)])
    return loss, s.detach().clone(), notes


def _fake(feature, memory, label, memory_label, affinity, temperature, margin, eps, own):
    N, K = feature.shape[0], memory.shape[0]
    sizes = ((N,), (N, K), (3, N))
    return tuple(feature.new_empty(size, dtype=_precision(feature)) for size in sizes)


_op = define(
    "affinity_contrastive_loss",
    "(Tensor feature, Tensor memory, Tensor label, Tensor memory_label, Tensor? affinity, "
    "Tensor temperature, float margin, float eps, bool own) "
    "-> (Tensor loss, Tensor scores, Tensor notes)",
    _reference,
    fake=_fake,
    grads=("feature", "memory"),
    saved=("scores", "notes"),  # notes: log-sum-exp of negatives, sigmoid of positives, 1 / |P|
    gpu=("triton",),
    full_precision=True,
)
