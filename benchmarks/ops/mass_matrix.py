"""Mass matrices of a human of 51 degrees of freedom, against PyTorch and Pinocchio."""

from __future__ import annotations

import numpy as np
from torch import Tensor

import skelops
from benchmarks.bodies import body_case, dense_mass, human, motion
from benchmarks.case import FORWARD, TRAINING, Arguments, Draw

FLOPS = 26_000  # of a frame


def _draw(draw: Draw, B: int) -> Arguments:
    return motion(draw, B)


def _ours(q: Tensor) -> Tensor:
    return skelops.mass_matrix(human(), q)


def _flops(B: int) -> dict[str, float]:
    return {FORWARD: B * FLOPS, TRAINING: 3 * B * FLOPS}


def _engine(pin, model, data, q: np.ndarray) -> np.ndarray:
    """Pinocchio fills the upper triangle; the other is part of the work."""
    M = np.triu(pin.crba(model, data, q))
    return M + np.triu(M, 1).T


CASES = [
    body_case(
        "human", draw=_draw, ours=_ours, peer=dense_mass, flops=_flops, sizes={"B": 1024},
        targets={TRAINING: {"eager": 10}}, headline="mass matrix, 51 dof",
    ),
    body_case(
        "human, Pinocchio", draw=_draw, ours=_ours, peer=dense_mass, flops=_flops,
        sizes={"B": 1024}, directions=(FORWARD,), targets={FORWARD: {"pinocchio": 1.5}},
        engine=_engine,
    ),
]  # fmt: skip
