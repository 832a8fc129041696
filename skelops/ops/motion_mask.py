"""Motion-guided masking: of a skeleton's tokens, those with the least a + Gumbel noise are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _tokens
from skelops.ops._tokens import EPS


def motion_mask(
    x: Tensor,
    noise: Tensor,
    *,
    mask_ratio: float = 0.9,
    segment: int = 4,
    tau: float = 0.8,
    exact: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Choose the tokens an encoder sees; the more a token moves, the likelier it is masked.

    A token :math:`l = t'V + v` is joint v in segment t' of u = ``segment`` frames. Its motion is
    that of one whole segment, at the same place in it:

    .. math::
        I_{t'v} &= \frac{1}{uC} \sum_{jc} |x_{t'u+j,v,c} - x_{(t'-1)u+j,v,c}|, \quad
            I_{0v} = I_{1v}

        key_l &= \frac{I_l}{\tau \max_{l'} I_{l'} + \epsilon}
            - \log(-\log(U_l + \epsilon) + \epsilon), \quad \epsilon = 10^{-10}

    The K = int(L (1 - ``mask_ratio``)) tokens of least key are kept, in double arithmetic as
    published: a ratio of 0.9 keeps 74 of 750. Of equal keys the first is less, NaN is largest.

    Args:
        x: (N, T, V, C), T a multiple of ``segment``. A motion that is not finite (a joint that is
            NaN) counts as none; clips that stand still, absent persons and clips of one segment
            are masked uniformly.
        noise: (N, L) uniform in [0, 1), L = T / segment * V, of any floating dtype.
        mask_ratio: share of masked tokens in [0, 1]. At 1 nothing is kept, at 0 everything.
        segment: frames per token.
        tau: temperature; 0 ignores the motion, and the key is the noise itself (MAE).
        exact: order the tokens by key, as published, instead of by place.

    Returns:
        ids_keep: (N, K) int64, kept tokens; ascending unless ``exact``.
        mask: (N, L) bool, True = kept.
        ids_restore: (N, L) int64, the place of every token among the kept ones (below K), then the
            masked ones.

    Raises:
        ValueError: shapes do not fit, ``mask_ratio``, ``segment`` or ``tau`` out of range.
        TypeError: a tensor is not floating point, ``x`` requires a gradient.

    Backends: cpu, triton, reference.

    Example:
        >>> x = torch.randn(2, 120, 25, 3)
        >>> ids_keep, mask, ids_restore = motion_mask(x, torch.rand(2, 750))
        >>> ids_keep.shape, mask.shape
        (torch.Size([2, 74]), torch.Size([2, 750]))

    Source: Mao et al., MAMP, ICCV 2023, section 3.2 and its code, which take the motion of a
    segment.
    """
    name = "motion_mask"
    _check.tensors(name, x=x)
    _check.shape(name, "x", x, "N T V C")
    if x.requires_grad:
        raise TypeError(f"{name}: expected x that requires no gradient, got one that does")
    L = _tokens.count_tokens(name, x, segment)
    _tokens.check_noise(name, noise, x, L)
    _tokens.check_ratio(name, mask_ratio)
    if not tau >= 0:
        raise _check.fail(name, "tau >= 0", tau)
    return _op(x, noise, int(L * (1 - mask_ratio)), segment, float(tau), exact)


def _reference(x, noise, keep, segment, tau, exact):
    double = torch.float64 in (x.dtype, noise.dtype)
    key = noise.double() if double else noise.float()
    if tau > 0:
        scaled = _tokens.scaled_motion(x.to(key.dtype), segment, tau)
        key = scaled - (EPS - (key + EPS).log()).log()
    shuffle = key.argsort(dim=1, stable=True)
    if not exact:
        parts = shuffle[:, :keep], shuffle[:, keep:]
        shuffle = torch.cat([part.sort(1).values for part in parts], dim=1)
    place = torch.arange(key.shape[1], device=key.device).expand_as(shuffle)
    ids_restore = torch.empty_like(shuffle).scatter(1, shuffle, place)
    return shuffle[:, :keep].contiguous(), ids_restore < keep, ids_restore


def _fake(x, noise, keep, segment, tau, exact):
    N, L = noise.shape
    return (
        x.new_empty(N, keep, dtype=torch.int64),
        x.new_empty(N, L, dtype=torch.bool),
        x.new_empty(N, L, dtype=torch.int64),
    )


_op = define(
    "motion_mask",
    "(Tensor x, Tensor noise, int keep, int segment, float tau, bool exact) "
    "-> (Tensor ids_keep, Tensor mask, Tensor ids_restore)",
    _reference,
    fake=_fake,
    grads=(),
    gpu=("triton",),
)
