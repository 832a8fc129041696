"""Measuring: agreement first, then interleaved times, memory and the distance to the roofline."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Variant

Times = dict[str, list[float]]

# Relative L2 error that a correct result may have.
_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 3e-3,
    torch.bfloat16: 2e-2,
}


def tolerance(device: str, dtype: torch.dtype) -> float:
    """Convolutions in float32 use TF32 on a GPU unless told otherwise."""
    return 2e-3 if (device, dtype) == ("cuda", torch.float32) else _TOLERANCE[dtype]


class Disagreement(AssertionError):
    """A result differs from the formula, so its speed means nothing."""


def relative_error(found: Tensor, truth: Tensor) -> float:
    """||found - truth|| / ||truth|| in float64; infinite for a NaN or a wrong shape."""
    if found.shape != truth.shape:
        return math.inf
    difference = (found.double() - truth.double()).norm().item()
    error = difference / max(truth.double().norm().item(), 1e-30) if difference else 0.0
    return math.inf if math.isnan(error) else error


def errors(variant: Variant, truth: Mapping[str, Tensor]) -> dict[str, float]:
    found = variant.outcome()
    return {name: relative_error(found[name], truth[name]) for name in truth}


def check(
    variants: Mapping[str, Variant],
    truth: Mapping[str, Tensor],
    tolerance: float,
    slack: float = 1.0,
) -> dict[str, float]:
    """Largest relative error of each variant, none of them worse than allowed.

    Allowed is the tolerance (for gradients times ``slack``), or twice what the eager formula loses
    in the same precision.

    Raises:
        Disagreement: names the variant, the result and both errors.
    """
    found = {name: errors(variant, truth) for name, variant in variants.items()}
    for variant, by_result in found.items():
        for result, error in by_result.items():
            inherent = found.get("eager", {}).get(result, 0.0)
            allowed = tolerance * (slack if "gradient" in result else 1)
            allowed = max(allowed, 2 * inherent if inherent < 0.5 else 0.0)
            if not error <= allowed:
                raise Disagreement(
                    f"{variant}: {result} is {error:.1e} from the float64 formula, "
                    f"allowed are {allowed:.1e}; nothing was timed"
                )
    return {variant: max(by_result.values()) for variant, by_result in found.items()}


def interleave(
    runs: Mapping[str, Callable[[], Any]],
    clock: Callable[[Callable[[], Any]], float],
    seconds: float,
    *,
    warm_up: int = 2,
    least: int = 5,
    most: int = 500,
) -> Times:
    """Times of every variant, taken in turn: a slow minute of the machine hits all alike."""
    names = list(runs)
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: Times = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        for turn in range(most if names else 0):
            if turn >= least and time.perf_counter() - begin > seconds:
                break
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(clock(runs[name]))
    finally:
        gc.enable()
    return times


def captured(run: Callable[[], Any]) -> Callable[[], Any] | None:
    """The replay of a CUDA graph of what ``run`` launches; None where it cannot be captured."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph.replay


def summary(times: Sequence[float]) -> dict[str, float]:
    """Milliseconds: median, least and quartiles."""
    ms = [1e3 * t for t in times]
    low, _, high = statistics.quantiles(ms, n=4) if len(ms) > 1 else (ms[0],) * 3
    return {"median": statistics.median(ms), "min": min(ms), "p25": low, "p75": high, "n": len(ms)}


def ratio(peer: Sequence[float], ours: Sequence[float]) -> float:
    """How many times longer the peer takes: median over the rounds."""
    return statistics.median(p / o for p, o in zip(peer, ours, strict=True))


def saved_bytes(variant: Variant) -> int:
    """Bytes kept for the backward: every storage once, without the parameters'."""
    storages = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        alive = variant.graph()
    for parameter in variant.parameters:
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    del alive
    return sum(storages.values())


def peak_bytes(run: Callable[[], Any], device: str) -> int:
    """Most bytes that torch had allocated at any moment of a run, beyond those before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    peak = current = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def floor_seconds(flops: float, moved: float, roofs: Mapping[str, float]) -> float:
    """No form of the work can be much faster than its arithmetic or its traffic."""
    return max(flops / roofs["gflop_s"], moved / roofs["gb_s"]) / 1e9
