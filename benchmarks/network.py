"""Whole networks and their units as cases: ours and the published one, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.case import COMPILE, Variant, total_bytes

CLASSES, V = 60, 25
STEP, INFERENCE = "training step", "inference"


class ModuleVariant(Variant):
    """A module, called on a batch."""

    def __init__(self, module: nn.Module, direction: str, x: Tensor, y: Tensor, compiled: Any):
        self.training = direction != INFERENCE
        self.module = module.train(self.training)
        self.forward = module if compiled is None else torch.compile(module, options=compiled)
        self.initial = {name: t.clone() for name, t in module.state_dict().items()}
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        half = x.dtype in (torch.bfloat16, torch.float16)
        self.dtype = x.dtype if half else None
        self.x, self.y = (t.float() if half and t.is_floating_point() else t for t in (x, y))

    def output(self) -> Tensor:
        mixed = torch.autocast(self.x.device.type, self.dtype) if self.dtype else nullcontext()
        with mixed:
            return self.forward(self.x)

    def loss(self, output: Tensor) -> Tensor:
        raise NotImplementedError

    def graph(self) -> Tensor:
        return self.loss(self.output())

    def gradients(self) -> dict[str, Tensor]:
        """Those worth comparing one by one, after a backward."""
        raise NotImplementedError

    def outcome(self) -> dict[str, Tensor]:
        self.module.load_state_dict(self.initial)
        if not self.training:
            return {"output": self.run()}
        output = self.output()
        self.loss(output).backward()
        norms = [p.grad.double().norm() for p in self.parameters if p.grad is not None]
        found = {"output": output.detach(), "norm of the gradient": torch.stack(norms).norm()}
        found |= self.gradients()
        self.module.zero_grad()
        self.module.load_state_dict(self.initial)
        return found


class NetworkVariant(ModuleVariant):
    """A training step or the inference of one batch (N, C, T, V, M)."""

    def __init__(self, module: nn.Module, direction: str, x: Tensor, y: Tensor, compiled: Any):
        super().__init__(module, direction, x, y, compiled)
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=4e-4
        )

    def loss(self, output: Tensor) -> Tensor:
        loss = F.cross_entropy(output, self.y)
        return (
            loss + self.module.auxiliary_loss() if hasattr(self.module, "auxiliary_loss") else loss
        )

    def run(self) -> Any:
        if not self.training:
            with torch.no_grad():
                return self.output()
        self.graph().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return None

    def gradients(self) -> dict[str, Tensor]:
        # Of the first normalisation, so the gradient has come through nearly all of the network.
        norm = self.module.data_bn
        return {"gradient of data_bn": torch.cat([norm.weight.grad, norm.bias.grad])}


class UnitVariant(ModuleVariant):
    """Forward and backward of a unit (N, C, T, V), down to its input."""

    def __init__(self, module: nn.Module, direction: str, x: Tensor, y: Tensor, compiled: Any):
        super().__init__(module, direction, x, y, compiled)
        self.x = self.x.requires_grad_()

    def loss(self, output: Tensor) -> Tensor:
        return (output * self.y).sum()

    def run(self) -> Any:
        return torch.autograd.grad(self.output(), [self.x, *self.parameters], self.y)

    def gradients(self) -> dict[str, Tensor]:
        gradient, self.x.grad = self.x.grad, None
        return {"gradient of x": gradient}


@dataclass(frozen=True)
class NetworkCase:
    """A whole network; same interface as a case of an op.

    Args:
        published: sizes -> the module in plain PyTorch, (N, C, T, V, M) -> logits.
        ours: sizes -> that of skelops.
        multiplications: sizes -> the least of one forward.
        channels: C of the input.
    """

    name: str
    direction: str
    sizes: Mapping[str, int]
    published: Callable[[Mapping[str, int]], nn.Module]
    ours: Callable[[Mapping[str, int]], nn.Module]
    multiplications: Callable[[Mapping[str, int]], float]
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    headline: str = ""
    gpu: Mapping[str, int] = field(default_factory=dict)
    quick: Mapping[str, int] = field(default_factory=lambda: {"N": 1})
    slack: float = 100.0
    channels: int = 3
    peers = ("eager", "compile")
    slow_to_compile = True
    variant = NetworkVariant

    @property
    def directions(self) -> tuple[str, ...]:
        return (self.direction,)

    @property
    def saving(self) -> tuple[str, ...]:
        return () if self.direction == INFERENCE else (self.direction,)

    def resized(self, **sizes: int) -> NetworkCase:
        return replace(self, sizes={**self.sizes, **sizes})

    def small(self) -> NetworkCase:
        return self.resized(N=2, T=8)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        N, M, T = (self.sizes[name] for name in "NMT")
        x = torch.randn(N, self.channels, T, V, M, generator=generator)
        return x, torch.randint(CLASSES, (N,), generator=generator)

    def _draw(self, device: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
        x, y = self.batch(torch.Generator().manual_seed(0))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self.published(self.sizes).to(device)
        y = y.to(device, dtype if y.is_floating_point() else None)
        return module, x.to(device, dtype), y

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        published, *batch = self._draw(device, dtype)
        ours = self.equal(published, device)
        made: dict[str, Variant] = {"ours": self.variant(ours, direction, *batch, None)}
        for name in against:
            if name in COMPILE:
                torch._dynamo.reset()
            module, *batch = self._draw(device, dtype)
            made[name] = self.variant(module, direction, *batch, COMPILE.get(name))
        return made

    def equal(self, published: nn.Module, device: str) -> nn.Module:
        """Ours with the weights of the published one."""
        from skelops.models import load_published

        ours = self.ours(self.sizes).to(device)
        load_published(ours, published.state_dict())
        return ours

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        module, x, y = self._draw(device, dtype)
        y = y.double() if y.is_floating_point() else y
        return self.variant(module.double(), direction, x.double(), y, None).outcome()

    def work(self, direction: str, ours: ModuleVariant) -> tuple[float, float]:
        flops = 2 * self.multiplications(self.sizes)
        moved = total_bytes([ours.x, list(ours.parameters)])
        return (flops, moved) if direction == INFERENCE else (3 * flops, 3 * moved)


@dataclass(frozen=True)
class UnitCase(NetworkCase):
    """Forward and backward of a unit of a network, B x C x T."""

    quick: Mapping[str, int] = field(default_factory=lambda: {"B": 4})
    variant = UnitVariant

    def small(self) -> UnitCase:
        return self.resized(B=2, C=64, T=8)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shape = [self.sizes[name] for name in "BCT"] + [V]
        return tuple(torch.randn(shape, generator=generator) for _ in range(2))


@dataclass(frozen=True)
class LayerCase(UnitCase):
    """A unit whose parameters have the published names."""

    def equal(self, published: nn.Module, device: str) -> nn.Module:
        ours = self.ours(self.sizes).to(device)
        ours.load_state_dict(published.state_dict())
        return ours


@dataclass(frozen=True)
class PatchedCase(NetworkCase):
    """A whole network of somebody else, as it is and patched; ``ours`` is not called."""

    def equal(self, published: nn.Module, device: str) -> nn.Module:
        from skelops import patch

        patch(published)
        return published
