"""Every Triton kernel compiles, keeps its registers and fits its shared memory, without a GPU.

SKELOPS_COMPILE=full takes every case in every dtype for every architecture.
"""

import importlib.util
import os

import pytest
import torch

from skelops._library import OPS

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels do not compile", allow_module_level=True)

from tests.compile import aot

FEW = {(torch.bfloat16, 90), (torch.float32, 90), (torch.float16, 80), (torch.bfloat16, 100)}
FULL = os.environ.get("SKELOPS_COMPILE") == "full"
SPILLED_BYTES = 256  # per thread, read back once per channel block, never in the innermost loop
# Beyond any published model: more relations, vertices of two bodies. Has to run, may spill.
EXOTIC = {"many_relations", "two_bodies"}


def rows():
    for name, cases in aot.CASES.items():
        for i, case in enumerate(cases):
            for dtype in aot.DTYPES:
                for architecture in aot.ARCHITECTURES:
                    few = (dtype, architecture) in FEW and (i == 0 or architecture == 90)
                    if FULL or few:
                        label = f"{name}-{case}-{str(dtype)[6:]}-sm_{architecture}"
                        yield pytest.param(name, case, dtype, architecture, id=label)


@pytest.mark.parametrize("name, case, dtype, architecture", list(rows()))
def test_compiles(name, case, dtype, architecture):
    kernels = aot.compile_case(name, aot.CASES[name][case], dtype, architecture)
    assert kernels
    for kernel in kernels:
        assert case in EXOTIC or kernel.spilled <= SPILLED_BYTES, kernel
        assert kernel.shared <= aot.SHARED_BYTES[architecture], kernel


@pytest.mark.parametrize(
    "name", ["graph_conv", "ctr_graph_conv", "hypergraph_conv", "ms_temporal_conv"]
)
def test_compiles_with_tf32(name, monkeypatch):
    monkeypatch.setattr("skelops.ops.triton._tiles.precision", lambda x: "tf32")
    kernels = aot.compile_case(name, aot.CASES[name]["wide"], torch.float32, 90)
    assert all(kernel.spilled <= SPILLED_BYTES for kernel in kernels), kernels


def test_every_op_has_cases():
    assert set(aot.CASES) == {op.name for op in OPS.values() if "triton" in op.gpu}
