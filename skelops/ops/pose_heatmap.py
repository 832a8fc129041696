"""Gaussian maps of joints and limbs: y[n, k, t] = max_m score * exp(-distance^2 / (2 sigma^2))."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define

# Scores from which on a joint is drawn, by code base.
EPS = {"pyskl": 1e-3, "epam": 1e-4}


def pose_heatmap(
    keypoint: Tensor,
    score: Tensor | None,
    height: int,
    width: int,
    *,
    joints: bool = True,
    limbs: Sequence[Sequence[int]] | None = None,
    sigma: float = 0.6,
    flip: Tensor | None = None,
    mirror: Sequence[int] | None = None,
    convention: str = "pyskl",
    eps: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Heat-map volumes of a batch of skeleton sequences: what PoseC3D and EPAM-Net look at.

    .. math::
        y_{nktp} = \max_m \; s_{nmtk} \, e^{-d^2 / 2 \sigma^2}, \qquad d = |p - a_{nmtk} b_{nmtk}|

    of pixel :math:`p` to the segment between the joints of limb :math:`k`, whose score is the lower
    of both. A joint is a limb of its own two ends, and a limb shorter than a pixel is its first
    joint. Persons are drawn where their scores reach ``eps`` and within a box: from
    ``trunc(min(a, b) - 3 sigma)`` to ``trunc(max(a, b) + 3 sigma)``, in float32, cut to the image.
    Joints may lie outside of it; one that is not finite is not drawn, nor is one of score NaN. A
    joint at (0, 0) is drawn like any other, as published: the score tells what is missing.

    Differentiable in key-points and scores; a pixel's gradient goes to the person it shows, and the
    boxes count as constants.

    Args:
        keypoint: (N, M, T, V, 2), x and y in pixels.
        score: (N, M, T, V), or None for all one.
        height: H of the maps.
        width: W of the maps.
        joints: a map per joint.
        limbs: pairs of joints, a map each, behind those of the joints.
        sigma: of the Gaussians, in pixels.
        flip: (N,) bool, samples to show mirrored, with left and right exchanged. Default: none.
        mirror: with ``flip``, the partner of each joint, as ``Layout.mirror`` has it.
        convention: "pyskl", where a flip mirrors the finished map, x to W - 1 - x, or "epam", where
            it mirrors key-points, x to W - x unless x is 0. Sets ``eps``, too.
        eps: least score that is drawn. Default: 1e-3 (PYSKL) or 1e-4 (EPAM-Net).
        dtype: of the maps, floating, or uint8 for floor(255 y + 0.5). Default: keypoint's, under
            autocast the region's; key-points are read as they are, in float32 at least.

    Returns:
        (N, K, T, H, W), K joints, then limbs.

    Raises:
        ValueError: shapes that disagree, joints out of range, nothing to draw, a flip without
            mirror, sizes, sigma or eps that are not positive.
        TypeError: ``keypoint`` or ``score`` is not floating point, ``flip`` not bool, other
            dtypes.

    Backends: cpu, triton, reference.

    Example:
        >>> keypoint, score = 56 * torch.rand(2, 1, 48, 17, 2), torch.rand(2, 1, 48, 17)
        >>> pose_heatmap(keypoint, score, 56, 56).shape
        torch.Size([2, 17, 48, 56, 56])

    Source: Duan et al., *Revisiting Skeleton-based Action Recognition*, CVPR 2022, section 3.2;
    Abdelkawy et al., *EPAM-Net*, Neurocomputing 2025.
    """
    name = "pose_heatmap"
    score = torch.ones_like(keypoint[..., 0]) if score is None else score
    _check.tensors(name, keypoint=keypoint, score=score)
    _check.shape(name, "keypoint", keypoint, "N M T V 2", **{"2": 2})
    N, M, T, V, _ = keypoint.shape
    _check.shape(name, "score", score, "N M T V", N=N, M=M, T=T, V=V)
    for what, value in (("height", height), ("width", width), ("sigma", sigma)):
        if not value > 0:
            raise _check.fail(name, f"a positive {what}", value)
    if convention not in EPS:
        raise _check.fail(name, f"convention one of {', '.join(EPS)}", repr(convention))
    eps = EPS[convention] if eps is None else eps
    if not eps > 0:
        raise _check.fail(name, "a positive eps", eps)
    pairs = [(v, v) for v in range(V)] * joints + [(int(a), int(b)) for a, b in limbs or ()]
    if not pairs:
        raise _check.fail(name, "joints or limbs to draw", "neither")
    if not all(0 <= v < V for pair in pairs for v in pair):
        raise _check.fail(name, f"limbs of joints in 0..{V - 1}", limbs)
    if flip is not None:
        _check.shape(name, "flip", flip, "N", N=N)
        if flip.dtype != torch.bool:
            raise TypeError(f"{name}: expected flip of bool, got {flip.dtype}")
        if flip.device != keypoint.device:
            raise _check.fail(name, f"flip on keypoint's device {keypoint.device}", flip.device)
        if mirror is None or sorted(mirror) != list(range(V)):
            raise _check.fail(name, f"mirror of all {V} joints with flip", mirror)
    dtype = _check.autocast_dtype(keypoint) if dtype is None else dtype
    if not dtype.is_floating_point:
        if dtype != torch.uint8:
            raise TypeError(f"{name}: expected a floating dtype or torch.uint8, got {dtype}")
        keypoint, score = keypoint.detach(), score.detach()
    pixels = convention == "pyskl"
    partners = pairs if flip is None else _mirrored(pairs, list(mirror or ()), pixels)
    tables = [[v for pair in table for v in pair] for table in (pairs, partners)]
    return _op(keypoint, score, flip, *tables, height, width, sigma, eps, pixels, dtype)


