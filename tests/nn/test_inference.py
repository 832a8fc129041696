"""Networks without gradients: the same scores as with them, whatever happened to a parameter."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import skelops
from skelops import ops
from skelops.models import create_model
from skelops.testing import plain

UNITS = ("ctr_graph_unit", "graph_unit", "ms_temporal_unit", "temporal_unit")
NETWORKS = ("ctr_gcn", "ctr_gcn_pyskl", "st_gcn", "st_gcn_pp", "aagcn", "dg_stgcn", "hyper_gcn")
STAGES = [(12, 1), (24, 2), (24, 1)]


def randomise(model):
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(m.weight, 0.5, 1)
            nn.init.normal_(m.bias, 0, 0.2)
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    for name, p in model.named_parameters():
        if name.endswith(("alpha", "beta", "add_coeff", "PA")):
            nn.init.normal_(p, 0.3, 0.1)
    return model.double().eval()


def network(name="ctr_gcn"):
    variant = {"variant": "pyskl"} if name == "ctr_gcn_pyskl" else {}
    stages = [(16 * i, s) for i, (_, s) in enumerate(STAGES, 1)] if name == "hyper_gcn" else STAGES
    name = name.removesuffix("_pyskl")
    return randomise(create_model(name, num_classes=5, stages=stages, **variant))


def patched():
    blocks = [
        plain.Block(plain.RefinedUnit(3, 16, 25, 8), plain.Scales(16, 16, 5, 1, (1, 2)), 3, 16),
        plain.Block(
            plain.RefinedUnit(16, 32, 25, 4), plain.Scales(32, 32, 5, 2, (1, 2)), 16, 32, 2
        ),
    ]
    model = randomise(plain.OfficialNet(blocks, 32, 25, 2, 3, 5))
    assert skelops.patch(model).replaced
    return model


@pytest.fixture(params=["ours", "patched"])
def model(request):
    return network() if request.param == "ours" else patched()


X = torch.randn(2, 3, 12, 25, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def calls(monkeypatch):
    """Names of the units called."""
    found = []

    def watched(name, function):
        def call(*args, **kwargs):
            found.append(name)
            return function(*args, **kwargs)

        return call

    for name in UNITS:
        monkeypatch.setattr(ops, name, watched(name, getattr(ops, name)))
    return found


def check(model, x=X):
    with torch.no_grad():
        found = model(x)
    torch.testing.assert_close(found, model(x).detach())
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_same_scores_without_gradients(name, calls):
    check(network(name))
    assert calls


def test_one_clip(model):
    check(model, X[:1])


def _step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(X).square().sum().backward()
    optimizer.step()
    model.eval()


def _load(model):
    state = {k: v * 1.1 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state)


def _assign(model):
    state = {k: v * 1.1 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def _in_place(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.1)


def _behind_autograd(model):
    for p in model.parameters():
        p.data.mul_(1.1)


def _new_memory(model):
    for p in model.parameters():
        p.data = p.data * 1.1


def _statistics(model):
    for name, b in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            b.mul_(1.1)


def _parametrized(model):
    class Scaled(nn.Module):
        def forward(self, w):
            return 1.1 * w

    for m in list(model.modules()):
        if type(m) is nn.Conv2d:
            parametrize.register_parametrization(m, "weight", Scaled())


CHANGES = (
    _step, _load, _assign, _in_place, _behind_autograd, _new_memory, _statistics, _parametrized,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__.strip("_"))
def test_a_changed_parameter_counts_at_once(model, change, calls):
    before = check(model)
    change(model)
    calls.clear()
    assert (check(model) - before).abs().max() > 1e-6
    assert calls


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_networks_of_their_own(copied):
    model = network()
    before = check(model)
    other = copied(model)
    torch.testing.assert_close(check(other), before)
    _in_place(other)
    torch.testing.assert_close(check(model), before)
    assert (check(other) - before).abs().max() > 1e-6


def test_another_dtype(model):
    before = check(model)
    with torch.inference_mode():
        found = model.float()(X.float())
    torch.testing.assert_close(found.double(), before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(check(model.double()), found.double(), rtol=1e-3, atol=1e-4)


def test_other_modes_take_the_differentiable_ops(model, calls):
    model(X)
    with torch.no_grad():
        model.train()(X)
        with torch.autocast("cpu", torch.bfloat16):
            model.float().eval()(X.float())
    assert not calls


def test_a_normalisation_in_training_takes_the_statistics_of_the_batch(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.train()
    with torch.no_grad():
        found = model(X)
    torch.testing.assert_close(found, model(X).detach())


def test_exported_without_the_units(model, calls):
    with torch.no_grad():
        program = torch.export.export(model, (X,))
        torch.testing.assert_close(program.module()(X), model(X))
    names = {str(n.target) for n in program.graph.nodes}
    assert not [n for n in names if "_unit" in n]


def test_compiled():
    model = network()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="eager")(X), model(X))


@pytest.mark.parametrize("name", ["ctr_gcn", "st_gcn_pp"])
def test_reference_backend(name):
    model = network(name)
    before = check(model)
    with skelops.use_backend("reference"):
        torch.testing.assert_close(check(model), before)
