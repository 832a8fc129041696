"""Masked spatio-temporal attention on packed q, k, v: softmax(scale q k^T + bias, mask) v."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define


def st_attention(
    qkv: Tensor,
    heads: int,
    *,
    joints: int = 1,
    within: str | None = None,
    window: int | None = None,
    pairs: Tensor | None = None,
    tokens: Tensor | None = None,
    key_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    max_len: int | None = None,
    joint_bias: Tensor | None = None,
    lag_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    r"""Attention among the joint-frame tokens of a skeleton sequence, restricted by structure.

    Token :math:`i` of a sequence is joint :math:`v_i` in frame :math:`t_i`; it attends to the set
    :math:`K_i` of the tokens of its sequence that every given restriction admits.

    .. math::
        s_{ij} = \text{scale}\; q_i \cdot k_j + B_{v_i v_j} + R_{t_i - t_j}, \qquad
        o_i = \sum_{j \in K_i} \frac{e^{s_{ij}}}{\sum_{l \in K_i} e^{s_{il}}} v_j

    A token whose :math:`K_i` is empty has output 0 and passes no gradient. Only the logarithm of
    the denominator, one number per token and head, is kept for the backward; no (L, L) tensor ever
    exists, and tiles that a restriction empties are not computed.

    Args:
        qkv: (N, L, 3 * H * D), the output of a ViT's ``qkv`` layer: q, k, v, each of H heads. With
            ``cu_seqlens`` (P, 3 * H * D), the tokens of all sequences one after the other.
        heads: H.
        joints: V. Without ``tokens``, token i of a sequence is joint i % V in frame i // V.
        within: "frame", attend to the tokens of the same frame (joint attention); "joint", to those
            of the same joint (temporal attention); None, to both.
        window: attend at most this many frames back and ahead; None, any distance.
        pairs: (V, V) boolean, True where the query joint (row) may attend to the key joint
            (column), as ``layout.hop_distances() <= 2``; None, all.
        tokens: qkv.shape[:-1] integers, the kept tokens of a masked sequence: t * V + v >= 0 of
            every one, in any order.
        key_mask: qkv.shape[:-1] boolean, True = kept: False tokens are attended to by none.
        cu_seqlens: (S + 1,) integers, ascending from 0: tokens cu_seqlens[s] to cu_seqlens[s + 1]
            make sequence s. Rows behind the last sequence have output 0. With ``within="frame"`` or
            ``pairs``, and without ``tokens``, sequences are of whole frames.
        max_len: length of the longest sequence, with ``cu_seqlens`` only.
        joint_bias: (H, V, V), B for every pair of query and key joint.
        lag_bias: (H, 2 * W + 1), R for lags -W to W of query frame behind key frame; lags beyond
            count as -W and W.
        scale: D ** -0.5 if None.

    Returns:
        (N, L, H * D) or (P, H * D), qkv's dtype; products and softmax in float32 for half types.

    Raises:
        ValueError: shapes or options do not fit, or tensors are on different devices.
        TypeError: a tensor of the wrong dtype.

    Backends: cpu, triton, reference.

    Example:
        >>> st_attention(block.qkv(x), 8).shape  # x (N, 750, 256): every token to every token
        torch.Size([N, 750, 256])
        >>> near = skelops.graph.get_layout("ntu25").hop_distances() <= 2
        >>> y = st_attention(block.qkv(x), 8, joints=25, window=3, pairs=near)
        >>> y = st_attention(block.qkv(kept), 8, joints=25, tokens=ids_keep, lag_bias=lag_bias)

    Source: Vaswani et al., NeurIPS 2017, eq. 1; kept tokens: Mao et al., MAMP, ICCV 2023;
    factorised: Plizzari et al., ST-TR, CVIU 2021; never materialised: Dao et al.,
    FlashAttention, NeurIPS 2022.
    """
    qkv, joint_bias, lag_bias = _check.autocast(qkv, joint_bias, lag_bias)
    _check.tensors("st_attention", qkv=qkv, joint_bias=joint_bias, lag_bias=lag_bias)
    D = _head_width(qkv, heads, ragged=cu_seqlens is not None)
    if joints < 1:
        raise _check.fail("st_attention", "joints >= 1", joints)
    if within not in (None, "frame", "joint"):
        raise _check.fail("st_attention", "within None, 'frame' or 'joint'", repr(within))
    if window is not None and window < 0:
        raise _check.fail("st_attention", "window >= 0 or None", window)
    axes = "N L" if cu_seqlens is None else "P"
    rows = dict(zip(axes.split(), qkv.shape[:-1], strict=True))
    pairs = _of_kind("pairs", pairs, torch.bool, qkv, "V V", V=joints)
    tokens = _of_kind("tokens", tokens, torch.int32, qkv, axes, **rows)
    key_mask = _of_kind("key_mask", key_mask, torch.bool, qkv, axes, **rows)
    cu_seqlens = _of_kind("cu_seqlens", cu_seqlens, torch.int32, qkv, "S+1")
    if cu_seqlens is not None and (cu_seqlens.shape[0] == 0 or max_len is None or max_len < 0):
        what = "cu_seqlens (S + 1,) together with max_len >= 0"
        got = f"{_check.shape_text(cu_seqlens.shape)} and {max_len}"
        raise _check.fail("st_attention", what, got)
    if cu_seqlens is None and max_len is not None:
        raise _check.fail("st_attention", "max_len only with cu_seqlens", max_len)
    if joint_bias is not None:
        _check.shape("st_attention", "joint_bias", joint_bias, "H V V", H=heads, V=joints)
    if lag_bias is not None:
        _check.shape("st_attention", "lag_bias", lag_bias, "H 2*W+1", H=heads)
        if lag_bias.shape[1] % 2 == 0:
            what, got = "lag_bias of an odd number of lags", str(lag_bias.shape[1])
            raise _check.fail("st_attention", what, got)
    window = 0 if within == "frame" else -1 if window is None else window
    longest = -1 if max_len is None else max_len
    scale = float(D**-0.5 if scale is None else scale)
    tensors = (qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens)
    return _op(*tensors, heads, joints, window, within == "joint", longest, scale)[0]


def _head_width(qkv: Tensor, heads: int, ragged: bool) -> int:
    if heads < 1:
        raise _check.fail("st_attention", "heads >= 1", heads)
    _check.shape("st_attention", "qkv", qkv, "P 3*H*D" if ragged else "N L 3*H*D")
    if qkv.shape[-1] % (3 * heads) or qkv.shape[-1] == 0:
        what = f"qkv of 3 * H * D channels with H={heads}"
        raise _check.fail("st_attention", what, _check.shape_text(qkv.shape))
    return qkv.shape[-1] // (3 * heads)


def _of_kind(
    name: str, t: Tensor | None, dtype: torch.dtype, qkv: Tensor, dims: str, **sizes: int
) -> Tensor | None:
    """An index or mask tensor of its shape; any integers will do, and become int32."""
    if t is None:
        return None
    wanted = "boolean" if dtype == torch.bool else "integer"
    if not isinstance(t, Tensor):
        raise TypeError(f"st_attention: expected {name} to be a tensor, got {type(t).__name__}")
    is_integer = not (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool)
    if not (t.dtype == torch.bool if dtype == torch.bool else is_integer):
        raise TypeError(f"st_attention: expected {name} of {wanted} dtype, got {t.dtype}")
    _check.shape("st_attention", name, t, dims, **sizes)
    if t.device != qkv.device:
        what = f"{name} on qkv's device {qkv.device}"
        raise _check.fail("st_attention", what, t.device)
    return t.to(dtype)


def _reference(
    qkv: Tensor, joint_bias: Tensor | None, lag_bias: Tensor | None, pairs: Tensor | None,
    tokens: Tensor | None, key_mask: Tensor | None, cu_seqlens: Tensor | None, heads: int,
    joints: int, window: int, same_joint: bool, max_len: int, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rules = (joint_bias, lag_bias, pairs, heads, joints, window, same_joint, scale)
    if cu_seqlens is None:
        return _attend(qkv, tokens, key_mask, *rules)
    P = qkv.shape[0]
    rows = cu_seqlens[:-1, None] + torch.arange(max_len, device=qkv.device)
    inside = rows < cu_seqlens[1:, None]  # (S, max_len)
    at = rows.clamp(max=max(P - 1, 0))
    tokens = None if tokens is None else tokens[at]
    kept = inside if key_mask is None else inside & key_mask[at]
    padded, padded_lse = _attend(qkv[at], tokens, kept, *rules)
    out = padded.new_zeros(P, padded.shape[-1]).index_put((rows[inside],), padded[inside])
    lse = padded_lse.new_zeros(heads, P)
    lse[:, rows[inside]] = padded_lse[:, inside]
    return out, lse


def _attend(
    qkv: Tensor, tokens: Tensor | None, key_mask: Tensor | None, joint_bias: Tensor | None,
    lag_bias: Tensor | None, pairs: Tensor | None, heads: int, joints: int, window: int,
    same_joint: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sequences of one length, (N, L, 3 H D) -> (N, L, H D), (H, N, L)."""
    N, L, width = qkv.shape
    q, k, v = qkv.view(N, L, 3, heads, width // (3 * heads)).unbind(2)
    ids = torch.arange(L, device=qkv.device)[None] if tokens is None else tokens.long()
    joint, frame = ids % joints, torch.div(ids, joints, rounding_mode="floor")
    query, key = joint[:, :, None], joint[:, None, :]
    lag = frame[:, :, None] - frame[:, None, :]

    kept = torch.ones_like(lag, dtype=torch.bool)  # (N or 1, L, L)
    if window >= 0:
        kept = kept & (lag.abs() <= window)
    if same_joint:
        kept = kept & (query == key)
    if pairs is not None:
        kept = kept & pairs[query, key]
    if key_mask is not None:
        kept = kept & key_mask[:, None, :]

    scores = torch.einsum("nlhd,nmhd->hnlm", q, k) * scale
    if joint_bias is not None:
        scores = scores + joint_bias[:, query, key]
    if lag_bias is not None:
        W = lag_bias.shape[1] // 2
        scores = scores + lag_bias[:, lag.clamp(-W, W) + W]
    # Finite in place of -inf: a row without keys has softmax 1 / L, then 0, never NaN.
    scores = scores.masked_fill(~kept, torch.finfo(scores.dtype).min)
    probabilities = scores.softmax(-1).masked_fill(~kept, 0)
    out = torch.einsum("hnlm,nmhd->nlhd", probabilities, v).contiguous()
    # In base 2, for the backward to read without another rounding; infinite where there is no key,
    # so that every probability made from it is 0.
    exact = scores.detach().to(torch.promote_types(scores.dtype, torch.float32))
    lse = (exact.logsumexp(-1) * math.log2(math.e)).masked_fill(~kept.any(-1), torch.inf)
    return out.view(N, L, width // 3), lse


def _fake(
    qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens, heads, joints, window,
    same_joint, max_len, scale,
):  # fmt: skip
    *rows, width = qkv.shape
    lse = qkv.new_empty(heads, *rows, dtype=torch.promote_types(qkv.dtype, torch.float32))
    return qkv.new_empty(*rows, width // 3), lse


_op = define(
    "st_attention",
    "(Tensor qkv, Tensor? joint_bias, Tensor? lag_bias, Tensor? pairs, Tensor? tokens, "
    "Tensor? key_mask, Tensor? cu_seqlens, int heads, int joints, int window, bool same_joint, "
    "int max_len, float scale) -> (Tensor out, Tensor lse)",
    _reference,
    fake=_fake,
    grads=("qkv", "joint_bias", "lag_bias"),
    saved=("out", "lse"),
    gpu=("triton",),
)
