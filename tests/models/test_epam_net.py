"""EPAM-Net: sizes, guidance, published names, and what is refused."""

import pytest
import torch

from skelops.models import (
    EPAMNet,
    EPAMNetVideo,
    create_model,
    load_published,
    published_keys,
    published_state,
)
from skelops.models.epam_net import NonLocalGuidance, XShiftNet, epam_loss, se_width


def inputs(T=4, pictures=32, maps=8, K=17):
    return torch.randn(2, 3, T, pictures, pictures), torch.rand(2, K, 3 * T, maps, maps)


def build(**options):
    torch.manual_seed(0)
    return EPAMNet(5, base_channels=8, **options)


def test_published_sizes():
    model = EPAMNet(60)
    parts = {"": 2538717, "rgb": 1.98e6 + 0.026e6, "pose": 0.52e6 + 0.013e6, "guidance": 107}
    for name, count in parts.items():
        found = sum(p.numel() for p in model.get_submodule(name).parameters())
        assert found == pytest.approx(count, rel=0.005 if name in ("rgb", "pose") else 0)
    keys = published_keys(model)
    assert keys["rgb_backbone.layer4.6.se_module.fc1.weight"].shape == (32, 432, 1, 1, 1)
    assert keys["pose_backbone.conv5.conv.weight"].shape == (216, 96, 1, 1, 1)
    assert keys["attention_module.spatial.conv.weight"].shape == (1, 2, 1, 7, 7)
    assert keys["pose_cls_head.fc_cls.weight"].shape == (60, 216)
    assert "rgb_backbone.layer1.1.se_module.fc1.weight" not in keys
    assert [se_width(c) for c in (54, 108, 216, 432)] == [8, 8, 16, 32]


