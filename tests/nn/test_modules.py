"""Properties of the modules that the comparison with plain units does not show."""

import pytest
import torch
from torch import nn

from skelops import hypergraph_propagate
from skelops.graph import get_layout
from skelops.models import create_model, list_models
from skelops.nn import (
    AdaptiveHypergraphConv,
    CTRGraphConv,
    Gates,
    GraphUnit,
    HypergraphConv,
    MultiScaleTemporalConv,
    Shortcut,
    STBlock,
    TemporalUnit,
    Topology,
    bn_act_add,
    divergence_loss,
    make_stages,
    published_parts,
    static_adjacency,
)
from skelops.nn.adaptive_graph_conv import _along, _Pairs
from skelops.ops import _dropout

A = get_layout("coco17").adjacency("spatial")
STAGES = [(16, 1), (32, 2)]
OTHERS = ("cascade_former", "epam_net", "ms_clr", "posec3d", "ssl_strl")  # no SkeletonNet
NAMES = [name for name in list_models() if not name.startswith(OTHERS)]


def small(name, **kwargs):
    return create_model(name, num_classes=5, layout="coco17", stages=STAGES, **kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_published_parts_cover_every_element_once(name):
    model = small(name)
    state = {k: torch.zeros_like(v, dtype=torch.int64) for k, v in model.state_dict().items()}
    for part in published_parts(model).values():
        part.of(state[part.source]).add_(1)
    for key, count in state.items():
        if not key.endswith("num_batches_tracked"):
            assert (count == 1).all(), key


def test_state_dict_is_stable():
    block = small("ctr_gcn").blocks[1]
    norm = [f".{n}" for n in ("weight", "bias", "running_mean", "running_var")]
    norm.append(".num_batches_tracked")
    conv = [".weight", ".bias"]
    branches = [f"conv_{kind}.{i}" for kind in ("weights", "biases") for i in range(2)]
    expected = ["gcn.graph." + n for n in ("topology.A", "alpha")]
    expected += [f"gcn.graph.{n}{i}" for i in (12, 3, 4) for n in ("weight", "bias")]
    expected += ["gcn.bn" + n for n in norm] + ["gcn.down.conv" + n for n in conv]
    expected += ["gcn.down.bn" + n for n in norm]
    expected += ["tcn.temporal" + n for n in conv] + [f"tcn.temporal.{n}" for n in branches]
    expected += [f"tcn.temporal.{m}{n}" for m in ("norm", "bn") for n in norm]
    expected += [f"residual.{m}" for m in [*("conv" + n for n in conv), *("bn" + n for n in norm)]]
    assert sorted(block.state_dict()) == sorted(expected)


# psumnet and finetec hold several of these networks
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("finetec", "psumnet")])
def test_blocks_compile_without_a_break(name):
    network = small(name)
    block = network.blocks[1]
    x = torch.randn(2, 16, 6, network.layout.num_joints, requires_grad=True)
    expected = block(x)
    expected.sum().backward()
    gradient, x.grad = x.grad, None
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    got = compiled(x)
    got.sum().backward()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(x.grad, gradient)


def test_statistics_follow_batch_norm():
    ours, theirs = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    for momentum in (0.1, None):
        ours.momentum = theirs.momentum = momentum
        for _ in range(3):
            x = torch.randn(3, 4, 5, 6)
            torch.testing.assert_close(bn_act_add(x, ours), theirs(x).relu())
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], value)


def test_frozen_residual_norm():
    bn, frozen = nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval()
    frozen.running_mean.normal_()
    x, r = torch.randn(2, 2, 4, 5, 6)
    expected = (nn.BatchNorm2d(4)(x) + frozen(r)).relu()
    torch.testing.assert_close(bn_act_add(x, bn, r, frozen), expected)


def test_synchronised_norm_is_refused():
    bn = nn.SyncBatchNorm(4)
    with pytest.raises(TypeError, match="expected a BatchNorm2d, got SyncBatchNorm"):
        bn_act_add(torch.randn(2, 4, 5, 6), bn)


