"""Origins of all bodies of a human of 51 degrees of freedom, against PyTorch."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks.bodies import body_case, human, kinematics, motion
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw

FLOPS = 1500  # of a frame


def _draw(draw: Draw, B: int) -> Arguments:
    return motion(draw, B)


def _ours(q: Tensor) -> Tensor:
    return skelops.forward_kinematics(human(), q)[0]


def _peer(q: Tensor) -> Tensor:
    return kinematics(q)[0]


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: B * FLOPS, TRAINING: 3 * B * FLOPS}


CASES = [
    body_case(
        "human", draw=_draw, ours=_ours, peer=_peer, flops=_flops,
        targets={TRAINING: {"eager": 20}}, headline="forward kinematics, 51 dof",
    ),
]  # fmt: skip
