"""Packed units against ``skelops.testing.plain``, through the replay of published cases.

A case is recorded from a plain module as the golden ones are from published classes: weights by
the rule under published names, outputs in evaluation, gradients in training.
"""

import numpy as np
import pytest
import torch

from skelops.nn import make_stages
from skelops.testing import plain, replay
from skelops.testing.rule import rule_value

OFFICIAL = "Uason-Chen/CTR-GCN model/ctrgcn.py"
PYSKL = "kennymckormick/pyskl pyskl/models/gcns/utils"
HYPER = "6UOOON9/Hyper-GCN model/hypergcn_base.py"
N, T = 2, 7


def record(module, source, kind, kwargs, inputs):
    """What ``module`` computes, as a case; of several outputs the first."""

    def first(y):
        return y[0] if isinstance(y, tuple) else y

    module.double()
    state = module.state_dict()
    module.load_state_dict(
        {k: torch.from_numpy(rule_value(k, v.shape)).to(v.dtype) for k, v in state.items()}
    )
    arrays = {f"in.{name}": x.numpy() for name, x in inputs.items()}
    inputs = {name: x.double().requires_grad_() for name, x in inputs.items()}
    arrays["out.y"] = first(module.eval()(*inputs.values())).detach().numpy()
    y = first(module.train()(*inputs.values()))
    (y * torch.from_numpy(rule_value("probe.y", y.shape))).sum().backward()
    norms = {k: p.grad.norm().item() for k, p in module.named_parameters() if p.grad is not None}
    arrays["grad_key"], arrays["grad_l2"] = np.array(list(norms)), np.array(list(norms.values()))
    arrays |= {f"gradin.{name}": x.grad.numpy() for name, x in inputs.items()}
    meta = {"source": source, "class": kind, "kwargs": kwargs}
    meta |= {"keys": [[k, list(v.shape), str(v.dtype)] for k, v in state.items()]}
    meta |= {"input_names": list(inputs), "output_names": ["y"], "note": ""}
    return replay.Case(kind, meta, arrays)


def check(module, source, kind, kwargs, C, V, **inputs):
    torch.manual_seed(0)
    check_case(module, source, kind, kwargs, {"x": torch.randn(N, C, T, V), **inputs})


def check_case(module, source, kind, kwargs, inputs):
    case = record(module, source, kind, kwargs, inputs)
    result = replay.run(case)
    if not result.ok:
        result = replay.run(case, dtype=torch.float64)
    assert result.ok, result


@pytest.mark.parametrize("source", [OFFICIAL, PYSKL])
@pytest.mark.parametrize(("C", "out", "V", "R"), [(9, 16, 20, 8), (32, 24, 17, 4)])
def test_relation_conv(source, C, out, V, R):
    module = plain.Relation(C, out, R, transposed=source == PYSKL)
    kwargs = {"in_channels": C, "out_channels": out, "rel_reduction": 8}
    inputs = {"A": torch.randn(V, V), "alpha": torch.tensor([0.7])}
    check(module, source, "CTRGC", kwargs, C, V, **inputs)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("C", "out", "R"), [(3, 16, 8), (32, 32, 4), (16, 32, 2)])
def test_ctr_unit(C, out, R, residual):
    module = plain.RefinedUnit(C, out, 20, R, residual=residual)
    kwargs = {"in_channels": C, "out_channels": out, "residual": residual}
    check(module, OFFICIAL, "unit_gcn", kwargs, C, 20)
    if residual:
        module = plain.RefinedUnit(C, out, 17, R, transposed=True)
        kwargs = {"in_channels": C, "out_channels": out}
        check(module, f"{PYSKL}/gcn.py", "unit_ctrgcn", kwargs, C, 17)


def test_baseline_unit():
    source = "Uason-Chen/CTR-GCN model/baseline.py"
    check(plain.BaselineUnit(3, 16, 25), source, "unit_gcn", {"in_channels": 3}, 3, 25)


@pytest.mark.parametrize("adaptive", [None, "init", "offset", "importance"])
@pytest.mark.parametrize("conv_pos", ["pre", "post"])
@pytest.mark.parametrize(("C", "out", "with_res"), [(8, 8, True), (8, 12, True), (8, 12, False)])
def test_static_unit(adaptive, conv_pos, C, out, with_res):
    module = plain.StaticUnit(C, out, 17, adaptive, conv_pos == "post", with_res)
    kwargs = {"adaptive": adaptive, "conv_pos": conv_pos, "with_res": with_res}
    check(module, f"{PYSKL}/gcn.py", "unit_gcn", kwargs, C, 17)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize(("C", "out", "V"), [(3, 16, 25), (8, 8, 20)])
