"""int8: every linear layer of a transformer is reached, scores stay close, weights are exact."""

import pytest
import torch
from torch import nn

from skelops.models import DeformTransformer, MMixer, build_classifier, create_model, create_pretext
from skelops.nn import Linear, PackedAttention
from skelops.quantize import Int8Linear, quantize

TOKENS = {"num_frames": 16, "width": 32, "depth": 2, "heads": 2}


def mamp():
    return build_classifier(create_pretext("mamp", **TOKENS).encoder, num_classes=5)


def deform():
    options = {"frames": 4, "image_size": 16, "dim": 32, "depth": 1, "heads": 2, "groups": 2}
    return DeformTransformer(5, num_persons=1, widths=(8, 8), **options)


def mixer():
    return MMixer(5, ("rgb", "depth"), dim=32, widths=(8, 8), heads=2)


def cascade(channels):
    size = (channels, channels, 2, 2, 64, False)
    return create_model("cascade_former", num_classes=5, size=size)


PICTURE = {"rgb": torch.rand(2, 3, 4, 16, 16), "depth": torch.rand(2, 1, 4, 16, 16)}
PICTURE["keypoints"] = torch.rand(2, 3, 4, 25, 1)
CLIPS = torch.randn(2, 3, 16, 25, 1)
# Narrow layers of CascadeFormer have a feed-forward of their own.
NETWORKS = [(mamp, CLIPS), (deform, PICTURE), (mixer, PICTURE)]
NETWORKS += [(lambda c=c: cascade(c), CLIPS) for c in (32, 96)]


@pytest.mark.parametrize(("build", "x"), NETWORKS)
def test_every_linear_layer_is_reached(build, x):
    torch.manual_seed(0)
    model = build().eval()
    rounded = quantize(model)
    gates = {getattr(m, name) for m in model.modules() for name in getattr(m, "reads", ())}
    assert len(gates) == (6 if build is mixer else 0)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in gates]
    packed = [m for m in model.modules() if isinstance(m, PackedAttention)]
    left = [n for n, m in rounded.named_modules() if isinstance(m, nn.Linear)]
    assert len(left) == len(gates) and not any(
        "in_proj" in name for name, _ in rounded.named_parameters()
    )
    reached = [m for m in rounded.modules() if isinstance(m, Int8Linear)]
    assert len(reached) == len(layers) + 3 * len(packed)
    with torch.no_grad():
        expected, found = model(x), rounded(x)
    assert not torch.equal(found, expected)
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert any(isinstance(m, Linear) for m in layers) or build is mixer
    assert isinstance(layers[0], nn.Linear)  # the network itself stays as it is


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer(bias):
    torch.manual_seed(0)
    layer, x = Linear(24, 10, bias=bias), torch.randn(3, 7, 24)
    with torch.no_grad():
        layer.weight[3] *= 100  # a channel has a scale of its own
        layer.weight[4] = 0
    rounded = Int8Linear(layer)
    weight, offset = torch.ops.quantized.linear_unpack(rounded.packed)
    weight = weight.dequantize()
    step = layer.weight.abs().amax(1, keepdim=True) / 127
    assert ((weight - layer.weight).abs() <= step / 2 * 1.001).all()
    assert (offset is None) == (not bias)
    expected = nn.functional.linear(x, weight, offset)
    # An input is off by half a step of its range in 127.
    off = (x.max() - x.min()) / 127 / 2 * weight.abs().sum(1)
    assert ((rounded(x) - expected).abs() <= off * 1.01 + 1e-5).all()


def test_nothing_to_round():
    with pytest.raises(ValueError, match="expected a network with linear layers, got Identity"):
        quantize(nn.Identity())
