"""Every op is benchmarked, and what is benchmarked is right."""

from dataclasses import replace

import pytest
import torch

from benchmarks import measure, peers, run
from benchmarks.case import FORWARD, TRAINING, Draw, model_cases, op_cases
from benchmarks.network import STEP
from skelops._library import OPS

REGISTERED = [
    pytest.param(case.small(), direction, id=f"{work}-{case.name}-{direction}")
    for work, cases in {**op_cases(), **model_cases()}.items()
    for case in cases
    for direction in case.directions
]


def test_every_op_has_a_benchmark_with_targets():
    found = op_cases()
    assert set(found) == set(OPS)
    for name, cases in found.items():
        assert any(case.targets for case in cases), f"{name}: no target"


def test_names_are_unique():
    for work, cases in {**op_cases(), **model_cases()}.items():
        names = [case.name for case in cases]
        assert len(names) == len(set(names)), work
    labels = [c.headline for cs in {**op_cases(), **model_cases()}.values() for c in cs]
    labels = [label for label in labels if label]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("case, direction", REGISTERED)
def test_ours_and_peers_agree(case, direction):
    peers = [name for name in case.peers if name != "compile"]
    variants = case.variants(direction, peers, "cpu", torch.float32)
    truth = case.truth(direction, "cpu", torch.float32)
    errors = measure.check(variants, truth, 1e-4, case.slack)
    assert set(errors) == {"ours", *peers}
    for variant in variants.values():
        variant.run()
    flops, moved = case.work(direction, variants["ours"])
    assert flops > 0 and moved > 0


def test_pre_training_agrees_in_double_precision():
    case = model_cases()["hiclr"][0].small()
    variants = case.variants(STEP, ["eager"], "cpu", torch.float64)
    measure.check(variants, case.truth(STEP, "cpu", torch.float64), 1e-10)


@pytest.mark.parametrize("factor", [1.01, float("nan")])
@pytest.mark.parametrize("direction", [FORWARD, TRAINING])
def test_a_wrong_result_is_refused(factor, direction):
    case = op_cases()["graph_conv"][0].small()
    wrong = replace(case, ours=lambda x, A: case.ours(x, A) * factor)
    variants = wrong.variants(direction, ["eager"], "cpu", torch.float32)
    with pytest.raises(measure.Disagreement, match="ours: output"):
        measure.check(variants, wrong.truth(direction, "cpu", torch.float32), 1e-4)


def test_a_wrong_gradient_is_refused():
    case = op_cases()["graph_conv"][0].small()
    wrong = replace(case, ours=lambda x, A: case.ours(x, A.detach() + 0 * A))
    variants = wrong.variants(TRAINING, ["eager"], "cpu", torch.float32)
    with pytest.raises(measure.Disagreement, match="gradient of A"):
        measure.check(variants, wrong.truth(TRAINING, "cpu", torch.float32), 1e-4)


def test_draws_repeat():
    a, b = (Draw(seed=3).normal(4, 5) for _ in range(2))
    assert torch.equal(a, b) and a.requires_grad


def test_bytes_count_every_tensor_once():
    case = op_cases()["temporal_mean"][0].resized(B=2, C=4, T=8)
    variants = case.variants(TRAINING, [], "cpu", torch.float32)
    x, y = 2 * 4 * 8 * 25 * 4, 2 * 4 * 25 * 4
    assert case.work(FORWARD, variants["ours"])[1] == x + y
    assert case.work(TRAINING, variants["ours"])[1] == 3 * x + 2 * y


def test_skeleton_graph():
    A = peers.skeleton_graph()
    assert A.count_nonzero() == 25 + 24 + 24
    assert set(A.sum(1).flatten().round(decimals=5).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("peer", ["ours", "numpy"])
def test_a_wrong_batch_of_clips_is_refused(peer):
    case = next(c for c in op_cases()["sample_clips"] if "pipeline" in c.name).small()
    variants = case.variants(FORWARD, ["eager", "numpy"], "cpu", torch.float32)
    batch = variants[peer].outcome()["batch"]
    batch[0, 0, 0, 0] += 0.1
    variants[peer].outcome = lambda: {"batch": batch}
    with pytest.raises(measure.Disagreement, match=f"{peer}: batch"):
        measure.check(variants, case.truth(FORWARD, "cpu", torch.float32), 1e-4)


def test_a_pipeline_draws_and_goes_on_to_other_clips():
    case = next(c for c in op_cases()["sample_clips"] if "pipeline" in c.name).small()
    variants = case.variants(FORWARD, ["eager", "numpy"], "cpu", torch.float32)
    for name, variant in variants.items():
        first, second = variant.run(), variant.run()
        assert first.shape == second.shape and not torch.equal(first, second), name
        assert not torch.equal(first, variant.outcome()["batch"]), name


def test_uniform_numbers_of_another_distribution_are_refused():
    case = op_cases()["random_uniform"][0].small()
    variants = case.variants(FORWARD, ["eager"], "cpu", torch.float32)
    truth = case.truth(FORWARD, "cpu", torch.float32)
    assert measure.check(variants, truth, 1e-4) == {"ours": 0, "eager": 0}
    found = variants["ours"].outcome()["quantiles"]
    variants["ours"].outcome = lambda: {"quantiles": found**1.1}
    with pytest.raises(measure.Disagreement, match="ours: quantiles"):
        measure.check(variants, truth, 1e-4)


def test_a_peer_that_a_case_lacks_is_left_out():
    case = op_cases()["temporal_mean"][0].small()
    found, skipped = run._variants(
        "temporal_mean", case, FORWARD, ["eager", "numpy"], "cpu", torch.float32, 60.0
    )
    assert set(found) == {"ours", "eager"} and not skipped
