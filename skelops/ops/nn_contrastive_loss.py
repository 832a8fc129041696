"""Cross-entropy of neighbours against predictions: logits[n, p] = Q[idx[n]] . pred[p] / tau."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops.nn_lookup import check_ids


def nn_contrastive_loss(
    pred: Tensor, queue: Tensor, idx: Tensor, temperature: float = 0.07, label_offset: int = 0
) -> Tensor:
    r"""Contrast the neighbour of every sample with the predictions of all.

    .. math:: loss = -\frac{1}{N} \sum_n \log \frac{e^{q_n \cdot p_{n+o} / \tau}}
        {\sum_j e^{q_n \cdot p_j / \tau}}, \qquad q_n = Q_{idx_n}

    No logit is written. In an autocast region nothing is cast; the gradient flows to ``pred`` only.

    Args:
        pred: (P, D), rows of unit norm.
        queue: (K, D) likewise.
        idx: (N,) int64 in 0..K - 1, of :func:`skelops.ops.nn_lookup`; N <= P.
        temperature: tau > 0.
        label_offset: o, row of ``pred`` that belongs to the first sample, where predictions of
            several processes are gathered.

    Returns:
        (), float64 for float64 predictions, else float32.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: tensors are not floating point or of different dtypes, idx not int64.

    Backends: cpu, triton, reference.

    Example:
        >>> p, Q = (F.normalize(torch.randn(n, 256)) for n in (32, 32768))
        >>> nn_contrastive_loss(p, Q, torch.arange(32)).shape
        torch.Size([])

    Source: Mehraban et al., STARS, arXiv 2407.10935, section 3; Dwibedi et al., NNCLR, ICCV 2021.
    """
    name = "nn_contrastive_loss"
    _check.tensors(name, pred=pred, queue=queue)
    _check.shape(name, "pred", pred, "P D")
    _check.shape(name, "queue", queue, "K D", D=pred.shape[1])
    N = idx.shape[0] if isinstance(idx, Tensor) and idx.dim() else 0
    check_ids(name, pred, idx=(idx, N))
    if not temperature > 0:
        raise _check.fail(name, "temperature > 0", temperature)
    if not 0 <= label_offset <= pred.shape[0] - N:
        expected = f"label_offset in 0..{pred.shape[0] - N}"
        raise _check.fail(name, expected, label_offset)
    # Rows of their own: the queue may be written before the backward.
    return _op(pred, queue.detach()[idx], 1 / temperature, label_offset)[0]


def _compute(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _reference(pred, neighbour, scale, offset):
    compute = _compute(pred)
    with torch.autocast(pred.device.type, enabled=False):
        logits = scale * (neighbour.to(compute) @ pred.to(compute).T)
    label = torch.arange(offset, offset + neighbour.shape[0], device=pred.device)
    return F.cross_entropy(logits, label), logits.detach().logsumexp(1)


def _fake(pred, neighbour, scale, offset):
    compute = _compute(pred)
    return pred.new_empty((), dtype=compute), pred.new_empty(neighbour.shape[0], dtype=compute)


_op = define(
    "nn_contrastive_loss",
    "(Tensor pred, Tensor neighbour, float scale, int offset) -> (Tensor out, Tensor lse)",
    _reference,
    fake=_fake,
    grads=("pred",),
    saved=("lse",),
    gpu=("triton",),
    full_precision=True,
)
