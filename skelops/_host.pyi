import numpy as np
from numpy.typing import NDArray

def parse_ntu_skeleton(
    data: bytes,
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]: ...
