"""recomputed: a tensor is not kept, and nobody else notices."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from skelops.nn import (
    AdaptiveGraphConv,
    AdaptiveHypergraphConv,
    Gates,
    GraphConv,
    GraphUnit,
    MultiScaleTemporalConv,
    STBlock,
)
from skelops.nn.recompute import recomputed

LINKS = torch.ones(1, 5, 5)
UNITS = {
    "hypergraph": lambda: GraphUnit(AdaptiveHypergraphConv(8, 8, LINKS, 2, heads=4), 8, 8),
    "graph": lambda: GraphUnit(GraphConv(8, 8, LINKS), 8, 8),
    "gates": lambda: GraphUnit(AdaptiveGraphConv(8, 8, LINKS, 2), 8, 8, gates=Gates(8, 5, 3)),
}


def block(unit, transform=True):
    temporal = MultiScaleTemporalConv(8, 8, transform=transform)
    module = STBlock(UNITS[unit](), temporal, 8, 8).double()
    for p in module.parameters():  # Gates and refinements start at zero, where nothing differs.
        torch.nn.init.normal_(p, 0, 0.3)
    return module


@pytest.fixture(params=UNITS)
def module(request):
    torch.manual_seed(0)
    return block(request.param)


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(3, 8, 6, 5, dtype=torch.float64, requires_grad=True)


def of_block(module, x, order=1):
    """Result and gradients; of their norm, for the second order."""
    y = module(x)
    leaves = [x, *module.parameters()]
    grads = torch.autograd.grad(y.square().sum(), leaves, create_graph=order > 1)
    if order > 1:
        norm = sum(g.square().sum() for g in grads)
        grads = torch.autograd.grad(norm, leaves, allow_unused=True, materialize_grads=True)
    return [y, *grads]


def everything_kept(monkeypatch):
    monkeypatch.setattr("skelops.nn.recompute._by_node", lambda y: None)


def test_block_has_the_same_gradients(module, x, monkeypatch):
    found = [of_block(module, x, order) for order in (1, 2)]
    everything_kept(monkeypatch)
    wanted = [of_block(module, x, order) for order in (1, 2)]
    torch.testing.assert_close(found, wanted)


def test_block_does_not_keep_its_middle(module, x, monkeypatch):
    middle = []
    module.gcn.register_forward_hook(lambda m, args, y: middle.append(y))

    def kept():
        storages = []
        with saved_tensors_hooks(lambda t: storages.append(t.data_ptr()) or t, lambda t: t):
            module(x)
        return middle[-1].data_ptr() in storages, len(storages)

    found, count = kept()
    assert not found
    everything_kept(monkeypatch)
    found, most = kept()
    assert found and most >= count + 2  # and what the last convolution of the branches gets


def test_gates_keep_neither_what_they_get_nor_what_they_give(x):
    module, kept = block("gates"), []
    got = []
    module.gcn.gates.register_forward_hook(lambda m, args, y: got.extend([args[0], y]))
    with saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        module(x)
    assert len(got) == 2
    assert not {t.data_ptr() for t in got} & set(kept)


def test_it_is_computed_once_for_all_who_ask():
    x, count = torch.randn(4, requires_grad=True), []
    y = x * 2

    def again():
        count.append(1)
        return x.detach() * 2

    with recomputed(y, again):
        z = y * y.view(2, 2).flatten() + y.view(4, 1).exp()[:, 0].sin() * y
    for _ in range(2):
        (found,) = torch.autograd.grad(z.sum(), x, retain_graph=True)
    (wanted,) = torch.autograd.grad((y * y + y.exp().sin() * y).sum(), x)
    torch.testing.assert_close(found, wanted)
    assert len(count) == 2  # once for each backward


def test_hooks_around_it_get_the_other_tensors():
    x, w = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    y, packed, unpacked = x * 2, [], []
    with (
        saved_tensors_hooks(lambda t: packed.append(t) or len(packed), unpacked.append),
        recomputed(y, lambda: x * 2),
    ):
        z = y * w
    assert [t.data_ptr() for t in packed] == [w.data_ptr()]
    assert z.requires_grad and not unpacked


def test_block_under_a_checkpoint(module, x):
    module.eval()  # statistics that a second forward does not change
    wanted = of_block(module, x)
    y = checkpoint(module, x, use_reentrant=False)
    found = [y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])]
    torch.testing.assert_close(found, wanted)


def test_what_nothing_computes_again_is_kept(x):
    for y in (x * 2, x.detach()):
        kept = []
        with (
            saved_tensors_hooks(lambda t, kept=kept: kept.append(t.data_ptr()) or t, lambda t: t),
            recomputed(y),
        ):
            y * x
        assert y.data_ptr() in kept
