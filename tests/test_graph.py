"""Layouts: consistency of every table, and the graphs of the published implementations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from skelops.graph import Layout, get_layout, list_layouts, register_layout

CASES = Path(__file__).parents[2] / "shared" / "golden" / "cases"


@pytest.mark.parametrize("name", list_layouts())
def test_tables_are_consistent(name):
    layout = get_layout(name)
    V = layout.num_joints
    assert str(V) == "".join(c for c in name if c.isdigit())[-2:]
    assert len(layout.joint_names) == len(set(layout.joint_names)) == V
    assert torch.isfinite(layout.hop_distances()).all()
    assert torch.isfinite(layout.hop_distances(layout.graph_parents)).all()
    assert len(layout.bones) == V - 1
    assert sorted(v for joints in layout.parts.values() for v in joints) == list(range(V))
    assert 2 * len(layout.left_right) == sum(
        "left" in n or "right" in n for n in layout.joint_names
    )
    for left, right in layout.left_right:
        names = layout.joint_names[left], layout.joint_names[right]
        assert names[0].replace("left", "right") == names[1], names
    mirrored = {layout.mirror[v]: layout.mirror[p] for v, p in enumerate(layout.parents)}
    assert all(mirrored[v] == p for v, p in enumerate(layout.parents))


def test_spatial_columns():
    A = get_layout("ntu25").adjacency("spatial", torch.float64)
    assert torch.equal(A[0], torch.eye(25, dtype=torch.float64))
    assert A[1, 20, 4] == 1  # one parent
    assert A[2, 4, 20] == 0.25  # four children: 1, 2, 4, 8
    columns = A.sum(1)
    assert torch.equal(columns[1] == 0, torch.arange(25) == 20)


def test_stgcn_spatial_sums_to_the_normalised_neighbourhood():
    layout = get_layout("coco17")
    A = layout.adjacency("stgcn_spatial")
    binary = layout.adjacency("binary")[0]
    torch.testing.assert_close(A.sum(0), binary / binary.sum(0))
    assert ((A > 0).sum(0) <= 1).all()
    # Only pairs at the centre can be told apart.
    assert set(A[2].nonzero()[:, 0].tolist()) <= {0, *binary[0].nonzero()[:, 0].tolist()}


def test_layout_by_hand_and_from_edges():
    chain = Layout("chain", parents=(0, 0, 1, 2))
    assert chain.joint_names[3] == "joint_3" and chain.center == 0
    assert chain.hop_distances()[0].tolist() == [0, 1, 2, 3]
    ring = Layout.from_edges("ring", [(0, 1), (1, 2), (2, 3), (3, 0)], center=1)
    assert ring.parents[1] == 1 and len(ring.extra_edges) == 1
    assert torch.equal(ring.adjacency("binary")[0].sum(0), torch.full((4,), 3.0))
    split = Layout.from_edges("split", [(2, 3)], num_joints=5)
    assert split.hop_distances()[0, 1] == float("inf")
    register_layout(chain)
    try:
        assert get_layout("chain") is chain and get_layout(chain) is chain
    finally:
        from skelops import graph

        del graph._LAYOUTS["chain"]


def test_errors():
    with pytest.raises(ValueError, match=r"get_layout: expected one of .*ntu25.*, got 'ntu'"):
        get_layout("ntu")
    with pytest.raises(ValueError, match="expected joints 0 to 1, got \\[2\\]"):
        Layout("bad", parents=(0, 2))
    with pytest.raises(ValueError, match="expected 2 joint_names, got 1"):
        Layout("bad", parents=(0, 0), joint_names=("a",))
    with pytest.raises(ValueError, match="adjacency: expected kind one of spatial"):
        get_layout("ntu25").adjacency("hyper")


def published_tables():
    for path in sorted(CASES.glob("*.npz")) if CASES.is_dir() else []:
        if path.name.startswith(("ctrgcn_model", "pyskl_", "brl_stgcnpp")):
            with np.load(path) as case:
                for key in case.files:
                    if key.startswith("kept.") and key.endswith(("A", "PA")):
                        yield path.stem, key, json.loads(str(case["meta"])), case[key]


@pytest.mark.skipif(not CASES.is_dir(), reason="golden cases are not at hand")
def test_published_tables():
    layouts = {"nturgb+d": "ntu25", "coco": "coco17"}
    count = 0
    for case, key, meta, table in published_tables():
        config = meta["kwargs"].get("backbone", {}).get("graph_cfg")
        if config is None:
            A = get_layout("ntu25").adjacency("spatial")
        else:
            layout = get_layout(layouts[config["layout"]])
            A = layout.adjacency(config["mode"], parents=layout.graph_parents)
        np.testing.assert_allclose(A.numpy(), table, rtol=1e-6, err_msg=f"{case} {key}")
        count += 1
    assert count >= 50
