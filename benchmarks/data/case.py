"""Cases of the input pipeline: work without gradients, against PyTorch and against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from benchmarks.case import COMPILE, FORWARD, NUMPY, Variant


class DataVariant(Variant):
    """``run`` may draw random numbers of its own; ``check`` gives what has to agree."""

    def __init__(self, run: Callable[[], Any], check: Callable[[], Mapping[str, Tensor]]):
        self.run, self.outcome, self.parameters = run, check, []


def compiled(function: Callable, name: str) -> Callable:
    """The function, under the options of the peer ``name`` where that stands for torch.compile."""
    if name not in COMPILE:
        return function
    torch._dynamo.reset()
    return torch.compile(function, options=COMPILE[name])


@dataclass(frozen=True)
class DataCase:
    """Work of the input pipeline; same interface as a case of an op."""

    name: str
    sizes: Mapping[str, int]
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    headline: str = ""
    gpu: Mapping[str, int] = field(default_factory=lambda: {"N": 1024})
    quick: Mapping[str, int] = field(default_factory=lambda: {"N": 64})
    peers: tuple[str, ...] = ("eager", "compile", NUMPY)
    slack: ClassVar[float] = 1.0
    directions: ClassVar[tuple[str, ...]] = (FORWARD,)
    saving: ClassVar[tuple[str, ...]] = ()
    slow_to_compile: ClassVar[bool] = False

    def resized(self, **sizes: int) -> Self:
        return replace(self, sizes={**self.sizes, **sizes})

    def small(self) -> Self:
        return self.resized(N=6)

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        raise NotImplementedError

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        raise NotImplementedError

    def work(self, direction: str, ours: Variant) -> tuple[float, float]:
        raise NotImplementedError
