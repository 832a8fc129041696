"""A case: one piece of work, the skelops form of it, and the form a user would write."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

FORWARD, TRAINING = "forward", "forward+backward"
# Options of torch.compile. On a CPU the default lays 1x1 convolutions out channels-last, which can
# cost more than it gains; the peer is the better of the two.
COMPILE = {"compile": {}, "compile, layout kept": {"layout_optimization": False}}
NUMPY = "numpy"  # peer of the input pipeline
PINOCCHIO = "pinocchio"  # peer of dynamics
FAISS = "faiss"  # peer of searches among features
SDPA = "sdpa"  # peer of attention: torch's own fused one

Arguments = dict[str, Any]


def settings(peer: str, device: str) -> list[str]:
    """The variants that stand for a peer."""
    return list(COMPILE)[: 2 if device == "cpu" else 1] if peer == "compile" else [peer]


class Draw:
    """Random inputs, the same on every device; all but statistics and constants are leaves."""

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0):
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        x = torch.randn(shape, generator=self.generator) * scale + shift
        return x.to(self.device, self.dtype).requires_grad_()

    def weight(self, *shape: int, fan: int) -> Tensor:
        return self.normal(*shape, scale=fan**-0.5)

    def constant(self, x: Tensor) -> Tensor:
        return x.to(self.device, self.dtype)

    def norm(self, channels: int, prefix: str = "") -> Arguments:
        """Batch normalisation: parameters and statistics, in float32 beside half types."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        affine = {
            f"{prefix}weight": self.normal(channels, scale=0.1, shift=1.0),
            f"{prefix}bias": self.normal(channels, scale=0.1),
        }
        statistics = {
            f"{prefix}running_mean": torch.zeros(channels, device=self.device),
            f"{prefix}running_var": torch.ones(channels, device=self.device),
        }
        leaves = {name: t.detach().to(dtype).requires_grad_() for name, t in affine.items()}
        return leaves | {name: t.to(dtype) for name, t in statistics.items()}


def copied(args: Arguments, dtype: torch.dtype | None = None) -> Arguments:
    """The same values in memory of their own, leaves as leaves."""

    def copy(value):
        if not isinstance(value, Tensor):
            return value
        fresh = value.detach().clone(memory_format=torch.contiguous_format)
        cast = dtype is not None and value.is_floating_point()
        return (fresh.to(dtype) if cast else fresh).requires_grad_(value.requires_grad)

    return tree_map(copy, args)


def leaves(args: Arguments) -> list[Tensor]:
    return [t for t in tree_leaves(args) if isinstance(t, Tensor) and t.requires_grad]


def outputs(found: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
    """The results of a function by name."""
    if isinstance(found, Tensor):
        return {"output": found}
    return {f"output[{i}]": t for i, t in enumerate(found)}


def total_bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(tensors) if isinstance(t, Tensor))


class Variant:
    """One way to do a case's work, ready to be timed."""

    parameters: list[Tensor]

    def run(self) -> Any:
        """Do the work once."""
        raise NotImplementedError

    def graph(self) -> Any:
        """The forward of a training step; what is returned keeps its saved tensors alive."""
        raise NotImplementedError

    def outcome(self) -> dict[str, Tensor]:
        """Everything that must agree with the formula, by name."""
        raise NotImplementedError


class OpVariant(Variant):
    """A function of drawn arguments; with ``grad``, also its gradients."""

    def __init__(
        self,
        function: Callable[..., Any],
        prepare: Callable[[Arguments], Arguments],
        args: Arguments,
        activations: Sequence[str],
        grad: Sequence[Tensor] | None,
        copies: int = 1,
    ):
        self.function, self.prepare, self.args, self.grad = function, prepare, args, grad
        self.sets = [copied(prepare(args)) for _ in range(copies)]
        self.parameters = leaves({k: v for k, v in self.sets[0].items() if k not in activations})
        self.turn = 0

    def run(self) -> Any:
        self.turn += 1
        args = self.sets[self.turn % len(self.sets)]
        if self.grad is not None:
            out = list(outputs(self.function(**args)).values())
            return torch.autograd.grad(out, leaves(args), self.grad)
        with torch.no_grad():
            return self.function(**args)

    def graph(self) -> Any:
        return self.function(**self.sets[0])

    def outcome(self) -> dict[str, Tensor]:
        if self.grad is None:
            with torch.no_grad():
                return outputs(self.function(**self.prepare(self.args)))
        out = outputs(self.function(**self.prepare(self.args)))
        named = {
            (f"{name}[{i}]" if isinstance(value, list) else name): leaf
            for name, value in self.args.items()
            for i, leaf in enumerate(leaves(value))
        }
        grads = torch.autograd.grad(list(out.values()), list(named.values()), self.grad)
        found = {f"gradient of {n}": g for n, g in zip(named, grads, strict=True)}
        return {name: t.detach() for name, t in out.items()} | found


