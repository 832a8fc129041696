"""CTR-GCN as published, one PyTorch call after the other, against ``skelops.models``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.case import COMPILE, Variant, total_bytes

CLASSES, V = 60, 25
STEP, INFERENCE = "training step", "inference"
# (in, out, stride) of the ten blocks
BLOCKS = [(3, 64, 1), *[(64, 64, 1)] * 3, (64, 128, 2), *[(128, 128, 1)] * 2]
BLOCKS += [(128, 256, 2), *[(256, 256, 1)] * 2]


class Refinement(nn.Module):
    """One subset of the channel-wise topology refinement."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        relations = 8 if inputs in (3, 9) else inputs // 8
        self.conv1, self.conv2 = (nn.Conv2d(inputs, relations, 1) for _ in range(2))
        self.conv3 = nn.Conv2d(inputs, outputs, 1)
        self.conv4 = nn.Conv2d(relations, outputs, 1)

    def forward(self, x: Tensor, A: Tensor, alpha: Tensor) -> Tensor:
        p, q, f = self.conv1(x).mean(-2), self.conv2(x).mean(-2), self.conv3(x)
        graph = self.conv4(torch.tanh(p.unsqueeze(-1) - q.unsqueeze(-2))) * alpha + A
        return torch.einsum("ncuv,nctv->nctu", graph, f)


class GraphUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, graph: Tensor | None = None):
        super().__init__()
        self.PA = nn.Parameter(peers.skeleton_graph() if graph is None else graph.clone())
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.convs = nn.ModuleList(Refinement(inputs, outputs) for _ in self.PA)
        self.bn = nn.BatchNorm2d(outputs)
        self.down = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
            if inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        z = None
        for A, conv in zip(self.PA, self.convs, strict=True):
            y = conv(x, A, self.alpha)
            z = y if z is None else z + y
        return F.relu(self.bn(z) + self.down(x))


class TemporalConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, (kernel, 1), (stride, 1), (dilation * (kernel // 2), 0), (dilation, 1)
        )
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class MultiScaleTemporal(nn.Module):
    def __init__(self, channels: int, stride: int):
        super().__init__()
        width = channels // 4

        def entry(stride: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 1, (stride, 1)), nn.BatchNorm2d(width)]

        dilated = (
            nn.Sequential(*entry(), nn.ReLU(), TemporalConv(width, width, 5, d, stride))
            for d in (1, 2)
        )
        pool = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
        pooled = nn.Sequential(*entry(), nn.ReLU(), pool, nn.BatchNorm2d(width))
        self.branches = nn.ModuleList([*dilated, pooled, nn.Sequential(*entry(stride))])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Block(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, stride: int, first: bool, graph: Tensor | None = None
    ):
        super().__init__()
        self.gcn1 = GraphUnit(inputs, outputs, graph)
        self.tcn1 = MultiScaleTemporal(outputs, stride)
        self.first = first
        same = first or (inputs == outputs and stride == 1)
        self.residual = nn.Identity() if same else TemporalConv(inputs, outputs, 1, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn1(self.gcn1(x))
        return F.relu(y if self.first else y + self.residual(x))


class EagerCTRGCN(nn.Module):
    """(N, C, T, V, M) -> logits; parameters under their published names."""

    def __init__(self, persons: int = 2):
        super().__init__()
        self.data_bn = nn.BatchNorm1d(persons * V * 3)
        for i, (inputs, outputs, stride) in enumerate(BLOCKS):
            setattr(self, f"l{i + 1}", Block(inputs, outputs, stride, first=i == 0))
        self.fc = nn.Linear(256, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        N, C, T, _, M = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(N, M * V * C, T))
        x = x.view(N, M, V, C, T).permute(0, 1, 3, 4, 2).reshape(N * M, C, T, V)
        for i in range(len(BLOCKS)):
            x = getattr(self, f"l{i + 1}")(x)
        return self.fc(x.view(N, M, 256, -1).mean(3).mean(1))


class ModelVariant(Variant):
    """A training step or the inference of one batch."""

    def __init__(self, model: nn.Module, direction: str, x: Tensor, y: Tensor, compiled: Any):
        self.training = direction == STEP
        self.model = model.train(self.training)
        self.forward = model if compiled is None else torch.compile(model, options=compiled)
        self.initial = {name: t.clone() for name, t in model.state_dict().items()}
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=4e-4
        )
        half = x.dtype in (torch.bfloat16, torch.float16)
        self.dtype = x.dtype if half else None
        self.x, self.y = x.float() if half else x, y

    def _logits(self) -> Tensor:
        mixed = torch.autocast(self.x.device.type, self.dtype) if self.dtype else nullcontext()
        with mixed:
            return self.forward(self.x)

    def graph(self) -> Tensor:
        return F.cross_entropy(self._logits(), self.y)

    def run(self) -> Any:
        if not self.training:
            with torch.no_grad():
                return self._logits()
        self.graph().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return None

    def outcome(self) -> dict[str, Tensor]:
        self.model.load_state_dict(self.initial)
        if not self.training:
            return {"logits": self.run()}
        logits = self._logits()
        F.cross_entropy(logits, self.y).backward()
        norms = [p.grad.double().norm() for p in self.parameters if p.grad is not None]
        # The first parameters of the network, so the gradient has come through all of it.
        first = [self.model.data_bn.weight.grad, self.model.data_bn.bias.grad]
        self.optimizer.zero_grad()
        self.model.load_state_dict(self.initial)
        return {
            "logits": logits.detach(),
            "gradient of data_bn": torch.cat(first),
            "norm of the gradient": torch.stack(norms).norm(),
        }


