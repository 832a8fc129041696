"""A tuning step of STARS as published, a pass for each of two equal views, against ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models.mamp import DEPTH, SEGMENT, WIDTH, EagerEncoder, PretrainingVariant
from benchmarks.network import STEP, NetworkCase, V
from skelops.models import STARS, load_published

HIDDEN, QUEUE, TAU = 4096, 32768, 0.07
TUNED = re.compile(
    rf"blocks\.[{DEPTH // 2}-{DEPTH - 1}]|encoder(_student)?\.norm|projector|predictor"
)


class EagerSTARS(nn.Module):
    """(N, 3, T, 25, M) -> loss; all parameters have gradients, as there."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder_student = EagerEncoder(sizes)
        predictor = nn.Sequential(
            nn.Linear(WIDTH, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, WIDTH),
        )
        projector = nn.Sequential(nn.BatchNorm1d(WIDTH))
        self.encoder_student.head = nn.ModuleDict({"projector": projector, "predictor": predictor})
        self.register_buffer("queue", F.normalize(torch.randn(WIDTH, QUEUE), dim=0))
        self.register_buffer("queue_id", torch.full((QUEUE,), -1))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))

    def _view(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoder, head = self.encoder_student, self.encoder_student.head
        f = encoder.encode(encoder.embed(encoder.fold(x)))
        z = head["projector"](f.reshape(len(x), -1, WIDTH).mean(1))
        return F.normalize(head["predictor"](z)), F.normalize(z).detach()

    def _loss(self, p: Tensor, z: Tensor, ids: Tensor) -> Tensor:
        similarity = z @ self.queue
        similarity[self.queue_id == ids[:, None]] = -1
        near = self.queue[:, similarity.argmax(1)].T
        return F.cross_entropy(near @ p.T / TAU, torch.arange(len(p), device=p.device))

    def forward(self, x: Tensor) -> Tensor:
        ids = torch.arange(len(x), device=x.device)
        p0, z0 = self._view(x)
        with torch.no_grad():
            p1, z1 = self._view(x)
        loss = (self._loss(p0, z1, ids) + self._loss(p1, z0, ids)) / 2
        first = int(self.queue_ptr)
        self.queue[:, first : first + len(x)] = z0.T
        self.queue_id[first : first + len(x)] = ids
        self.queue_ptr[0] = (first + len(x)) % QUEUE
        return loss


class OurSTARS(nn.Module):
    """(N, 3, T, 25, M) -> loss."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.model = STARS(num_frames=sizes["T"])

    def forward(self, x: Tensor) -> Tensor:
        return self.model.loss(x, torch.arange(len(x), device=x.device))


class TuningVariant(PretrainingVariant):
    """A step of AdamW on the upper half of the encoder and the head."""

    def __init__(self, module: nn.Module, direction: str, x: Tensor, y: Tensor, compiled: Any):
        super().__init__(module, direction, x, y, compiled)
        self.parameters = [p for name, p in module.named_parameters() if TUNED.search(name)]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, betas=(0.9, 0.95))

    def gradients(self) -> dict[str, Tensor]:
        return {"gradient of the first tuned norm": self.parameters[0].grad}


class TuningCase(NetworkCase):
    variant = TuningVariant

    def equal(self, published: nn.Module, device: str) -> nn.Module:
        ours = OurSTARS(self.sizes).to(device)
        load_published(ours.model, published.state_dict())
        return ours


def _multiplications(sizes: Mapping[str, int]) -> float:
    """A third of a step's: forward of all blocks once, backward of the tuned half."""
    L = sizes["T"] // SEGMENT * V
    block = L * (12 * WIDTH**2 + 2 * L * WIDTH)
    return float(sizes["N"] * sizes["M"] * DEPTH * block * 2 / 3)


CASES = [
    TuningCase(
        "tuning step", STEP, {"N": 4, "M": 2, "T": 120}, published=EagerSTARS, ours=OurSTARS,
        multiplications=_multiplications, targets={STEP: {"eager": 4.0}},
        headline="STARS, tuning step", gpu={"N": 32},
    ),
]  # fmt: skip
