"""recomputed: a tensor is not kept, and nobody else notices."""

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from skelops.nn import AdaptiveHypergraphConv, GraphUnit, MultiScaleTemporalConv, STBlock
from skelops.nn.recompute import recomputed
from skelops.ops.hypergraph_unit import again

LINKS = torch.ones(1, 5, 5)


def block(width=8):
    gcn = GraphUnit(AdaptiveHypergraphConv(8, width, LINKS, 2, heads=4), 8, width)
    return STBlock(gcn, MultiScaleTemporalConv(width, width), 8, width).double()


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
    monkeypatch.setattr("skelops.nn.blocks.again", lambda y: None)


def test_block_has_the_same_gradients(monkeypatch):
    module = block()
    x = torch.randn(3, 8, 6, 5, dtype=torch.float64, requires_grad=True)
    found = [of_block(module, x, order) for order in (1, 2)]
    everything_kept(monkeypatch)
    wanted = [of_block(module, x, order) for order in (1, 2)]
    torch.testing.assert_close(found, wanted)


def test_block_does_not_keep_its_middle(monkeypatch):
    def kept():
        count = []
        with saved_tensors_hooks(lambda t: count.append(t.data_ptr()) or t, lambda t: t):
            y = module.gcn(x)
            with recomputed(y, again(y)):
                module.tcn(y, x)
        return y.data_ptr() in count

    module, x = block(), torch.randn(3, 8, 6, 5, dtype=torch.float64)
    assert not kept()
    monkeypatch.setattr(f"{__name__}.again", lambda y: None)
    assert kept()


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


def test_block_under_a_checkpoint():
    module = block()
    x = torch.randn(3, 8, 6, 5, dtype=torch.float64, requires_grad=True)
    module.eval()  # statistics that a second forward does not change
    wanted = of_block(module, x)
    y = checkpoint(module, x, use_reentrant=False)
    found = [y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])]
    torch.testing.assert_close(found, wanted)


def test_again_is_of_its_op_alone():
    x = torch.randn(3, 8, 6, 5, dtype=torch.float64)
    assert again(torch.randn(3, requires_grad=True) * 2) is None
    with torch.no_grad():
        assert again(block().gcn(x)) is None
    y = block().gcn(x)
    torch.testing.assert_close(again(y)(), y.detach())
