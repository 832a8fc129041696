"""Networks of other packages in plain PyTorch, as they are and after ``skelops.patch``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from benchmarks.models import hyper_gcn
from benchmarks.models.ctr_gcn import EagerCTRGCN, multiplications
from benchmarks.network import CLASSES, INFERENCE, STEP, PatchedCase, V
from skelops.nn import make_stages
from skelops.testing import plain


class PysklNet(plain.PysklNet):
    """Takes (N, C, T, V, M) as all networks here."""

    def __init__(self, unit: Callable, tcn: Callable, persons: int) -> None:
        blocks, width = [], 3
        for i, (out, stride) in enumerate(make_stages()):
            names = ("gcn", "tcn")
            parts = (unit(width, out), tcn(out, stride), width, out, stride)
            blocks.append(plain.Block(*parts, residual=i > 0, names=names))
            width = out
        super().__init__(blocks, width, V, persons, 3, CLASSES)
        for module in self.modules():  # Graphs of zeros have no gradient to compare.
            for name in ("A", "PA"):
                if hasattr(module, name):
                    nn.init.normal_(getattr(module, name), 0, 0.2)
        self.data_bn = self.backbone.data_bn

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 4, 2, 3, 1))


def _st_gcn_pp(sizes: Mapping[str, int]) -> nn.Module:
    return PysklNet(
        lambda C, out: plain.StaticUnit(C, out, V, adaptive="init", residual=True),
        lambda C, stride: plain.TransformedScales(C, C, stride),
        sizes["M"],
    )


def _aagcn(sizes: Mapping[str, int]) -> nn.Module:
    return PysklNet(
        lambda C, out: plain.AdaptiveUnit(C, out, V),
        lambda C, stride: plain.ConvNorm(C, C, 9, stride),
        sizes["M"],
    )


def _of_pyskl(temporal: Callable[[int], int]) -> Callable[[Mapping[str, int]], float]:
    """Least multiplications of ten blocks; ``temporal`` those of a temporal module at one joint."""

    def count(sizes: Mapping[str, int]) -> float:
        T, C, total = sizes["T"], 3, 0.0
        for out, stride in make_stages():
            down = C * out if out != C else 0
            total += T * V * (3 * out * (C + V) + down)
            T //= stride
            total += T * V * (temporal(out) + (down if C > 3 else 0))
            C = out
        return sizes["N"] * sizes["M"] * total

    return count


def _cases(name: str, published: Callable, count: Callable) -> list[PatchedCase]:
    parts: dict[str, Any] = {"published": published, "ours": published, "multiplications": count}
    return [
        PatchedCase(
            f"{name}, training step", STEP, {"N": 8, "M": 2, "T": 64}, **parts,
            targets={STEP: {"eager": 1.8, "saved": 0.5}},
            headline=f"patched {name}, training step",
            gpu={"N": 64},
        ),
        PatchedCase(
            f"{name}, inference", INFERENCE, {"N": 1, "M": 2, "T": 64}, **parts,
            targets={INFERENCE: {"eager": 2}},
            headline=f"patched {name}, inference of one clip",
        ),
    ]  # fmt: skip


CASES = [
    *_cases("CTR-GCN", lambda sizes: EagerCTRGCN(sizes["M"]), multiplications),
    *_cases("ST-GCN++", _st_gcn_pp, _of_pyskl(lambda C: C * C + 3 * C * C // 9 + C * C)),
    *_cases("Hyper-GCN", hyper_gcn.eager_network, hyper_gcn.multiplications),
    *_cases("AAGCN", _aagcn, _of_pyskl(lambda C: 9 * C * C)),
]
