"""Gait recognition and re-identification by features: who of a gallery is nearest to a probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skelops import _check

# CASIA-B: normal walking, with a bag, in a coat; the first four normal ones are the gallery.
CASIA_B_GALLERY = ("nm-01", "nm-02", "nm-03", "nm-04")
CASIA_B_PROBES = {
    "NM": ("nm-05", "nm-06"),
    "BG": ("bg-01", "bg-02"),
    "CL": ("cl-01", "cl-02"),
}


def cross_view_rank1(
    feature: Tensor, subject: Tensor, view: Tensor, gallery: Tensor, probe: Tensor
) -> Tensor:
    """Rank-1 accuracy of every pair of views, by the cosine of features.

    Args:
        feature: (N, D), e.g. ``model.pooled(x)`` of ``skelops.models.ACLNet``.
        subject: (N,) int64.
        view: (N,) int64 in 0..W-1.
        gallery, probe: (N,) bool.

    Returns:
        (W, W) shares of the probes of a view (row) whose nearest neighbour in the gallery of a
        view (column) is of the same subject; NaN where there is no probe or no gallery.

    Raises:
        ValueError: shapes that do not fit.
    """
    op = "cross_view_rank1"
    _check.shape(op, "feature", feature, "N D")
    for name, value in (("subject", subject), ("view", view), ("gallery", gallery),
                        ("probe", probe)):  # fmt: skip
        _check.shape(op, name, value, "N", N=len(feature))
    z = F.normalize(feature.float(), dim=1)
    W = int(view.max()) + 1 if len(view) else 0
    rank1 = z.new_full((W, W), float("nan"))
    for column in range(W):
        rows = (gallery & (view == column)).nonzero()[:, 0]
        asked = probe.nonzero()[:, 0]
        if not len(rows) or not len(asked):
            continue
        nearest = rows[(z[asked] @ z[rows].T).argmax(1)]
        right = (subject[nearest] == subject[asked]).float()
        for row in view[asked].unique().tolist():
            rank1[row, column] = right[view[asked] == row].mean()
    return rank1


def casia_b(
    feature: Tensor,
    subject: Tensor,
    sequence: Sequence[str],
    view: Tensor,
    gallery: Sequence[str] = CASIA_B_GALLERY,
    probes: Mapping[str, Sequence[str]] = CASIA_B_PROBES,
) -> dict[str, float]:
    """The protocol of CASIA-B: mean rank-1 over views but identical ones, by walking condition.

    Args:
        feature: (N, D) of the walks of the test subjects (075 to 124 as usual).
        subject: (N,) int64.
        sequence: N names such as "nm-01".
        view: (N,) int64, number of the camera angle.
        gallery, probes: names of the sequences.

    Returns:
        Rank-1 by condition, and the "mean" of them.

    Raises:
        ValueError: other shapes; a condition without a probe, or none of another view.

    Source: Yu et al., ICPR 2006; Chao et al., GaitSet, AAAI 2019, section 4.
    """
    if len(sequence) != len(feature):
        raise _check.fail("casia_b", f"{len(feature)} names of sequences", len(sequence))

    def among(names: Sequence[str]) -> Tensor:
        return torch.tensor([name in names for name in sequence], device=feature.device)

    kept = among(gallery)
    found = {}
    for condition, names in probes.items():
        rank1 = cross_view_rank1(feature, subject, view, kept, among(names))
        rank1.fill_diagonal_(float("nan"))
        # First over the galleries of a probe's view, as in published tables.
        each = rank1.nanmean(1)
        if each.isnan().all():
            expected = f"probes of {condition} and a gallery of another view"
            raise _check.fail("casia_b", expected, "none")
        found[condition] = each.nanmean().item()
    return found | {"mean": sum(found.values()) / len(found)}


def reidentify(
    query: Tensor,
    query_subject: Tensor,
    gallery: Tensor,
    gallery_subject: Tensor,
    query_camera: Tensor | None = None,
    gallery_camera: Tensor | None = None,
    ranks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Cumulative matching and mean average precision of a gallery ranked by cosine.

    With cameras, entries of the query's subject from its own camera are left out. Queries without
    a match left do not count.

    Args:
        query, gallery: (Q, D) and (G, D) features.
        query_subject, gallery_subject, query_camera, gallery_camera: (Q,) and (G,) int64.
        ranks: of the matching.

    Returns:
        "rank1", ..., "mAP".

    Raises:
        ValueError: shapes that do not fit, cameras of one side only, no query with a match.

    Source: Zheng et al., Scalable Person Re-identification, ICCV 2015.
    """
    op = "reidentify"
    _check.shape(op, "query", query, "Q D")
    _check.shape(op, "gallery", gallery, "G D", D=query.shape[1])
    sizes = {"Q": len(query), "G": len(gallery)}
    _check.shape(op, "query_subject", query_subject, "Q", **sizes)
    _check.shape(op, "gallery_subject", gallery_subject, "G", **sizes)
    if (query_camera is None) != (gallery_camera is None):
        raise _check.fail(op, "cameras of both sides", "those of one")
    same = query_subject[:, None] == gallery_subject
    left_out = torch.zeros_like(same)
    if query_camera is not None and gallery_camera is not None:
        left_out = same & (query_camera[:, None] == gallery_camera)
    cosine = F.normalize(query.float(), dim=1) @ F.normalize(gallery.float(), dim=1).T
    ranked = cosine.masked_fill(left_out, -float("inf"))
    order = torch.sort(ranked, dim=1, descending=True, stable=True).indices
    hit = (same & ~left_out).gather(1, order)
    hit = hit[hit.any(1)]
    if not len(hit):
        raise _check.fail(op, "a query with a match in the gallery", "none")
    place = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    precision = hit.cumsum(1) / place
    found = {f"rank{k}": hit[:, :k].any(1).float().mean().item() for k in ranks}
    return found | {"mAP": ((precision * hit).sum(1) / hit.sum(1)).mean().item()}
