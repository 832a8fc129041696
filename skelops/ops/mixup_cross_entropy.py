"""Cross-entropy with a pair of labels: L = mix CE(z, a) + (1 - mix) CE(z, b)."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def mixup_cross_entropy(
    logits: Tensor,
    label: Tensor,
    label_b: Tensor | None = None,
    mix: Tensor | float | None = None,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Class-weighted, label-smoothed cross-entropy of mixed samples, in float32 for half types.

    .. math::
        L = \sum_n \Big( \mu_n \frac{\ell_n(a_n)}{\sum_m w_{a_m}}
            + (1 - \mu_n) \frac{\ell_n(b_n)}{\sum_m w_{b_m}} \Big),
        \quad \ell_n(y) = -(1 - \epsilon) w_y \log p_{ny}
            - \frac{\epsilon}{K} \sum_c w_c \log p_{nc}

    with p the softmax of the logits. Without a second label it is the weighted mean of
    ``torch.nn.functional.cross_entropy``. Two cases are defined here that are not there: labels
    whose weights sum to zero (or an empty batch) give zero, and in compiled code or on a GPU, where
    looking would wait for the device, a label outside 0..K-1 counts nothing.

    Args:
        logits: (N, K), K classes.
        label: (N,) int64, a.
        label_b: (N,) int64, b; None for one label.
        mix: share of the first label, a number, () for the batch or (N,) per sample; None for one
            label. Differentiable if a tensor.
        weight: (K,) weights of the classes, not negative; None for ones.
        label_smoothing: :math:`\epsilon` in [0, 1].

    Returns:
        () loss in float32, or float64 for float64 logits; in an autocast region too.

    Raises:
        ValueError: shapes or devices do not fit, one of ``label_b`` and ``mix`` is missing,
            ``label_smoothing`` is out of range, or, on a CPU, a label is.
        TypeError: logits are not floating, labels not int64, or ``mix`` and ``weight`` neither
            float32 nor of the dtype of the logits.

    Backends: cpu, triton, reference.

    Example:
        >>> z, a, b = torch.randn(16, 60), torch.arange(16), torch.arange(16).flip(0)
        >>> mixup_cross_entropy(z, a, b, 0.64, label_smoothing=0.1).shape
        torch.Size([])

    Source: Zhang et al., *mixup*, ICLR 2018; the head of BRL (Liu et al., arXiv 2308.14024).
    """
    op = "mixup_cross_entropy"
    _check.tensors(op, logits=logits)
    _check.shape(op, "logits", logits, "N K")
    N, K = logits.shape
    if K == 0:
        raise _check.fail(op, "logits of at least one class", _check.shape_text(logits.shape))
    if (label_b is None) != (mix is None):
        raise _check.fail(op, "label_b together with mix", "one of them")
    if not 0 <= label_smoothing <= 1:
        raise _check.fail(op, "label_smoothing in [0, 1]", label_smoothing)
    if isinstance(mix, (int, float)):
        mix = logits.new_full((), mix, dtype=_precision(logits))
    _check.norm_tensors(op, logits, mix=mix, weight=weight)
    if mix is not None:
        _check.shape(op, "mix", mix, "N" if mix.dim() else "", N=N)
    if weight is not None:
        _check.shape(op, "weight", weight, "K", K=K)
    for name, value in (("label", label), ("label_b", label_b)):
        _check_label(op, name, value, logits)
    loss, _, notes = _op(logits, label, label_b, mix, weight, float(label_smoothing))
    if loss.device.type == "cpu" and not torch.compiler.is_compiling() and notes.tolist()[4]:
        for name, value in (("label", label), ("label_b", label_b)):
            for wrong in [] if value is None else value[(value < 0) | (value >= K)][:1].tolist():
                raise _check.fail(op, f"{name} in 0..{K - 1}", wrong)
    return loss


def _check_label(op: str, name: str, label: Tensor | None, logits: Tensor) -> None:
    if label is None:
        return
    if not isinstance(label, Tensor) or label.dtype != torch.int64:
        got = label.dtype if isinstance(label, Tensor) else type(label).__name__
        raise TypeError(f"{op}: expected {name} of dtype torch.int64, got {got}")
    _check.shape(op, name, label, "N", N=logits.shape[0])
    if label.device != logits.device:
        raise _check.fail(op, f"{name} on the device {logits.device} of the logits", label.device)


def _precision(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _side(
    z: Tensor, lse: Tensor, label: Tensor, w: Tensor, share: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one of the labels: weighted mean over the samples, sum of weights, labels outside."""
    K = z.shape[1]
    valid = (label >= 0) & (label < K)
    at = label.where(valid, 0)
    loss = (1 - smoothing) * w[at] * (lse - z.gather(1, at[:, None])[:, 0])
    if smoothing:
        loss = loss + smoothing / K * (w * (lse[:, None] - z)).sum(1)
    if share is not None:
        loss = loss * share
    total = (w[at] * valid).sum()
    mean = (loss * valid).sum() / total.where(total > 0, 1)
    return mean.where(total > 0, 0), total, (~valid).sum()


def _reference(logits, label, label_b, mix, weight, smoothing):
    z = logits.to(_precision(logits))
    lse = z.logsumexp(1)
    w = z.new_ones(z.shape[1]) if weight is None else weight.to(z.dtype)
    share = None if mix is None else mix.to(z.dtype)
    each = share if share is not None and share.dim() else None
    first, total, outside = _side(z, lse, label, w, each, smoothing)
    loss, second, total_b = first.clone(), torch.zeros_like(first), torch.zeros_like(total)
    if share is not None:
        rest = None if each is None else 1 - each
        second, total_b, others = _side(z, lse, label_b, w, rest, smoothing)
        loss = first + second if each is not None else share * first + (1 - share) * second
        outside = outside + others
    notes = torch.stack([first, second, total, total_b, outside.to(z.dtype)])
    return loss, lse.detach().clone(), notes.detach()


def _fake(logits, label, label_b, mix, weight, smoothing):
    def empty(*shape):
        return logits.new_empty(shape, dtype=_precision(logits))

    return empty(), empty(logits.shape[0]), empty(5)


_op = define(
    "mixup_cross_entropy",
    "(Tensor logits, Tensor label, Tensor? label_b, Tensor? mix, Tensor? weight, float smoothing) "
    "-> (Tensor loss, Tensor lse, Tensor notes)",
    _reference,
    fake=_fake,
    grads=("logits", "mix"),
    saved=("lse", "notes"),  # notes: mean loss of either label, sums of weights, labels outside
    gpu=("triton",),
    full_precision=True,
)
