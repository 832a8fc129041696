"""The CUDA kernels of graph_conv, executed on the CPU thread by thread, against NumPy."""

import ctypes
from ctypes import c_bool, c_longlong

import numpy as np
import pytest

CASES = [  # N, K, C * T, V
    (1, 1, 1, 1),
    (3, 2, 150, 17),
    (3, 3, 300, 25),
    (1, 1, 40, 33),
    (2, 1, 33, 128),
    (1, 13, 90, 25),
]


def call(kernels, name, arrays, *sizes):
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    getattr(kernels, f"{name}_{arrays[0].dtype}")(*pointers, *sizes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(("N", "K", "R", "V"), CASES)
def test_aggregate(kernels, N, K, R, V, per_sample, transposed, dtype):
    random = np.random.default_rng(0)
    x = random.standard_normal((N, K, R, V)).astype(dtype)
    a = random.standard_normal((N, K, V, V) if per_sample else (K, V, V)).astype(dtype)
    z = np.full((N, R, V), np.nan, dtype)
    flags = c_bool(per_sample), c_bool(transposed)
    call(kernels, "aggregate", [x, a, z], c_longlong(N), K, c_longlong(R), V, *flags)
    subscripts = ("n" if per_sample else "") + ("kvu" if transposed else "kuv")
    expected = np.einsum(f"nkrv,{subscripts}->nru", x.astype("float64"), a.astype("float64"))
    tolerance = np.finfo(dtype).eps * 32 * (K * V) ** 0.5
    np.testing.assert_allclose(z, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize(("N", "K", "R", "V"), [*CASES, (2, 1, 0, 25)])
def test_gradient_of_graph(kernels, N, K, R, V, splits, transposed, dtype):
    random = np.random.default_rng(0)
    grad = random.standard_normal((N, R, V)).astype(dtype)
    x = random.standard_normal((N, K, R, V)).astype(dtype)
    partial = np.full((N, splits * kernels.partials_per_split(V), K, V, V), np.nan, dtype)
    sizes = c_longlong(N), K, c_longlong(R), V, splits, c_bool(transposed)
    call(kernels, "grad_a", [grad, x, partial], *sizes)
    target = "nkvu" if transposed else "nkuv"
    expected = np.einsum(f"nru,nkrv->{target}", grad.astype("float64"), x.astype("float64"))
    tolerance = np.finfo(dtype).eps * 32 * max(R, 1) ** 0.5
    np.testing.assert_allclose(partial.sum(1), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("value_bytes", [4, 8])
def test_shared_memory_fits_every_gpu(kernels, value_bytes):
    needed = [
        kernels.shared_bytes(K, V, value_bytes) for V in range(1, 129) for K in (1, 3, 13, 99)
    ]
    assert max(needed) <= 48 * 1024
