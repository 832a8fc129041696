"""Inverse dynamics of a human of 51 degrees of freedom, against PyTorch and Pinocchio."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks.bodies import body_case, human, motion, newton_euler
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw

FLOPS = 13_000  # of a frame


def _draw(draw: Draw, B: int) -> Arguments:
    return motion(draw, B, "qd", "qdd")


def _ours(q: Tensor, qd: Tensor, qdd: Tensor) -> Tensor:
    return skelops.inverse_dynamics(human(), q, qd, qdd)


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: B * FLOPS, TRAINING: 3 * B * FLOPS}


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
