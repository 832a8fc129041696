"""Models: every layout, published checkpoints in and out, and what is refused."""

import pickle

import pytest
import torch

from skelops.graph import Layout, get_layout
from skelops.models import (
    create_model,
    list_models,
    load_published,
    published_keys,
    published_state,
)

# Those with a file of their own: of parts or labels, and what is no SkeletonNet.
OTHERS = ("aclnet", "cascade_former", "epam_net", "finetec", "ms_clr", "posec3d", "psumnet")
OTHERS += ("ssl_strl",)
NAMES = [name for name in list_models() if not name.startswith(OTHERS)]
VARIANTS = [(name, {}) for name in NAMES]
VARIANTS += [("ctr_gcn", {"variant": "pyskl"}), ("ctr_gcn", {"variant": "baseline"})]
VARIANTS += [("st_gcn", {"topology": "offset", "aggregate_first": True, "unit_residual": True})]
VARIANTS += [("aagcn", {"adaptive": False, "attention": False, "temporal": "multi"})]
VARIANTS += [("dg_stgcn", {"mean_joint": False, "joint_wise": False, "graph": "spatial"})]
VARIANTS += [("hyper_gcn", {"num_virtual": 0, "heads": 4, "topk": 3})]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in VARIANTS]
STAGES = [(16, 1), (32, 2)]
CHAIN = Layout("chain", parents=(0, 0, 1, 2, 2))


def build(name, layout="nw_ucla20", **kwargs):
    return create_model(name, num_classes=5, layout=layout, **{"stages": STAGES} | kwargs)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
@pytest.mark.parametrize("layout", ["ntu25", "coco17", CHAIN], ids=["ntu25", "coco17", "chain"])
def test_forward_and_backward(name, options, layout):
    model = build(name, layout, in_channels=2, num_persons=1, **options)
    V = get_layout(layout).num_joints
    x = torch.randn(3, 2, 9, V, 1, requires_grad=True)
    y = model(x)
    assert y.shape == (3, 5)
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    for key, parameter in model.named_parameters():
        if key.endswith(".beta") and not options.get("joint_wise", True):
            continue  # published, but without a part
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES)
def test_published_sizes(name):
    million = {"st_gcn": 3.08, "st_gcn_pp": 1.39, "aagcn": 3.77, "ctr_gcn": 1.45, "dg_stgcn": 1.69}
    million |= {"hyper_gcn": 1.04}
    model = create_model(name)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(million[name], abs=0.02)
    x = torch.zeros(1, 3, 8, 25, 2)
    x[..., 0] = torch.randn(1, 3, 8, 25)
    features = model.eval().features(x)
    assert features.shape == (2, 256, 2, 25)


@pytest.mark.parametrize("name", NAMES)
def test_absent_person_is_a_zero_one(name):
    """It takes part in the mean over persons, as published: features of both, in order."""
    model = build(name).eval()
    x = torch.randn(2, 3, 8, 20, 2)
    x[0, ..., 1] = 0
    features = model.features(x).mean((2, 3)).view(2, 2, -1)
    torch.testing.assert_close(model(x), model.fc(features.mean(1)))
    alone = model.features(torch.zeros(1, 3, 8, 20, 2)).mean((2, 3))
    torch.testing.assert_close(features[0, 1], alone[1])


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
def test_published_state_round_trip(name, options, tmp_path):
    torch.manual_seed(0)
    model = build(name, **options)
    model(torch.randn(2, 3, 8, 20, 2))  # running statistics
    state = published_state(model)
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pt")
    other = build(name, **options)
    report = load_published(other, tmp_path / "a.pt")
    assert report == ([], [], [])
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    restored = published_state(other)
    assert list(restored) == list(state)
    assert all(torch.equal(restored[k], state[k]) for k in state)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
def test_pickle(name, options):
    model = build(name, **options)
    other = pickle.loads(pickle.dumps(model))
    assert published_keys(other) == published_keys(model)


def test_published_names():
    keys = published_keys(build("ctr_gcn"))
    assert keys["l2.gcn1.convs.1.conv4.weight"].shape == (32, 2, 1, 1)
    assert keys["l1.gcn1.PA"].shape == (3, 20, 20)
    assert keys["l2.tcn1.branches.1.3.conv.weight"].shape == (8, 8, 5, 1)
    assert {"data_bn.weight", "l2.residual.bn.running_var", "fc.bias"} <= set(keys)
    keys = published_keys(build("ctr_gcn", variant="pyskl"))
    assert {"backbone.A", "backbone.net.0.gcn1.A", "cls_head.fc_cls.weight"} <= set(keys)
    keys = published_keys(build("st_gcn_pp"))
    assert keys["backbone.gcn.0.tcn.branches.5.weight"].shape == (2, 16, 1, 1)
    assert {"backbone.gcn.0.tcn.transform.2.bias", "backbone.gcn.1.gcn.down.0.weight"} <= set(keys)
    assert "backbone.gcn.0.tcn.add_coeff" in published_keys(build("dg_stgcn"))
    assert "backbone.gcn.0.gcn.fc2c.bias" in published_keys(build("aagcn"))
    keys = published_keys(build("hyper_gcn"))
    assert keys["l1.gcn1.PA"].shape == (8, 23, 23) and keys["pos_embedding"].shape == (1, 20, 16)
    assert {"l2.gcn1.hyper_joint", "l2.gcn1.to_W.2.bias", "to_joint_embedding.weight"} <= set(keys)


