"""PoseC3D: heat-maps of skeletons, sizes, published names, and what is refused."""

import pytest
import torch

from skelops.graph import get_layout
from skelops.models import create_model, load_published, published_keys, published_state
from skelops.models.posec3d import SlowOnly
from skelops.nn import PoseHeatmap

TINY = {"base_channels": 8, "blocks": (1, 2, 1), "size": (16, 20)}


def build(name="posec3d", layout="coco17", **options):
    return create_model(name, num_classes=5, layout=layout, **TINY | options)


@pytest.mark.parametrize("name", ["posec3d", "epam_net_pose"])
@pytest.mark.parametrize(
    ("layout", "C", "maps", "K"),
    [("coco17", 2, "joint", 17), ("ntu25", 3, "limb", 24), ("nw_ucla20", 3, "both", 39)],
)
def test_forward_and_backward(name, layout, C, maps, K):
    model = build(name, layout, maps=maps)
    x = torch.randn(3, C, 6, get_layout(layout).num_joints, 2)
    assert model.heatmap(x).shape == (3, K, 6, 16, 20)
    y = model(x)
    assert y.shape == (3, 5)
    y.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


def test_published_sizes():
    net = create_model("posec3d").net
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(2.0, abs=0.05)
    keys = published_keys(create_model("posec3d"))
    assert keys == published_keys(net) | keys and len(keys) == len(published_keys(net))
    assert keys["backbone.conv1.conv.weight"].shape == (32, 17, 1, 7, 7)
    assert keys["backbone.layer2.5.conv1.conv.weight"].shape == (64, 256, 3, 1, 1)
    assert keys["backbone.layer3.0.downsample.bn.running_var"].shape == (512,)
    assert "cls_head.fc_cls.bias" in keys


@pytest.mark.parametrize("name", ["posec3d", "epam_net_pose"])
def test_published_state_round_trip(name, tmp_path):
    model = build(name)
    torch.save({"state_dict": published_state(model)}, tmp_path / "a.pt")
    other = build(name)
    assert load_published(other, tmp_path / "a.pt") == ([], [], [])
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    assert load_published(other.net, tmp_path / "a.pt") == ([], [], [])
    wider = create_model(name, num_classes=7, **TINY)
    with pytest.raises(ValueError, match=r"expected a head of 7 classes .*, got 5 classes"):
        load_published(wider, tmp_path / "a.pt")
    assert len(load_published(wider, tmp_path / "a.pt", strict=False).skipped) == 2
    with pytest.raises(ValueError, match=r"conv1\S*\.conv\.weight of shape \(8, 25"):
        load_published(build(name, "ntu25"), tmp_path / "a.pt")


def test_clips_fill_the_map():
    """Whatever the unit and place of the data, the longer side takes the same share of the map."""
    maps = PoseHeatmap("coco17", size=(20, 20))
    x = torch.rand(2, 2, 4, 17, 1)
    y = maps(x)
    torch.testing.assert_close(y, maps(7.5 * x + 3), atol=1e-3, rtol=0)
    rows, columns = y[0].amax((0, 1)).amax(1), y[0].amax((0, 1)).amax(0)
    seen = max((rows > 0.1).sum(), (columns > 0.1).sum())
    assert 15 <= seen < 20  # 20 / 1.25 pixels, and what a Gaussian shows around an end


def test_missing_joints_and_scores():
    maps = PoseHeatmap("coco17", size=(20, 20), confidence=True)
    x = torch.rand(1, 3, 2, 17, 2) + 0.1
    x[:, :, :, 3, :] = 0
    x[:, :, :, :, 1] = 0  # nobody
    y = maps(x)
    assert not y[:, 3].any()
    assert torch.equal(y, maps(x[..., :1]))
    assert (y.amax((3, 4))[0, 5] <= x[0, 2, :, 5, 0] + 1e-6).all()
    assert not maps(torch.zeros(1, 3, 2, 17, 2)).any()
    assert maps(torch.zeros(0, 3, 2, 17, 2)).shape == (0, 17, 2, 20, 20)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="SlowOnly: expected settings of 2 stages, got"):
        SlowOnly(5, blocks=(1, 1))
    with pytest.raises(
        ValueError, match="PoseHeatmap: expected maps one of joint, limb, both, got"
    ):
        PoseHeatmap(maps="edges")
    with pytest.raises(ValueError, match=r"PoseHeatmap: expected x of shape .* V=17, got \(1, 2"):
        build()(torch.zeros(1, 2, 4, 25, 1))