def _mirrored(
    pairs: list[tuple[int, int]], mirror: list[int], pixels: bool
) -> list[tuple[int, int]]:
    """What each channel shows of a flipped sample. A mirrored map is that of the channel on the
    other side, which may name the ends of its limb in the other order."""
    known = {frozenset(pair): pair for pair in reversed(pairs)} if pixels else {}
    found = [(mirror[a], mirror[b]) for a, b in pairs]
    return [known.get(frozenset(pair), pair) for pair in found]


def _reference(
    keypoint: Tensor,
    score: Tensor,
    flip: Tensor | None,
    pairs: list[int],
    flipped: list[int],
    height: int,
    width: int,
    sigma: float,
    eps: float,
    mirror_pixels: bool,
    dtype: torch.dtype,
) -> Tensor:
    N, M, T, _, _ = keypoint.shape
    K, device = len(pairs) // 2, keypoint.device
    if M == 0:
        return keypoint.new_zeros(N, K, T, height, width, dtype=dtype)
    precision = torch.promote_types(keypoint.dtype, torch.float32)
    p, s = keypoint.to(precision), score.to(precision)
    usable = p.isfinite().all(-1) & (s >= eps)
    p, s = torch.where(usable[..., None], p, 0), torch.where(usable, s, 0)
    column = torch.arange(width, device=device).expand(N, 1, 1, 1, 1, width)
    row = torch.arange(height, device=device)[:, None]
    if flip is not None:
        turned = flip[:, None, None, None]
        if mirror_pixels:
            column = torch.where(turned[..., None, None], width - 1 - column, column)
        else:
            x, y = p.unbind(-1)
            p = torch.stack([torch.where(turned & (x != 0), width - x, x), y], dim=-1)

    def end(i: int) -> tuple[Tensor, ...]:
        """x, y, score and whether to draw, each (N, K, M, T)."""

        def of(z: Tensor) -> Tensor:
            # Without tables of joints: an exported program can hold no constant of an op.
            shown = torch.stack([z.select(3, v) for v in pairs[i::2]], 1)
            if flip is None:
                return shown
            other = torch.stack([z.select(3, v) for v in flipped[i::2]], 1)
            return torch.where(turned, other, shown)

        return of(p[..., 0]), of(p[..., 1]), of(s), of(usable)

    (ax, ay, sa, drawn_a), (bx, by, sb, drawn_b) = end(0), end(1)
    length = (ax - bx) ** 2 + (ay - by) ** 2
    point = length < 1
    bx, by = torch.where(point, ax, bx), torch.where(point, ay, by)
    peak = torch.where(point | (sa <= sb), sa, sb)

    def box(a: Tensor, b: Tensor, at: Tensor, size: int) -> Tensor:
        low = (torch.minimum(a, b) - 3 * sigma).trunc().clamp(min=0)[..., None, None]
        high = ((torch.maximum(a, b) + 3 * sigma).trunc() + 1).clamp(max=size)[..., None, None]
        return (at >= low) & (at < high)

    inside = box(ax, bx, column, width) & box(ay, by, row, height)
    inside = inside & (drawn_a & drawn_b)[..., None, None]
    rx, ry = column - ax[..., None, None], row - ay[..., None, None]
    dx, dy = (bx - ax)[..., None, None], (by - ay)[..., None, None]
    along = (rx * dx + ry * dy) / torch.where(point, 1, length)[..., None, None]
    along = along.clamp(0, 1)
    distance = (rx - along * dx) ** 2 + (ry - along * dy) ** 2
    value = peak[..., None, None] * torch.exp(-distance / (2 * sigma**2))
    shown = torch.where(inside, value, 0).max(dim=2).values
    if dtype == torch.uint8:
        shown = (255 * shown + 0.5).floor().clamp(0, 255)
    return shown.to(dtype).contiguous()


def _fake(
    keypoint, score, flip, pairs, flipped, height, width, sigma, eps, mirror_pixels, dtype
):  # fmt: skip
    N, _, T, _, _ = keypoint.shape
    return keypoint.new_empty(N, len(pairs) // 2, T, height, width, dtype=dtype)


_op = define(
    "pose_heatmap",
    "(Tensor keypoint, Tensor score, Tensor? flip, int[] pairs, int[] flipped, int height, "
    "int width, float sigma, float eps, bool mirror_pixels, ScalarType dtype) -> Tensor",
    _reference,
    fake=_fake,
    grads=("keypoint", "score"),
    gpu=("triton",),
)
