"""Gated recurrent units: the products with the input of all frames as one, and one recurrence."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _backend, _check
from skelops._library import OPS
from skelops.ops.linear import linear
from skelops.ops.mcu_scan import mcu_scan


def gru(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    h0: Tensor | None = None,
) -> Tensor:
    r"""States of S gated recurrent units that all run forward over the same frames.

    .. math::
        r_t &= \sigma(W_r x_t + b_r + U_r h_{t-1} + c_r), \qquad
        z_t = \sigma(W_z x_t + b_z + U_z h_{t-1} + c_z) \\
        n_t &= \tanh(W_n x_t + b_n + r_t (U_n h_{t-1} + c_n)), \qquad
        h_t = (1 - z_t) n_t + z_t h_{t-1}

    On a CPU, in full precision, by :func:`linear` and :func:`mcu_scan`, whose update gate is
    :math:`1 - z`; elsewhere by PyTorch's own units.

    Args:
        x: (N, T, C).
        weight_ih: (S, 3 H, C), W of r, z and n, as in ``nn.GRU``.
        weight_hh: (S, 3 H, H), U.
        bias_ih, bias_hh: (S, 3 H), b and c.
        h0: (S, N, H) states before the first frame; None for zeros.

    Returns:
        (N, T, S * H), x's dtype.

    Raises:
        ValueError: shapes do not fit, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Example:
        >>> layer = torch.nn.GRU(150, 512)
        >>> weights = [p[None] for p in layer.parameters()]
        >>> gru(torch.randn(8, 64, 150), *weights).shape
        torch.Size([8, 64, 512])

    Source: Cho et al., EMNLP 2014, with the reset behind the product as in cuDNN and PyTorch.
    """
    name = "gru"
    x, *rest = _check.autocast(x, weight_ih, weight_hh, bias_ih, bias_hh, h0)
    weight_ih, weight_hh, bias_ih, bias_hh, h0 = rest
    _check.tensors(
        name, x=x, weight_ih=weight_ih, weight_hh=weight_hh, bias_ih=bias_ih, bias_hh=bias_hh, h0=h0
    )
    _check.shape(name, "x", x, "N T C")
    _check.shape(name, "weight_hh", weight_hh, "S 3*H H")
    (N, _, C), (S, rows, H) = x.shape, weight_hh.shape
    sizes = {"S": S, "3*H": 3 * H, "H": H, "C": C, "N": N}
    for label, t, dims in (
        ("weight_hh", weight_hh, "S 3*H H"),
        ("weight_ih", weight_ih, "S 3*H C"),
        ("bias_ih", bias_ih, "S 3*H"),
        ("bias_hh", bias_hh, "S 3*H"),
    ):
        _check.shape(name, label, t, dims, **sizes)
    if h0 is None:
        h0 = x.new_zeros(S, N, H)
    _check.shape(name, "h0", h0, "S N H", **sizes)
    half = x.dtype in (torch.float16, torch.bfloat16)
    # A traced program cannot ask which backend runs.
    fused = torch.compiler.is_compiling() or _backend.active(OPS["mcu_scan"], "cpu")[0] == "cpu"
    if x.device.type != "cpu" or half or not fused:
        weights = zip(weight_ih, weight_hh, bias_ih, bias_hh, strict=True)
        units = [
            torch.gru(x, start[None], unit, True, 1, 0.0, False, False, True)[0]
            for start, unit in zip(h0, weights, strict=True)
        ]
        return torch.cat(units, 2)
    sign = x.new_tensor([1.0, -1.0, 1.0]).repeat_interleave(H)  # of an update by 1 - z
    shared = torch.cat([bias_hh[:, : 2 * H], torch.zeros_like(bias_hh[:, 2 * H :])], 1)
    weight, bias = weight_ih * sign[:, None], (bias_ih + shared) * sign
    pre = linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(2, (S, rows))
    h = mcu_scan(
        pre.permute(2, 0, 1, 3), weight_hh * sign[:, None], h0=h0, reset_after=True,
        reset_bias=bias_hh[:, 2 * H :],
    )  # fmt: skip
    return h.permute(1, 2, 0, 3).flatten(2)