def test_adaptive_unit(adaptive, attention, C, out, V):
    module = plain.AdaptiveUnit(C, out, V, adaptive, attention)
    kwargs = {"in_channels": C, "out_channels": out, "adaptive": adaptive, "attention": attention}
    check(module, f"{PYSKL}/gcn.py", "unit_aagcn", kwargs, C, V)


@pytest.mark.parametrize("ctr", ["T", None])
@pytest.mark.parametrize("ada", ["T", None])
@pytest.mark.parametrize(("C", "out", "ratio", "K"), [(16, 16, 0.125, 8), (3, 24, 0.25, 3)])
def test_dynamic_unit(ctr, ada, C, out, ratio, K):
    module = plain.DynamicUnit(C, out, 20, ratio, ctr, ada, K)
    kwargs = {"ratio": ratio, "ctr": ctr, "ada": ada, "subsets": K}
    check(module, f"{PYSKL}/gcn.py", "dggcn", kwargs, C, 20)


@pytest.mark.parametrize("ctr", ["NA", "T", None])
@pytest.mark.parametrize("ada", ["NA", "T", None])
@pytest.mark.parametrize(
    "acts",
    [{}, {"ctr_act": "relu", "ada_act": "sigmoid"}, {"ctr_act": "softmax", "ada_act": "relu"}],
)
@pytest.mark.parametrize("subset_wise", [False, True])
def test_graphs_of_every_frame_and_subset(ctr, ada, acts, subset_wise):
    module = plain.DynamicUnit(6, 9, 5, 1 / 3, ctr, ada, 3, subset_wise, **acts)
    kwargs = {"ratio": None, "ctr": ctr, "ada": ada, "subset_wise": subset_wise} | acts
    check(module, f"{PYSKL}/gcn.py", "dggcn", kwargs, 6, 5)


@pytest.mark.parametrize(
    ("C", "out", "V", "Q", "K", "reduction"),
    [(64, 64, 25, 3, 8, 2), (32, 48, 20, 1, 4, 4), (48, 32, 17, 5, 2, 8), (32, 32, 25, 0, 8, 4)],
)
def test_hyper_unit(C, out, V, Q, K, reduction):
    module = plain.HyperUnit(C, out, V, Q, K, reduction)
    kwargs = {"in_channels": C, "out_channels": out, "vertex_nums": V, "virtual_num": Q}
    kwargs |= {"num_subset": K, "rel_reduction": reduction}
    check(module, HYPER, "HYPERGC", kwargs, C, V)


@pytest.mark.parametrize("source", [OFFICIAL, f"{PYSKL}/tcn.py", HYPER])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("C", "out", "k", "dilations"), [(24, 24, 3, (1, 2, 3, 4)), (8, 16, 5, (1, 3))]
)
@pytest.mark.parametrize("residual", [True, False])
def test_scales(source, stride, C, out, k, dilations, residual):
    relu, padding = source.startswith(PYSKL), "replicate" if source == HYPER else "zeros"
    module = plain.Scales(C, out, k, stride, dilations, residual, relu, padding)
    kwargs = {"kernel_size": k, "stride": stride, "dilations": list(dilations)}
    kwargs |= {"in_channels": C, "out_channels": out, "residual": residual}
    kind = "MSTCN" if relu else "MultiScale_TemporalConv"
    check(module, source, kind, kwargs, C, 25)


@pytest.mark.parametrize("source", [OFFICIAL, HYPER])
def test_kernel_of_the_residual(source):
    padding = "replicate" if source == HYPER else "zeros"
    module = plain.Scales(8, 16, 5, 2, (1, 2), padding=padding, residual_k=3)
    kwargs = {"kernel_size": 5, "stride": 2, "dilations": [1, 2], "residual_kernel_size": 3}
    check(module, source, "MultiScale_TemporalConv", kwargs, 8, 25)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("cfg", [None, [[5, 1], [3, 2], ["max", 3]], [[3, 1], [3, 4], "1x1"]])
@pytest.mark.parametrize("num_joints", [None, 17])
def test_transformed_scales(stride, cfg, num_joints):
    module = plain.TransformedScales(16, 20, stride, cfg, num_joints)
    kwargs = {"in_channels": 16, "out_channels": 20, "stride": stride}
    kwargs |= {"ms_cfg": cfg} if cfg else {}
    kwargs |= {"num_joints": num_joints} if num_joints else {}
    check(module, f"{PYSKL}/tcn.py", "dgmstcn" if num_joints else "mstcn", kwargs, 16, 17)


