"""Mean over time: y[n, c, v] = (1 / T) sum_t x[n, c, t, v]."""

from __future__ import annotations

from torch import Tensor

from skelops import _check
from skelops._library import define


def temporal_mean(x: Tensor) -> Tensor:
    r"""Mean over the frames of a clip, accumulated in float32 for half types.

    .. math:: y_{ncv} = \frac{1}{T} \sum_t x_{nctv}

    The gradient is returned as a broadcast view: nothing of the size of ``x`` is written.

    Args:
        x: (N, C, T, V), T >= 1.

    Returns:
        (N, C, V), x's dtype.

    Raises:
        ValueError: ``x`` is not 4-D, or has no frame.
        TypeError: ``x`` is not floating point.

    Backends: cpu, triton, reference.

    Example:
        >>> temporal_mean(torch.randn(2, 64, 16, 25)).shape
        torch.Size([2, 64, 25])

    Source: the pooling in front of the topology of CTR-GCN (Chen et al., ICCV 2021, section 3.2).
    """
    (x,) = _check.autocast(x)
    _check.tensors("temporal_mean", x=x)
    _check.shape("temporal_mean", "x", x, "N C T V")
    if x.shape[2] == 0:
        raise _check.fail("temporal_mean", "x with at least one frame", _check.shape_text(x.shape))
    return _op(x)


def _reference(x: Tensor) -> Tensor:
    return x.mean(2)


def _backward(inputs: list, grad: Tensor) -> list[Tensor]:
    (x,) = inputs
    return [(grad / x.shape[2]).unsqueeze(2).expand(x.shape)]


_op = define(
    "temporal_mean",
    "(Tensor x) -> Tensor",
    _reference,
    fake=lambda x: x.new_empty(x.shape[0], x.shape[1], x.shape[3]),
    grads=("x",),
    backward=_backward,
    gpu=("triton",),
)
