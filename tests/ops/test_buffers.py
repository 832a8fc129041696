"""Ops allocate no buffer above 32 MiB beyond their results: glibc would return it at every free."""

import subprocess
import sys

import pytest

from skelops import _build

MIB = 1 << 20
# With its mmap threshold at 32 MiB, glibc counts exactly the bytes of the larger blocks.
SCRIPT = """
import ctypes, torch, skelops
glibc = ctypes.CDLL("libc.so.6")
x, g = (torch.randn(160, 64, 64, 25) for _ in range(2))
x.requires_grad_()
glibc.mallopt(-3, 32 << 20)
{setup}
y = {call}
dx, = torch.autograd.grad(y, x, g)
glibc.malloc_stats()
"""
CALLS = {
    "graph_conv": (
        "A, w = torch.randn(3, 25, 25), torch.randn(3, 64, 64)",
        "skelops.graph_conv(x, A, w)",
    ),
    "ctr_graph_conv": (
        "A, w, p, q, w4, a = torch.randn(3, 25, 25), torch.randn(3, 64, 64), "
        "torch.randn(160, 3, 8, 25), torch.randn(160, 3, 8, 25), torch.randn(3, 64, 8), "
        "torch.ones(1)",
        "skelops.ctr_graph_conv(x, A, p, q, a, w4, weight=w)",
    ),
    "ms_temporal_conv": (
        "w, b, k, c, n = torch.randn(64, 64), torch.randn(64), torch.randn(16, 16, 5), "
        "torch.randn(16), torch.rand(48)",
        "skelops.ms_temporal_conv(x, w, b, [k, k], [c, c], n, n, dilations=[1, 2], training=True)",
    ),
    "bn_act_add": ("n = torch.rand(64)", "skelops.bn_act_add(x, n, n, training=True)"),
}
# x and the gradient are made before the threshold is set; the results are y and dx, and for
# ms_temporal_conv the kept hidden channels (3/4 of x).
RESULTS = {"ms_temporal_conv": 2.75}


@pytest.mark.skipif(sys.platform != "linux", reason="counts blocks through glibc")
@pytest.mark.skipif(_build.load_cpu() is not None, reason="needs the C++ kernels")
@pytest.mark.parametrize("op", CALLS)
def test_no_large_buffer(op):
    setup, call = CALLS[op]
    script = SCRIPT.format(setup=setup, call=call)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    line = next(line for line in done.stderr.splitlines() if line.startswith("max mmap bytes"))
    results = RESULTS.get(op, 2.0) * 160 * 64 * 64 * 25 * 4
    inputs = 2 * 160 * 64 * 64 * 25 * 4
    assert int(line.split("=")[1]) <= inputs + results + 24 * MIB
