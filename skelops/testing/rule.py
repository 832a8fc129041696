"""Weights without files: the value of a state_dict entry follows from its key and shape alone.

A case recorded from a published implementation then needs no weights, and whoever maps the
published keys onto a model can fill it with the very same ones.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np


def rule_value(key: str, shape: Sequence[int]) -> np.ndarray:
    """The entry ``key`` of ``shape``: standard normals seeded by the CRC-32 of the key.

    Counters are zero; running variances 1 + |z| / 10, running means z / 10; probes ("probe.*") z;
    further entries of at most one axis z / 10, around one for weights; all others z divided by the
    square root of their fan-in (product of all axes but the first).
    """
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    seed = zlib.crc32(key.encode())
    z = np.random.default_rng(seed).standard_normal(tuple(shape)).astype(np.float32)
    tenth = np.float32(0.1)
    if key.endswith("running_var"):
        z = 1 + tenth * np.abs(z)
    elif key.endswith("running_mean"):
        z = tenth * z
    elif key.startswith("probe."):
        pass
    elif len(shape) <= 1:
        z = (1 if key.endswith("weight") else 0) + tenth * z
    else:
        z = z.astype(np.float64) / math.sqrt(max(math.prod(shape[1:]), 1))
    return z.astype(np.float32)
