"""Cases with other arguments than those at hand are understood, and give what plain formulas do."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skelops.graph import get_layout
from skelops.models import load_published, published_keys
from skelops.models.halp import HaLP
from skelops.models.hiclr import HiCLR
from skelops.models.ms_clr import MSCLR
from skelops.nn import MultiScaleTemporalConv
from skelops.testing import replay
from skelops.testing.replays.a2j import SPACES
from skelops.testing.rule import rule_value


def unit(x):
    return F.normalize(x, dim=1)


def numpy(named):
    return {name: torch.as_tensor(value).detach().numpy() for name, value in named.items()}


def recorded(source, kind, kwargs, inputs, outputs, shapes=None, gradients=None, note=""):
    """The case that a run would have given; outputs without a value are None."""
    meta = {"source": source, "class": kind, "kwargs": kwargs, "note": note}
    meta |= {"input_names": list(inputs), "output_names": list(outputs)}
    meta["keys"] = [[key, list(shape), "float32"] for key, shape in (shapes or {}).items()]
    arrays = {f"in.{name}": value for name, value in numpy(inputs).items()}
    known = {name: value for name, value in outputs.items() if value is not None}
    arrays |= {f"out.{name}": value for name, value in numpy(known).items()}
    arrays |= {f"gradin.{name}": value for name, value in numpy(gradients or {}).items()}
    return replay.Case("sibling", meta, arrays)


def check(*args, **kwargs):
    result = replay.run(recorded(*args, **kwargs))
    assert result.ok, (result.describe(), result.worst)


# A2J.

POST = "zhangboshen/A2J src/anchor.py post_process"


@pytest.mark.parametrize("depth", [True, False])
def test_votes_in_cells_of_any_size(depth):
    kwargs = {"shape": [3, 2], "stride": 8, "P_h": [1, 5], "P_w": [2, 7], "is_3D": depth}
    cells = [(8 * row, 8 * column) for column in range(2) for row in range(3)]
    anchors = torch.tensor([(y + a, x + b) for y, x in cells for a in (1, 5) for b in (2, 7)])
    inputs = {"cls": torch.randn(2, 24, 5), "reg": torch.randn(2, 24, 5, 2)}
    w = inputs["cls"].softmax(1)[..., None]
    joints = (w * (anchors[:, None] + inputs["reg"])).sum(1)
    means = (w * anchors[:, None]).sum(1)
    if depth:
        inputs["depth"] = torch.randn(2, 24, 5)
        joints = torch.cat([joints, (w[..., 0] * inputs["depth"]).sum(1)[..., None]], 2)
    check(POST, "post_process", kwargs, inputs, {"y": joints})

    target = torch.randn(2, 5, 3) * 10
    inputs["annotation"] = target
    regression = 0.1 * F.smooth_l1_loss(joints[..., :2], target[..., :2])
    if depth:
        regression = regression + (joints[..., 2] - target[..., 2]).abs().mean()
    anchor = F.smooth_l1_loss(means, target[..., :2])
    case = recorded(
        "zhangboshen/A2J src_train/anchor.py A2J_loss", "A2J_loss",
        kwargs | {"spatialFactor": 0.1}, inputs, {"anchor": None, "regression": None},
    )  # fmt: skip
    found = replay.find(case).call(*inputs.values())
    torch.testing.assert_close(torch.cat(found), torch.stack([anchor, regression]))


def test_joints_in_space():
    source = "ChanglongJiangGit/A2J-Transformer anchor.py generate_keypoints_coord_new"
    offset, weight, reference = (torch.randn(3, 2, 7, n) for n in (4 * 3, 4, 3))
    w = weight.softmax(2)[..., None]
    places = reference[..., None, :]
    joints = (w * (places + offset.unflatten(3, (4, 3)))).sum(2)
    inputs = {"offset": offset, "weight": weight, "reference": reference}
    outputs = {"joints": joints, "anchors": (w * places).sum(2)}
    check(source, "generate_keypoints_coord_new", {"num_joints": 4}, inputs, outputs)


@pytest.mark.parametrize("dataset", list(SPACES))
def test_anchors_of_every_data_set(dataset):
    source = "ChanglongJiangGit/A2J-Transformer anchor.py generate_all_anchors_3d"
    size, depths = SPACES[dataset]
    places = [7.5 + 16 * i for i in range(size)]
    anchors = torch.tensor([(x, y, z) for y in places for x in places for z in depths])
    check(source, "generate_all_anchors_3d", {"dataset": dataset}, {}, {"y": anchors})


# Graph convolutions.


def test_more_weights_of_the_mean_joint_than_joints():
    torch.manual_seed(0)
    long, short = (MultiScaleTemporalConv(12, 12, mean_joint=n).eval() for n in (25, 17))
    nn.init.normal_(long.add_coeff)
    state = long.state_dict()
    short.load_state_dict(state | {"add_coeff": state["add_coeff"][:17]})
    x = torch.randn(2, 12, 8, 17)
    torch.testing.assert_close(long(x), short(x))


# Contrast.


@pytest.mark.parametrize("topk", [1, 3])
def test_mined_losses(topk):
    queries, k = torch.randn(3, 6, 32), unit(torch.randn(6, 32))
    queue = unit(torch.randn(40, 32)).T.contiguous()
    logits = [torch.cat([(q * k).sum(1, keepdim=True), q @ queue], 1) for q in map(unit, queries)]
    logits = [z / 0.1 for z in logits]
    positive = torch.zeros(6, 41)
    positive[:, 0] = 1
    for z in logits:
        positive[:, 1:].scatter_(1, z[:, 1:].topk(topk, 1).indices, 1)
    ce = -((logits[0].log_softmax(1) * positive).sum(1) / positive.sum(1)).mean()

    def follow(z, target):
        return -(z.log_softmax(1) * target.softmax(1)).sum(1).mean()

    kwargs = {"T": 0.1, "K": 40, "topk": topk, "nnm": True}
    repositories = {
        "HiCLR": ("JHang2020/HiCLR net/hiclr.py HiCLR", ("q", "q1", "q2", "k"), logits[1]),
        "AimCLR": ("3Dwe-ai/ms-clr net/aimclr.py AimCLR", ("q", "k", "qe", "qed"), logits[0]),
    }
    for name, (source, names, last) in repositories.items():
        given = [*queries, k] if name == "HiCLR" else [queries[0], k, *queries[1:]]
        inputs = dict(zip(names, given, strict=True)) | {"queue": queue}
        terms = [ce, follow(logits[1], logits[0]), follow(logits[2], last)]
        expected = [terms[0] + (terms[1] + terms[2]) / 2, *terms]
        case = recorded(source, f"{name} loss", kwargs, inputs, {})
        found = replay.find(case).call(*inputs.values())[:4]
        torch.testing.assert_close(torch.cat(list(found)), torch.stack(expected))


def test_other_edges():
    A = torch.rand(2, 3, 25, 25) * (torch.rand(2, 3, 25, 25) < 0.9)
    drawn = (torch.rand_like(A) < 0.1).float()
    added = A + drawn * (A == 0) * A.mean()
    source = "JHang2020/HiCLR net/dsta.py STAttentionBlock.randadd"
    inputs = {"A": A, "drawn": drawn}
    check(source, "randadd", {"add_graph": 0.05}, inputs, {"y": added * A.sum() / added.sum()})
    kept, rate = 1 - drawn, torch.tensor([0.1])
    inputs = {"A": A, "kept": kept, "rate": rate}
    source = "JHang2020/HiCLR net/st_gcn.py Model.drop_graph"
    check(source, "drop_graph", {"dropout_graph": 0.2}, inputs, {"y": A * kept / 0.9})


DSTA = {
    "num_point": 25, "num_frame": 6, "num_subset": 2, "num_person": 2, "attentiondrop": 0.5,
    "use_temporal_att": False, "config": [[16, 16, 8, 1], [16, 32, 8, 2]],
}  # fmt: skip


def step_of(model, source, kind, kwargs, inputs, kept, note=""):
    """The replay of a step by a model of the keys of ``model``, loaded."""
    shapes = {key: part.shape for key, part in published_keys(model).items()}
    case = recorded(source, kind, kwargs, inputs, {}, shapes, note=note)
    case.arrays.update({f"kept.{name}": value for name, value in numpy(kept).items()})
    found = replay.find(case)
    found.module.published_keys = found.keys
    load_published(found.module, case.state())
    return found


def test_step_of_a_transformer():
    stages = [block[1:] for block in DSTA["config"]]
    model = HiCLR(num_frames=6, encoder="dsta", encoder_kwargs={"stages": stages, "heads": 2},
                  width=16, queue_size=32)  # fmt: skip
    kwargs = DSTA | {"base_encoder": "net.dsta.DSTANet", "transformer": True, "nnm": True}
    kwargs |= {"topk": 2, "feature_dim": 16, "queue_size": 32, "Temperature": 0.1, "momentum": 1.0}
    views = [torch.randn(4, 3, 6, 25, 2) for _ in range(4)]
    queue = unit(torch.randn(32, 16)).T.contiguous()
    mask = (torch.rand(1, 6, 1, 25, 1) < 0.9).float().expand(4, 6, 2, 25, 3)
    inputs = {f"x{i + 1}": view for i, view in enumerate(views)} | {"mask": mask, "queue": queue}
    kept = {"queue": queue, "queue_ptr": torch.tensor([8])}
    found = step_of(model, "JHang2020/HiCLR net/hiclr.py HiCLR", "HiCLR", kwargs, inputs, kept)
    found.module.eval()
    loss, *terms, pushed, _ = found.call(*inputs.values())
    assert torch.allclose(loss, terms[0] + (terms[1] + terms[2]) / 2)
    torch.testing.assert_close(pushed.T, unit(found.module.encoder_k(views[1])))


@pytest.mark.parametrize("modality", ["motion", "bone"])
@pytest.mark.parametrize("farthest", [False, True])
@pytest.mark.parametrize("mlp", [False, True])
def test_step_on_another_stream(modality, farthest, mlp):
    model = HaLP(hidden_size=8, num_layers=1, width=16, mlp=mlp, queue_size=32, prototypes=20)
    kwargs = {"hidden": 8, "K": 32, "m": 0.99, "T": 0.1, "mu": 1.0, "modality": modality}
    kwargs |= {"lambda_pos": 1000 if farthest else 0.8, "num_positives": 10}
    queue, prototypes = unit(torch.randn(32, 16)).T.contiguous(), unit(torch.randn(20, 16))
    x = torch.randn(4, 3, 5, 25, 2)
    x[:, :, :, 20] = 0  # of which bones take nothing away
    inputs = {"xq": x, "xk": x.flip(2), "queue": queue, "prototypes": prototypes}
    inputs |= {"pick": torch.randint(19, (4, 10)), "u": 0.8 * torch.rand(4, 10)}
    kept = {"queue": queue, "queue_ptr": torch.tensor([12]), "prototypes": prototypes}
    source = "anshulbshah/HaLP moco/builder_single_modality_halp.py MoCo.forward"
    found = step_of(model, source, "MoCo", kwargs, inputs, kept)
    leaf = x.requires_grad_()
    loss, ce, positives, logits, *_ = found.call(*(inputs | {"xq": leaf}).values())
    loss.sum().backward()
    assert torch.allclose(loss, ce + positives)
    assert torch.allclose(ce, F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)))
    # A motion does not see where the clip is, a bone sees no common shift of the body.
    axis = 2 if modality == "motion" else 3
    scale = leaf.grad.abs().sum(axis)
    assert (leaf.grad.sum(axis).abs() <= 1e-3 * scale.max()).all()


@pytest.mark.parametrize("mlp", [False, True])
def test_step_of_two_skeletons(mlp):
    sizes = {"base_channels": 2, "width": 8, "queue_size": 16, "mlp": mlp}
    model = MSCLR("ntu25", ["smplx42"], **sizes)
    kwargs = {"skeletons": ["ntu-rgb+d", "smplx_42"], "base_encoder": "net.st_gcn_flex.FlexModel"}
    kwargs |= {"mlp": mlp, "feature_dim": 8, "queue_size": 16, "hidden_channels": 2}
    kwargs |= {"hidden_dim": 32, "q_skeleton": "smplx_42", "k_skeleton": "ntu-rgb+d"}
    queue = unit(torch.randn(16, 8)).T.contiguous()
    views = {name: torch.randn(4, 3, 6, 42, 2) for name in ("x_strong", "x_q", "x_k")}
    inputs, kept = views | {"queue": queue}, {"queue": queue, "queue_ptr": torch.tensor([8])}
    source = "3Dwe-ai/ms-clr net/aimclr.py AimCLR.forward"
    found = step_of(model, source, "AimCLR", kwargs, inputs, kept)
    found.module.eval()
    loss, *terms, pushed, ema = found.call(*inputs.values())
    assert torch.allclose(loss, terms[0] + (terms[1] + terms[2]) / 2)
    assert pushed.shape == (8, 4) and ema.shape == (8,)


def test_positives_towards_the_closest_prototypes():
    kwargs = {"lambda_pos": "0.8", "mu": 2.0, "T": 0.07, "num_positives": 9}
    k, q, prototypes = (unit(torch.randn(n, 32)) for n in (5, 5, 20))
    inputs = {"k": k, "q": q, "prototypes": prototypes}
    inputs |= {"pick": torch.randint(6, (5, 9)), "u": torch.rand(5, 9)}
    names = {"num_closest_to_ignore_positives": 6, "skip_closest_positives": 3}
    source = "anshulbshah/HaLP moco/generator.py pos_generator"
    case = recorded(source, "pos_generator", kwargs | names, inputs, {"l_pos": None})
    (found,) = replay.find(case).call(*inputs.values())
    every = inputs | {"pick": inputs["pick"] + 11}  # of 20, the closest six but for three
    case = recorded(source, "pos_generator", kwargs, inputs, {"l_pos": None})
    (expected,) = replay.find(case).call(*every.values())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("share", [0.95, 0.8])
def test_crop_of_a_test(share):
    x, frames = torch.randn(3, 3, 100, 25, 2), torch.tensor([100, 81, 40])
    clips = []
    for clip, n in zip(x, frames.tolist(), strict=True):
        start = int((1 - share) * n / 2)
        part = clip[:, start : n - start].permute(0, 2, 3, 1).flatten(0, 2)
        resized = F.interpolate(part[None], size=64, mode="linear", align_corners=False)
        clips.append(resized.view(3, 25, 2, 64).permute(0, 3, 1, 2))
    source = "anshulbshah/HaLP feeder/augmentations.py crop_subsequence"
    inputs = {"x": x, "num_frames": frames}
    kwargs = {"l_ratio": [share]}
    check(source, "crop_subsequence", kwargs, inputs, {"y": torch.stack(clips)})


def test_augmentations_that_the_release_leaves_out():
    x, style = torch.randn(2, 2, 3, 5, 25, 1)
    (var, mean), (s_var, s_mean) = (torch.var_mean(t, 3, keepdim=True) for t in (x, style))
    y = (x - mean) / (var + 1e-5).sqrt() * (s_var + 1e-5).sqrt() + s_mean
    source = "JHang2020/HiCLR net/skeletonAdaIN.py AdaIN"
    check(source, "AdaIN", {"dim": "V"}, {"content": x, "style": style}, {"y": y})
    kwargs = {"mask_ratio": 0.25, "person_num": 2, "joint_num": 6, "channel_num": 3}
    mask = torch.ones(4, 6)
    mask[:, [1, 4]] = 0
    source = "JHang2020/HiCLR processor/utils.py"
    check(f"{source} Jointmask2", "Jointmask2", kwargs, {"idx": torch.tensor([4, 1])}, {"m": mask})
    mask = torch.ones(4, 6)
    mask[2] = 0
    order = torch.tensor([1, 0, 3, 2])
    check(f"{source} TemporalMask", "TemporalMask", kwargs, {"perm": order}, {"m": mask})


def test_a_strong_view_without_some_steps():
    x, order = torch.randn(2, 3, 4, 25, 1), list(get_layout("ntu25").mirror)
    inputs = {"x": x, "u_flip": torch.tensor([0.2, 0.7]), "u_axis": torch.tensor([0.9, 0.1])}
    inputs["axis"] = torch.tensor([0, 2])
    y = torch.stack([x[0][:, :, order], x[1] * torch.tensor([1, 1, 0]).view(3, 1, 1, 1)])
    kwargs = {"shear_amplitude": 0, "temperal_padding_ratio": 0, "aug_method": "15"}
    source = "JHang2020/HiCLR feeder/ntu_feeder.py Feeder_triple._strong_aug"
    check(source, "strong_aug", kwargs, inputs, {"y": y})


@pytest.mark.parametrize("relative", [True, False])
def test_preparation_without_turning(relative):
    x, T = torch.randn(3, 20, 25, 2), 8
    y = x - x[:, :, 20:21] * relative
    flat = y.permute(0, 2, 3, 1).flatten(0, 2)
    y = F.interpolate(flat[None], size=T, mode="linear").view(3, 25, 2, T).permute(0, 3, 1, 2)
    kwargs = {"data_type": "relative" if relative else "normal", "sampling": "resize"}
    kwargs |= {"t_length": T, "y_rotation": False, "displacement": 1}
    inputs, source = {"x": x, "length": torch.tensor(20)}, "JHang2020/HiCLR feeder/NTUDatasets.py"
    case = recorded(source, "NTUMotionProcessor", kwargs, inputs, {"position": y, "motion": None})
    torch.testing.assert_close(replay.find(case).call(*inputs.values())[0], y)
    kwargs |= {"sampling": "force_crop", "displacement": False}
    case = recorded(source, "NTUMotionProcessor", kwargs, inputs, {"position": y})
    (found,) = replay.find(case).call(*inputs.values())
    torch.testing.assert_close(found, (x - x[:, :, 20:21] * relative)[:, :T])
    case = recorded(source, "NTUMotionProcessor", kwargs | {"displacement": 2}, inputs, {})
    with pytest.raises(replay.NotUnderstood, match="displacement"):
        replay.find(case)


POSES = "firework8/BRL brl/datasets/pipelines/pose_related.py"


@pytest.mark.parametrize("source", [POSES, "kennymckormick/pyskl pose_related.py"])
def test_transforms_of_poses(source):
    x, T = torch.randn(3, 2, 4, 20, 3), 4
    order = list(get_layout("nw_ucla20").mirror)
    u = torch.tensor([0.1, 0.9, 0.5])
    y = torch.stack([x[0][:, :, order], x[1], x[2]])
    kwargs = {"dataset": "nw_ucla", "p": 0.5}
    check(f"{source} Spatial_Flip", "Spatial_Flip", kwargs, {"x": x, "u": u}, {"y": y})
    drawn = torch.rand(3, 3) * 2 - 1
    y = x * (1 + 0.1 * drawn)[:, None, None, None]
    check(f"{source} RandomScale", "RandomScale", {"scale": 0.1}, {"x": x, "u": drawn}, {"y": y})
    flat, angle = torch.randn(2, T, 17, 2), torch.tensor([0.3])
    c, s = angle.cos(), angle.sin()
    y = torch.stack([c * flat[..., 0] - s * flat[..., 1], s * flat[..., 0] + c * flat[..., 1]], -1)
    check(f"{source} RandomRot", "RandomRot", {}, {"x": flat, "theta": angle}, {"y": y})


def test_modalities_of_other_joints():
    x = torch.randn(2, 5, 20, 3)
    parents = list(get_layout("nw_ucla20").parents)
    bone = x - x[:, :, parents]
    motion = F.pad(bone.diff(dim=1), (0, 0, 0, 0, 0, 1))
    source = f"{POSES} GenSkeFeat"
    check(source, "GenSkeFeat", {"dataset": "nw_ucla"}, {"x": x}, {"bm": motion, "b": bone})
    parents = list(get_layout("coco20").parents)
    bone = x - x[:, :, parents]
    bone[..., 2] = (x[..., 2] + x[:, :, parents, 2]) / 2
    motion = F.pad(bone.diff(dim=1), (0, 0, 0, 0, 0, 1))
    source = "firework8/ACLNet pose_related.py GenSkeFeat"
    check(source, "GenSkeFeat", {"dataset": "coco_new"}, {"x": x}, {"b": bone, "bm": motion})
    with pytest.raises(replay.NotUnderstood, match="nw_ucla20 with"):
        case = recorded(
            source, "GenSkeFeat", {"dataset": "nw_ucla"}, {"x": x[:, :, :9]}, {"b": None}
        )
        replay.find(case)


def test_joints_that_are_added_to_poses():
    x = torch.randn(2, 5, 17, 3)
    hip, shoulder = x[:, :, 11:13].mean(2), x[:, :, 5:7].mean(2)
    y = torch.cat([x, torch.stack([hip, (hip + shoulder) / 2, shoulder], 2)], 2)
    source = "firework8/ACLNet pose_related.py Kinetics_Transform"
    check(source, "Kinetics_Transform", {}, {"x": x}, {"y": y})


# Transformers.


def test_attention_is_scaled_by_its_width():
    shapes = {"qkv.weight": (36, 12), "proj.weight": (12, 12), "proj.bias": (12,)}
    qkv, proj, bias = (torch.from_numpy(rule_value(key, shape)) for key, shape in shapes.items())
    x = torch.randn(2, 7, 12)
    q, k, v = (x @ qkv.T).view(2, 7, 3, 3, 4).permute(2, 0, 3, 1, 4)
    y = ((q @ k.mT / math.sqrt(4)).softmax(-1) @ v).transpose(1, 2).flatten(2) @ proj.T + bias
    kwargs = {"dim": 12, "num_heads": 3, "qk_scale": 0.1}
    source = "maoyunyao/MAMP model_mamp/transformer.py Attention"
    check(source, "Attention", kwargs, {"x": x}, {"y": y}, shapes)


def test_cross_attention_of_the_first_version():
    attention, norm = nn.MultiheadAttention(16, 4, batch_first=True), nn.LayerNorm(16)
    parts = {"cross_attention": attention, "norm": norm}
    shapes = {f"{a}.{key}": v.shape for a, m in parts.items() for key, v in m.state_dict().items()}
    for prefix, module in parts.items():
        for key, value in module.named_parameters():
            value.data = torch.from_numpy(rule_value(f"{prefix}.{key}", value.shape))
    Q, K, V = torch.randn(3, 2, 6, 16)
    y = norm(Q + attention(Q, K, V)[0])
    source = "YP4AIresearch/CascadeFormer cascadeformer_1_0/finetuning.py SimpleCrossAttention"
    kwargs = {"d_model": 16, "nhead": 4, "dropout": 0.1}
    inputs = {"Q": Q, "K": K, "V": V}
    check(source, "SimpleCrossAttention", kwargs, inputs, {"y": y}, shapes)


def test_arguments_that_coordinates_do_not_need():
    kwargs = {"num_joints": 5, "num_frames": 8, "dim_feat": 16, "decoder_dim_feat": 16}
    kwargs |= {"depth": 1, "decoder_depth": 1, "num_heads": 2}
    inputs, losses = {"x": torch.randn(1, 3, 8, 5, 2), "noise": torch.rand(2, 10)}, []
    for motion in ({}, {"motion_stride": 2, "motion_aware_tau": 0.8}):
        forward = {"forward": {"mask_ratio": 0.5} | motion}
        source = "maoyunyao/MAMP model_mae/transformer.py"
        case = recorded(source, "Transformer", kwargs | forward, inputs, {"loss": None})
        torch.manual_seed(0)
        losses += replay.find(case).call(*inputs.values())
    torch.testing.assert_close(*losses)


# Heat-maps.


def test_limbs_and_joints_of_another_skeleton():
    keypoint, score = 4 + 8 * torch.rand(1, 2, 5, 2), torch.rand(1, 2, 5)
    source = "kennymckormick/pyskl:pyskl/datasets/pipelines/heatmap_related.py"
    inputs = {"keypoint": keypoint, "keypoint_score": score, "hw": torch.tensor([16, 16])}
    kwargs = {"with_kp": True, "sigma": 2.0}
    place, near = torch.arange(16.0), []
    for m in keypoint[0, ..., None].unbind(2):
        inside = (place >= (m - 6).trunc().clamp(min=0)) & (place < (m + 6).trunc() + 1)
        near.append((-((place - m) ** 2) / 8).exp() * inside)
    y = score[0, ..., None, None] * near[1][..., None] * near[0][..., None, :]
    check(source, "GeneratePoseTarget", kwargs, inputs, {"y": y})
    limbs = {"with_kp": False, "with_limb": True, "skeletons": [[0, 1], [3, 4]]}
    case = recorded(source, "GeneratePoseTarget", limbs, inputs, {"y": None})
    drawn = replay.find(case).call(*inputs.values())
    assert drawn.shape == (2, 2, 16, 16)
    ends = score[0][:, [[0, 1], [3, 4]]].amin(-1)
    assert (drawn.amax((2, 3)) <= ends + 1e-6).all() and (drawn.amax((2, 3)) > 0.5 * ends).all()