@pytest.mark.parametrize(("k", "stride", "dilation", "norm"), [(9, 2, 1, "BN"), (3, 1, 2, None)])
def test_temporal_conv(k, stride, dilation, norm):
    module = plain.ConvNorm(8, 12, k, stride, dilation, norm is not None)
    kwargs = {"in_channels": 8, "out_channels": 12, "kernel_size": k, "stride": stride}
    kwargs |= {"dilation": dilation, "norm": norm}
    check(module, f"{PYSKL}/tcn.py", "unit_tcn", kwargs, 8, 17)
    module = plain.ConvNorm(8, 12, k, stride, dilation, padding="replicate")
    del kwargs["norm"]
    check(module, HYPER, "TemporalConv", kwargs, 8, 17)


@pytest.mark.parametrize(
    ("C", "out", "stride", "residual"), [(16, 16, 1, True), (16, 32, 2, True), (3, 16, 1, False)]
)
def test_blocks(C, out, stride, residual):
    kwargs = {"in_channels": C, "out_channels": out, "stride": stride, "residual": residual}
    R = 8 if C == 3 else 2
    unit = plain.RefinedUnit(C, out, 20, R)
    tcn = plain.Scales(out, out, 5, stride, (1, 2), residual=False)
    module = plain.Block(unit, tcn, C, out, stride, residual)
    check(module, OFFICIAL, "TCN_GCN_unit", {**kwargs, "dilations": [1, 2]}, C, 20)
    unit = plain.RefinedUnit(C, out, 20, R, transposed=True)
    tcn = plain.Scales(out, out, 5, stride, (1, 2), residual=False, relu=True)
    module = plain.Block(unit, tcn, C, out, stride, residual)
    check(module, PYSKL, "CTRGCNBlock", kwargs, C, 20)
    names = ("gcn", "tcn")
    unit = plain.StaticUnit(C, out, 17, "init", residual=True)
    tcn = plain.TransformedScales(out, out, stride)
    module = plain.Block(unit, tcn, C, out, stride, residual, names)
    options = {"gcn_adaptive": "init", "gcn_with_res": True, "tcn_type": "mstcn"}
    check(module, PYSKL, "STGCNBlock", kwargs | options, C, 17)
    unit = plain.AdaptiveUnit(C, out, 17)
    module = plain.Block(unit, plain.ConvNorm(out, out, 9, stride), C, out, stride, residual, names)
    check(module, PYSKL, "AAGCNBlock", kwargs, C, 17)
    unit = plain.DynamicUnit(C, out, 17)
    tcn = plain.TransformedScales(out, out, stride, num_joints=17)
    module = plain.Block(unit, tcn, C, out, stride, residual, names)
    check(module, PYSKL, "DGBlock", kwargs | {"gcn_ratio": 0.125}, C, 17)


@pytest.mark.parametrize(("C", "out", "stride"), [(32, 32, 1), (32, 64, 2), (32, 32, 2)])
def test_hyper_block(C, out, stride):
    unit = plain.HyperUnit(C, out, 20)
    tcn = plain.Scales(out, out, 5, stride, (1, 2), residual=False, padding="replicate")
    kwargs = {"in_channels": C, "out_channels": out, "num_point": 20, "hyper_joints": 3}
    module = plain.HyperBlock(unit, tcn, C, out, stride)
    check(module, HYPER, "TCN_GCN_unit", kwargs | {"stride": stride}, C, 20)


def stack(block, stages, C):
    """Blocks for (channels, stride) stages from ``block(C, out, stride, residual)``."""
    blocks = []
    for i, (out, stride) in enumerate(stages):
        blocks.append(block(C, out, stride, i > 0))
        C = out
    return blocks


STAGES = [(16, 1), (16, 1), (32, 2)]


