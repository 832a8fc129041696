"""What feed-forward ops ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from skelops import _check


def checked(op: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """x (..., C), w1 (H, C), b1 (H,), w2 (C, H) and b2 (C,), cast as autocast says.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ.
    """
    x, w1, b1, w2, b2 = _check.autocast(*tensors)
    _check.tensors(op, x=x, w1=w1, b1=b1, w2=w2, b2=b2)
    if x.dim() == 0:
        raise _check.fail(op, "x of shape (..., C)", _check.shape_text(x.shape))
    C = x.shape[-1]
    _check.shape(op, "w1", w1, "H C", C=C)
    H = w1.shape[0]
    _check.shape(op, "b1", b1, "H", H=H)
    _check.shape(op, "w2", w2, "C H", C=C, H=H)
    _check.shape(op, "b2", b2, "C", C=C)
    return x, w1, b1, w2, b2
