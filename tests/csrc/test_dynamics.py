"""The CUDA kernels of dynamics, executed on the CPU thread by thread, against the references."""

import ctypes

import pytest
import torch
from torch import Tensor

from skelops._backend import _module
from skelops._library import OPS
from skelops.testing.cases import cases_for

BLOCKS, THREADS = 2, 4  # fewer threads than frames: every thread takes several
PARAMETERS = ("inertia", "mass")


def call(kernels, name, args, out):
    """A kernel on prepared arguments, whose results are written to ``out``."""
    tensors = [a for a in (*args, *out) if a is None or isinstance(a, Tensor)]
    pointers = [None if t is None or t.numel() == 0 else t.data_ptr() for t in tensors]
    integers = [a for a in args if not (a is None or isinstance(a, Tensor))]
    flat = [i for a in integers for i in (a if isinstance(a, (tuple, list)) else (a,))]
    frames, *sizes = args[0].shape if integers else args[-1].shape
    n = len(integers[0]) if integers else sizes[0]
    numbers = [frames, BLOCKS, THREADS, n, sizes[-1], *map(int, flat)]
    dtype = str(args[0].dtype).removeprefix("torch.")
    getattr(kernels, f"{name}_{dtype}")(
        (ctypes.c_void_p * len(pointers))(*pointers), (ctypes.c_longlong * len(numbers))(*numbers)
    )


def exact(arguments):
    return tuple(
        a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments
    )


def as_tuple(found):
    return (found,) if isinstance(found, Tensor) else tuple(found)


def assert_close(got, expected, dtype):
    scale = expected.abs().amax().item() if expected.numel() else 0.0
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance * max(scale, 1.0))


def forward(kernels, name, arguments):
    module = _module("cuda", name)
    assert module.supports(*arguments) is None
    fake = as_tuple(OPS[name].fake(*arguments))
    out = [torch.full_like(t, torch.nan) for t in fake]
    call(kernels, name, module.prepared(*arguments), out)
    return out


def backward(kernels, name, arguments, grads, needs):
    """Gradients, a parameter's summed over blocks and threads as the launcher does."""
    op, module = OPS[name], _module("cuda", name)
    out = []
    for i, (key, index) in enumerate(zip(op.grads, op.grad_index, strict=True)):
        x = arguments[index]
        if not op.needs(i, needs):
            out.append(None)
        elif key in PARAMETERS:
            wide = torch.promote_types(x.dtype, torch.float32)
            out.append(torch.full((BLOCKS, x.numel(), THREADS), torch.nan, dtype=wide))
        else:
            out.append(torch.full(x.shape, torch.nan, dtype=x.dtype))
    saved = [t.to(grads[0].dtype) for t in as_tuple(op.reference(*exact(arguments)))]
    saved = [saved[op.outputs.index(key)] for key in op.saved]
    inputs = (*grads, *module.prepared(*arguments), *saved)
    call(kernels, f"{name}_backward", inputs, out)
    return [
        t.sum((2, 0)).view(arguments[index].shape) if t is not None and key in PARAMETERS else t
        for t, key, index in zip(out, op.grads, op.grad_index, strict=True)
    ]


NAMES = (
    "inverse_dynamics", "forward_dynamics", "mass_matrix", "forward_kinematics", "point_dynamics",
    "lagrange_tau", "tree_solve",
)  # fmt: skip
OPS_AND_CASES = [(name, case) for name in NAMES for case in cases_for(name)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name, case", OPS_AND_CASES, ids=str)
def test_forward(kernels, name, case, dtype):
    arguments = case.make(dtype)
    expected = as_tuple(OPS[name].reference(*exact(arguments)))
    for got, wanted in zip(forward(kernels, name, arguments), expected, strict=True):
        assert_close(got, wanted, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name, case", OPS_AND_CASES, ids=str)
def test_backward(kernels, name, case, dtype):
    arguments = case.make(dtype)
    op = OPS[name]
    generator = torch.Generator().manual_seed(0)
    grads = [
        torch.randn(t.shape, generator=generator, dtype=torch.float64).to(dtype)
        for t in as_tuple(op.fake(*arguments))
    ]
    present = [i for i, k in enumerate(op.grad_index) if arguments[k] is not None]
    needs = sum(1 << i for i in present)
    expected = op.vjp(exact(arguments), exact(grads), needs, create_graph=False)
    found = backward(kernels, name, arguments, grads, needs)
    for i in present:
        assert_close(found[i], expected[i], dtype)
        (alone,) = (t for t in backward(kernels, name, arguments, grads, 1 << i) if t is not None)
        torch.testing.assert_close(alone, found[i], rtol=0, atol=0)