@pytest.mark.parametrize("baseline", [False, True])
def test_official_networks(baseline):
    V, M = 20, 1

    def block(C, out, stride, residual):
        if baseline:
            tcn = plain.ConvNorm(out, out, 5, stride)
            return plain.Block(plain.BaselineUnit(C, out, V), tcn, C, out, stride, residual)
        unit = plain.RefinedUnit(C, out, V, 8 if C == 9 else C // 8)
        tcn = plain.Scales(out, out, 5, stride, (1, 2), residual=False)
        return plain.Block(unit, tcn, C, out, stride, residual)

    module = plain.OfficialNet(stack(block, make_stages(), 9), 256, V, M, 9, 7)
    kwargs = {"num_class": 7, "num_point": V, "num_person": M, "in_channels": 9}
    kwargs |= {"graph": "graph.ucla.Graph", "graph_args": {"labeling_mode": "spatial"}}
    source = "Uason-Chen/CTR-GCN model/baseline.py" if baseline else OFFICIAL
    check_case(module, source, "Model", kwargs, {"x": torch.randn(1, 9, 8, V, M)})


@pytest.mark.parametrize("inflate", [(4,), (4, 7)])
def test_hyper_networks(inflate):
    V, M, C = 20, 1, 2
    module = plain.HyperNet(make_stages(32, 9, inflate, down=(4, 7)), V, M, C, 7, Q=2)
    kwargs = {"num_class": 7, "num_point": V, "num_person": M, "in_channels": C}
    kwargs |= {"graph": "graph.ucla.Graph", "hyper_joints": 2, "graph_args": {}}
    check_case(module, HYPER, "Model", kwargs, {"x": torch.randn(2, C, 8, V, M)})


def pyskl_case(name, V):
    """(block maker, backbone arguments, further arguments of ``plain.PysklNet``)."""

    def stgcn(C, out, stride, residual):
        unit = plain.StaticUnit(C, out, V, "offset", post=True, residual=True)
        tcn = plain.TransformedScales(out, out, stride, [(5, 1), (3, 2), ("max", 3), "1x1"])
        return plain.Block(unit, tcn, C, out, stride, residual, ("gcn", "tcn"))

    def aagcn(C, out, stride, residual):
        tcn = plain.TransformedScales(out, out, stride)
        unit = plain.AdaptiveUnit(C, out, V, attention=False)
        return plain.Block(unit, tcn, C, out, stride, residual, ("gcn", "tcn"))

    def ctrgcn(C, out, stride, residual):
        unit = plain.RefinedUnit(C, out, V, 8 if C <= 16 else C // 8, transposed=True)
        tcn = plain.Scales(out, out, 3, stride, (1, 3), residual=False, relu=True)
        return plain.Block(unit, tcn, C, out, stride, residual)

    def dgstgcn(C, out, stride, residual):
        tcn = plain.TransformedScales(out, out, stride, num_joints=V)
        unit = plain.DynamicUnit(C, out, V, 0.25, K=4)
        return plain.Block(unit, tcn, C, out, stride, residual, ("gcn", "tcn"))

    A = torch.zeros(3, V, V)
    options = {
        "STGCN": {"gcn_adaptive": "offset", "gcn_conv_pos": "post", "gcn_with_res": True}
        | {"tcn_type": "mstcn", "tcn_ms_cfg": [[5, 1], [3, 2], ["max", 3], "1x1"]},
        "AAGCN": {"tcn_type": "mstcn", "gcn_attention": False, "tcn_dropout": 0.2},
        "CTRGCN": {"kernel_size": 3, "dilations": [1, 3]},
        "DGSTGCN": {"gcn_ratio": 0.25, "data_bn_type": "MVC"},
    }[name]
    block = {"STGCN": stgcn, "AAGCN": aagcn, "CTRGCN": ctrgcn, "DGSTGCN": dgstgcn}[name]
    further = {"AAGCN": {"A": A}, "CTRGCN": {"A": A, "name": "net"}}.get(name, {})
    return block, options, further


@pytest.mark.parametrize("name", ["STGCN", "AAGCN", "DGSTGCN"])
def test_a_network_without_a_first_block(name):
    V, M, C = 17, 1, 16
    block, options, further = pyskl_case(name, V)
    stages = [block(C, 16, 1, True), block(16, 32, 2, True)]
    module = plain.PysklNet(stages, 32, V, 0, C, 6, **further)
    options |= {"type": name, "in_channels": C, "base_channels": C, "num_stages": 3}
    options |= {"inflate_stages": [3], "down_stages": [3], "data_bn_type": None}
    options |= {"graph_cfg": {"layout": "coco", "mode": "spatial"}}
    head = {"type": "GCNHead", "num_classes": 6, "in_channels": 32}
    kwargs = {"backbone": options, "cls_head": head}
    check_case(module, PYSKL, "Rec", kwargs, {"x": torch.randn(2, M, 8, V, C)})


@pytest.mark.parametrize("name", ["STGCN", "AAGCN", "CTRGCN", "DGSTGCN"])
def test_pyskl_networks(name):
    V, M, C = 17, 2, 2
    block, options, further = pyskl_case(name, V)
    features = None if name == "STGCN" else M
    module = plain.PysklNet(stack(block, STAGES, C), 32, V, features, C, 6, **further)
    options |= {"type": name, "in_channels": C, "num_person": M, "base_channels": 16}
    options |= {"num_stages": 3, "inflate_stages": [3], "down_stages": [3]}
    options |= {"graph_cfg": {"layout": "coco", "mode": "spatial"}}
    head = {"type": "GCNHead", "num_classes": 6, "in_channels": 32}
    kwargs = {"backbone": options, "cls_head": head}
    check_case(module, PYSKL, "Rec", kwargs, {"x": torch.randn(2, M, 8, V, C)})