def test_sizes_and_virtual_joints_of_hyper_gcn():
    large = create_model("hyper_gcn", size="large", base_channels=16)
    widths = [block.gcn.out_channels for block in large.blocks]
    assert widths == [16, 16, 16, 32, 32, 32, 64, 64, 64] and large.dense == {2, 5, 8}
    assert [block.residual.conv is not None for block in large.blocks] == [
        i in (3, 6) for i in range(9)
    ]
    loss = large.auxiliary_loss()
    assert loss.item() == pytest.approx(1) and loss.requires_grad
    doubled = create_model("hyper_gcn", base_channels=16, divergence_weight=2.0)
    assert doubled.auxiliary_loss().item() == pytest.approx(2)
    assert build("hyper_gcn", num_virtual=1).auxiliary_loss() == 0


def test_another_skeleton_for_hyper_gcn_is_refused():
    state = published_state(build("hyper_gcn", "nw_ucla20"))
    with pytest.raises(ValueError, match=r"for 25 joints \(ntu25\), got one for 20 joints"):
        load_published(build("hyper_gcn", "ntu25"), state)
    with pytest.raises(ValueError, match=r"l1.gcn1.hyper_joint of shape \(2, 16\), got \(3, 16\)"):
        load_published(build("hyper_gcn", num_virtual=2), state)


def test_another_layout_is_refused():
    state = published_state(build("ctr_gcn", "nw_ucla20"))
    expected = r"for 25 joints \(ntu25\), got one for 20 joints \(coco20 or nw_ucla20\)"
    with pytest.raises(ValueError, match=expected):
        load_published(build("ctr_gcn", "ntu25"), state)
    with pytest.raises(ValueError, match=expected):
        load_published(build("ctr_gcn", "ntu25"), state, strict=False)
    state = {k: v for k, v in state.items() if "data_bn" in k}
    with pytest.raises(ValueError, match="got one for 20 joints"):
        load_published(build("ctr_gcn", "ntu25"), state)


def test_another_head():
    state = published_state(create_model("st_gcn", num_classes=7, stages=STAGES))
    model = create_model("st_gcn", num_classes=5, stages=STAGES)
    head = model.fc.weight.clone()
    with pytest.raises(ValueError, match=r"expected a head of 5 classes .*, got 7 classes"):
        load_published(model, state)
    assert not torch.equal(model.data_bn.weight, state["backbone.data_bn.weight"] + 1)
    report = load_published(model, state, strict=False)
    assert report.skipped == ["cls_head.fc_cls.weight", "cls_head.fc_cls.bias"]
    assert torch.equal(model.fc.weight, head)
    assert torch.equal(
        published_state(model)["backbone.gcn.0.gcn.PA"], state["backbone.gcn.0.gcn.PA"]
    )


def test_other_keys_and_shapes():
    model = build("ctr_gcn")
    state = published_state(build("ctr_gcn"))
    del state["l1.gcn1.PA"]
    state["l3.gcn1.PA"] = torch.zeros(3, 20, 20)
    with pytest.raises(ValueError, match=r"1 missing \(l1.gcn1.PA, ...\) and 1 unexpected"):
        load_published(model, state)
    report = load_published(model, state, strict=False)
    assert (report.missing, report.unexpected) == (["l1.gcn1.PA"], ["l3.gcn1.PA"])
    state = published_state(build("ctr_gcn", stages=[(16, 1), (24, 2)]))
    with pytest.raises(ValueError, match=r"expected l2\.\S+ of shape \(.*\), got \(24"):
        load_published(model, state)
    with pytest.raises(ValueError, match=r"data_bn.weight of shape \(120,\), got \(60,\)"):
        load_published(model, published_state(build("ctr_gcn", num_persons=1)))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"create_model: expected one of aagcn, .*, got 'gcn'"):
        create_model("gcn")
    with pytest.raises(ValueError, match="ctr_gcn: expected variant one of official"):
        create_model("ctr_gcn", variant="other")
    with pytest.raises(ValueError, match="hyper_gcn: expected size one of base, large, got 'huge'"):
        create_model("hyper_gcn", size="huge")
    with pytest.raises(ValueError, match=r"expected topk from 1 to 28, .* got 30"):
        create_model("hyper_gcn", topk=30)
    with pytest.raises(ValueError, match='expected input_norm "MVC" or "VC"'):
        create_model("st_gcn", input_norm="C")
    with pytest.raises(ValueError, match='expected temporal "single" or "multi"'):
        create_model("st_gcn", temporal="double")
    model = build("ctr_gcn")
    expected = (
        r"CTRGCN: expected x of shape \(N, C, T, V, M\) with C=3, V=20, M=2, got \(2, 3, 8, 25"
    )
    with pytest.raises(ValueError, match=expected):
        model(torch.randn(2, 3, 8, 25, 2))
