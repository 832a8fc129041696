"""Inverse dynamics of a human of 51 degrees of freedom, against PyTorch and Pinocchio."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks.bodies import body_case, human, motion, newton_euler
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw

# Of a frame, a sine with its cosine as 25.
FLOPS = {FORWARD: 5_600, TRAINING: 22_500}


def _draw(draw: Draw, B: int) -> Arguments:
    return motion(draw, B, "qd", "qdd")


def _ours(q: Tensor, qd: Tensor, qdd: Tensor) -> Tensor:
    return skelops.inverse_dynamics(human(), q, qd, qdd)


def _flops(B: int) -> dict[str, float]:
    return {direction: B * count for direction, count in FLOPS.items()}


CASES = [
    body_case(
        "human", draw=_draw, ours=_ours, peer=newton_euler, flops=_flops,
        targets={TRAINING: {"eager": 40}}, headline="inverse dynamics, 51 dof",
    ),
    body_case(
        "human, Pinocchio", draw=_draw, ours=_ours, peer=newton_euler, flops=_flops,
        directions=(FORWARD,), targets={FORWARD: {"pinocchio": 2}},
        engine=lambda pin, model, data, q, qd, qdd: pin.rnea(model, data, q, qd, qdd),
    ),
]  # fmt: skip
