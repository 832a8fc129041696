"""Loss of masked prediction: the mean of |pred[n, l] - target(x)[n, l]|^2 over masked tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tokens
from skelops.ops.motion_target import check_target, target


def masked_motion_loss(
    x: Tensor,
    pred: Tensor,
    mask: Tensor,
    *,
    segment: int = 4,
    stride: int = 1,
    normalise: bool = True,
) -> Tensor:
    r"""Mean squared error of the masked tokens against :func:`skelops.motion_target`.

    .. math::
        loss = \frac{\sum_{nl} (1 - mask_{nl}) \frac{1}{uC} \sum_p (pred_{nlp} - y_{nlp})^2}
            {\sum_{nl} (1 - mask_{nl})}

    The target y is computed on the way, in both directions, and never written. In an autocast
    region nothing is cast: the loss is float32, and differences of coordinates stay exact.

    Args:
        x: (N, T, V, C), T a multiple of ``segment``, of any floating dtype.
        pred: (N, L, segment * C), L = T / segment * V, values in order (frame, channel).
        mask: (N, L) bool, True = kept: no part of the loss, whatever is predicted there.
        segment: frames per token.
        stride: frames between the two differing ones; 0 for the coordinates themselves (MAE).
        normalise: standardise the target of every token.

    Returns:
        Scalar, float64 for a float64 ``pred``, else float32; 0 if no token is masked.

    Raises:
        ValueError: shapes do not fit, tensors are on different devices, or see
            :func:`skelops.motion_target`.
        TypeError: ``x`` or ``pred`` is not floating point, ``mask`` is not bool.

    Backends: cpu, triton, reference.

    Example:
        >>> x, pred = torch.randn(2, 120, 25, 3), torch.randn(2, 750, 12)
        >>> ids_keep, mask, ids_restore = motion_mask(x, torch.rand(2, 750))
        >>> masked_motion_loss(x, pred, mask).shape
        torch.Size([])

    Source: Mao et al., MAMP, ICCV 2023, eq. 7 and its code.
    """
    name = "masked_motion_loss"
    _check.tensors(name, x=x)
    _check.tensors(name, pred=pred)
    _check.shape(name, "x", x, "N T V C")
    tokens = check_target(name, x, segment, stride, normalise)
    if pred.device != x.device:
        raise _check.fail(name, f"pred on x's device {x.device}", pred.device)
    sizes = {"N": x.shape[0], "L": tokens, "u*C": segment * x.shape[3]}
    _check.shape(name, "pred", pred, "N L u*C", **sizes)
    _tokens.check_integers(name, "mask", mask, x, torch.bool)
    _check.shape(name, "mask", mask, "N L", **sizes)
    return _op(x, pred, mask, segment, stride, normalise)[0]


def _reference(
    x: Tensor, pred: Tensor, mask: Tensor, segment: int, stride: int, normalise: bool
) -> tuple[Tensor, Tensor]:
    compute = torch.float64 if pred.dtype == torch.float64 else torch.float32
    y = target(x.to(compute), segment, stride, normalise)
    error = (pred.to(compute) - y).square().mean(-1)
    count = (~mask).sum().to(compute)
    return error.masked_fill(mask, 0).sum() / count.clamp(min=1), count


def _fake(x, pred, mask, segment, stride, normalise):
    compute = torch.float64 if pred.dtype == torch.float64 else torch.float32
    return pred.new_empty((), dtype=compute), pred.new_empty((), dtype=compute)


_op = define(
    "masked_motion_loss",
    "(Tensor x, Tensor pred, Tensor mask, int segment, int stride, bool normalise) "
    "-> (Tensor out, Tensor count)",
    _reference,
    fake=_fake,
    grads=("x", "pred"),
    saved=("count",),
    gpu=("triton",),
    full_precision=True,
)
