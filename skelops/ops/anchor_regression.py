"""Anchor-to-joint regression: x[n, v] = sum_a softmax_a(l[n, a, v]) (anchor[a] + o[n, a, v])."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def anchor_regression(
    logits: Tensor, offset: Tensor, anchors: Tensor, extra: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Joints as the mean of what all anchors say about them, weighted per joint.

    .. math::
        w_{nav} = \mathrm{softmax}_a(l_{nav}), \qquad
        x_{nvd} = \sum_a w_{nav} (anchor_{nad} + o_{navd}), \qquad
        \bar a_{nvd} = \sum_a w_{nav}\, anchor_{nad}

    One pass over the anchors with an online softmax gives both; the weights are never written, and
    the gradient takes them from the inputs again. In an autocast region nothing is cast.

    Args:
        logits: (N, A, V) weight of every anchor for every joint; -inf leaves an anchor out.
        offset: (N, A, V, D) from anchor to joint, D = 2 or 3.
        anchors: (A, D) of all samples or (N, A, D), such as the points of a cloud; logits' dtype
            or float32.
        extra: (N, A, V) a further coordinate without an anchor, as depth is in an image, or None.

    Returns:
        joints: (N, V, D), with ``extra`` (N, V, D + 1), its mean being the last coordinate.
        anchor_mean: (N, V, D).
        Both in float64 for float64 logits, else in float32.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ.

    Backends: cpu, triton, reference.

    Example:
        >>> logits, offset = torch.randn(2, 5184, 15), torch.randn(2, 5184, 15, 2)
        >>> joints, anchor_mean = anchor_regression(logits, offset, torch.rand(5184, 2))
        >>> joints.shape, anchor_mean.shape
        (torch.Size([2, 15, 2]), torch.Size([2, 15, 2]))

    Source: Xiong et al., A2J, ICCV 2019, section 3.2; anchors in space: Jiang et al.,
    A2J-Transformer, CVPR 2023, section 3.3.
    """
    op = "anchor_regression"
    _check.tensors(op, logits=logits, offset=offset, extra=extra)
    _check.norm_tensors(op, logits, anchors=anchors)
    _check.shape(op, "logits", logits, "N A V")
    sizes = dict(zip("NAV", logits.shape, strict=True))
    if sizes["A"] == 0:
        raise _check.fail(op, "at least one anchor", _check.shape_text(logits.shape))
    _check.shape(op, "offset", offset, "N A V D", **sizes)
    D = offset.shape[3]
    if D not in (2, 3):
        raise _check.fail(op, "offset with D=2 or 3", _check.shape_text(offset.shape))
    _check.shape(op, "anchors", anchors, "A D" if anchors.dim() == 2 else "N A D", D=D, **sizes)
    if extra is not None:
        _check.shape(op, "extra", extra, "N A V", **sizes)
    out, _ = _op(logits, offset, anchors, extra)
    joints, anchor_mean = out.split([out.shape[2] - D, D], 2)
    return joints, anchor_mean


def _reference(
    logits: Tensor, offset: Tensor, anchors: Tensor, extra: Tensor | None
) -> tuple[Tensor, Tensor]:
    compute = torch.float64 if logits.dtype == torch.float64 else torch.float32
    l, o, a = (t.to(compute) for t in (logits, offset, anchors))
    w = l.softmax(1)
    a = a[..., :, None, :].expand_as(o)
    parts = [(w[..., None] * (a + o)).sum(1)]
    if extra is not None:
        parts.append((w * extra.to(compute)).sum(1)[..., None])
    parts.append((w[..., None] * a).sum(1))
    return torch.cat(parts, 2), l.logsumexp(1)


def _fake(logits, offset, anchors, extra):
    N, _, V, D = offset.shape
    compute = torch.float64 if logits.dtype == torch.float64 else torch.float32
    width = 2 * D + (extra is not None)
    return logits.new_empty(N, V, width, dtype=compute), logits.new_empty(N, V, dtype=compute)


_op = define(
    "anchor_regression",
    "(Tensor logits, Tensor offset, Tensor anchors, Tensor? extra) -> (Tensor out, Tensor lse)",
    _reference,
    fake=_fake,
    grads=("logits", "offset", "anchors", "extra"),
    saved=("out", "lse"),
    gpu=("triton",),
    full_precision=True,
)