@dataclass(frozen=True)
class Case:
    """Work of an op. The sizes are passed by name to ``draw`` and ``flops``."""

    name: str
    sizes: Mapping[str, int]
    draw: Callable[..., Arguments]
    # one result or a tuple of them
    ours: Callable[..., Any]
    peer: Callable[..., Any]
    # direction -> least floating-point operations, whatever the form
    flops: Callable[..., Mapping[str, float]]
    # the peer's arguments from ours: per-subset lists, contiguous parts, ...
    prepare: Callable[[Arguments], Arguments] = lambda args: args
    # direction -> peer -> how many times faster ours has to be, on a CPU in float32
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    # arguments that are data; the others are parameters, which a model holds anyway
    activations: tuple[str, ...] = ("x",)
    # arguments whose gradient is zero in exact arithmetic, e.g. a bias in front of a normalisation
    zero_gradients: tuple[str, ...] = ()
    # tolerance of gradients over that of outputs: where rounding changes the sign at a rectifier or
    # the largest of a pool, a gradient goes elsewhere
    slack: float = 1.0
    directions: tuple[str, ...] = (FORWARD, TRAINING)
    # directions that keep tensors for a backward
    saving: tuple[str, ...] = (TRAINING,)
    # row of the summary, for the last direction
    headline: str = ""
    # sizes that fill a GPU, and sizes for a first impression
    gpu: Mapping[str, int] = field(default_factory=lambda: {"B": 128})
    quick: Mapping[str, int] = field(default_factory=lambda: {"B": 8})
    peers: ClassVar[tuple[str, ...]] = ("eager", "compile")
    slow_to_compile: ClassVar[bool] = False

    def form(self, name: str) -> Callable[..., Any]:
        """What a peer of that name runs."""
        return self.peer

    def resized(self, **sizes: int) -> Case:
        return replace(self, sizes={**self.sizes, **sizes})

    def small(self) -> Case:
        """The same work at a size for tests."""
        few = {"B": 2, "C": 16, "T": 6}
        return self.resized(**{name: few[name] for name in self.sizes if name in few})

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        """Ours, and the peers: "eager" and those of ``COMPILE``."""
        args = self.draw(Draw(device, dtype), **self.sizes)
        shared = (args, self.activations, self._grad(direction, args), 3 if device == "cuda" else 1)
        made: dict[str, Variant] = {"ours": OpVariant(self.ours, dict, *shared)}
        for name in against:
            function = self.form(name)
            if name in COMPILE:
                torch._dynamo.reset()
                function = torch.compile(function, options=COMPILE[name])
            made[name] = OpVariant(function, self.prepare, *shared)
        return made

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """The formula in float64 on the very values that are timed."""
        args = self.draw(Draw(device, dtype), **self.sizes)
        grad = self._grad(direction, args)
        args, grad = copied(args, torch.float64), grad and [g.double() for g in grad]
        found = OpVariant(self.peer, self.prepare, args, self.activations, grad).outcome()
        exact = {f"gradient of {name}" for name in self.zero_gradients}
        return {name: t for name, t in found.items() if name.split("[")[0] not in exact}

    def _grad(self, direction: str, args: Arguments) -> list[Tensor] | None:
        if direction == FORWARD:
            return None
        with torch.no_grad():
            out = outputs(self.ours(**copied(args))).values()
        generator = torch.Generator().manual_seed(1)
        return [torch.randn(t.shape, generator=generator).to(t) for t in out]

    def work(self, direction: str, ours: OpVariant) -> tuple[float, float]:
        """(least floating-point operations, bytes with every tensor read or written once)."""
        with torch.no_grad():
            moved = total_bytes(ours.args) + total_bytes(ours.function(**ours.sets[0]))
        if direction == TRAINING:
            moved += moved + total_bytes(leaves(ours.args))
        return self.flops(**self.sizes)[direction], moved


def _registry(package: str) -> dict[str, list]:
    found = importlib.import_module(package)
    names = sorted(module.name for module in pkgutil.iter_modules(found.__path__))
    return {name: importlib.import_module(f"{package}.{name}").CASES for name in names}


def op_cases() -> dict[str, list[Case]]:
    """Op name -> cases: one file of ``benchmarks/ops`` per op."""
    return _registry("benchmarks.ops")


def model_cases() -> dict[str, list]:
    """Model name -> cases: one file of ``benchmarks/models`` per model."""
    return _registry("benchmarks.models")
