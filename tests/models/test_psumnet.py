"""PSUMNet: its parts, their fusion, published names, and what is refused."""

import pytest
import torch

from skelops.data import make_streams
from skelops.graph import BODY_PARTS, get_layout
from skelops.models import create_model, load_published, published_keys, published_state
from skelops.models.psumnet import ALPHAS
from skelops.testing import plain

FOUR = ("joint", "bone", "joint_motion", "bone_motion")
SMALL = {"num_classes": 5, "base_channels": 8}


def parts_of(model):
    return {name: getattr(model, name) for name in BODY_PARTS if hasattr(model, name)}


@pytest.mark.parametrize(
    ("part", "million", "blocks"), [("body", 1.45, 10), ("hand", 0.98, 6), ("leg", 0.50, 4)]
)
def test_published_sizes(part, million, blocks):
    model = create_model(f"psumnet_{part}")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(million, abs=0.005)
    assert len(model.blocks) == blocks
    # Twelve channels have one relation, in contrast to CTR-GCN's rule for coordinates.
    assert published_keys(model)["layers.0.gcn1.convs.0.conv1.weight"].shape == (1, 12, 1, 1)


@pytest.mark.parametrize(("in_channels", "relations"), [(3, 8), (6, 8), (9, 1), (12, 1), (24, 3)])
def test_relations_at_the_input(in_channels, relations):
    model = create_model("psumnet_leg", in_channels=in_channels)
    key = "layers.0.gcn1.convs.2.conv4.weight"
    assert published_keys(model)[key].shape == (64, relations, 1, 1)


@pytest.mark.parametrize("layout", ["ntu25", "ntu_x67", "nw_ucla20", "ui_prmd22"])
def test_score_is_the_weighted_sum_of_the_parts(layout):
    model = create_model("psumnet", layout=layout, alphas=[3, 2, 0.5], num_persons=1, **SMALL)
    x = torch.randn(2, 3, 9, get_layout(layout).num_joints, 1, requires_grad=True)
    y = model.eval()(x)
    expected = sum(
        alpha * network(make_streams(FOUR, layout, part=part)(x))
        for alpha, (part, network) in zip((3, 2, 0.5), parts_of(model).items(), strict=True)
    )
    assert torch.equal(y, expected)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_published_weights_of_the_parts():
    x = torch.randn(1, 3, 9, 25, 2)
    scores = {}
    for name in ALPHAS:
        torch.manual_seed(0)
        scores[name] = create_model("psumnet", alphas=name, **SMALL).eval()(x)
    torch.manual_seed(0)
    own = create_model("psumnet", alphas=[2.1, 2, 0.8], **SMALL).eval()(x)
    assert torch.equal(scores["ntu120_xset"], own)
    assert len({y.sum().item() for y in scores.values()}) == len(ALPHAS)


def test_a_hand_alone():
    options = {"layout": "shrec22", "num_persons": 1} | SMALL
    fused = create_model("psumnet", parts=["hand"], alphas=[1], **options).eval()
    assert list(parts_of(fused)) == ["hand"]
    alone = create_model("psumnet_hand", **options).eval()
    load_published(alone, published_state(fused.hand))
    x = torch.randn(2, 3, 9, 22, 1)
    torch.testing.assert_close(alone(make_streams(FOUR, "shrec22", part="hand")(x)), fused(x))


def test_published_checkpoints():
    model = create_model("psumnet", **SMALL)
    states = {part: published_state(network) for part, network in parts_of(model).items()}
    assert {"data_bn.weight", "layers.5.tcn1.branches.1.3.conv.weight", "fc.bias"} <= set(
        states["hand"]
    )
    whole = {f"{part}.{key}": t for part, state in states.items() for key, t in state.items()}
    assert published_keys(model).keys() == whole.keys()
    other = create_model("psumnet", **SMALL)
    for part, network in parts_of(other).items():
        assert load_published(network, states[part]) == ([], [], [])
    third = create_model("psumnet", **SMALL)
    assert load_published(third, whole) == ([], [], [])
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
        assert torch.equal(third.state_dict()[key], value), key
    expected = r"for 13 joints \(ntu25_hand\), got one for 9 joints"
    with pytest.raises(ValueError, match=expected):
        load_published(other.hand, states["leg"])


def test_equals_the_plain_network():
    """Of one part, block by block under published names."""
    model = create_model("psumnet_hand", **SMALL)
    widths = [(12, 8, 1), (8, 16, 2), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
    blocks = [
        plain.Block(
            plain.RefinedUnit(C, out, 13, max(C // 8, 1)),
            plain.Scales(out, out, k=5, stride=stride, dilations=(1, 2), residual=False),
            C,
            out,
            stride,
            residual=i > 0,
        )
        for i, (C, out, stride) in enumerate(widths)
    ]
    official = plain.OfficialNet(blocks, 32, 13, 2, 12, 5)
    state = published_state(model)
    for key, t in state.items():
        if "alpha" in key or "bn.weight" in key:
            t.uniform_(0.5, 1)
    load_published(model, state)
    renamed = {
        "l{}.{}".format(int(k.split(".")[1]) + 1, k.split(".", 2)[2]) if "layers" in k else k: t
        for k, t in state.items()
    }
    official.load_state_dict(renamed)
    x = torch.randn(2, 12, 9, 13, 2)
    torch.testing.assert_close(model(x), official(x), atol=1e-4, rtol=1e-4)


def test_compiles_to_one_graph():
    model = create_model("psumnet", parts=["leg"], alphas=[2], **SMALL).eval()
    x = torch.randn(2, 3, 9, 25, 2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))


def test_under_autocast_the_streams_stay_precise():
    model = create_model("psumnet", **SMALL).eval()
    x = 1000 + torch.rand(2, 3, 9, 25, 2)  # bfloat16 tells apart 4
    seen = []
    model.hand.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(x)
    assert torch.equal(seen[0], make_streams(FOUR, "ntu25", part="hand")(x))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"body_part: expected a layout with the part body, got s"):
        create_model("psumnet", layout="shrec22")
    with pytest.raises(ValueError, match="psumnet: expected alphas as numbers or one of ntu60_xs"):
        create_model("psumnet", alphas="ntu60")
    with pytest.raises(ValueError, match="psumnet: expected 3 alphas, got 2"):
        create_model("psumnet", alphas=[1, 2])
    x = torch.randn(2, 12, 9, 25, 2)
    with pytest.raises(ValueError, match=r"hand: expected x of 13 joints \(ntu25_hand\), got 25"):
        create_model("psumnet_hand", **SMALL)(x)
    with pytest.raises(ValueError, match=r"psumnet of ntu_x67: expected x .* with C=3, V=67, got"):
        create_model("psumnet", layout="ntu_x67", **SMALL)(x)
