"""Directional clustering: every view follows the softmax of an easier one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from skelops.ops.info_nce import info_nce


def directional_clustering_loss(
    q: Tensor,
    key: Tensor,
    queue: Tensor,
    *,
    temperature: float = 0.07,
    targets: Sequence[int | None] = (None, 0, 1),
    mine: int = 0,
) -> Tensor:
    r"""InfoNCE of the easiest view, and of every other one the cross-entropy to its target's
    similarities, all in one pass over the queue.

    .. math::
        L_r = \operatorname{mean}_n \Big(-\sum_j p_{t(r) n j} \log p_{rnj}\Big), \quad
        p_{rn} = \operatorname{softmax}_j(\hat q_{rn} \cdot [\hat k_n, Q_j] / \tau)

    with the target's p a constant.

    Args:
        q: (R, N, D) queries of R views.
        key: (N, D), the positive of the hard views.
        queue: (K, D) negatives of unit length.
        temperature: tau.
        targets: of every view, see :func:`info_nce`. HiCLR chains them, (None, 0, 1); AimCLR and
            MS-CLR follow the first, (None, 0, 0).
        mine: nearest neighbours per view that become positives too.

    Returns:
        (R,) means over the batch; the loss is the first plus half the others.

    Raises:
        ValueError, TypeError: see :func:`info_nce`.

    Example:
        >>> q, key, queue = torch.randn(3, 8, 128), torch.randn(8, 128), torch.randn(64, 128)
        >>> directional_clustering_loss(q, key, queue).shape
        torch.Size([3])

    Source: Zhang et al., HiCLR, AAAI 2023, section 3.3; Guo et al., AimCLR, AAAI 2022.
    """
    loss = info_nce(q, key, queue, temperature=temperature, targets=targets, mine=mine)
    return loss.mean(1)
