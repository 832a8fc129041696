"""Rules shared by the kernels: block sizes, precision, devices, and what none of them supports."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import triton.language as tl
from torch import Tensor

MAX_JOINTS = 128
MAX_PLANE = 2**22  # T * V; within a sample, tiles are addressed by int32 from an int64 origin
# Arguments that change with the batch and the clip length: no kernel is compiled anew for them.
VARYING = (
    "N", "T", "PLANES", "SPLITS", "C_BLOCKS", "T_BLOCKS", "x_stride_n", "l_stride_n", "r_stride_n",
)  # fmt: skip
HALF = (torch.float16, torch.bfloat16)
DTYPES = (torch.float64, torch.float32, *HALF)


def cdiv(n: int, d: int) -> int:
    """n / d, rounded up; Triton's function of that name also serves its kernels, and is slow."""
    return -(-n // d)


def pow2(n: int, low: int = 1, high: int | None = None) -> int:
    """The next power of two, between two bounds."""
    size = max(1 << max(n - 1, 0).bit_length(), low)
    return size if high is None else min(size, high)


def joints(V: int) -> int:
    """Lanes of a joint axis; 16 is the shortest contraction of the matrix units."""
    return pow2(V, 16)


def accumulator(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def contraction(x: Tensor) -> int:
    """Length of a product's step: as many bytes in every precision."""
    return 32 if x.dtype in HALF else 16


@functools.cache
def _device(device: torch.device) -> tuple[int, int]:
    """Multiprocessors, and bytes of shared memory a program may take; without a GPU, an H100's."""
    if device.type != "cuda":
        return 132, 227 * 1024
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin


def shared_bytes(x: Tensor) -> int:
    return _device(x.device)[1]


def splits(x: Tensor, independent: int, steps: int, per_multiprocessor: int = 4) -> int:
    """Into how many parts to cut each of so many loops of so many steps to fill the device."""
    programs = per_multiprocessor * _device(x.device)[0]
    return max(1, min(steps, programs // max(independent, 1)))


def precision(x: Tensor) -> str:
    """Of tl.dot on float32 operands: what torch's convolutions, which these ops stand for, use."""
    return "tf32" if torch.backends.cudnn.conv.fp32_precision == "tf32" else "ieee"


def on_device(launch: Callable) -> Callable:
    """Launch on the device of the first tensor."""

    @functools.wraps(launch)
    def wrapper(*args):
        device = args[0].device
        if device.type != "cuda" or device.index == torch.cuda.current_device():
            return launch(*args)
        with torch.cuda.device(device):
            return launch(*args)

    return wrapper


def contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(t if t is None else t.contiguous() for t in tensors)


def wants(names: tuple[str, ...], needs: int) -> Callable[[str], bool]:
    """Whether a gradient is asked for, by name."""
    return lambda name: bool(needs >> names.index(name) & 1)


def unsupported(
    x: Tensor, dtypes: tuple[torch.dtype, ...] = DTYPES[1:], joints: int | None = MAX_JOINTS
) -> str | None:
    """Why kernels on (N, C, T, V) features cannot run; None if they can."""
    if x.dtype not in dtypes:
        return f"no {str(x.dtype).removeprefix('torch.')} kernel"
    if joints is not None and x.shape[3] > joints:
        return f"at most {joints} joints, got {x.shape[3]}"
    if x.shape[2] * x.shape[3] >= MAX_PLANE:
        return f"less than {MAX_PLANE} values per channel and sample"
    return None
