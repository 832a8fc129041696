"""Spherical k-means with intrinsic (Frechet) means."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import _check

MEAN_ROUNDS = 100


@torch.no_grad()
def sphere_kmeans(
    x: Tensor,
    centroids: Tensor,
    *,
    max_iter: int = 100,
    tol: float = 1e-3,
    mean_tol: float = 1e-4,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Lloyd's algorithm with angles as distances.

    Each centroid becomes the intrinsic mean of its members, by gradient descent from the first of
    them with all clusters side by side: :math:`c \leftarrow \exp_c(s \, \overline{\log_c x})`, the
    step s = 1 halved whenever the gradient grows.

    Args:
        x: (L, D) of unit length.
        centroids: (P, D) of unit length to start from, e.g. of :func:`sphere_kmeans_start`.
        max_iter: rounds.
        tol: stop when the centroids move by less on average (of their angles).
        mean_tol: a mean is found when the squared gradient is at most this times D.
        generator: draws the new places of centroids without members.

    Returns:
        Centroids (P, D) and labels (L,) int64, of the assignment to them.

    Raises:
        ValueError: shapes do not fit, less points than centroids.
        TypeError: dtypes differ.

    Source: Shah et al., HaLP, CVPR 2023, section 3.2; geomstats' RiemannianKMeans.
    """
    op = "sphere_kmeans"
    _check.tensors(op, x=x, centroids=centroids)
    _check.shape(op, "x", x, "L D")
    _check.shape(op, "centroids", centroids, "P D", D=x.shape[1])
    L, P = len(x), len(centroids)
    if not 1 <= P <= L:
        raise _check.fail(op, f"1 to L={L} centroids", P)
    label = (x @ centroids.T).argmax(1)
    for _ in range(max_iter):
        before = centroids
        member = torch.nn.functional.one_hot(label, P).T.to(x.dtype)
        count = member.sum(1)
        first = member.argmax(1)
        other = torch.randint(L, (P,), generator=generator).to(x.device)
        centroids = _means(x, member, x[first], mean_tol)
        centroids = torch.where((count > 0)[:, None], centroids, x[other])
        label = (x @ centroids.T).argmax(1)
        if (before * centroids).sum(1).clamp(-1, 1).acos().mean() < tol:
            break
    return centroids, label


def sphere_kmeans_start(
    x: Tensor, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """k-means++ with probabilities proportional to the angle: (count, D) of the points x (L, D).

    Raises:
        ValueError: a count out of 1..L.

    Source: Arthur and Vassilvitskii, 2007; not squared, as in geomstats and HaLP.
    """
    if not 1 <= count <= len(x):
        raise _check.fail("sphere_kmeans_start", f"count in 1..{len(x)}", count)
    u = torch.rand(count, generator=generator).to(x)
    chosen = [(u[0] * len(x)).long().clamp(max=len(x) - 1)]
    angle = x.new_full((len(x),), torch.inf)
    for i in range(1, count):
        angle = torch.minimum(angle, (x @ x[chosen[-1]]).clamp(-1, 1).acos())
        total = angle.cumsum(0)
        chosen.append(torch.searchsorted(total, u[i] * total[-1]).clamp(max=len(x) - 1))
    return x[torch.stack(chosen)]


def _means(x: Tensor, member: Tensor, start: Tensor, tol: float) -> Tensor:
    """Intrinsic means (P, D) of the members, (P, L) of zeros and ones, of each cluster."""
    mean, count = start, member.sum(1).clamp(min=1)
    step = torch.ones_like(count)
    smallest = torch.full_like(count, torch.inf)
    descending = torch.ones_like(count, dtype=torch.bool)
    for i in range(MEAN_ROUNDS):
        cosine = (mean @ x.T).clamp(-1, 1)
        angle = cosine.acos()
        stretch = torch.where(angle > 1e-6, angle / angle.sin().clamp(min=1e-12), 1.0) * member
        # log_c(x) = angle / sin(angle) (x - cos(angle) c), averaged
        gradient = (stretch @ x - (stretch * cosine).sum(1, keepdim=True) * mean) / count[:, None]
        norm = gradient.norm(dim=1)
        spread = (angle.square() * member).sum(1)
        if i:
            descending &= (norm.square() > tol * x.shape[1]) & (spread > 1e-12)
            if not descending.any():
                break
        way = step[:, None] * gradient
        length = way.norm(dim=1, keepdim=True)
        moved = length.cos() * mean + torch.sinc(length / torch.pi) * way
        mean = torch.where(descending[:, None], moved, mean)
        step = torch.where(norm > smallest, step / 2, step)
        smallest = torch.minimum(smallest, norm)
    return torch.nn.functional.normalize(mean, dim=1)