@pytest.mark.parametrize("guidance", ["nested", "serial", "frames", "non_local"])
def test_forward_and_backward(guidance):
    model = build(guidance=guidance, frames=4)
    rgb, maps = inputs()
    logits = model(rgb, maps)
    assert [y.shape for y in logits] == [(2, 5), (2, 5)]
    epam_loss(*logits, torch.tensor([1, 4])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


def test_prediction_is_the_sum_of_both():
    model, given = build().eval(), inputs()
    torch.testing.assert_close(model.predict(*given), sum(model(*given)))


def test_inference_in_one_pass_per_block():
    model, (rgb, maps) = build().eval(), inputs()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    expected = model(rgb, maps)
    with torch.no_grad():
        found = model(rgb, maps)
    for y, z in zip(found, expected, strict=True):
        torch.testing.assert_close(y, z)
    model.train()
    with torch.no_grad():
        trained = model(rgb, maps)
    assert not torch.allclose(trained[1], found[1], atol=1e-3)


def test_pose_guides_the_pictures():
    model = build().eval()
    rgb, maps = inputs()
    before = model(rgb, maps)
    after = model(rgb, torch.rand_like(maps))
    assert not torch.equal(before[0], after[0])
    assert not torch.equal(before[0], model.rgb(rgb))
    torch.testing.assert_close(before[1], model.pose(maps))


@pytest.mark.parametrize("kind", [{}, {"softmax": True}, {"softmax": True, "scaled": False}])
def test_non_local_guidance_equals_its_matrix_of_all_places(kind):
    module = NonLocalGuidance(6, 4, **kind)
    rgb, pose = torch.randn(2, 6, 3, 4, 4), torch.randn(2, 4, 3, 4, 4)
    theta, phi, g = (
        f(x).flatten(2) for f, x in ((module.theta, pose), (module.phi, rgb), (module.g, rgb))
    )
    weight = theta.mT @ phi
    if kind:
        weight = (weight / (3**0.5 if kind.get("scaled", True) else 1)).softmax(-1)
    else:
        weight = weight / theta.shape[-1]
    mixed = (g @ weight.mT).unflatten(2, (3, 4, 4))
    torch.testing.assert_close(module(pose, rgb), rgb + module.conv_out(mixed))


def test_published_state_round_trip(tmp_path):
    model = build()
    torch.save({"model_state_dict": published_state(model)}, tmp_path / "a.pt")
    other = EPAMNet(5, base_channels=8)
    assert load_published(other, tmp_path / "a.pt") == ([], [], [])
    given = inputs()
    torch.testing.assert_close(other.eval().predict(*given), model.eval().predict(*given))


@pytest.mark.parametrize("guidance", ["frames", "non_local"])
def test_names_of_the_ablations(guidance):
    state = published_state(build(guidance=guidance, frames=4))
    names = {key.removeprefix("attention_module.") for key in state if key.startswith("attention")}
    convs = {"frames": "conv_ch_compress", "non_local": "theta.conv"}
    assert f"{convs[guidance]}.weight" in names


def video(T=6, S=32, V=17):
    keypoints = torch.rand(2, 3, T, V, 1) * 2 - 1
    keypoints[:, 2] = 1
    return {"rgb": torch.rand(2, 3, T, S, S), "keypoints": keypoints}


@pytest.mark.parametrize("modalities", [["rgb"], ["keypoints"], ["rgb", "keypoints"]])
def test_videos(modalities):
    net = EPAMNetVideo(5, modalities=modalities, size=(8, 8), base_channels=8).eval()
    x = video()
    logits = net(x)
    rgb = (x["rgb"] - net.mean) / net.std
    if modalities == ["rgb"]:
        torch.testing.assert_close(logits, net.net(rgb))
    elif modalities == ["keypoints"]:
        torch.testing.assert_close(logits, net.net(net.heatmap(x["keypoints"])))
    else:
        for y, z in zip(logits, net.net(rgb[:, :, ::3], net.heatmap(x["keypoints"])), strict=True):
            torch.testing.assert_close(y, z)


def test_maps_are_in_place_with_the_picture():
    net = EPAMNetVideo(5, modalities=["keypoints"], size=(8, 16), base_channels=8)
    x = torch.zeros(1, 3, 1, 17, 1)
    x[0, :, 0, 3, 0] = torch.tensor([0.5, -0.25, 1.0])  # column 12 of 16, row 3 of 8
    maps = net.heatmap(x)
    assert maps.shape == (1, 17, 1, 8, 16)
    assert maps[0, 3, 0].argmax() == 3 * 16 + 12 and not maps[0, [0, 1, 2, *range(4, 17)]].any()


def test_bad_videos():
    with pytest.raises(
        ValueError, match="EPAMNetVideo: expected modalities rgb, keypoints or both"
    ):
        EPAMNetVideo(modalities=["depth"])
    net = EPAMNetVideo(5, size=(8, 8), base_channels=8)
    with pytest.raises(
        ValueError, match="EPAMNetVideo: expected modalities rgb, keypoints, got rgb"
    ):
        net({"rgb": video()["rgb"]})
    with pytest.raises(ValueError, match=r"as many frames of rgb, keypoints, got \[3, 6\]"):
        net({**video(), "rgb": video()["rgb"][:, :, :3]})
    with pytest.raises(ValueError, match="EPAMNet: expected 6 frames of heat-maps for 2 pictures"):
        net(video(T=4))


def test_a_stream_starts_as_its_shortcuts():
    net = XShiftNet(5, base_channels=8, blocks=(2,))
    assert not net.layers[0][1].conv3.bn.weight.any()
    assert create_model("epam_net_pose", num_classes=5, base_channels=8).net.fc.weight.std() < 0.02


def test_label_shares():
    a, b = torch.randn(2, 4, 5).unbind()
    label = torch.tensor([0, 3, 2, 4])
    shares = torch.nn.functional.one_hot(label, 5).float()
    torch.testing.assert_close(epam_loss(a, b, shares), epam_loss(a, b, label))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"EPAMNet: expected guidance \"nested\", .* got 'late'"):
        EPAMNet(guidance="late")
    rgb, maps = inputs()
    with pytest.raises(ValueError, match="expected 12 frames of heat-maps for 4 pictures, got 11"):
        build()(rgb, maps[:, :, 1:])
    with pytest.raises(ValueError, match=r"heat-maps with features of \(4, 1, 1\), got \(4, 2, 2"):
        build()(rgb, inputs(maps=16)[1])
