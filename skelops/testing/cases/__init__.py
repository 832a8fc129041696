"""Named inputs of every op, shared by the contract, opcheck, benchmarks and ahead-of-time compiles.

A family module registers cases with ``register``; ``cases_for`` finds them by the op's name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "transposed", "sliced", "expanded")


def relayout(t: Tensor, layout: str) -> Tensor:
    """The tensor with other strides; "expanded" repeats its first entry along the first axis."""
    if layout == "contiguous" or t.dim() == 0:
        return t.contiguous()
    if layout == "transposed":
        axes = tuple(reversed(range(t.dim())))
        return t.permute(axes).contiguous().permute(axes)
    if layout == "sliced":
        wide = t.new_empty(*t.shape[:-1], 2 * t.shape[-1] + 1)
        wide[..., 1::2] = t
        return wide[..., 1::2]
    if layout == "expanded":
        return t[:1].clone().expand(t.shape) if t.shape[0] else t
    raise ValueError(f"relayout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")


@dataclass(frozen=True)
class Draw:
    """Random tensors: the same numbers for every dtype and device, up to rounding."""

    dtype: torch.dtype
    device: torch.device | str
    generator: torch.Generator

    @property
    def norm_dtype(self) -> torch.dtype:
        """Of normalisation parameters and statistics, which stay in float32 under half types."""
        return self.dtype if self.dtype == torch.float64 else torch.float32

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        x = torch.randn(shape, dtype=torch.float64, generator=self.generator)
        return (mean + scale * x).to(self.dtype).to(self.device)

    def norm(self, channels: int, mean: float = 0.0, scale: float = 0.3) -> Tensor:
        x = torch.randn(channels, dtype=torch.float64, generator=self.generator)
        return (mean + scale * x).to(self.norm_dtype).to(self.device)

    def variance(self, channels: int) -> Tensor:
        x = torch.rand(channels, dtype=torch.float64, generator=self.generator)
        return (0.5 + x).to(self.norm_dtype).to(self.device)


@dataclass(frozen=True, eq=False)
class Case:
    """Arguments of a torch op at given sizes.

    Attributes:
        name: unique for the op.
        build: ``build(draw, **dims)`` -> arguments of the torch op in schema order. ``N``, the
            batch, is one of the dims.
        dims: sizes and options handed to ``build``.
        small: small enough for finite differences and for tracing.
        backward: the arguments allow a backward.
        public: the public function, called with the torch op's arguments.
        stays_float32: the result is float32 in an autocast region, as losses are.
    """

    name: str
    build: Callable[..., tuple]
    dims: Mapping[str, Any] = field(default_factory=dict)
    small: bool = False
    backward: bool = True
    public: Callable | None = None
    stays_float32: bool = False

    def make(
        self,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        **dims: Any,
    ) -> tuple:
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        return self.build(Draw(dtype, device, generator), **{**self.dims, **dims})

    def __str__(self) -> str:
        return self.name


_cases: dict[str, dict[str, Case]] = {}


def register(op: str, *cases: Case) -> None:
    named = _cases.setdefault(op, {})
    for case in cases:
        if case.name in named:
            raise ValueError(f"{op}: two cases named {case.name!r}")
        named[case.name] = case


@cache
def _load_families() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def cases_for(op: str) -> tuple[Case, ...]:
    """The registered cases of an op; none for an unknown one."""
    _load_families()
    return tuple(_cases.get(op, {}).values())
