"""Launching a kernel again costs a dictionary look-up: what ``triton.jit`` would find out about the
arguments at every call is found out once per combination of their traits.

The models of this field launch many short kernels, so that the time of a launch on the host decides
how fast a GPU runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, nn
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import driver


def _of_tensor(x: Tensor) -> tuple:
    return x.dtype, x.data_ptr() % 16 == 0


def _of_int(n: int) -> tuple:
    return n == 1, n % 16 == 0, -(2**31) <= n < 2**31


# type of an argument -> all that a compiled kernel depends on
_TRAITS: dict[type, Callable[[Any], Any]] = {
    Tensor: _of_tensor,
    nn.Parameter: _of_tensor,
    int: _of_int,
    bool: lambda value: value,
    float: lambda value: float,
    type(None): lambda value: None,
}


class _Compiled(NamedTuple):
    run: Callable
    stream: Callable[[int], int]
    function: Any
    metadata: Any
    constants: tuple


class Kernel:
    """A ``triton.jit`` function, launched the same way: ``kernel[grid](*args, **constants)``.

    Args:
        function: its parameters in order: what is passed by position, then what by keyword, which
            has to be hashable and no tensor.
        do_not_specialize: names of integers for whose values no kernel is compiled anew.
    """

    def __init__(self, function: Callable, do_not_specialize: tuple[str, ...]):
        self.jit = triton.jit(function, do_not_specialize=do_not_specialize)
        self.compiled: dict[tuple, _Compiled] = {}
        self.__doc__ = function.__doc__

    def __getitem__(self, grid: tuple[int, ...]) -> Callable:
        def launch(*args, **constants):
            device = torch.cuda.current_device() if args[0].is_cuda else None
            key = (device, *[_TRAITS.get(type(a), _of_tensor)(a) for a in args], *constants.items())
            known = self.compiled.get(key)
            if known is None or knobs.runtime.launch_enter_hook.calls:
                self._launch_first(grid, key, args, constants)
                return
            x, y, z = (*grid, 1, 1)[:3]
            known.run(
                x, y, z, known.stream(device), known.function, known.metadata, None, None, None,
                *args, *known.constants,
            )  # fmt: skip

        return launch

    def _launch_first(self, grid: tuple[int, ...], key: tuple, args: tuple, constants: dict):
        compiled = self.jit[grid](*args, **constants)
        if key[0] is not None and isinstance(compiled, CompiledKernel):
            names = [parameter.name for parameter in self.jit.params[len(args) :]]
            self.compiled[key] = _Compiled(
                compiled.run,
                driver.active.get_current_stream,
                compiled.function,
                compiled.packed_metadata,
                tuple(constants[name] for name in names),
            )


def kernel(do_not_specialize: tuple[str, ...] = ()) -> Callable[[Callable], Kernel]:
    """Decorator of the kernels that are launched; what they call stays ``triton.jit``."""
    return lambda function: Kernel(function, do_not_specialize)
