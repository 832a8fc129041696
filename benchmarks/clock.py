"""Clocks: how long one call takes, on a CPU and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class CpuClock:
    """CPU time of the process on one thread, since neighbours share the cores; else wall time."""

    def __init__(self) -> None:
        self.now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def __call__(self, run: Callable[[], Any]) -> float:
        begin = self.now()
        run()
        return self.now() - begin


class CudaClock:
    """Device time between events, after a write that evicts the L2 cache and hides the launch."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties().L2_cache_size
        self.flush = torch.empty(max(4 * size, 256 * 2**20), dtype=torch.int8, device="cuda")
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def __call__(self, run: Callable[[], Any]) -> float:
        self.flush.zero_()
        self.begin.record()
        run()
        self.end.record()
        torch.cuda.synchronize()
        return self.begin.elapsed_time(self.end) / 1e3


def clock(device: str) -> CpuClock | CudaClock:
    return CudaClock() if device == "cuda" else CpuClock()
