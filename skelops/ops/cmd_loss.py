"""Cross-modal mutual distillation of the similarities to queues."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from skelops import _check


def cmd_loss(
    q: Tensor,
    key: Tensor,
    queue: Tensor,
    *,
    top: int = 8192,
    teacher_temperature: float = 0.05,
    student_temperature: float = 0.1,
) -> Tensor:
    r"""Every modality learns the neighbourhood that each other one sees.

    .. math::
        L = \sum_{a \ne b} \operatorname{mean}_n \operatorname{KL}\big(
            \operatorname{softmax}_{j \in J_{an}}(k_{an} \cdot Q_{aj} / \tau_t) \,\big\|\,
            \operatorname{softmax}_{j \in J_{an}}(q_{bn} \cdot Q_{bj} / \tau_s)\big)

    with :math:`J_{an}` the ``top`` rows of queue a most similar to the key. They are found by the
    value of the last of them, without sorting; ties with it take part.

    Args:
        q: (S, N, D) queries of S modalities, of unit length.
        key: (S, N, D) keys, constants.
        queue: (S, K, D); row j of all of them belongs to the same clip.
        top: 1 to K.
        teacher_temperature, student_temperature: of key and query.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes do not fit, ``top`` out of 1..K, temperatures that are not positive.
        TypeError: dtypes differ.

    Example:
        >>> q, key, queue = torch.randn(3, 8, 128), torch.randn(3, 8, 128), torch.randn(3, 64, 128)
        >>> cmd_loss(q, key, queue, top=16).shape
        torch.Size([])

    Source: Mao et al., CMD, ECCV 2022, section 3.3.
    """
    op = "cmd_loss"
    _check.tensors(op, q=q, key=key, queue=queue)
    _check.shape(op, "q", q, "S N D")
    S, N, D = q.shape
    _check.shape(op, "key", key, "S N D", S=S, N=N, D=D)
    _check.shape(op, "queue", queue, "S K D", S=S, D=D)
    K = queue.shape[1]
    if not 1 <= top <= K:
        raise _check.fail(op, f"top in 1..{K}", top)
    if not min(teacher_temperature, student_temperature) > 0:
        got = (teacher_temperature, student_temperature)
        raise _check.fail(op, "temperatures > 0", got)
    student = q @ queue.mT / student_temperature
    with torch.no_grad():
        teacher = key @ queue.mT / teacher_temperature
        outside = teacher < teacher.kthvalue(K - top + 1, dim=2, keepdim=True).values
        log_p = teacher.masked_fill(outside, -torch.inf).log_softmax(2)
        p, log_p = log_p.exp(), log_p.masked_fill(outside, 0)
        entropy = -(p * log_p).sum(2).mean(1)
    loss = student.new_zeros(())
    for a, b in permutations(range(S), 2):
        lse = student[b].masked_fill(outside[a], -torch.inf).logsumexp(1)
        loss = loss + (lse - (p[a] * student[b]).sum(1)).mean() - entropy[a]
    return loss
