"""InfoNCE: lse_j(q . k_j / tau) - q . target / tau, over keys that never become a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from skelops import _check
from skelops._library import define


def info_nce(
    q: Tensor,
    key: Tensor | None,
    bank: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    positives: Tensor | None = None,
    weights: Tensor | None = None,
    targets: Sequence[int | None] | None = None,
    mine: int = 0,
    normalize: bool = True,
) -> Tensor:
    r"""Cross-entropy of each query's similarities to its own key and to a bank of keys.

    .. math::
        \ell_{rnj} = q_{rn} \cdot k_j / \tau_n, \quad
        loss_{rn} = \log \sum_j e^{\ell_{rnj}} - \sum_j t_{rnj} \ell_{rnj}

    The bank is read once, in tiles: a running softmax yields the log-sum-exp and the mean key
    :math:`\sum_j p_{rnj} k_j`, which is all that the loss, soft targets and the gradient of the
    queries need. No similarity is ever written. In an autocast region nothing is cast.

    The target t of a branch r is either hard, the mean over the query's positives (its own key, the
    given ones, the mined ones), or the softmax of another branch, as a constant.

    Args:
        q: (N, D) queries, or (R, N, D) of several branches over the same keys.
        key: (N, D), column 0 of the softmax of query n and its positive, or None.
        bank: (K, D) keys that all queries share: a queue or the keys of the batch. It may be in a
            half type of its own.
        temperature: tau > 0, one for all or (N,).
        positives: (N, P) int64 rows of the bank that are positives of each query; -1 for none.
        weights: (N, P) of ``positives``, against 1 of the own key. Default: 1.
        targets: for every branch None, hard, or the branch whose softmax is its target. Default:
            all hard.
        mine: this many most similar rows of the bank of every branch become positives of all hard
            branches, each once. Triton has a kernel for up to 1.
        normalize: give q and key unit length first (zero vectors stay zero). The bank is taken as
            it is.

    Returns:
        (N,) or (R, N), float64 for float64 queries, else float32.

    Raises:
        ValueError: shapes do not fit, no positives, an empty bank, a temperature that is not
            positive, ``mine`` out of 0..K, a target that is no branch, other devices.
        TypeError: a tensor of another dtype than described.

    Backends: cpu, triton, reference.

    Example:
        >>> q, key, queue = torch.randn(8, 128), torch.randn(8, 128), torch.randn(64, 128)
        >>> info_nce(q, key, queue).shape
        torch.Size([8])

    Source: van den Oord et al., 2018, eq. 4; He et al., MoCo, CVPR 2020, eq. 1.
    """
    op = "info_nce"
    branches = q if q.dim() == 3 else q[None]
    _check_arguments(op, branches, key, bank, positives, weights, mine)
    R, N, _ = branches.shape
    targets = [None] * R if targets is None else list(targets)
    if len(targets) != R or not all(t is None or 0 <= t < R for t in targets):
        raise _check.fail(op, f"{R} targets, None or 0..{R - 1}", targets)
    if None in targets and key is None and positives is None and not mine:
        raise _check.fail(op, "a key, positives or mine for hard targets", "none of them")
    compute = torch.float64 if q.dtype == torch.float64 else torch.float32
    if isinstance(temperature, Tensor):
        _check.shape(op, "temperature", temperature, "N" if temperature.dim() else "", N=N)
        scale = temperature.to(compute).reciprocal().expand(N)
    elif temperature > 0:
        scale = branches.new_full((N,), 1 / temperature, dtype=compute)
    else:
        raise _check.fail(op, "temperature > 0", temperature)
    if normalize:
        branches = F.normalize(branches.to(compute), dim=-1)
        key = None if key is None else F.normalize(key.to(compute), dim=-1)
    loss, mean, best = _op(branches, key, bank, scale, mine)
    if mine:
        mined = _each_once(best.transpose(0, 1).flatten(1))
        if positives is not None:
            weights = torch.ones_like(positives, dtype=compute) if weights is None else weights
            weights = torch.cat([weights.to(compute), torch.ones_like(mined, dtype=compute)], 1)
            mined = torch.cat([positives, mined], 1)
        positives = mined
    if set(targets) != {None} or positives is not None:
        hard = (
            _mean_positive(key, bank, positives, weights, compute) if None in targets else mean[0]
        )
        target = torch.stack([hard if t is None else mean[t] for t in targets])
        away = target if key is None else target - key.to(compute)
        loss = loss - scale * (branches.to(compute) * away).sum(-1)
    return loss if q.dim() == 3 else loss[0]


def _check_arguments(op, q, key, bank, positives, weights, mine):
    _check.tensors(op, q=q, key=key)
    _check.tensors(op, bank=bank)
    _check.shape(op, "q", q, "R N D")
    _, N, D = q.shape
    if key is not None:
        _check.shape(op, "key", key, "N D", N=N, D=D)
    _check.shape(op, "bank", bank, "K D", D=D)
    K = len(bank)
    if K == 0:
        raise _check.fail(op, "a bank of at least one key", "none")
    if bank.dtype not in (q.dtype, torch.float16, torch.bfloat16):
        raise TypeError(f"{op}: expected bank of dtype {q.dtype} or a half one, got {bank.dtype}")
    if positives is not None:
        if positives.dtype != torch.int64:
            raise TypeError(f"{op}: expected positives of dtype torch.int64, got {positives.dtype}")
        _check.shape(op, "positives", positives, "N P", N=N)
    if weights is not None:
        if positives is None:
            raise _check.fail(op, "weights together with positives", "weights alone")
        _check.shape(op, "weights", weights, "N P", N=N, P=positives.shape[1])
    for name, t in (("bank", bank), ("positives", positives), ("weights", weights)):
        if t is not None and t.device != q.device:
            raise _check.fail(op, f"{name} on q's device {q.device}", t.device)
    if not 0 <= mine <= K:
        raise _check.fail(op, f"mine in 0..{K}", mine)


def _each_once(rows: Tensor) -> Tensor:
    """Rows (N, P), -1 for all but the first of equal ones."""
    equal = rows[:, :, None] == rows[:, None, :]
    return rows.where(~equal.tril(-1).any(2), -1)


def _mean_positive(key, bank, positives, weights, compute) -> Tensor:
    """(N, D): mean over the own key and the positives."""
    if positives is None:
        return key.to(compute)
    share = (positives >= 0).to(compute)
    share = share if weights is None else share * weights.to(compute)
    rows = bank[positives.clamp(min=0)].to(compute)
    total, count = torch.einsum("np,npd->nd", share, rows), share.sum(1)
    if key is not None:
        total, count = total + key.to(compute), count + 1
    return total / count.where(count > 0, 1)[:, None]


def _reference(q, key, bank, scale, top):
    """InfoNCE with the own key as positive (the log-sum-exp if there is none), the mean key, and
    the most similar rows of the bank."""
    compute = torch.float64 if q.dtype == torch.float64 else torch.float32
    q, bank = q.to(compute), bank.to(compute)
    with torch.autocast(q.device.type, enabled=False):
        logits = scale[:, None] * (q @ bank.T)
        best = logits.topk(top, dim=-1).indices
        if key is None:
            loss, mean = logits.logsumexp(-1), logits.softmax(-1) @ bank
        else:
            key = key.to(compute)
            logits = torch.cat([(scale * (q * key).sum(-1))[..., None], logits], -1)
            p = logits.softmax(-1)
            loss, mean = -logits.log_softmax(-1)[..., 0], p[..., :1] * key + p[..., 1:] @ bank
    return loss.contiguous(), mean.detach().contiguous(), best.contiguous()


def _fake(q, key, bank, scale, top):
    compute = torch.float64 if q.dtype == torch.float64 else torch.float32
    R, N, D = q.shape
    return (
        q.new_empty((R, N), dtype=compute),
        q.new_empty((R, N, D), dtype=compute),
        q.new_empty((R, N, top), dtype=torch.int64),
    )


_op = define(
    "info_nce",
    "(Tensor q, Tensor? key, Tensor bank, Tensor scale, int top) "
    "-> (Tensor out, Tensor mean, Tensor best)",
    _reference,
    fake=_fake,
    grads=("q", "key", "bank", "scale"),
    saved=("out", "mean", "best"),
    gpu=("triton",),
    full_precision=True,
)