@pytest.mark.parametrize("inner_relu", [False, True])
@pytest.mark.parametrize(("C", "stride", "enabled"), [(8, 1, True), (4, 2, True), (8, 1, False)])
def test_temporal_unit_with_dropout(inner_relu, C, stride, enabled):
    class Identity(nn.Conv2d):
        def __init__(self):
            super().__init__(8, 8, 1, stride=(stride, 1))
            self.bn = nn.BatchNorm2d(8)

    unit, residual = TemporalUnit(Identity(), 0.5, inner_relu), Shortcut(C, 8, stride, enabled)
    x, r = torch.randn(2, 8, 6, 5), torch.randn(2, C, 6, 5)
    torch.manual_seed(1)
    got = unit(x, *residual(r))
    torch.manual_seed(1)
    y = nn.BatchNorm2d(8)(unit.temporal(x))
    if inner_relu:
        y = nn.functional.dropout(y.relu(), 0.5)
    else:
        y = _dropout.drop(y.flatten(2), torch.randint(2**62, (1,)), 2**15).view(y.shape)
    if enabled:
        y = y + (r if residual.conv is None else nn.BatchNorm2d(8)(residual.conv(r)))
    torch.testing.assert_close(got, y.relu())


def test_gates_have_two_derivatives():
    gates = Gates(4, 5, kernel_size=3).double()
    for parameter in gates.parameters():
        nn.init.normal_(parameter)
    y = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gates, y)
    assert torch.autograd.gradgradcheck(gates, y)


@pytest.mark.parametrize("length, kernel", [(25, 25), (20, 19), (7, 3)])
def test_a_convolution_to_one_channel(length, kernel):
    conv = nn.Conv1d(6, 1, kernel, padding=kernel // 2)
    x = torch.randn(3, 6, length, requires_grad=True)
    leaves = [x, *conv.parameters()]
    expected, y = conv(x), _along(x, conv)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(t, leaves, grad) for t in (y, expected))
    for g, e in zip(found, wanted, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-5)


def test_products_of_pairs_have_two_derivatives():
    pairs = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(_Pairs.apply(pairs), pairs[:, 0].mT @ pairs[:, 1])
    assert torch.autograd.gradcheck(_Pairs.apply, pairs)
    assert torch.autograd.gradgradcheck(_Pairs.apply, pairs)


LINKS = get_layout("coco17").adjacency("binary")


def test_virtual_joints_are_linked_to_all_joints_and_to_none_of_themselves():
    links = AdaptiveHypergraphConv(16, 16, LINKS, 2, heads=4).links
    assert links.shape == (4, 19, 19) and torch.equal(links[:, :17, :17], LINKS.expand(4, -1, -1))
    assert (links[:, :17, 17:] == 1).all() and (links[:, 17:, :17] == 1).all()
    assert torch.equal(links[0, 17:, 17:], torch.eye(2))
    A = static_adjacency(links, torch.ones_like(links))
    torch.testing.assert_close(A.sum(-1), torch.ones(4, 19))
    torch.testing.assert_close(A[0, 17], torch.cat([torch.ones(18), torch.zeros(1)]) / 18)


def test_the_static_part_may_be_found_for_all_layers_at_once():
    model = small("hyper_gcn").eval()
    x = torch.randn(2, 3, 8, 17, 2)
    expected = model.features(x)
    model.trunk = lambda x: model.blocks[1](model.blocks[0](x))
    torch.testing.assert_close(model.features(x), expected)


def test_virtual_joints_without_features_are_those_of_a_frame_of_zeros():
    """With p = 0 and alpha = 0 the virtual joints give the bias, as zero joints would."""
    conv = AdaptiveHypergraphConv(16, 16, LINKS, 1, heads=4)
    nn.init.zeros_(conv.hyper_joint)
    nn.init.zeros_(conv.alpha)
    nn.init.normal_(conv.conv_d.bias)
    x = torch.randn(2, 16, 3, 17)
    A = static_adjacency(conv.links, conv.edge_importance)[:, :17]
    f = conv.conv_d(torch.cat([x, torch.zeros(2, 16, 3, 1)], -1)).unflatten(1, (4, 4))
    expected = torch.einsum("kuv,nkctv->nkctu", A, f).flatten(1, 2)
    torch.testing.assert_close(conv(x), expected)


def test_divergence():
    same = torch.randn(1, 8).repeat(3, 1).requires_grad_()
    loss = divergence_loss([same, torch.eye(4)[:3], -torch.eye(8)[:3]])
    assert loss.item() == pytest.approx(1 / 3, rel=1e-6)
    loss.backward()
    assert same.grad.abs().max() < 1e-6  # nothing parts joints in one place
    assert divergence_loss([torch.ones(1, 4)]) == divergence_loss([torch.ones(0, 4)]) == 0
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert divergence_loss([opposite]).item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_where_nobody_wants_one():
    unit = GraphUnit(CTRGraphConv(3, 8, A, 4), 3, 8)
    unit.requires_grad_(False)
    assert not unit(torch.randn(2, 3, 4, 17)).requires_grad


