"""Forward dynamics of a human of 51 degrees of freedom, against PyTorch and Pinocchio."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks.bodies import body_case, dense_forward, human, motion
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw

# Of a frame, a sine with its cosine as 25.
FLOPS = {FORWARD: 19_900, TRAINING: 56_700}


def _draw(draw: Draw, B: int) -> Arguments:
    return motion(draw, B, "qd", "tau")


def _ours(q: Tensor, qd: Tensor, tau: Tensor) -> Tensor:
    return skelops.forward_dynamics(human(), q, qd, tau)


def _by_cholesky(q: Tensor, qd: Tensor, tau: Tensor) -> Tensor:
    return skelops.forward_dynamics(human(), q, qd, tau, method="cholesky")


def _flops(B: int) -> dict[str, float]:
    return {direction: B * count for direction, count in FLOPS.items()}


CASES = [
    body_case(
        "human", draw=_draw, ours=_ours, peer=dense_forward, flops=_flops, sizes={"B": 1024},
        targets={TRAINING: {"eager": 40}}, headline="forward dynamics, 51 dof",
    ),
    body_case(
        "human, Cholesky", draw=_draw, ours=_by_cholesky, peer=dense_forward, flops=_flops,
        sizes={"B": 1024}, targets={TRAINING: {"eager": 20}},
    ),
    body_case(
        "human, Pinocchio", draw=_draw, ours=_ours, peer=dense_forward, flops=_flops,
        sizes={"B": 1024}, directions=(FORWARD,), targets={FORWARD: {"pinocchio": 2}},
        engine=lambda pin, model, data, q, qd, tau: pin.aba(model, data, q, qd, tau),
    ),
]  # fmt: skip
