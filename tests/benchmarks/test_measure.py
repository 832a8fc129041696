"""The arithmetic of measuring, with clocks and variants that are known."""

import math

import pytest
import torch

from benchmarks import measure
from benchmarks.case import Variant
from skelops.testing.threads import threads


class Known(Variant):
    """Multiplies; keeps what autograd needs for that."""

    def __init__(self, factor=1.0, size=1000):
        self.x = torch.randn(size, requires_grad=True)
        self.weight = torch.randn(size, requires_grad=True)
        self.parameters = [self.weight]
        self.factor = factor
        self.runs = 0

    def run(self):
        self.runs += 1
        return torch.zeros(1000) + 1

    def graph(self):
        return (self.x * self.weight).exp()

    def outcome(self):
        return {"output": torch.ones(3) * self.factor}


def test_summary_has_median_and_quartiles():
    found = measure.summary([0.001, 0.002, 0.003, 0.004, 0.1])
    assert found["median"] == pytest.approx(3) and found["min"] == pytest.approx(1)
    assert found["p25"] <= found["median"] <= found["p75"] and found["n"] == 5


def test_ratio_pairs_rounds():
    # The machine slows down threefold in the middle; every round still says two.
    assert measure.ratio([2, 6, 6, 2, 2], [1, 3, 3, 1, 1]) == 2


def test_relative_error():
    truth = torch.tensor([3.0, 4.0])
    assert measure.relative_error(truth, truth) == 0
    assert measure.relative_error(truth * 1.5, truth) == pytest.approx(0.5)
    assert measure.relative_error(torch.tensor([math.nan, 4.0]), truth) == math.inf
    assert measure.relative_error(torch.zeros(3), truth) == math.inf


def test_interleave_takes_turns():
    order = []
    variants = {"a": Known(), "b": Known(), "c": Known()}
    names = {id(v): k for k, v in variants.items()}

    def clock(run):
        order.append(names[id(run.__self__)])
        run()
        return 1.0

    runs = {name: variant.run for name, variant in variants.items()}
    times = measure.interleave(runs, clock, 0, warm_up=1, least=3)
    assert {k: len(v) for k, v in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert order == list("abcbcacab")
    assert all(v.runs == 4 for v in variants.values())


def test_check_refuses_wrong_results():
    truth = {"output": torch.ones(3)}
    good = measure.check({"ours": Known(), "eager": Known()}, truth, 1e-4)
    assert good == {"ours": 0, "eager": 0}
    with pytest.raises(measure.Disagreement, match="ours: output"):
        measure.check({"ours": Known(1.01), "eager": Known()}, truth, 1e-4)
    with pytest.raises(measure.Disagreement, match="nothing was timed"):
        measure.check({"ours": Known(math.nan), "eager": Known()}, truth, 1e-4)


def test_check_allows_what_eager_loses():
    truth = {"output": torch.ones(3)}
    found = measure.check({"ours": Known(1.05), "eager": Known(1.03)}, truth, 1e-4)
    assert found["ours"] == pytest.approx(0.05)
    with pytest.raises(measure.Disagreement, match="ours"):
        measure.check({"ours": Known(1.07), "eager": Known(1.03)}, truth, 1e-4)


def test_saved_bytes_counts_storages_once_without_parameters():
    # x for the gradient of the weight, and the output of exp; the weight is the model's own.
    assert measure.saved_bytes(Known()) == 2 * 4000


def test_peak_bytes_counts_what_is_alive_together():
    def run():
        a = torch.empty(1000)
        b = torch.empty(1000)
        del a, b
        return torch.empty(500)

    assert 8000 <= measure.peak_bytes(run, "cpu") < 8400


def test_floor_is_the_larger_of_traffic_and_arithmetic():
    roofs = {"gb_s": 10, "gflop_s": 100}
    assert measure.floor_seconds(1e9, 1e9, roofs) == pytest.approx(0.1)
    assert measure.floor_seconds(1e11, 1e9, roofs) == pytest.approx(1)


def test_threads_are_restored():
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
