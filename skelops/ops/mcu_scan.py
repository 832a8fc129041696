"""Recurrence of the multi-modal contextualisation unit, over all frames and modalities at once.

r = s(LN(pre_r + U_r h)), z = s(LN(pre_z + U_z h)), n = tanh(LN(pre_n + U_n (r h)))
h <- (1 - z) h + z n
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define

EPS = 1e-5


def mcu_scan(
    pre: Tensor,
    weight: Tensor,
    ln_weight: Tensor | None = None,
    ln_bias: Tensor | None = None,
    h0: Tensor | None = None,
    *,
    reset_after: bool = False,
    reset_bias: Tensor | None = None,
) -> Tensor:
    r"""States of S recurrent units, each over the frames of its own modality.

    .. math::
        r_t &= \sigma(\mathrm{LN}_r(p^r_t + U_r h_{t-1})), \qquad
        z_t = \sigma(\mathrm{LN}_z(p^z_t + U_z h_{t-1})) \\
        n_t &= \tanh(\mathrm{LN}_n(p^n_t + U_n (r_t h_{t-1}))), \qquad
        h_t = (1 - z_t) h_{t-1} + z_t n_t

    The terms p do not depend on the state: the caller makes those of all frames by one product.
    What is kept for the backward are the normalised arguments of the gates.

    Args:
        pre: (S, N, T, 3 * D), p of reset r, update z and candidate n.
        weight: (S, 3 * D, D), U of r, z and n.
        ln_weight: (S, 3, D) scales of the layer normalisations (eps 1e-5), pre's dtype or float32;
            None for no normalisation.
        ln_bias: (S, 3, D) shifts, with ``ln_weight`` only.
        h0: (S, N, D) states before the first frame; None for zeros.
        reset_after: reset the product instead, :math:`r_t (U_n h_{t-1} + c)`, as GRUs do.
        reset_bias: (S, D), c, with ``reset_after`` only; None for zeros.

    Returns:
        (S, N, T, D) states h, pre's dtype, computed in float32 for half types.

    Raises:
        ValueError: shapes do not fit, only one of ``ln_weight`` and ``ln_bias``, ``reset_bias``
            without ``reset_after``, or tensors are on different devices.
        TypeError: a tensor is not floating point, or dtypes differ outside autocast.

    Backends: cpu, triton, reference.

    Example:
        >>> pre = torch.randn(2, 8, 16, 3 * 64)        # two modalities, 8 clips of 16 frames
        >>> U, one = torch.randn(2, 3 * 64, 64) / 8, torch.ones(2, 3, 64)
        >>> mcu_scan(pre, U, one, torch.zeros(2, 3, 64)).shape
        torch.Size([2, 8, 16, 64])

    Source: Lee et al., Modality Mixer for Multi-modal Action Recognition, WACV 2023, section 3.2.
    """
    op = "mcu_scan"
    pre, weight, h0, reset_bias = _check.autocast(pre, weight, h0, reset_bias)
    _check.tensors(op, pre=pre, weight=weight, h0=h0, reset_bias=reset_bias)
    _check.norm_tensors(op, pre, ln_weight=ln_weight, ln_bias=ln_bias)
    _check.shape(op, "pre", pre, "S N T 3*D")
    S, N, _, width = pre.shape
    if width % 3 or width == 0:
        raise _check.fail(op, "pre of 3 * D channels", _check.shape_text(pre.shape))
    D = width // 3
    _check.shape(op, "weight", weight, "S 3*D D", S=S, D=D, **{"3*D": width})
    if (ln_weight is None) != (ln_bias is None):
        given = "ln_bias" if ln_weight is None else "ln_weight"
        raise _check.fail(op, "ln_weight and ln_bias or neither", given)
    for name, t in (("ln_weight", ln_weight), ("ln_bias", ln_bias)):
        if t is not None:
            _check.shape(op, name, t, "S 3 D", S=S, D=D, **{"3": 3})
    if h0 is not None:
        _check.shape(op, "h0", h0, "S N D", S=S, N=N, D=D)
    if reset_bias is not None:
        _check.shape(op, "reset_bias", reset_bias, "S D", S=S, D=D)
        if not reset_after:
            raise _check.fail(op, "reset_bias with reset_after only", "it alone")
    return _op(pre, weight, ln_weight, ln_bias, h0, reset_bias, reset_after)[0]


def _reference(
    pre: Tensor, weight: Tensor, ln_weight: Tensor | None, ln_bias: Tensor | None,
    h0: Tensor | None, reset_bias: Tensor | None, reset_after: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """States, and for the backward: the normalised arguments of the gates (and, where it is what
    is reset, the product of the state), and the factors of the normalisations."""
    full = torch.promote_types(pre.dtype, torch.float32)
    S, N, T, width = pre.shape
    D = width // 3
    p, U = pre.to(full).unflatten(-1, (3, D)), weight.to(full).unflatten(1, (3, D))

    def normalised(k: int, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, 1 / sigma and w x + b of gate k."""
        if ln_weight is None or ln_bias is None:
            return a, torch.ones_like(a[..., 0]), a
        centred = a - a.mean(-1, keepdim=True)
        rstd = (centred.square().mean(-1, keepdim=True) + EPS).rsqrt()
        x = centred * rstd
        y = x * ln_weight[:, None, k].to(full) + ln_bias[:, None, k].to(full)
        return x, rstd[..., 0], y

    def product(k: int, h: Tensor) -> Tensor:
        with torch.autocast(pre.device.type, enabled=False):
            return h @ U[:, k].mT

    h = pre.new_zeros(S, N, D, dtype=full) if h0 is None else h0.to(full)
    states, notes, factors = [], [], []
    for t in range(T):
        x_r, rstd_r, r = normalised(0, p[:, :, t, 0] + product(0, h))
        x_z, rstd_z, z = normalised(1, p[:, :, t, 1] + product(1, h))
        r, z = r.sigmoid(), z.sigmoid()
        m = product(2, h if reset_after else r * h)
        if reset_bias is not None:
            m = m + reset_bias[:, None].to(full)
        x_n, rstd_n, n = normalised(2, p[:, :, t, 2] + (r * m if reset_after else m))
        h = (1 - z) * h + z * n.tanh()
        states.append(h)
        notes.append(torch.stack([x_r, x_z, x_n, *([m] if reset_after else [])], 2))
        factors.append(torch.stack([rstd_r, rstd_z, rstd_n], 2))
    if T == 0:  # with a graph, though an empty one
        nothing = [pre.new_empty(shape, dtype=t) for shape, t in _results(pre, full, reset_after)]
        return nothing[0] + p.sum((2, 3), keepdim=True)[:, :, :, 0].to(pre.dtype), *nothing[1:]
    out, kept, rstd = (torch.stack(frames, 2) for frames in (states, notes, factors))
    return out.to(pre.dtype), kept.detach(), rstd.detach()


def _results(pre: Tensor, full: torch.dtype, reset_after: bool) -> tuple:
    """Shapes and dtypes of states, notes and factors."""
    S, N, T, width = pre.shape
    D = width // 3
    notes = (S, N, T, 3 + reset_after, D)
    return ((S, N, T, D), pre.dtype), (notes, full), ((S, N, T, 3), full)


def _fake(pre, weight, ln_weight, ln_bias, h0, reset_bias, reset_after):
    full = torch.promote_types(pre.dtype, torch.float32)
    return tuple(pre.new_empty(shape, dtype=t) for shape, t in _results(pre, full, reset_after))


_op = define(
    "mcu_scan",
    "(Tensor pre, Tensor weight, Tensor? ln_weight, Tensor? ln_bias, Tensor? h0, "
    "Tensor? reset_bias, bool reset_after) -> (Tensor out, Tensor notes, Tensor rstd)",
    _reference,
    fake=_fake,
    grads=("pre", "weight", "ln_weight", "ln_bias", "h0", "reset_bias"),
    saved=("out", "notes", "rstd"),
    gpu=("triton",),
)
