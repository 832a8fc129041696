"""Cases of ops that bring pixels and skeletons together."""

from __future__ import annotations

from functools import partial

from skelops import ops
from skelops.testing.cases import Case, register, relayout


def deform_sample_3d(
    draw, N=2, T=2, H=3, W=2, G=2, C=3, Q=4, P=2, weight=True, zeros=False, reach=1.0,
    full_loc=False, layout="contiguous",
):  # fmt: skip
    """``reach``: places spread so far about the centre, in sizes of the volume; ``full_loc``:
    places stay in float32."""
    value = draw.normal(N, T, H, W, G, C)
    loc = draw.normal(N, Q, G, P, 3, scale=reach / 2)
    for axis, size in enumerate((T, H, W)):
        loc[..., axis] = (loc[..., axis] + 0.5) * size - 0.5
    if full_loc:
        loc = loc.to(draw.norm_dtype)
    w = draw.normal(N, Q, G, P) if weight else None
    return *(t if t is None else relayout(t, layout) for t in (value, loc, w)), zeros


def _deform_sample_public(value, loc, weight, zeros):
    padding = "zeros" if zeros else "border"
    return ops.deform_sample_3d(value, loc, weight, padding=padding)


_deform = partial(Case, build=deform_sample_3d, public=_deform_sample_public)
register(
    "deform_sample_3d",
    _deform("border", small=True),
    _deform("zeros", dims=dict(zeros=True, T=1, P=1, full_loc=True), small=True),
    _deform("token_search", dims=dict(N=1, T=4, H=7, W=5, G=4, C=40, Q=19, P=1, weight=False)),
    _deform("far_outside", dims=dict(N=3, H=5, W=9, C=17, Q=23, P=3, zeros=True, reach=6.0)),
    _deform("sliced", dims=dict(C=9, Q=5, layout="sliced")),
)


def mcu_scan(
    draw, S=2, N=2, T=3, D=4, norm=True, start=True, reset_after=False, bias=False,
    layout="contiguous",
):  # fmt: skip
    pre, weight = draw.normal(S, N, T, 3 * D), draw.normal(S, 3 * D, D, scale=D**-0.5)
    norms = [None, None]
    if norm:
        norms = [draw.norm(S * 3 * D, mean).view(S, 3, D) for mean in (1.0, 0.0)]
    h0 = draw.normal(S, N, D, scale=0.5) if start else None
    tensors = (pre, weight, *norms, h0, draw.normal(S, D) if bias else None)
    return *(t if t is None else relayout(t, layout) for t in tensors), reset_after


def _mcu_scan_public(*args):
    *tensors, reset_bias, reset_after = args
    return ops.mcu_scan(*tensors, reset_after=reset_after, reset_bias=reset_bias)


_mcu = partial(Case, build=mcu_scan, public=_mcu_scan_public)
register(
    "mcu_scan",
    _mcu("normalised", small=True),
    _mcu("reset_after", dims=dict(norm=False, start=False, reset_after=True, T=2), small=True),
    _mcu("gru", dims=dict(S=1, N=3, T=2, norm=False, reset_after=True, bias=True), small=True),
    _mcu("odd", dims=dict(S=1, N=19, T=5, D=37)),
    _mcu("both", dims=dict(S=3, N=5, T=2, D=20, reset_after=True, bias=True, layout="sliced")),
)
