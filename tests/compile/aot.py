"""Compile an op's Triton kernels for GPUs that are not there: what a launch would run is recorded.

``python tests/compile/aot.py [op ...]`` prints what every kernel takes of a multiprocessor.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from skelops import _backend
from skelops._library import OPS, _as_tuple
from skelops.testing.cases import cases_for

ARCHITECTURES = (80, 90, 100)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
_GRAPH = dict(N=8, T=64, V=25, K=3)
_MAMP = dict(T=120, V=25, C=3)
CASES = {
    "affinity_contrastive_loss": {
        "memory": dict(N=64, K=1024, D=256, classes=120, empty=0),
        "classes": dict(N=64, K=120, D=256, classes=120, affinity=0.1, own=False, eps=0.0),
        "tiny": dict(N=1, K=1, D=1, empty=0),
    },
    "graph_conv": {
        "fused": dict(**_GRAPH, C=64, D=64),
        "wide": dict(**_GRAPH, C=256, D=128, transposed=True, bias="output"),
        "whole_body": dict(N=8, C=64, D=64, T=13, V=67, K=3),
        "tiny": dict(N=1, C=1, D=1, T=1, V=1, K=1),
        "per_sample": dict(N=8, D=16, T=1, V=17, K=8, weight=False, per_sample=True, bias=None),
    },
    "ctr_graph_conv": {
        "fused": dict(**_GRAPH, C=64, D=64, R=8),
        "wide": dict(N=8, C=256, D=256, R=32, T=16, V=25, K=3),
        "rows": dict(N=8, C=128, D=128, R=16, T=32, V=17, K=3, transposed=True),
        "whole_body": dict(N=8, C=16, D=64, R=8, T=13, V=67, K=3),
        "tiny": dict(N=1, C=1, D=1, R=1, T=1, V=1, K=1),
        "no_weight4": dict(N=8, D=16, T=64, V=25, K=8, refine=None, weight=False, bias=False),
        "many_relations": dict(N=8, C=64, D=64, R=128, T=16, V=67, K=3),
    },
    "hypergraph_conv": {
        "hypergcn": dict(N=8, C=128, D=128, T=64, V=25, Q=3, K=8),
        "hypergcn_256": dict(N=8, C=256, D=256, T=32, V=25, Q=3, K=8),
        "wide": dict(N=8, C=512, D=512, T=16, V=25, Q=3, K=8),
        "shared": dict(N=8, C=256, D=256, T=32, V=20, Q=0, K=8, bias=False, per_sample=False),
        "two_bodies": dict(N=8, C=64, D=64, T=13, V=50, Q=6, K=2),
        "tiny": dict(N=1, C=1, D=1, T=1, V=1, Q=1, K=1),
    },
    "hypergraph_unit": {
        "hypergcn": dict(N=8, C=128, D=128, T=64, V=25, Q=3, K=8),
        "eval": dict(N=8, C=256, D=256, T=16, V=20, Q=3, K=8, training=False),
    },
    "ms_temporal_conv": {
        "mstcn4": dict(N=8, C=64, widths=(16, 16), pool=16, plain=16, k=5, T=64, V=25),
        "wide": dict(
            N=8,
            C=256,
            widths=(64, 64),
            pool=64,
            plain=64,
            k=5,
            T=16,
            V=25,
            stride=2,
            replicate=True,
        ),
        "tiny": dict(N=1, C=1, widths=(1,), pool=1, plain=1, dilations=(1,), T=1, V=1),
        "mstcn": dict(
            N=8,
            C=64,
            widths=(14, 10, 10, 10),
            pool=10,
            plain=10,
            dilations=(1, 2, 3, 4),
            T=13,
            V=17,
            training=False,
        ),
    },
    "bn_act_add": {
        "training": dict(N=8, C=64, T=64, V=25, residual="norm"),
        "odd": dict(N=8, C=64, T=13, V=25, residual="plain"),
        "tiny": dict(N=1, C=1, T=1, V=1),
        "eval": dict(N=8, C=64, T=13, V=25, residual="norm", training=False),
        "dropout": dict(N=8, C=64, T=13, V=25, residual="norm", dropped=32768),
    },
    "hyper_adjacency": {
        "ntu": dict(N=8, K=8, D=8, W=28, topk=9, rows=25),
        "two_bodies": dict(N=8, K=8, D=64, W=53, topk=9, rows=50),
        "tiny": dict(N=1, K=1, D=1, W=1, topk=1),
    },
    "info_nce": {
        "queue": dict(N=64, R=3, D=128, K=32768, top=1),
        "odd": dict(N=64, D=100, K=1029),
        "tiny": dict(N=1, D=1, K=1, key=False),
    },
    "nn_lookup": {
        "stars": dict(N=128, D=256, K=32768),
        "odd": dict(N=100, D=100, K=1029),
        "tiny": dict(N=1, D=1, K=1),
    },
    "nn_contrastive_loss": {
        "stars": dict(N=128, P=384, D=256),
        "odd": dict(N=100, P=29, D=100),
        "tiny": dict(N=1, P=0, D=1),
    },
    "deform_sample_3d": {
        "tokens": dict(N=8, T=16, H=14, W=14, G=4, C=128, Q=392, P=1, weight=False),
        "points": dict(N=8, T=8, H=14, W=14, G=8, C=32, Q=392, P=8, zeros=True, full_loc=True),
        "tiny": dict(N=1, T=1, H=1, W=1, G=1, C=1, Q=1, P=1),
    },
    "mcu_scan": {
        "narrow": dict(S=2, N=64, T=16, D=256, start=False),
        "after": dict(S=2, N=64, T=16, D=256, reset_after=True),
        "widest": dict(S=2, N=64, T=16, D=512),
        "tiny": dict(S=1, N=1, T=1, D=1, norm=False),
    },
    "mixup_cross_entropy": {
        "ntu120": dict(N=64, K=120),
        "kinetics": dict(N=4096, K=400, mix="sample"),
        "one_label": dict(N=16, K=60, mix=None, weight=False, smoothing=0.0),
        "tiny": dict(N=1, K=1),
        "vocabulary": dict(N=64, K=16384),
    },
    "anchor_regression": {
        "itop": dict(N=8, A=5184, V=15),
        "cloud": dict(N=8, A=512, V=25, D=3, extra=False, shared=False),
        "tiny": dict(N=1, A=1, V=1),
    },
    "farthest_point_sample": {
        "cloud": dict(N=8, L=4096, count=512),
        "tiny": dict(N=1, L=1, count=1, skip_origin=True),
    },
    "knn": {"cloud": dict(N=8, Q=512, L=4096, k=16), "tiny": dict(N=1, Q=1, L=1, k=1)},
    "ball_query": {"cloud": dict(N=8, Q=512, L=4096, k=32), "tiny": dict(N=1, Q=1, L=1, k=1)},
    "pose_heatmap": {
        "joints": dict(N=8, T=48, V=17, H=56, W=56),
        "limbs": dict(N=8, T=48, V=25, H=64, W=64, limbs=((0, 1),) * 24, flip=True, pixels=False),
        "bytes": dict(N=8, T=48, V=17, H=56, W=56, flip=True, result=torch.uint8),
        "tiny": dict(N=1, M=1, T=1, V=1, H=1, W=1),
    },
    "random_uniform": {"noise": dict(N=8, count=9600), "tiny": dict(N=1, count=1)},
    "skeleton_streams": {
        "ntu": dict(N=8, C=3, T=64, V=25, kinds=(0, 0, 1, 1), parents=(-1, 0, -1, 0)),
        "hand": dict(N=8, C=3, T=64, V=25, part=13, kinds=(0, 0, 1, 1), parents=(-1, 0, -1, 0)),
        "still": dict(N=8, C=3, T=13, V=67, kinds=(0,), parents=(0,)),
        "tiny": dict(N=1, C=1, T=1, V=1, M=1, kinds=(1,), parents=(0,)),
    },
    "st_attention": {
        "mamp": dict(N=8, L=750, H=8, D=32, V=25),
        "wide": dict(N=8, L=256, H=8, D=64),
        "biased": dict(N=8, L=750, H=8, D=32, V=25, joint_bias=True, lags=29),
        "hops": dict(N=8, L=750, H=8, D=32, V=25, hops=2, window=4),
        "frame": dict(N=8, L=750, H=8, D=3, V=25, window=0),
        "kept": dict(N=8, L=75, H=8, D=32, V=25, grid=750, masked="keys", lags=29),
        "widest": dict(N=8, L=128, H=2, D=128),
        "tiny": dict(N=1, L=1, H=1, D=1),
    },
    "sym_packed_matvec": {
        "phys_mop": dict(N=8, n=63),
        "finetec": dict(N=8, n=75),
        "tiny": dict(N=1, n=1),
    },
    "shift_conv": {
        "pose": dict(N=8, C=24, T=48, shape=(56, 56), fold=6, outputs=54),
        "top": dict(N=8, C=192, T=16, shape=(7, 7), fold=24, outputs=432),
        "tiny": dict(N=1, C=2, T=1, shape=(), fold=1, outputs=1),
    },
    "temporal_shift": {
        "pose": dict(N=8, C=24, T=48, shape=(56, 56), fold=6),
        "tiny": dict(N=1, C=1, T=1, shape=(), fold=0),
    },
    "temporal_mean": {"ntu": dict(N=8, C=64, T=64, V=25), "tiny": dict(N=1, C=1, T=1, V=1)},
    "motion_mask": {
        "mamp": dict(N=8, segment=4, **_MAMP),
        "exact": dict(N=8, segment=4, exact=True, **_MAMP),
        "tiny": dict(N=1, T=1, V=1, C=1, segment=1, keep=1),
    },
    "slot_mask": {"ntu": dict(N=8, T=64, V=25, C=3), "tiny": dict(N=1, T=1, V=1, C=1)},
    "part_mask": {"coco": dict(N=8, T=64, V=17, C=64), "tiny": dict(N=1, T=1, V=1, C=1)},
    "masked_patch_embed": {
        "mamp": dict(N=8, segment=4, K=74, D=256, **_MAMP),
        "all": dict(N=8, segment=4, D=256, ids=False, **_MAMP),
        "tiny": dict(N=1, T=1, V=1, C=1, segment=1, K=1, D=1),
    },
    "token_restore": {
        "mamp": dict(N=8, T=30, V=25, K=74, D=256),
        "tiny": dict(N=1, T=1, V=1, K=1, D=1),
    },
    "motion_target": {
        "mamp": dict(N=8, segment=4, **_MAMP),
        "tiny": dict(N=1, T=1, V=1, C=1, segment=1, normalise=False),
    },
    "narrow_ffn": {
        "cascadeformer": dict(N=8, C=24, H=2048, dropped=6554),
        "tiny": dict(N=1, C=1, H=1),
    },
    "masked_cosine_loss": {
        "coco": dict(N=8, T=64, V=17, C=64),
        "tiny": dict(N=1, T=1, V=1, C=1, beta=1.0, literal=True),
    },
    "masked_motion_loss": {
        "mamp": dict(N=8, segment=4, **_MAMP),
        "mae": dict(N=8, segment=4, stride=0, normalise=False, **_MAMP),
        "tiny": dict(N=1, T=1, V=1, C=1, segment=1, normalise=False),
    },
}


class _AbsentGPU:
    """As much of a driver as compiling takes; the architecture doubles as device number."""

    def __init__(self, architecture: int):
        self.architecture = architecture

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)


@dataclass(frozen=True)
class Kernel:
    name: str
    warps: int
    registers: int
    spilled: int  # bytes of stack per thread
    shared: int


def _resources(name: str, compiled) -> Kernel:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        command = [str(tool), "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", report).groups())
    return Kernel(name, compiled.metadata.num_warps, registers, stack, compiled.metadata.shared)


@contextlib.contextmanager
def _launches_recorded(architecture: int) -> Iterator[list]:
    launches, run, before = [], JITFunction.run, driver._active

    def record(self, *args, grid, warmup, **options):
        launches.append((self.__name__, run(self, *args, grid=grid, warmup=True, **options)))

    driver.set_active(_AbsentGPU(architecture))
    JITFunction.run = record
    try:
        yield launches
    finally:
        JITFunction.run = run
        driver.set_active(before)


def compile_case(op_name: str, dims: dict, dtype: torch.dtype, architecture: int) -> list[Kernel]:
    """Everything that forward and backward launch, on tensors without memory."""
    op = OPS[op_name]
    module = _backend._module("triton", op_name)
    args = cases_for(op_name)[0].make(dtype, "meta", **dims)
    assert module.supports(*args) is None
    with _launches_recorded(architecture) as launches:
        outputs = _as_tuple(module.forward(*args))
        if op.has_backward_op:
            grads = [torch.empty_like(outputs[i]) for i in op.differentiable_outputs]
            saved = [outputs[op.outputs.index(name)] for name in op.saved]
            needs = sum((args[k] is not None) << i for i, k in enumerate(op.grad_index))
            module.backward(*grads, *args, *saved, needs)
    unique = {id(compiled): (name, compiled) for name, compiled in launches}
    return [_resources(*launch) for launch in unique.values()]


def main(names: list[str]) -> None:
    row = "{:16} {:15} {:9} {:>5} {:28} {:>6} {:>10} {:>8} {:>8}"
    titles = ["op", "case", "dtype", "arch", "kernel", "warps", "registers", "spilled", "shared"]
    print(row.format(*titles))
    for name in names or CASES:
        for case, dims in CASES[name].items():
            for dtype in DTYPES:
                for architecture in ARCHITECTURES:
                    for k in compile_case(name, dims, dtype, architecture):
                        what = (name, case, str(dtype)[6:], architecture, k.name.strip("_"))
                        print(row.format(*what, k.warps, k.registers, k.spilled, k.shared))


if __name__ == "__main__":
    main(sys.argv[1:])
