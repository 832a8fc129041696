"""What the machine can do at all, measured in the same run as everything held against it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.clock import clock


def _least(work: Callable[[], Any], device: str, seconds: float) -> float:
    measure = clock(device)
    measure(work)
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        times.append(measure(work))
    return min(times)


def roofs(device: str, dtype: torch.dtype, seconds: float = 0.5) -> dict[str, float]:
    """Bandwidth of a copy (bytes read plus written) and the best rate of arithmetic.

    The arithmetic of a CPU is the better of a matrix product and a direct 3x3 convolution: a BLAS
    library does not use every instruction set of every vendor.
    """
    megabytes, size = (2048, 8192) if device == "cuda" else (128, 1024)
    source = torch.rand(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    copy = _least(lambda: target.copy_(source), device, seconds)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    product = 2 * size**3 / _least(lambda: torch.mm(a, b, out=out), device, seconds)
    direct = 0.0
    if device == "cpu":
        x, kernel = (torch.randn(shape).to(dtype) for shape in ((4, 256, 32, 32), (256, 256, 3, 3)))
        flops = 2 * x.numel() * kernel[0].numel()
        direct = flops / _least(lambda: F.conv2d(x, kernel, padding=1), device, seconds)
    return {
        "gb_s": 2 * source.numel() * 4 / copy / 1e9,
        "gflop_s": max(product, direct) / 1e9,
        "matmul_gflop_s": product / 1e9,
    }
