"""Launches of Triton kernels: what is found out once, and what makes a kernel be found anew."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from skelops.ops.triton import _launch


class OnGPU(torch.Tensor):
    is_cuda = True


class Compiled(SimpleNamespace):
    pass


def tensor(offset=0, dtype=torch.float32):
    return torch.zeros(64, dtype=dtype)[offset:].as_subclass(OnGPU)


@pytest.fixture
def launches(monkeypatch):
    """A kernel (x_ptr, n, eps, BLOCK), and what is launched by Triton and what without it."""
    slow, fast = [], []

    class Jit:
        params = tuple(SimpleNamespace(name=name) for name in ("x_ptr", "n", "eps", "BLOCK"))

        def __getitem__(self, grid):
            def launch(*args, **constants):
                slow.append((grid, args, constants))
                run = lambda *given: fast.append(given)  # noqa: E731
                return Compiled(run=run, function="f", packed_metadata="m")

            return launch

    driver = SimpleNamespace(active=SimpleNamespace(get_current_stream=lambda device: "stream"))
    monkeypatch.setattr(_launch, "triton", SimpleNamespace(jit=lambda f, **_: Jit()))
    monkeypatch.setattr(_launch, "CompiledKernel", Compiled)
    monkeypatch.setattr(_launch, "driver", driver)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    kernel = _launch.kernel(("n",))(lambda x_ptr, n, eps, BLOCK: None)
    return SimpleNamespace(kernel=kernel, slow=slow, fast=fast)


def test_second_launch_goes_around_triton(launches):
    x = tensor()
    launches.kernel[7, 2](x, 33, 1e-5, BLOCK=64)
    assert launches.slow == [((7, 2), (x, 33, 1e-5), {"BLOCK": 64})] and not launches.fast
    y = tensor()
    launches.kernel[9,](y, 35, 1e-3, BLOCK=64)
    assert len(launches.slow) == 1
    assert launches.fast[0][:9] == (9, 1, 1, "stream", "f", "m", None, None, None)
    assert launches.fast[0][9] is y and launches.fast[0][10:] == (35, 1e-3, 64)


@pytest.mark.parametrize(
    "args, block",
    [
        ((tensor(1), 33, 1e-5), 64),  # an address that is not a multiple of 16 bytes
        ((tensor(dtype=torch.float16), 33, 1e-5), 64),
        ((tensor(), 1, 1e-5), 64),
        ((tensor(), 32, 1e-5), 64),
        ((tensor(), 2**31, 1e-5), 64),
        ((tensor(), None, 1e-5), 64),
        ((tensor(), 33, 1e-5), 128),
    ],
)
def test_other_traits_are_asked_for(launches, args, block):
    launches.kernel[1,](tensor(), 33, 1e-5, BLOCK=64)
    launches.kernel[1,](*args, BLOCK=block)
    assert len(launches.slow) == 2 and not launches.fast


def test_profilers_see_every_launch(launches, monkeypatch):
    launches.kernel[1,](tensor(), 33, 1e-5, BLOCK=64)
    hooks = SimpleNamespace(launch_enter_hook=SimpleNamespace(calls=[print]))
    monkeypatch.setattr(_launch, "knobs", SimpleNamespace(runtime=hooks))
    launches.kernel[1,](tensor(), 33, 1e-5, BLOCK=64)
    assert len(launches.slow) == 2 and not launches.fast


def test_cpu_tensors_are_left_to_triton(launches):
    for _ in range(2):
        launches.kernel[1,](torch.zeros(4), 33, 1e-5, BLOCK=64)
    assert len(launches.slow) == 2 and not launches.fast
