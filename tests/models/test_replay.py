"""Published results, replayed through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from skelops.testing import replay
from skelops.testing.rule import rule_value

CASES = Path(__file__).parents[3] / "shared" / "golden" / "cases"
KINDS = ("ctrgcn_*", "pyskl_*", "hypergcn_*", "psumnet_*", "brl_*")
DYNAMICS = ("lagrange_*", "lady_*", "physmop_*")
DATA = (
    "feeder_*",
    "hiclr_aug*",
    "hiclr_joint_mask",
    "hiclr_preprocess",
    "halp_aug*",
    "halp_pre_normalization",
    "aclnet_modalities",
    "aclnet_p*",
    "aclnet_random*",
    "aclnet_spatial*",
    "aclnet_uniform*",
    "epamnet_uniform*",
    "mamp_feeder*",
    "msclr_flip_orders",
)
SELF_SUPERVISED = ("mamp_[!f]*", "mamp_finetune*", "stars_*")
MASKING = ("cascadeformer_*", "graphmae_*")
FILES = sorted(
    path
    for pattern in (*KINDS, *DYNAMICS, *DATA, *MASKING, *SELF_SUPERVISED)
    for path in CASES.glob(f"{pattern}.npz")
)
# Of a dozen layers of 512 to 600 channels: replayed by the best backends only.
LARGE = "cascadeformer_1?_ntu_*"
golden = pytest.mark.skipif(not FILES, reason="golden cases are not at hand")


@golden
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_results(path, backend, capsys):
    if backend == "reference" and path.match(LARGE + ".npz"):
        pytest.skip("takes long, and its ops have other cases")
    options = ["--backend", backend] if backend else []
    assert replay.main([str(path), *options]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.rstrip().endswith("ok")


@golden
def test_the_file_name_does_not_matter(tmp_path, capsys):
    path = tmp_path / "anything.npz"
    path.write_bytes((CASES / "ctrgcn_unit_gcn_3_64.npz").read_bytes())
    assert replay.main([str(path)]) == 0
    assert capsys.readouterr().out.startswith("anything ")


def write(path, **changes):
    """A small case of a temporal convolution whose result is not true."""
    keys = {"conv.weight": [4, 4, 3, 1], "conv.bias": [4]}
    meta = {"source": "kennymckormick/pyskl tcn.py unit_tcn", "class": "unit_tcn", "note": ""}
    meta |= {"kwargs": {"kernel_size": 3, "norm": None}, "output_names": ["y"]}
    meta |= {"keys": [[k, s, "float32"] for k, s in keys.items()], "input_names": ["x"]}
    arrays = {"in.x": np.ones((2, 4, 5, 6), np.float32), "out.y": np.ones((2, 4, 5, 6))}
    np.savez(path, meta=json.dumps(meta | changes), **arrays)


def test_wrong_results_fail(tmp_path, capsys):
    write(tmp_path / "case.npz")
    assert replay.main([str(tmp_path / "case.npz")]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [{"source": "nobody/nothing a.py"}, {"kwargs": {"norm": None, "causal": True}}, {"keys": []}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_not_understood(tmp_path, capsys, changes):
    write(tmp_path / "case.npz", **changes)
    assert replay.main([str(tmp_path / "case.npz")]) == 1
    assert "not understood" in capsys.readouterr().out


def test_rule():
    assert rule_value("bn.num_batches_tracked", ()) == 0
    assert rule_value("bn.running_var", (100,)).min() >= 1
    assert rule_value("bn.weight", (1000,)).mean() == pytest.approx(1, abs=0.02)
    assert rule_value("conv.weight", (50, 40, 5, 1)).std() == pytest.approx(200**-0.5, rel=0.05)
    assert np.array_equal(rule_value("a.bias", (5,)), rule_value("a.bias", (5,)))
