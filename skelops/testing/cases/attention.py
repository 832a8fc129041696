"""Cases of attention among the tokens of skeleton sequences."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from skelops import ops
from skelops.testing.cases import Case, Draw, register, relayout


def _kept_tokens(draw: Draw, N: int, L: int, grid: int, ascending: bool) -> Tensor:
    """L of the grid's tokens for every sample."""
    order = torch.rand(N, grid, generator=draw.generator).argsort(-1)[:, :L]
    return (order.sort(-1).values if ascending else order).int()


def _lengths(N: int, ragged: tuple[int, ...]) -> list[int]:
    return [ragged[n % len(ragged)] for n in range(N)]


def st_attention(
    draw, N=2, L=6, H=2, D=4, V=1, window=-1, same_joint=False, hops=None, grid=None,
    ascending=True, masked=None, ragged=None, behind=0, joint_bias=False, lags=None, scale=None,
    layout="contiguous",
):  # fmt: skip
    """``grid``: tokens are L of so many; ``masked``: "keys" at random, "sample" all of the first,
    "queries" by pairs; ``ragged``: lengths, in turn; ``behind``: rows without a sequence."""
    cu_seqlens, rows = None, (N, L)
    if ragged is not None:
        lengths = torch.tensor([0, *_lengths(N, ragged)])
        cu_seqlens = lengths.cumsum(0).int().to(draw.device)
        rows = (int(lengths.sum()) + behind,)
    qkv = draw.normal(*rows, 3 * H * D)
    B = draw.normal(H, V, V) if joint_bias else None
    R = draw.normal(H, 2 * lags + 1) if lags is not None else None
    pairs = tokens = key_mask = None
    if hops is not None:
        pairs = (torch.arange(V)[:, None] - torch.arange(V)).abs() <= hops
        if masked == "queries":
            pairs[V // 2] = False
        pairs = pairs.to(draw.device)
    if grid is not None:
        flat = _kept_tokens(draw, 1 if ragged else N, rows[-1], grid, ascending)
        tokens = flat.reshape(rows).to(draw.device)
    if masked in ("keys", "sample"):
        key_mask = torch.rand(rows, generator=draw.generator) < 0.7
        if masked == "sample":
            key_mask[:1] = False
        key_mask = key_mask.to(draw.device)
    tensors = (qkv, B, R, pairs, tokens, key_mask)
    arranged = [t if t is None else relayout(t, layout) for t in tensors]
    longest = -1 if ragged is None else max(ragged)
    options = (H, V, window, same_joint, longest, D**-0.5 if scale is None else scale)
    return *arranged, cu_seqlens, *options


def _public(
    qkv, joint_bias, lag_bias, pairs, tokens, key_mask, cu_seqlens, heads, joints, window,
    same_joint, max_len, scale,
):  # fmt: skip
    return ops.st_attention(
        qkv, heads, joints=joints, within="joint" if same_joint else None,
        window=None if window < 0 else window, pairs=pairs, tokens=tokens, key_mask=key_mask,
        cu_seqlens=cu_seqlens, max_len=None if cu_seqlens is None else max_len,
        joint_bias=joint_bias, lag_bias=lag_bias, scale=scale,
    )  # fmt: skip


_case = partial(Case, build=st_attention, public=_public)
_BIASED = dict(joint_bias=True, lags=2)
_RAGGED = dict(V=3, ragged=(6, 3, 12, 0))
register(
    "st_attention",
    _case("plain", small=True),
    _case("scaled", dims=dict(scale=0.7, D=3), small=True),
    _case("unscaled", dims=dict(L=12, V=3, window=1, scale=0.0), small=True),
    _case("biased", dims=dict(L=12, V=3, **_BIASED), small=True),
    _case("joint_bias", dims=dict(L=6, V=3, joint_bias=True), small=True),
    _case("lag_bias", dims=dict(L=7, lags=9), small=True),
    _case("window", dims=dict(L=12, V=3, window=1), small=True),
    _case("window-biased", dims=dict(L=12, V=3, window=1, **_BIASED), small=True),
    _case("frame", dims=dict(L=12, V=3, window=0), small=True),
    _case("frame-biased", dims=dict(L=12, V=3, window=0, **_BIASED), small=True),
    _case("joint", dims=dict(L=12, V=3, same_joint=True), small=True),
    _case("joint-biased", dims=dict(L=12, V=3, same_joint=True, **_BIASED), small=True),
    _case("hops", dims=dict(L=12, V=4, hops=1), small=True),
    _case("hops-window-biased", dims=dict(L=16, V=4, hops=1, window=1, **_BIASED), small=True),
    _case("hops-queries", dims=dict(L=12, V=4, hops=1, masked="queries"), small=True),
    _case("hops-frame", dims=dict(L=12, V=4, hops=1, window=0, lags=1), small=True),
    _case("keys", dims=dict(L=9, masked="keys"), small=True),
    _case("keys-biased", dims=dict(L=9, V=3, masked="keys", **_BIASED), small=True),
    _case("sample", dims=dict(L=5, masked="sample"), small=True),
    _case("kept", dims=dict(L=5, V=3, grid=18), small=True),
    _case("kept-biased", dims=dict(L=5, V=3, grid=18, **_BIASED), small=True),
    _case("kept-window", dims=dict(L=7, V=3, grid=18, window=1, ascending=False), small=True),
    _case("kept-joint", dims=dict(L=7, V=3, grid=18, same_joint=True), small=True),
    _case("kept-hops", dims=dict(L=7, V=3, grid=18, hops=1, window=2, **_BIASED), small=True),
    _case("ragged", dims=_RAGGED, small=True),
    _case("ragged-behind", dims=dict(behind=2, **_RAGGED), small=True),
    _case("ragged-frame", dims=dict(window=0, behind=3, **_RAGGED), small=True),
    _case("ragged-joint", dims=dict(same_joint=True, lags=1, **_RAGGED), small=True),
    _case("ragged-biased", dims=dict(masked="keys", **_BIASED, **_RAGGED), small=True),
    _case("ragged-kept", dims=dict(grid=60, window=5, behind=1, **_BIASED, **_RAGGED), small=True),
    _case("mamp_encoder", dims=dict(N=2, L=75, H=8, D=32, V=25)),
    _case("mamp_kept", dims=dict(N=2, L=74, H=4, D=32, V=25, grid=750, joint_bias=True, lags=29)),
    _case("mamp_decoder", dims=dict(N=1, L=750, H=2, D=32, V=25)),
    _case("decoder_biased", dims=dict(N=1, L=325, H=2, D=32, V=25, joint_bias=True, lags=12)),
    _case("decoder_window", dims=dict(N=1, L=400, H=2, D=32, V=25, window=2)),
    _case("decoder_hops", dims=dict(N=1, L=325, H=2, D=32, V=25, window=5, hops=2, lags=5)),
    _case("decoder_joint", dims=dict(N=1, L=750, H=2, D=32, V=25, same_joint=True)),
    _case("cascadeformer_joints_cs", dims=dict(N=8, L=25, H=16, D=2)),
    _case("cascadeformer_joints_cv", dims=dict(N=8, L=25, H=8, D=3)),
    _case("cascadeformer_frames_cs", dims=dict(N=2, L=64, H=4, D=50)),
    _case("cascadeformer_frames_cv", dims=dict(N=2, L=64, H=2, D=75)),
    _case("cascadeformer_frames_10", dims=dict(N=1, L=64, H=3, D=48)),
    _case("frames_as_batch", dims=dict(N=2, L=13 * 25, H=2, D=24, V=25, window=0, lags=0)),
    _case("wide_head", dims=dict(N=1, L=65, H=2, D=128)),
    _case("odd_head", dims=dict(N=1, L=33, H=1, D=67)),
    _case("head_of_one", dims=dict(N=2, L=17, H=3, D=1)),
    _case("one_token", dims=dict(N=3, L=1, H=2, D=32)),
    _case("long", dims=dict(N=1, L=1100, H=1, D=16)),
    _case("large_scores", dims=dict(N=1, L=64, H=2, D=32, scale=3.0)),
    _case("people", dims=dict(N=5, H=2, D=32, V=17, ragged=(51, 0, 17, 340, 136), joint_bias=True)),
    _case("people_hops", dims=dict(N=4, H=2, D=20, V=17, ragged=(51, 17, 221), hops=3, window=4)),
    _case("padded_frames", dims=dict(N=3, L=100, H=2, D=32, V=20, masked="sample")),
    _case("transposed", dims=dict(N=2, L=40, H=2, D=8, V=20, layout="transposed", **_BIASED)),
    _case("sliced", dims=dict(N=2, L=40, H=2, D=8, V=20, hops=2, layout="sliced", masked="keys")),
    _case("expanded", dims=dict(N=3, L=30, H=2, D=8, V=10, layout="expanded", joint_bias=True)),
)
