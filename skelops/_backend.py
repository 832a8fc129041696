"""Which kernel runs an op: owners of the dispatch keys, and why the others do not.

``CompositeExplicitAutograd`` belongs to the reference, ``CPU`` to the C++ kernels without Python in
between, ``CUDA`` to ``_gpu_entry``, which takes the first backend of the op that supports the case.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType

import torch

from skelops import _build
from skelops._library import LIBRARY, NAMESPACE, OPS, Op

BACKENDS = ("reference", "cpu", "triton", "cuda")
DEVICES = ("cpu", "cuda")
DIRECTIONS = ("forward", "backward")

_native: dict[str, Callable] = {}


def torch_name(op: Op, direction: str) -> str:
    return op.name if direction == "forward" else f"{op.name}_backward"


def directions(op: Op) -> tuple[str, ...]:
    return DIRECTIONS if op.has_backward_op else DIRECTIONS[:1]


def _reference(op: Op, direction: str) -> Callable:
    return op.reference if direction == "forward" else op.backward_reference


@cache
def _module(backend: str, name: str) -> ModuleType:
    return importlib.import_module(f"skelops.ops.{backend}.{name}")


def _missing_triton(device: str) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install skelops[triton])"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "triton needs a GPU (TRITON_INTERPRET=1 interprets its kernels on a CPU)"
    return None


def unavailable(op: Op, backend: str, device: str) -> str | None:
    """Why a backend cannot run an op on a kind of device; None if it can."""
    if backend == "reference":
        return None
    if device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    if backend == "cpu":
        if device != "cpu":
            return "runs on CPU tensors"
        return _build.load_cpu() or (None if op.name in _native else "no kernel in this build")
    if backend not in op.gpu:
        return f"no {backend} kernel for this op"
    if backend == "cuda":
        return "runs on CUDA tensors" if device == "cpu" else _build.load_cuda()
    return _missing_triton(device)


def active(op: Op, device: str) -> tuple[str, dict[str, str]]:
    """The backend that runs an op on a device, and the reasons against the better ones."""
    preference = ("cpu",) if device == "cpu" else op.gpu
    reasons: dict[str, str] = {}
    for backend in preference:
        reason = unavailable(op, backend, device)
        if reason is None:
            return backend, reasons
        reasons[backend] = reason
    return "reference", reasons


@cache
def _warn_fallback(name: str, reasons: str) -> None:
    warnings.warn(
        f"{name}: the reference runs on this GPU, slowly: {reasons}", RuntimeWarning, stacklevel=4
    )


def _gpu_entry(op: Op, direction: str) -> Callable:
    @cache
    def kernels() -> dict[str, tuple[str | None, Callable, Callable]]:
        """Backend -> why it is unavailable, its judge of a case, its kernel."""

        def kernel(backend: str):
            if reason := unavailable(op, backend, "cuda"):
                return reason, None, None
            module = _module(backend, op.name)
            return None, module.supports, getattr(module, direction)

        return {backend: kernel(backend) for backend in op.gpu}

    def run(*args):
        inputs = args if direction == "forward" else op.split_backward(args)[1]
        reasons = []
        for backend, (missing, supports, kernel) in kernels().items():
            reason = missing or supports(*inputs)
            if reason is None:
                return kernel(*args)
            reasons.append(f"{backend}: {reason}")
        _warn_fallback(op.name, "; ".join(reasons))
        return _reference(op, direction)(*args)

    return run


def _forced(op: Op, direction: str, backend: str, device: str) -> Callable:
    """The kernel of exactly this backend, or a function that raises with the reasons."""
    reason = unavailable(op, backend, device)
    if reason is not None:

        def refuse(*args):
            raise RuntimeError(
                f"{op.name}: expected a backend that runs on {device}, got {backend!r} ({reason}); "
                + _describe(op, device)
            )

        return refuse
    if backend == "reference":
        return _reference(op, direction)
    if backend == "cpu":
        return _native[torch_name(op, direction)]

    def run(*args):
        module = _module(backend, op.name)
        inputs = args if direction == "forward" else op.split_backward(args)[1]
        reason = module.supports(*inputs)
        if reason is not None:
            raise RuntimeError(
                f"{op.name}: expected a case {backend} supports, got one it does not: {reason}"
            )
        return getattr(module, direction)(*args)

    return run


def _describe(op: Op, device: str) -> str:
    states = ((b, unavailable(op, b, device)) for b in BACKENDS)
    return "; ".join(f"{b}: {reason or 'available'}" for b, reason in states)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every op on one backend inside a ``with`` block, in compiled graphs too.

    Args:
        name: "reference", "cpu", "triton" or "cuda".

    Raises:
        ValueError: unknown name.
        RuntimeError: no op can use the backend here (the message lists every backend with its
            reason); or, at the call, this op cannot.
    """
    if name not in BACKENDS:
        raise ValueError(f"use_backend: expected one of {', '.join(BACKENDS)}, got {name!r}")
    devices = [d for d in DEVICES if d == "cpu" or torch.cuda.is_available()]
    if all(unavailable(op, name, d) for op in OPS.values() for d in devices):
        op = next((op for op in OPS.values() if name in op.gpu), next(iter(OPS.values())))
        described = " | ".join(f"on {d}: {_describe(op, d)}" for d in devices)
        raise RuntimeError(
            f"use_backend: expected a backend that runs here, got {name!r}. {described}"
        )
    with torch.library._scoped_library(NAMESPACE, "IMPL") as library:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="(?s).*verriding a previously registered kernel"
            )
            for op in OPS.values():
                for direction in directions(op):
                    for device in devices:
                        kernel = _forced(op, direction, name, device)
                        library.impl(
                            torch_name(op, direction), kernel, device.upper(), allow_override=True
                        )
        yield


def activate() -> None:
    """Load the CPU kernels and give the CUDA key its owner; called once, when ops are defined."""
    _build.load_cpu()
    for op in OPS.values():
        for direction in directions(op):
            name = torch_name(op, direction)
            if torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{name}", "CPU"):
                overload = op.forward_op if direction == "forward" else op.backward_op
                kernel = torch.library.get_kernel(overload, "CPU")
                keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
                _native[name] = lambda *args, kernel=kernel, keys=keys: kernel.call_boxed(
                    keys, *args
                )
            LIBRARY.impl(name, _gpu_entry(op, direction), "CUDA")
    forced = os.environ.get("SKELOPS_BACKEND")
    if forced:
        _forever.enter_context(use_backend(forced))


_forever = contextlib.ExitStack()
