"""Positives hallucinated between a key and prototypes, on the sphere, from Gram matrices alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from skelops import _check

EPS = 1e-8


class Hallucinated(NamedTuple):
    """Positives z = mix_0 k + mix_1 P[prototype].

    Args:
        similarity: (N, S) q . z, differentiable in q.
        kept: (N, S) bool, the positives whose closest prototype is still that of the key.
        prototype: (N, S) int64.
        mix: (N, S, 2).
    """

    similarity: Tensor
    kept: Tensor
    prototype: Tensor
    mix: Tensor

    def vectors(self, key: Tensor, prototypes: Tensor) -> Tensor:
        """z (N, S, D) itself, which no loss needs."""
        a, b = self.mix[..., None].unbind(2)
        return a * key[:, None] + b * prototypes[self.prototype]


def hallucinate_positives(
    q: Tensor, key: Tensor, prototypes: Tensor, pick: Tensor, u: Tensor, *, farthest: bool = False
) -> Hallucinated:
    r"""Points on the geodesics from a key towards prototypes other than its closest one.

    .. math::
        z = \frac{\sin((1 - t) \Omega) k + \sin(t \Omega) p}{\sin \Omega}, \quad
        \cos \Omega = k \cdot p, \quad t = (1 - u) t_{max},

    where :math:`t_{max}` is where z leaves the cell of the closest prototype p0:

    .. math::
        t_{max} = \frac{1}{\Omega} \arctan
            \frac{\sin \Omega}{(1 - p \cdot p_0) / (k \cdot p_0 - k \cdot p) + \cos \Omega}

    All products follow from :math:`k P^T`, :math:`P P^T`, :math:`q P^T` and :math:`q \cdot k`: no
    positive is ever written.

    Args:
        q: (N, D) queries of unit length.
        key: (N, D) keys of unit length, a constant.
        prototypes: (P, D) of unit length, P >= 2, a constant.
        pick: (N, S) int64, which prototype each positive lies towards: 0 is the least similar to
            the key, P - 2 the second most similar.
        u: (N, S) hardness in [0, 1]: 0 at the edge of the cell.
        farthest: ignore u, take t = t_max - 0.01.

    Returns:
        Hallucinated.

    Raises:
        ValueError: shapes do not fit, less than two prototypes.
        TypeError: dtypes differ, ``pick`` is not int64.

    Example:
        >>> unit = lambda n: torch.nn.functional.normalize(torch.randn(n, 128), dim=1)
        >>> pick, u = torch.randint(19, (8, 100)), 0.8 * torch.rand(8, 100)
        >>> hallucinate_positives(unit(8), unit(8), unit(20), pick, u).similarity.shape
        torch.Size([8, 100])

    Source: Shah et al., HaLP, CVPR 2023, section 3.2.
    """
    op = "hallucinate_positives"
    _check.tensors(op, q=q, key=key, prototypes=prototypes, u=u)
    _check.shape(op, "q", q, "N D")
    N, D = q.shape
    _check.shape(op, "key", key, "N D", N=N, D=D)
    _check.shape(op, "prototypes", prototypes, "P D", D=D)
    if len(prototypes) < 2:
        raise _check.fail(op, "at least two prototypes", len(prototypes))
    if pick.dtype != torch.int64:
        raise TypeError(f"{op}: expected pick of dtype torch.int64, got {pick.dtype}")
    _check.shape(op, "pick", pick, "N S", N=N)
    _check.shape(op, "u", u, "N S", N=N, S=pick.shape[1])
    with torch.no_grad():
        to_key, gram = key @ prototypes.T, prototypes @ prototypes.T
        ordered, order = to_key.sort(1)
        p, closest = order.gather(1, pick), order[:, -1:]
        cosine = ordered.gather(1, pick).clamp(-1, 1)
        omega = cosine.acos()
        sine = omega.sin()
        to_closest = gram.index_select(0, closest[:, 0]).gather(1, p)
        slope = torch.addcdiv(cosine, 1 - to_closest, ordered[:, -1:] - cosine + EPS)
        t_max = (sine / (slope + EPS)).atan() / (omega + EPS)
        t = t_max - 0.01 if farthest else (1 - u) * t_max
        mix = (torch.stack([1 - t, t]) * omega).sin() / (sine + EPS)
        a, b = mix
        mix *= (a * a + b * b + 2 * a * b * cosine).clamp(min=EPS).rsqrt()
        # z . P with the prototypes first: a maximum over rows is many times faster
        to_each = gram.index_select(1, p.flatten()).view(len(gram), *p.shape)
        to_each = to_each.mul_(b).addcmul_(a, to_key.T[..., None])
        kept = to_each.gather(0, closest.expand_as(p)[None])[0] == to_each.amax(0)
    along = (q * key).sum(1, keepdim=True)
    similarity = torch.addcmul(a * along, b, (q @ prototypes.T).gather(1, p))
    return Hallucinated(similarity, kept, p, mix.movedim(0, 2))
