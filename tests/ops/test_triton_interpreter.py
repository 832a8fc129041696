"""Triton kernels at sizes that do not fit their tiles, by Triton's interpreter, on the CPU.

The interpreter has to be chosen before Triton is imported: outside it, one test runs this file in
a process of its own. It has no bfloat16 product.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from skelops import _backend
from skelops._library import OPS, _as_tuple
from skelops.testing import compare, contract
from skelops.testing.cases import cases_for

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the interpreter's process")

F16, F32, F64 = torch.float16, torch.float32, torch.float64
CASES = [
    ("affinity_contrastive_loss", F32, dict(N=5, K=1050, D=17, classes=9)),
    ("affinity_contrastive_loss", F32, dict(N=3, K=70, classes=70, affinity=0.1, own=False)),
    ("affinity_contrastive_loss", F16, dict(N=7, K=33, D=40, eps=0.0, layout="transposed")),
    ("graph_conv", F32, dict(N=2, C=5, D=7, T=1, V=17, K=1)),
    ("graph_conv", F32, dict(N=1, C=19, D=21, T=64, V=25, K=3, transposed=True)),
    ("graph_conv", F32, dict(N=2, C=3, D=33, T=13, V=67, K=3, bias="output")),
    ("graph_conv", F32, dict(N=3, D=5, T=13, V=20, K=3, weight=False, per_sample=True)),
    ("graph_conv", F32, dict(N=2, C=5, D=3, T=13, V=20, K=3, layout="transposed")),
    ("graph_conv", F16, dict(N=2, C=33, D=70, T=13, V=25, K=3)),
    ("graph_conv", F16, dict(N=1, C=67, D=5, T=13, V=17, K=3, per_sample=True, transposed=True)),
    ("graph_conv", F16, dict(N=1, C=5, D=3, T=3, V=100, K=2)),
    ("ctr_graph_conv", F32, dict(N=2, C=5, D=19, R=3, T=13, V=17, K=3)),
    ("ctr_graph_conv", F32, dict(N=1, C=3, D=5, R=17, T=64, V=20, K=1, transposed=True)),
    ("ctr_graph_conv", F32, dict(N=1, C=3, D=18, R=4, T=1, V=67, K=2, per_sample=True)),
    ("ctr_graph_conv", F32, dict(N=1, D=3, R=65, T=2, V=18, K=6, weight=False)),  # S not held
    ("ctr_graph_conv", F32, dict(N=2, D=5, T=13, V=25, K=8, refine=None, weight=False)),
    ("ctr_graph_conv", F32, dict(N=2, C=5, D=3, R=4, T=13, V=20, K=3, layout="transposed")),
    ("ctr_graph_conv", F16, dict(N=2, C=33, D=19, R=8, T=20, V=25, K=3)),
    ("ctr_graph_conv", F16, dict(N=1, C=67, D=5, R=8, T=13, V=17, K=3, transposed=True)),
    ("hypergraph_conv", F32, dict(N=3, C=32, D=48, T=13, V=25, Q=3, K=2)),
    ("hypergraph_conv", F32, dict(N=2, C=15, D=3, T=1, V=17, Q=0, K=3, bias=False)),
    ("hypergraph_conv", F32, dict(N=5, C=10, D=20, T=9, V=20, Q=5, K=2, per_sample=False)),
    ("hypergraph_conv", F32, dict(N=2, C=6, D=4, T=13, V=50, Q=1, K=1, layout="transposed")),
    ("hypergraph_conv", F16, dict(N=2, C=128, D=96, T=13, V=25, Q=3, K=4)),
    ("hypergraph_conv", F16, dict(N=9, C=40, D=20, T=70, V=20, Q=0, K=1, layout="expanded")),
    ("ms_temporal_conv", F32, dict(N=1, C=5, widths=(17, 3), pool=9, plain=1, T=13, V=17, k=5)),
    ("ms_temporal_conv", F32, dict(N=2, C=3, T=64, V=25, stride=2, replicate=True)),
    ("ms_temporal_conv", F32, dict(N=2, C=3, T=1, V=67, dilations=(1, 4), k=5, replicate=True)),
    ("ms_temporal_conv", F32, dict(N=2, C=3, T=13, V=20, layout="transposed", training=False)),
    ("ms_temporal_conv", F16, dict(N=1, C=5, widths=(67, 5), pool=3, T=13, V=20, stride=3)),
    ("bn_act_add", F32, dict(N=9, C=3, T=64, V=25, residual="norm", mean=50.0, relu=False)),
    ("bn_act_add", F32, dict(N=5, C=17, T=1, V=17, residual="plain")),
    ("bn_act_add", F32, dict(N=2, C=5, T=13, V=67, residual="norm", layout="transposed")),
    ("bn_act_add", F16, dict(N=5, C=3, T=13, V=20, residual="plain", training=False)),
    ("bn_act_add", F64, dict(N=3, C=3, T=13, V=25, residual="norm")),
    ("bn_act_add", F32, dict(N=3, C=5, T=13, V=25, residual="norm", dropped=20000)),
    ("bn_act_add", F16, dict(N=2, C=3, T=5, V=20, residual="plain", dropped=32768)),
    ("sym_packed_matvec", F32, dict(N=3, n=34)),
    ("sym_packed_matvec", F16, dict(N=2, n=130, layout="transposed")),
    ("sym_packed_matvec", F64, dict(N=2, n=7)),
    ("hyper_adjacency", F32, dict(N=2, K=3, D=4, W=28, topk=9, rows=25)),
    ("hyper_adjacency", F32, dict(N=5, K=2, D=8, W=23, topk=9, rows=20, virtual=3)),
    ("hyper_adjacency", F32, dict(N=1, K=1, D=3, W=53, topk=40, layout="transposed")),
    ("hyper_adjacency", F32, dict(N=17, K=1, D=1, W=1, topk=1)),
    ("hyper_adjacency", F16, dict(N=2, K=2, D=16, W=28, topk=9, rows=25)),
    ("mixup_cross_entropy", F32, dict(N=700, K=120)),
    ("mixup_cross_entropy", F32, dict(N=9, K=400, mix="sample", weight=False)),
    ("mixup_cross_entropy", F32, dict(N=65, K=1100, mix="sample", outside=True)),
    ("mixup_cross_entropy", F32, dict(N=17, K=60, mix=None, smoothing=0.0)),
    ("mixup_cross_entropy", F32, dict(N=5, K=60, weightless=True)),
    ("mixup_cross_entropy", F16, dict(N=13, K=67, layout="sliced")),
    ("mixup_cross_entropy", F64, dict(N=13, K=17, mix="sample", layout="transposed")),
    ("pose_heatmap", F32, dict(N=3, M=3, V=20, H=33, W=65, limbs=((0, 5), (7, 9)), flip=True)),
    ("pose_heatmap", F32, dict(N=2, M=1, V=5, H=64, W=3, sigma=2.0, pixels=False, flip=True)),
    ("pose_heatmap", F32, dict(N=1, M=2, T=1, V=67, H=1, W=1)),
    ("pose_heatmap", F16, dict(N=2, M=2, V=17, H=40, W=40, sigma=1.1, layout="transposed")),
    ("random_uniform", F32, dict(N=3, count=67)),
    ("random_uniform", F32, dict(N=1, count=130, seed=-(2**63), stream=2**31 - 1, epoch=2**31 - 1)),
    ("skeleton_streams", F32, dict(T=300, V=25, kinds=(0, 0, 1, 1), parents=(-1, 0, -1, 0))),
    ("skeleton_streams", F32, dict(C=1, T=1, V=67, M=1, part=13, kinds=(1, 0), parents=(0, 1))),
    ("skeleton_streams", F16, dict(N=3, V=22, kinds=(0, 1), parents=(-2, 0), root=3)),
    ("skeleton_streams", F32, dict(V=17, kinds=(0, 1), parents=(0, 0), result=F16)),
    ("skeleton_streams", F64, dict(V=20, part=9, kinds=(0, 1), parents=(0, 1), layout="sliced")),
    ("shift_conv", F32, dict(N=2, C=37, T=5, shape=(7, 6), fold=9, outputs=70)),
    ("shift_conv", F16, dict(N=3, C=4, T=1, shape=(5,), fold=2)),
    ("temporal_shift", F32, dict(N=2, C=17, T=9, shape=(31, 17), fold=4)),
    ("temporal_shift", F16, dict(N=3, C=4, T=1, shape=(5,), fold=2, reverse=True)),
    ("st_attention", F32, dict(N=2, L=75, H=2, D=32, V=25, joint_bias=True, lags=1)),
    ("st_attention", F32, dict(N=1, L=130, H=1, D=50, V=10, window=2)),
    ("st_attention", F32, dict(N=2, L=60, H=2, D=3, V=20, window=0, hops=2, masked="keys")),
    ("st_attention", F32, dict(N=1, L=68, H=2, D=16, V=17, hops=1, window=1, joint_bias=True)),
    ("st_attention", F32, dict(N=2, L=34, H=2, D=5, V=17, same_joint=True, lags=0)),
    ("st_attention", F32, dict(N=2, L=37, D=20, V=25, grid=150, joint_bias=True, lags=5)),
    ("st_attention", F32, dict(N=4, D=7, V=17, ragged=(51, 0, 17), behind=3, window=0)),
    ("st_attention", F16, dict(N=1, L=97, H=2, D=75, masked="sample")),
    ("anchor_regression", F32, dict(N=3, A=300, V=25, D=3, extra=False, shared=False)),
    ("anchor_regression", F32, dict(N=1, A=1000, V=17)),
    ("anchor_regression", F16, dict(N=2, A=67, V=15, layout="transposed")),
    ("farthest_point_sample", F32, dict(N=2, L=300, count=20, start=3)),
    ("farthest_point_sample", F16, dict(N=1, L=67, count=9, layout="transposed")),
    ("knn", F32, dict(N=2, Q=19, L=300, k=9)),
    ("knn", F16, dict(N=1, Q=3, L=67, k=5, layout="transposed")),
    ("ball_query", F32, dict(N=2, Q=19, L=700, k=70, radius=1.4)),
    ("ball_query", F16, dict(N=1, Q=3, L=67, k=5, layout="transposed")),
    ("temporal_mean", F32, dict(N=2, C=5, T=300, V=25)),
    ("temporal_mean", F16, dict(N=3, C=33, T=1, V=67)),
    ("temporal_mean", F64, dict(N=2, C=3, T=13, V=20, layout="transposed")),
    ("motion_mask", F32, dict(N=2, T=28, V=25, C=3, segment=4, keep=17)),
    ("motion_mask", F32, dict(N=2, T=28, V=25, C=3, segment=4, keep=17, exact=True)),
    ("motion_mask", F32, dict(N=3, T=12, V=17, C=2, segment=12, keep=5, layout="transposed")),
    ("motion_mask", F16, dict(N=2, T=20, V=20, C=3, segment=5, keep=79, absent=True)),
    ("slot_mask", F32, dict(N=3, T=13, V=25, C=3)),
    ("slot_mask", F16, dict(N=2, T=5, V=17, C=19, layout="transposed")),
    ("part_mask", F32, dict(N=3, T=13, V=17, C=64, per_clip=True)),
    ("part_mask", F32, dict(N=67, T=1, V=20, C=130)),
    ("part_mask", F16, dict(N=2, T=5, V=25, C=3, layout="transposed")),
    ("masked_patch_embed", F32, dict(N=3, T=28, V=25, C=3, segment=4, K=17, D=70)),
    ("masked_patch_embed", F32, dict(N=2, T=24, V=20, C=3, segment=8, ids=False, D=33)),
    ("masked_patch_embed", F32, dict(N=2, T=17, V=17, C=2, segment=1, bias=False, D=130, K=40)),
    ("masked_patch_embed", F32, dict(N=2, T=8, V=17, C=2, segment=8, places=False, D=3, K=5)),
    ("masked_patch_embed", F16, dict(N=3, T=28, V=25, C=3, segment=4, K=40, D=50)),
    ("token_restore", F32, dict(N=5, T=7, V=25, K=17, D=70)),
    ("token_restore", F32, dict(N=2, T=3, V=17, K=0, D=300)),
    ("token_restore", F16, dict(N=3, T=5, V=20, K=99, D=32, layout="transposed")),
    ("motion_target", F32, dict(N=3, T=28, V=25, C=3, segment=4)),
    ("motion_target", F32, dict(N=2, T=24, V=20, C=3, segment=8, stride=5)),
    ("motion_target", F16, dict(N=2, T=12, V=17, C=2, segment=3, stride=0, layout="transposed")),
    ("motion_target", F32, dict(N=2, T=6, V=17, C=3, segment=2, stride=9, normalise=False)),
    ("masked_motion_loss", F32, dict(N=3, T=28, V=25, C=3, segment=4)),
    ("masked_motion_loss", F32, dict(N=2, T=24, V=20, C=3, segment=8, stride=5)),
    ("masked_motion_loss", F16, dict(N=2, T=12, V=17, C=2, segment=3, stride=0)),
    ("masked_motion_loss", F32, dict(N=2, T=13, V=20, segment=1, normalise=False, stride=40)),
    ("masked_motion_loss", F32, dict(N=2, T=8, V=17, C=3, segment=4, share=1.0)),
    ("masked_cosine_loss", F32, dict(N=3, T=13, V=17, C=64, per_clip=True)),
    ("masked_cosine_loss", F32, dict(N=67, T=1, V=20, C=130, beta=3.0, literal=True)),
    ("masked_cosine_loss", F16, dict(N=2, T=5, V=25, C=19, beta=1.5, layout="transposed")),
    ("masked_cosine_loss", F32, dict(N=2, T=3, V=17, C=3, beta=1.0)),
    ("deform_sample_3d", F32, dict(N=1, T=5, H=6, W=7, G=2, C=20, Q=70, P=1, weight=False)),
    ("deform_sample_3d", F32, dict(C=130, Q=9, P=3, zeros=True, reach=3.0, layout="transposed")),
    ("deform_sample_3d", F16, dict(N=1, H=7, W=9, C=33, Q=19, full_loc=True)),
    ("mcu_scan", F32, dict(S=2, N=19, T=3, D=20)),
    ("mcu_scan", F32, dict(S=1, N=5, T=3, D=150)),
    ("mcu_scan", F32, dict(S=1, N=17, T=2, D=260, start=False, reset_after=True)),
    ("mcu_scan", F32, dict(S=1, N=3, T=2, D=37, start=False, reset_after=True)),
    ("mcu_scan", F16, dict(N=5, D=40, norm=False, layout="transposed")),
    ("narrow_ffn", F32, dict(N=131, C=24, H=300)),
    ("narrow_ffn", F32, dict(N=67, C=33, H=130, dropped=9000)),
    ("narrow_ffn", F16, dict(N=70, C=24, H=256, dropped=6554, layout="transposed")),
]


TRITON = sorted(op.name for op in OPS.values() if "triton" in op.gpu)
PARTS = 6  # of about a minute each


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="already in it")
@pytest.mark.parametrize("part", range(PARTS))
def test_in_a_process_of_its_own(part):
    chosen = " or ".join(f"[{name}- or [{name}]" for name in TRITON[part::PARTS])
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, __file__, "-k", chosen],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def evaluate(forward, backward, op, args):
    """Outputs and all gradients, the gradient of the first output being drawn from a fixed seed."""
    outputs = _as_tuple(forward(*args))
    results = dict(zip(op.outputs, outputs, strict=True))
    if not op.has_backward_op:
        return results
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(outputs[0].shape, dtype=F64, generator=generator).to(outputs[0])
    saved = [outputs[op.outputs.index(name)] for name in op.saved]
    needs = sum((args[k] is not None) << i for i, k in enumerate(op.grad_index))
    grads = _as_tuple(backward(grad, *args, *saved, needs))
    return results | {f"grad of {n}": g for n, g in zip(op.grads, grads, strict=True)}


def kernels(name):
    module = _backend._module("triton", name)
    return module.forward, getattr(module, "backward", None)


@interpreted
@pytest.mark.parametrize("name, dtype, dims", CASES, ids=lambda v: str(v).replace("torch.", ""))
def test_agrees_with_reference(name, dtype, dims):
    op = OPS[name]
    args = cases_for(name)[0].make(dtype, **dims)
    exact = contract._to(args, F64)
    got = evaluate(*kernels(name), op, args)
    eager = evaluate(op.reference, op.backward_reference, op, args)
    for key, e in evaluate(op.reference, op.backward_reference, op, exact).items():
        assert got[key].shape == e.shape and got[key].is_contiguous(), key
        e = e.double()
        same = (e == got[key]) & (e == eager[key]) & e.isinf()  # inf - inf is not a number
        e, found, theirs = (t.double().where(~same, 0) for t in (e, got[key], eager[key]))
        # Gradients of biases before a normalisation cancel to nothing: measured by their terms.
        size = e.norm() + (1e-3 * eager["out"].numel() ** 0.5 if "bias" in key else 0)
        allowed = 2 * (theirs - e).norm() + compare.FLOOR[dtype] * size
        assert (found - e).norm() <= allowed, key


@interpreted
@pytest.mark.parametrize("name", TRITON)
def test_empty_batch(name):
    op = OPS[name]
    args = cases_for(name)[0].make(F32, N=0)
    got = evaluate(*kernels(name), op, args)
    for key, e in evaluate(op.reference, op.backward_reference, op, args).items():
        torch.testing.assert_close(got[key], e, equal_nan=True, msg=key)


@interpreted
@pytest.mark.parametrize("name", ["bn_act_add", "ms_temporal_conv"])
def test_rectifier_and_maximum_pass_nan(name):
    args = list(cases_for(name)[0].make(F32, training=False, T=5))
    args[0][0, 0, 2, 0] = torch.nan
    got = _as_tuple(kernels(name)[0](*args))[0]
    expected = _as_tuple(OPS[name].reference(*args))[0]
    assert expected.isnan().any()
    torch.testing.assert_close(got.isnan(), expected.isnan())
