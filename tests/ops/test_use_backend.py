"""Choosing a backend: by name, by environment, and what happens when it cannot be."""

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

import skelops
from skelops import _backend
from skelops._library import OPS

X, A = torch.randn(2, 6, 4, 5), torch.randn(3, 5, 5)
native = pytest.mark.skipif(
    _backend.active(OPS["graph_conv"], "cpu")[0] != "cpu", reason="no C++ kernels in this build"
)


def runs_reference(function=lambda: skelops.graph_conv(X, A)):
    """Whether PyTorch's own ops do the work."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    return any("einsum" in event.key for event in profile.key_averages())


def shell(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )


def test_unknown_name():
    with (
        pytest.raises(ValueError, match=r"expected one of reference, cpu, .*, got 'tpu'"),
        skelops.use_backend("tpu"),
    ):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_impossible_backend_lists_all_with_reasons():
    with pytest.raises(RuntimeError) as caught, skelops.use_backend("cuda"):
        pass
    text = str(caught.value)
    assert text.startswith("use_backend: expected a backend that runs here, got 'cuda'")
    for backend in _backend.BACKENDS:
        assert f"{backend}: " in text
    assert "reference: available" in text


@native
def test_forces_and_restores():
    default = skelops.graph_conv(X, A)
    assert not runs_reference()
    with skelops.use_backend("reference"):
        assert runs_reference()
        torch.testing.assert_close(skelops.graph_conv(X, A), default)
        with skelops.use_backend("cpu"):
            assert not runs_reference()
            assert torch.equal(skelops.graph_conv(X, A), default)
        assert runs_reference()
    assert not runs_reference()


@native
def test_forces_the_backward():
    x = X.clone().requires_grad_()
    z = skelops.graph_conv(x, A)

    def backward():
        return torch.autograd.grad(z.sum(), x, retain_graph=True)

    assert not runs_reference(backward)
    with skelops.use_backend("reference"):
        assert runs_reference(backward)


@native
def test_restores_after_an_exception():
    with pytest.raises(KeyError), skelops.use_backend("reference"):
        raise KeyError
    assert not runs_reference()


@native
def test_forces_inside_a_compiled_graph():
    torch._dynamo.reset()
    compiled = torch.compile(lambda: skelops.graph_conv(X, A), fullgraph=True, backend="aot_eager")
    compiled()
    assert not runs_reference(compiled)
    with skelops.use_backend("reference"):
        assert runs_reference(compiled)
    assert not runs_reference(compiled)


def test_forcing_is_silent():
    code = (
        "import warnings; warnings.simplefilter('error'); import skelops\n"
        "with skelops.use_backend('reference'): pass\n"
        "with skelops.use_backend('reference'): pass"
    )
    run = shell(code)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_environment_forces():
    code = (
        "import torch, skelops\n"
        "with torch.profiler.profile() as p: skelops.graph_conv(torch.ones(1, 1, 1, 2), "
        "torch.ones(1, 2, 2))\n"
        "print(any('einsum' in e.key for e in p.key_averages()))"
    )
    run = shell(code, SKELOPS_BACKEND="reference")
    assert run.returncode == 0 and run.stdout.strip() == "True", run.stderr


def test_environment_with_an_unknown_name():
    run = shell("import skelops", SKELOPS_BACKEND="abacus")
    assert run.returncode != 0
    assert "expected one of reference, cpu, triton, cuda, got 'abacus'" in run.stderr


def test_info_names_every_op_and_backend():
    run = subprocess.run(
        [sys.executable, "-m", "skelops", "info"], capture_output=True, text=True, check=True
    )
    for name in OPS:
        assert f"\n{name}\n  cpu: " in run.stdout
    for variable in ("SKELOPS_BACKEND", "TRITON_INTERPRET"):
        assert variable in run.stdout


@pytest.fixture
def fake_gpu(monkeypatch):
    """GPU backends as given modules, on CPU tensors."""
    _backend._warn_fallback.cache_clear()
    modules = {}
    monkeypatch.setattr(_backend, "_module", lambda backend, name: modules[backend])
    monkeypatch.setattr(
        _backend,
        "unavailable",
        lambda op, backend, device: None if backend in modules else f"no {backend} here",
    )
    yield modules
    _backend._warn_fallback.cache_clear()


def kernels(reason=None, value=0.0):
    def kernel(*args):
        return torch.full((1,), value)

    return SimpleNamespace(supports=lambda *inputs: reason, forward=kernel, backward=kernel)


def test_gpu_takes_the_first_backend_that_supports_the_case(fake_gpu):
    def run(*args):
        return _backend._gpu_entry(OPS["graph_conv"], "forward")(*args)

    fake_gpu["cuda"] = kernels(value=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(X, A, None, None, False) == 2
        fake_gpu["triton"] = kernels(value=1.0)
        assert run(X, A, None, None, False) == 1
        fake_gpu["triton"] = kernels(reason="V > 64", value=1.0)
        assert run(X, A, None, None, False) == 2


def test_gpu_warns_once_before_it_falls_back(fake_gpu):
    run = _backend._gpu_entry(OPS["graph_conv"], "forward")
    fake_gpu["triton"] = kernels(reason="V > 64")
    message = (
        "graph_conv: the reference runs on this GPU, slowly: triton: V > 64; cuda: no cuda here"
    )
    with pytest.warns(RuntimeWarning, match=message):
        z = run(X, A, None, None, False)
    torch.testing.assert_close(z, OPS["graph_conv"].reference(X, A, None, None, False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(X, A, None, None, False)


def test_gpu_backward_asks_about_the_inputs(fake_gpu):
    op = OPS["graph_conv"]
    asked = []
    module = kernels(reason="no")
    module.supports = lambda *inputs: asked.append(inputs) or "no"
    fake_gpu["triton"] = module
    grad = torch.ones(2, 2, 4, 5)
    with pytest.warns(RuntimeWarning, match="slowly"):
        found = _backend._gpu_entry(op, "backward")(grad, X, A, None, None, False, 1)
    assert len(asked[0]) == len(op.arguments)
    assert found[0].shape == X.shape and all(g.numel() == 0 for g in found[1:])
