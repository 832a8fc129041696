"""Long-tailed training sets: the clips that are kept, and what makes up for the rare classes.

Source: Liu et al., *Balanced Representation Learning for Long-tailed Skeleton-based Action
Recognition* (BRL), arXiv 2308.14024, and its code; the profile is that of Cao et al., NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skelops import _check
from skelops.data.clips import Clips

GROUPS = ("head", "medium", "tail")


def long_tail_counts(largest: int, factor: float, num_classes: int) -> list[int]:
    r"""Clips of each class: :math:`\lfloor largest \cdot factor^{i / (K - 1)} \rfloor`.

    Published are largest 600 (400 for NTU RGB+D 120 cross-setup) with factor 0.01, and 100 with 0.1
    for NW-UCLA.

    Args:
        largest: clips of class 0.
        factor: of the last class relative to it, in (0, 1].
        num_classes: K.

    Raises:
        ValueError: numbers out of range, or a class would keep nothing.
    """
    if not 0 < factor <= 1:
        raise _check.fail("long_tail", "factor in (0, 1]", factor)
    span = max(num_classes - 1, 1)
    count = [int(largest * factor ** (i / span)) for i in range(num_classes)]
    if count and count[-1] < 1:
        expected = f"at least one clip of class {num_classes - 1}"
        raise _check.fail("long_tail", expected, f"{largest} x {factor}")
    return count


def long_tail(
    clips: Clips, index: np.ndarray, largest: int, factor: float, seed: int = 0
) -> np.ndarray:
    """The long-tailed part of some clips; a class with fewer clips than its share keeps all.

    Args:
        clips: what the index is of; classes are rare in the order of their labels.
        index: (N,) clips to choose from, such as the training side of a split.
        largest, factor: see :func:`long_tail_counts`.
        seed: of the choice within a class. The published lists are other draws of that size.

    Returns:
        Indices in rising order; see :func:`skelops.data.save_split`.

    Raises:
        ValueError: as :func:`long_tail_counts`, or a class without clips.
    """
    index = np.asarray(index)
    label = clips.label[index]
    check_counts("long_tail", class_counts(label, clips.num_classes), clips.classes)
    rng, kept = np.random.default_rng(seed), []
    for c, count in enumerate(long_tail_counts(largest, factor, clips.num_classes)):
        kept.append(rng.permutation(index[label == c])[:count])
    return np.sort(np.concatenate(kept))


def class_counts(label: np.ndarray, num_classes: int) -> list[int]:
    """Clips of each class."""
    return np.bincount(label, minlength=num_classes).tolist()


def check_counts(op: str, count: Sequence[int], classes: Sequence[str] | None = None) -> None:
    """Raise a ValueError that names the first class without clips."""
    for c, n in enumerate(count):
        if n < 1:
            name = "" if classes is None else f" ({classes[c]})"
            raise _check.fail(op, "training clips of every class", f"none of class {c}{name}")


def class_groups(count: Sequence[int]) -> Tensor:
    """(K,) int64, an index into ``GROUPS`` per class.

    The classes in falling order of their training clips, of equal ones in that of their labels, cut
    into thirds: floor(K / 3) are head, as many medium, the others tail.
    """
    K = len(count)
    third = max(K // 3, 1)
    order = torch.tensor(count).argsort(descending=True, stable=True)
    group = (torch.arange(K) // third).clamp(max=2)
    return torch.empty_like(group).scatter_(0, order, group)


def tail_multipliers(count: Sequence[int]) -> list[float]:
    """How often an epoch shows each clip of a class: tail classes as often as if they had as many
    clips as the largest class, the others once.

    Raises:
        ValueError: a class without clips.
    """
    check_counts("tail_multipliers", count)
    tail = (class_groups(count) == 2).tolist()
    return [max(count) / n if rare else 1.0 for n, rare in zip(count, tail, strict=True)]


def class_balanced_weights(count: Sequence[int], *, flipped: bool = False) -> Tensor:
    r"""Weights of the classes in a loss, by the effective number of their clips.

    .. math::
        w_c \propto \frac{1 - \beta_c}{1 - \beta_c^{n_c}}, \quad
        \beta_c = 0.99 + 0.0099 \frac{n_c - n_{min}}{n_{max} - n_{min}}, \quad \sum_c w_c = K

    Args:
        count: (K,) training clips n of each class.
        flipped: with 1 - beta for beta, which leaves the weights within 1 % of 1, see
            :func:`action_aware_weights`.

    Returns:
        (K,) float32; ones where all classes are equally frequent.

    Raises:
        ValueError: a class without clips.

    Source: Cui et al., CVPR 2019, with a beta per class as in BRL, section 3.4.
    """
    check_counts("class_balanced_weights", count)
    n = np.array(count)
    spread = n.max() - n.min()
    if spread == 0:
        return torch.ones(len(n))
    beta = (n - n.min()) / spread * 0.0099 + 0.99
    if flipped:
        beta = 1.0 - beta
    weight = (1.0 - beta) / (1.0 - np.power(beta, n))
    return torch.from_numpy(weight / weight.sum() * len(n)).float()


def action_aware_weights(
    count: Sequence[int], epoch: int, *, start: int = 19, published: bool = True
) -> Tensor:
    """Weights of the classes by epoch: ones before ``start``, then class-balanced.

    Args:
        count: training clips of each class.
        epoch: from 0.
        start: first epoch with weights; published are 19 of 24 epochs.
        published: as the published code computes them: it overwrites beta by 1 - beta whenever it
            is used, so that every other epoch has weights of nearly 1. False: as intended.

    Returns:
        (K,) float32.

    Raises:
        ValueError: a class without clips.
    """
    check_counts("action_aware_weights", count)
    if epoch < start:
        return torch.ones(len(count))
    return class_balanced_weights(count, flipped=published and (epoch - start) % 2 == 1)
