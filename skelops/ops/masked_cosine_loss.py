"""Scaled cosine error of masked joints: the mean of (1 - cos(x[n, t, v], y[n, t, v]))^beta."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tokens

EPS = 1e-12


def masked_cosine_loss(
    x: Tensor, y: Tensor, mask: Tensor, *, beta: float = 2.0, literal: bool = False
) -> Tensor:
    r"""Loss of reconstructed features that looks at their direction only.

    .. math::
        loss = \frac{1}{R} \sum_{ntv} (1 - mask_{nv})
            \Big(1 - \frac{x_{ntv} \cdot y_{ntv}}{|x_{ntv}|\,|y_{ntv}|}\Big)^\beta

    over the R masked rows (n, t, v), in one pass and with nothing normalised ever written. A norm
    below 1e-12 counts as that. In an autocast region nothing is cast, and the loss is float32.

    Args:
        x: (N, T, V, C) reconstructed features.
        y: (N, T, V, C) features to reconstruct, x's dtype; detach them where they are a target.
        mask: (V,) for all clips or (N, V), bool, True = kept: no part of the loss.
        beta: exponent, at least 1.
        literal: divide by R^beta instead of R, as SkeletonMAE's equation reads literally.

    Returns:
        Scalar, float64 for a float64 ``x``, else float32; 0 if no joint is masked.

    Raises:
        ValueError: shapes do not fit, tensors are on different devices, ``beta`` below 1.
        TypeError: a tensor is not floating point, dtypes differ, ``mask`` is not bool.

    Backends: cpu, triton, reference.

    Example:
        >>> x, y = torch.randn(2, 64, 17, 64), torch.randn(2, 64, 17, 64)
        >>> masked_cosine_loss(x, y, torch.zeros(17, dtype=torch.bool)).shape
        torch.Size([])

    Source: Hou et al., GraphMAE, KDD 2022, eq. 3; Yan et al., SkeletonMAE, ICCV 2023, eq. 2.
    """
    name = "masked_cosine_loss"
    _check.tensors(name, x=x, y=y)
    _check.shape(name, "x", x, "N T V C")
    sizes = dict(zip("NTVC", x.shape, strict=True))
    _check.shape(name, "y", y, "N T V C", **sizes)
    _tokens.check_integers(name, "mask", mask, x, torch.bool)
    _check.shape(name, "mask", mask, "V" if mask.dim() == 1 else "N V", **sizes)
    if not beta >= 1:
        raise _check.fail(name, "beta >= 1", beta)
    return _op(x, y, mask, float(beta), literal)[0]


def _reference(
    x: Tensor, y: Tensor, mask: Tensor, beta: float, literal: bool
) -> tuple[Tensor, Tensor]:
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    masked = ~mask[:, None, :] if mask.dim() == 2 else ~mask[None, None]
    masked = masked.expand(x.shape[:3])
    a, b = (t.to(compute).masked_fill(~masked[..., None], 1) for t in (x, y))
    a, b = (torch.nn.functional.normalize(t, dim=-1, eps=EPS) for t in (a, b))
    error = (1 - (a * b).sum(-1)).clamp(min=0) ** beta
    count = masked.sum().to(compute)
    rows = count.clamp(min=1)
    return error.masked_fill(~masked, 0).sum() / (rows**beta if literal else rows), count


def _fake(x, y, mask, beta, literal):
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty((), dtype=compute), x.new_empty((), dtype=compute)


_op = define(
    "masked_cosine_loss",
    "(Tensor x, Tensor y, Tensor mask, float beta, bool literal) -> (Tensor out, Tensor count)",
    _reference,
    fake=_fake,
    grads=("x", "y"),
    saved=("count",),
    gpu=("triton",),
    full_precision=True,
)
