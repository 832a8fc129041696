"""A block of X3D at inference: shift, widen, filter every channel, excite, narrow, add."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops.temporal_shift import shifted


def x3d_block(
    x: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    depthwise: Tensor,
    depthwise_bias: Tensor,
    project: Tensor,
    bias: Tensor,
    shortcut: Tensor | None = None,
    squeeze: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    *,
    fold_div: int = 8,
    stride: int = 1,
) -> Tensor:
    r"""Bottleneck that widens, of X3D or with a temporal shift, its normalisations folded in.

    .. math::
        y &= W_d * \mathrm{relu}(W_e \, \mathrm{shift}(x) + b_e) + b_d \\
        y &\leftarrow y \cdot \sigma(W_2 \, \mathrm{relu}(W_1 \bar y + b_1) + b_2)
            \quad \text{(with squeeze)} \\
        z &= \mathrm{relu}(W_p (y \, \sigma(y)) + b + W_s x)

    For inference alone: it has no gradients.

    Args:
        x: (N, C, T, H, W).
        expand, expand_bias: (H, C), (H,), to H hidden channels.
        depthwise, depthwise_bias: (H, 3, 3), (H,), over pixels, padded by zeros.
        project, bias: (C', H), (C',), to the result.
        shortcut: (C', C), of the unshifted x at every stride-th pixel; None for x itself.
        squeeze: W_1 (R, H), b_1 (R,), W_2 (H, R), b_2 (H,) of squeeze and excitation, whose mean is
            over all frames and pixels; None for none.
        fold_div: one in how many channels shifts each way, see :func:`skelops.temporal_shift`.
        stride: of pixels.

    Returns:
        (N, C', T, ceil(H / stride), ceil(W / stride)), x's dtype, computed in float32 for half
        types.

    Raises:
        ValueError: shapes do not fit, ``fold_div`` is less than 2, ``stride`` less than 1, or
            tensors are on different devices; no shortcut where the result is of another size.
        TypeError: a tensor is not floating point or requires a gradient, or dtypes differ outside
            autocast.

    Backends: cpu, reference.

    Example:
        >>> x, wide, taps = torch.randn(1, 8, 4, 7, 7), torch.randn(18, 8), torch.randn(18, 3, 3)
        >>> zero = torch.zeros(18)
        >>> x3d_block(x, wide, zero, taps, zero, torch.randn(8, 18), zero[:8]).shape
        torch.Size([1, 8, 4, 7, 7])

    Source: Feichtenhofer, *X3D*, CVPR 2020; Abdelkawy et al., *EPAM-Net*, Neurocomputing 2025.
    """
    given = (x, expand, expand_bias, depthwise, depthwise_bias, project, bias, shortcut)
    squeezed = (None,) * 4 if squeeze is None else squeeze
    tensors = dict(zip(_NAMES, _check.autocast(*given, *squeezed), strict=True))
    _check.tensors("x3d_block", **tensors)
    for name, t in tensors.items():
        if t is not None and t.requires_grad and torch.is_grad_enabled():
            raise TypeError(
                f"x3d_block: expected {name} that requires no gradient, got one that does"
            )
    if fold_div < 2:
        raise _check.fail("x3d_block", "fold_div of at least 2", fold_div)
    if stride < 1:
        raise _check.fail("x3d_block", "stride of at least 1", stride)
    _check.shape("x3d_block", "x", x, "N C T H W")
    hidden, outputs = expand.shape[:1].numel(), project.shape[:1].numel()
    sizes = {"C": x.shape[1], "H": hidden, "C'": outputs, "3": 3}
    if squeeze is not None:
        sizes["R"] = squeeze[0].shape[:1].numel()
    for name, dims in _SHAPES.items():
        if tensors[name] is not None:
            _check.shape("x3d_block", name, tensors[name], dims, **sizes)
    if shortcut is None and (stride != 1 or x.shape[1] != outputs):
        expected = "a shortcut to a result of another size than x"
        raise _check.fail("x3d_block", expected, "none")
    return _op(*tensors.values(), x.shape[1] // fold_div, stride)


_SHAPES = {
    "expand": "H C",
    "expand_bias": "H",
    "depthwise": "H 3 3",
    "depthwise_bias": "H",
    "project": "C' H",
    "bias": "C'",
    "shortcut": "C' C",
    "squeeze": "R H",
    "squeeze_bias": "R",
    "excite": "H R",
    "excite_bias": "H",
}
_NAMES = ("x", *_SHAPES)


def _reference(
    x: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    depthwise: Tensor,
    depthwise_bias: Tensor,
    project: Tensor,
    bias: Tensor,
    shortcut: Tensor | None,
    squeeze: Tensor | None,
    squeeze_bias: Tensor | None,
    excite: Tensor | None,
    excite_bias: Tensor | None,
    fold: int,
    stride: int,
) -> Tensor:
    wide = torch.relu(_pointwise(expand, shifted(x, fold)) + expand_bias[:, None, None, None])
    taps = depthwise[:, None, None]
    step, border = (1, stride, stride), (0, 1, 1)
    y = F.conv3d(wide, taps, depthwise_bias, step, border, groups=len(taps))
    if squeeze is not None and excite is not None:
        small = torch.relu(F.linear(y.mean((2, 3, 4)), squeeze, squeeze_bias))
        y = y * torch.sigmoid(F.linear(small, excite, excite_bias))[:, :, None, None, None]
    near = x if shortcut is None else _pointwise(shortcut, x[..., ::stride, ::stride])
    y = _pointwise(project, F.silu(y)) + bias[:, None, None, None]
    return torch.relu(y + near).contiguous()


def _pointwise(weight: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("oi,nithw->nothw", weight, x)


def _fake(x, expand, expand_bias, depthwise, depthwise_bias, project, *others):
    N, _, T, H, W = x.shape
    stride = others[-1]
    return x.new_empty(N, project.shape[0], T, -(-H // stride), -(-W // stride))


_op = define(
    "x3d_block",
    "(Tensor x, Tensor expand, Tensor expand_bias, Tensor depthwise, Tensor depthwise_bias, "
    "Tensor project, Tensor bias, Tensor? shortcut, Tensor? squeeze, Tensor? squeeze_bias, "
    "Tensor? excite, Tensor? excite_bias, int fold, int stride) -> Tensor",
    _reference,
    fake=_fake,
    grads=(),
)