@pytest.mark.parametrize("name", ["ctr_gcn", "hyper_gcn"])
def test_autocast(name):
    block = small(name).blocks[1]
    with torch.autocast("cpu", torch.bfloat16):
        y = block(torch.randn(2, 16, 6, 17))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in block.parameters())


def test_stages():
    widths = [64] * 4 + [128] * 3 + [256] * 3
    strides = [1] * 4 + [2, 1, 1, 2, 1, 1]
    assert make_stages() == list(zip(widths, strides, strict=True))
    assert make_stages(10, 3, inflate=(2,), down=(), ratio=1.5) == [(10, 1), (15, 1), (15, 1)]


def test_errors():
    with pytest.raises(ValueError, match=r"Topology: expected mode one of fixed, .*, got 'free'"):
        Topology(A, "free")
    with pytest.raises(ValueError, match=r"Topology: expected A of shape \(K, V, V\)"):
        Topology(A[0])
    with pytest.raises(
        ValueError, match=r"AdaptiveHypergraphConv: expected topk from 1 to 20, .*, got 21"
    ):
        AdaptiveHypergraphConv(16, 16, LINKS, 3, topk=21)
    with pytest.raises(ValueError, match="expected channels divisible by 8 heads, got 16 -> 12"):
        AdaptiveHypergraphConv(16, 12, LINKS)
    with pytest.raises(ValueError, match="expected num_virtual >= 0, got -1"):
        AdaptiveHypergraphConv(16, 16, LINKS, -1)
    with pytest.raises(ValueError, match="MultiScaleTemporalConv: expected branches"):
        MultiScaleTemporalConv(8, 8, ["1x1", (3, 1)])
    with pytest.raises(ValueError, match="expected widths of 4 branches that sum to 3"):
        MultiScaleTemporalConv(8, 3)
    with pytest.raises(ValueError, match="expected widths of 4 branches that sum to 8"):
        MultiScaleTemporalConv(8, 8, widths=(2, 2, 2, 1))


def test_block_keeps_only_what_the_ops_need():
    """Six times the output: x, z, y, 3/4 of the hidden branches, what they give, out."""
    temporal = MultiScaleTemporalConv(32, 32)
    block = STBlock(GraphUnit(CTRGraphConv(32, 32, A, 4), 32, 32), temporal, 32, 32)
    x = torch.randn(8, 32, 32, 17, requires_grad=True)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        y = block(x)
    size = sum(t.untyped_storage().nbytes() for t in kept.values()) / y.untyped_storage().nbytes()
    assert size < 6, size


@pytest.mark.parametrize("normalization", ["row", "symmetric"])
def test_hypergraph_conv_is_its_function(normalization):
    H = get_layout("ntu25").incidence()
    x = torch.randn(2, 4, 3, 25)
    conv = HypergraphConv(4, 8, H, normalization)
    expected = hypergraph_propagate(x, H, None, conv.weight, conv.bias, normalization=normalization)
    torch.testing.assert_close(conv(x), expected)
    own = HypergraphConv(4, 8, normalization=normalization, bias=False, aggregate_first=False)
    per_sample, weights = torch.rand(2, 25, 6), torch.rand(2, 6)
    torch.testing.assert_close(
        own(x, per_sample, weights),
        hypergraph_propagate(x, per_sample, weights, own.weight, normalization=normalization),
    )


def test_hypergraph_conv_learns_its_edges():
    H = get_layout("ntu25").incidence()
    conv = HypergraphConv(4, 8, H, learn_edge_weight=True, aggregate_first=False)
    torch.testing.assert_close(
        conv(x := torch.randn(2, 4, 3, 25)),
        hypergraph_propagate(x, H, None, conv.weight, conv.bias, aggregate_first=False),
    )
    conv(x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in conv.parameters())
    assert set(published_parts(conv)) == {"lin.weight", "bias", "edge_weight"}


def test_hypergraph_conv_needs_a_hypergraph():
    with pytest.raises(ValueError, match="HypergraphConv: expected H where the edge weights"):
        HypergraphConv(4, 8, learn_edge_weight=True)
    with pytest.raises(ValueError, match="HypergraphConv: expected H here or at construction"):
        HypergraphConv(4, 8)(torch.randn(2, 4, 3, 25))
