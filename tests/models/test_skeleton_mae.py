"""SkeletonMAE and SSL: what is masked, what is learnt, what fine-tuning starts from."""

import pytest
import torch

from skelops.graph import get_layout
from skelops.models import build_classifier, create_model, create_pretext
from skelops.models.skeleton_mae import GINEncoder, body_parts
from skelops.nn import GINConv


def build(**options):
    return create_pretext("skeleton_mae", **{"layout": "coco17", "width": 8} | options)


def test_default_parts_of_the_paper():
    parts = body_parts("coco17")
    assert [len(joints) for joints in parts.values()] == [5, 4, 2, 2, 2, 2]
    assert sorted(v for joints in parts.values() for v in joints) == list(range(17))
    kept = build().joint_mask(3)
    assert (~kept).nonzero().flatten().tolist() == [8, 10, 14, 16]


@pytest.mark.parametrize("layout", ["coco17", "ntu25"])
def test_drawn_parts_are_masked_as_a_whole(layout):
    pretext = build(layout=layout, masked=2)
    noise = torch.rand(6, len(pretext.parts))
    kept = pretext.joint_mask(6, noise)
    for row, order in zip(kept, noise.argsort(1), strict=True):
        names = [[*pretext.parts][i] for i in order[:2]]
        hidden = sorted(v for name in names for v in pretext.parts[name])
        assert (~row).nonzero().flatten().tolist() == sorted({*hidden})


@pytest.mark.parametrize("options", [{}, {"masked": 3}, {"literal": True, "beta": 1.0}])
def test_loss_trains_everything(options):
    pretext = build(**options)
    loss = pretext.loss(torch.randn(2, 2, 5, 17, 2))
    loss.backward()
    assert loss.shape == () and loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pretext.parameters())


def test_masked_joints_are_seen_by_the_target_only():
    """The reconstruction does not depend on them: it is a constant over the frames of a clip."""
    pretext = build().eval()
    x = torch.randn(1, 2, 4, 17, 1)
    changed = x.clone()
    changed[:, :, :, [8, 10, 14, 16]] += 1
    seen = []
    pretext.decoder.register_forward_hook(lambda module, args, y: seen.append(y))
    pretext.loss(x), pretext.loss(changed)
    assert torch.equal(*seen)


def test_neighbours_are_those_of_the_tree():
    A = GINEncoder(4, 4, 4, "coco17", 1).layers[0].A
    assert torch.equal(A, A.T) and A.diagonal().sum() == 0 and A.sum() == 32
    assert A[5].nonzero().flatten().tolist() == [0, 7, 11]


def test_gin_layer_is_its_equation():
    layer = GINConv(3, 5, 4, get_layout("coco17").adjacency("binary")[0], plain=True).eval()
    layer.eps.fill_(0.5)
    x = torch.randn(2, 3, 6, 17)
    a = 1.5 * x + x @ layer.A.T
    h = layer.act1(layer.norm1(layer.linear1(a.movedim(1, -1)).movedim(-1, 1)))
    expected = layer.linear2(h.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_fine_tuning_starts_from_the_encoder():
    pretext = build(num_frames=6, in_channels=3)
    model = build_classifier(pretext.encoder, 5, channels=(8, 16))
    x = torch.randn(2, 3, 6, 17, 2)
    y = model(x)
    y.sum().backward()
    assert y.shape == (2, 5) and all(p.grad is not None for p in model.parameters())
    assert pretext.encoder(x).shape == (2, 8)
    own = pretext.encoder.gin.state_dict()
    for layer in model.layers:
        first, second = layer.encoders
        for key, value in own.items():
            assert key.endswith(("running_mean", "running_var", "tracked")) or (
                torch.equal(first.state_dict()[key], value)
                and torch.equal(second.state_dict()[key], value)
            )
        assert first.layers[0].linear1.weight is not second.layers[0].linear1.weight


def test_bad_input():
    with pytest.raises(ValueError, match=r"expected masked parts of head, torso, .*, got .*tail"):
        build(masked=["tail"])
    for masked in (0, 7, ()):
        with pytest.raises(ValueError, match="skeleton_mae: expected masked parts of head"):
            build(masked=masked)
    model = create_model("ssl_strl", num_classes=5, num_frames=4, width=8)
    with pytest.raises(ValueError, match="skeleton_mae: expected at most 4 frames, got 5"):
        model(torch.randn(1, 2, 5, 17, 2))
    with pytest.raises(ValueError, match=r"expected x of shape .* M=2, got"):
        model(torch.randn(1, 2, 4, 17, 1))
    with pytest.raises(ValueError, match=r"expected x of shape .* with C=2, V=17, got"):
        build().loss(torch.randn(1, 2, 4, 20, 1))