@dataclass(frozen=True)
class ModelCase:
    """A whole model; same interface as a case of an op."""

    name: str
    direction: str
    sizes: Mapping[str, int]
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    headline: str = ""
    gpu: Mapping[str, int] = field(default_factory=dict)
    quick: Mapping[str, int] = field(default_factory=lambda: {"N": 1})
    slack: float = 100.0
    peers = ("eager", "compile")
    slow_to_compile = True
    channels: ClassVar[int] = 3

    @property
    def directions(self) -> tuple[str, ...]:
        return (self.direction,)

    @property
    def saving(self) -> tuple[str, ...]:
        return (STEP,)

    def resized(self, **sizes: int) -> ModelCase:
        return replace(self, sizes={**self.sizes, **sizes})

    def small(self) -> ModelCase:
        return self.resized(N=2, T=8)

    def published(self) -> nn.Module:
        return EagerCTRGCN(self.sizes["M"])

    def ours(self) -> nn.Module:
        from skelops.models import create_model

        return create_model("ctr_gcn", num_classes=CLASSES)

    def networks(self) -> Sequence[tuple[Sequence[tuple[int, int, int]], int]]:
        """(in, out, stride) of the blocks and joints of every network."""
        return [(BLOCKS, V)]

    def _draw(self, device: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
        N, M, T = (self.sizes[name] for name in "NMT")
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(N, self.channels, T, V, M, generator=generator).to(device, dtype)
        y = torch.randint(CLASSES, (N,), generator=generator).to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.published().to(device), x, y

    def variants(
        self, direction: str, against: Sequence[str], device: str, dtype: torch.dtype
    ) -> dict[str, Variant]:
        from skelops.models import load_published

        published, x, y = self._draw(device, dtype)
        ours = self.ours().to(device)
        load_published(ours, published.state_dict())
        made: dict[str, Variant] = {"ours": ModelVariant(ours, direction, x, y, None)}
        for name in against:
            if name in COMPILE:
                torch._dynamo.reset()
            model, *batch = self._draw(device, dtype)
            made[name] = ModelVariant(model, direction, *batch, COMPILE.get(name))
        return made

    def truth(self, direction: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        model, x, y = self._draw(device, dtype)
        return ModelVariant(model.double(), direction, x.double(), y, None).outcome()

    def work(self, direction: str, ours: ModelVariant) -> tuple[float, float]:
        """Multiplications of the published equations, the temporal mean taken before W1 and W2."""
        B, flops = self.sizes["N"] * self.sizes["M"], 0.0
        for blocks, joints in self.networks():
            T = self.sizes["T"]
            for i, (inputs, outputs, stride) in enumerate(blocks):
                changes = inputs != outputs
                graph = 3 * outputs * (inputs + joints) + (inputs * outputs if changes else 0)
                after = outputs**2 // 4 + 2 * 5 * (outputs // 4) ** 2
                after += inputs * outputs if i and (changes or stride > 1) else 0
                relations = 8 if inputs == 3 else inputs // 8
                topology = 3 * relations * (outputs * joints**2 + 2 * inputs * joints)
                frames = T * (graph + outputs**2 * 3 // 4) + T // stride * after
                flops += 2 * B * (frames * joints + topology)
                T //= stride
        moved = total_bytes([ours.x, list(ours.parameters)])
        return (3 * flops, 3 * moved) if direction == STEP else (flops, moved)


CASES = [
    ModelCase(
        "training step",
        STEP,
        {"N": 8, "M": 2, "T": 64},
        {STEP: {"eager": 2.2, "compile": 1.8, "saved": 0.4}},
        "CTR-GCN, training step",
        gpu={"N": 64},
    ),
    ModelCase(
        "inference",
        INFERENCE,
        {"N": 1, "M": 2, "T": 64},
        {INFERENCE: {"eager": 2, "compile": 1.5}},
        "CTR-GCN, inference of one clip",
    ),
]
