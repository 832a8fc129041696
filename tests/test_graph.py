"""Layouts: consistency of every table, and the graphs of the published implementations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from skelops.graph import (
    BODY_PARTS,
    Layout,
    body_part,
    conversion,
    get_layout,
    list_layouts,
    register_layout,
)

SHARED = Path(__file__).parents[2] / "shared"
CASES = SHARED / "golden" / "cases"
MSCLR = ("smplx42", "berkeley_mhad43")  # published without being trees or symmetric
BODIES = (
    "ntu25", "coco17", "coco20", "openpose18", "openpose25", "nw_ucla20", "h36m17", "smpl24",
    "mediapipe33", "halpe26",
)  # fmt: skip


@pytest.mark.parametrize("name", list_layouts())
def test_tables_are_consistent(name):
    layout = get_layout(name)
    V = layout.num_joints
    assert name.endswith(str(V)) and not name.removesuffix(str(V))[-1].isdigit()
    assert len(layout.joint_names) == len(set(layout.joint_names)) == V
    if name in MSCLR:
        return
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
        if path.name.startswith(("ctrgcn_model", "pyskl_", "brl_stgcnpp", "psumnet_")):
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
        if "stream" in meta["kwargs"]:
            A = get_layout(f"ntu25_{meta['kwargs']['stream']}").adjacency("spatial")
        elif config is None:
            A = get_layout("ntu25").adjacency("spatial")
        else:
            layout = get_layout(layouts[config["layout"]])
            A = layout.adjacency(config["mode"], parents=layout.graph_parents)
        np.testing.assert_allclose(A.numpy(), table, rtol=1e-6, err_msg=f"{case} {key}")
        count += 1
    assert count >= 66


@pytest.mark.skipif(not CASES.is_dir(), reason="golden cases are not at hand")
def test_published_conventions_of_msclr():
    names = {"ntu": "ntu25", "smplx_42": "smplx42", "berkeley_mhad_43": "berkeley_mhad43"}
    orders, graphs = np.load(CASES / "msclr_flip_orders.npz"), np.load(CASES / "msclr_graphs.npz")
    for published, name in names.items():
        layout = get_layout(name)
        assert layout.mirror == tuple(orders[f"out.{published}"])
        A = graphs[f"out.A_{published.replace('ntu', 'ntu-rgb+d')}"]
        np.testing.assert_allclose(layout.adjacency("stgcn_spatial").numpy(), A, atol=1e-7)


def test_whole_bodies_are_bodies_with_face_and_hands():
    for name, body in (("halpe136", "halpe26"), ("ntu_x67", "openpose25")):
        whole, part = get_layout(name), get_layout(body)
        assert whole.parents[: part.num_joints] == part.parents
        assert whole.joint_names[: part.num_joints] == part.joint_names
    face = get_layout("coco_wholebody133").mirror[23:91]
    # Pairs of landmarks of the jaw, a brow, an eye and the lips; the bridge of the nose stays.
    assert [face[v] - 23 for v in (0, 17, 36, 41, 48, 59, 67)] == [16, 26, 45, 46, 54, 55, 65]
    assert [face[v] - 23 for v in (8, 27, 30, 33, 51, 57, 62, 66)] == [
        8,
        27,
        30,
        33,
        51,
        57,
        62,
        66,
    ]
    for name, left, right in (("coco_wholebody133", 91, 112), ("halpe136", 94, 115)):
        layout = get_layout(name)
        assert layout.parents[left] == 9 and layout.parents[right] == 10
        assert layout.mirror[left + 8] == right + 8


def matrix(source, target):
    index, weight = conversion(source, target)
    assert index.dtype == torch.int64 and weight.dtype == torch.float32
    W = torch.zeros(len(index), get_layout(source).num_joints)
    return W.scatter_add_(1, index, weight)


@pytest.mark.parametrize("source", BODIES)
def test_conversions_of_bodies(source):
    mirror = list(get_layout(source).mirror)
    for target in BODIES:
        W = matrix(source, target)
        torch.testing.assert_close(W.sum(1), torch.ones(len(W)))
        mirrored = W[list(get_layout(target).mirror)][:, mirror]
        assert torch.equal(mirrored, W), target
        for v, name in enumerate(get_layout(target).joint_names):
            if any(word in name for word in ("elbow", "wrist", "knee", "ankle")):
                assert W[v].max() == 1 and get_layout(source).joint_names[W[v].argmax()] == name


@pytest.mark.parametrize("name", list_layouts())
def test_conversion_to_itself(name):
    index, weight = conversion(name, name, strict=True)
    assert index[:, 0].tolist() == list(range(len(index))) and weight.tolist() == [[1.0]] * len(
        index
    )


def test_conversion_takes_means_and_ancestors():
    xyz = torch.randn(5, 17, 3)
    index, weight = conversion("coco17", "h36m17")
    pose = (xyz[:, index] * weight[..., None]).sum(-2)
    hips, shoulders = xyz[:, 11:13].mean(1), xyz[:, 5:7].mean(1)
    torch.testing.assert_close(pose[:, 0], hips)
    torch.testing.assert_close(pose[:, 8], shoulders)
    torch.testing.assert_close(pose[:, 7], (hips + shoulders) / 2)
    torch.testing.assert_close(pose[:, 10], xyz[:, 3:5].mean(1))  # head between the ears
    hands = matrix("coco17", "ntu25")
    names = get_layout("ntu25").joint_names
    for name in ("left_hand", "left_hand_tip", "left_thumb"):
        assert hands[names.index(name)].nonzero().tolist() == [[9]]  # the wrist
    with pytest.raises(
        ValueError, match=r"conversion: expected joints that coco17 tells, got left_h"
    ):
        conversion("coco17", "ntu25", strict=True)
    with pytest.raises(
        ValueError, match=r"conversion: expected joints that hand21 tells, got nose"
    ):
        conversion("hand21", "coco17")
    assert matrix("openpose25", "h36m17")[8, 1] == 1  # its neck is between the shoulders
    assert matrix("ntu25", "openpose25")[1].nonzero().tolist() == [[20]]


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the recordings are not at hand")
def test_conversion_of_a_recorded_pose():
    with np.load(SHARED / "data" / "ui_prmd_mini.npz") as archive:
        xyz = torch.tensor(archive["xyz"][:5, archive["ntu25_index"]], dtype=torch.float32)
    index, weight = conversion("ntu25", "coco17")
    pose = (xyz[:, index] * weight[..., None]).sum(-2)
    back = (pose[:, conversion("coco17", "ntu25")[0]]
            * conversion("coco17", "ntu25")[1][..., None]).sum(-2)  # fmt: skip
    distance = (back - xyz).norm(dim=-1).mean(0)
    limbs = [4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18]
    assert distance[limbs].max() == 0
    assert distance.max() < 0.25  # metres: hands, feet and the trunk stay near


# Published bones (child, parent) of parts, counted from 1 but for SHREC, whose code takes 1 off all
# the same: a later pair replaces the bone of an earlier one, and all are edges of the graph.
NTU_X = {
    "body": """1,2 3,2 4,3 5,4 6,2 7,6 8,7 9,2 10,9 11,10 12,11 13,9 14,13 15,14 16,1 17,1 18,16
    19,17 20,15 21,20 22,15 23,12 24,23 25,12 26,4 27,26 28,27 29,26 30,26 31,26 32,7 33,32 34,32
    35,32 36,32 37,32""",
    "hand": """2,1 3,2 7,3 5,4 6,5 28,6 4,1 8,7 9,8 10,9 11,10 12,7 13,12 14,13 15,14 16,7 17,16
    18,17 19,18 20,7 21,20 22,21 23,22 24,7 25,24 26,25 27,26 29,28 30,29 31,30 32,31 33,28 34,33
    35,34 36,35 37,28 38,37 39,38 40,39 41,28 42,41 43,42 44,43 45,28 46,45 47,46 48,47""",
    "leg": "2,1 3,2 4,3 5,4 6,4 7,6 8,1 9,8 10,9 11,10 12,10 13,12",
}
PAIRS = {("ntu_x67", part): text for part, text in NTU_X.items()} | {
    ("ntu25", "hand"): "2,1 3,2 4,3 5,4 6,5 7,5 8,1 9,8 10,9 11,10 12,11 13,11",
    ("ntu25", "leg"): "2,1 3,2 4,3 5,4 5,1 6,5 7,6 8,7",
    ("shrec22", "hand"): """0,1 1,2 2,3 3,4 4,5 1,6 6,7 7,8 8,9 1,10 10,11 11,12 12,13 1,14 14,15
    15,16 16,17 1,18 18,19 19,20 20,21""",
}


@pytest.mark.parametrize(("layout", "part"), PAIRS)
def test_published_parts(layout, part):
    found = body_part(layout, part)
    V = len(found.joints)
    pairs = [[int(v) - 1 for v in pair.split(",")] for pair in PAIRS[layout, part].split()]
    bones, links = list(range(V)), torch.zeros(V, V, dtype=torch.float64)
    for child, parent in pairs:
        bones[child] = parent % V
        links[parent, child] = 1
    assert found.layout.parents == tuple(bones)
    A = [links / links.sum(0).clamp(min=1), links.T / links.sum(1).clamp(min=1)]
    expected = torch.stack([torch.eye(V, dtype=torch.float64), *A])
    assert torch.equal(found.layout.adjacency("spatial", torch.float64), expected)


def test_joints_of_parts():
    assert body_part("ntu25", "hand").joints == (20, 4, 5, 6, 7, 21, 22, 8, 9, 10, 11, 23, 24)
    hand = body_part("ntu_x67", "hand").joints
    assert hand == (*range(2, 8), *range(46, 67), *range(25, 46))
    body = body_part("ntu_x67", "body").joints[25:]
    assert body == (46, 50, 54, 58, 62, 66, 25, 29, 33, 37, 41, 45)
    leg = (8, 9, 10, 11, 24, 22, 23, 12, 13, 14, 21, 19, 20)
    assert body_part("ntu_x67", "leg").joints == leg


@pytest.mark.parametrize("name", ["nw_ucla20", "ui_prmd22", "coco17", "openpose18", "smpl24"])
def test_parts_of_other_layouts(name):
    """The limbs of both sides, hung on the joint where they meet, with the bones of the whole."""
    whole = get_layout(name)
    for part, limb in (("hand", "arm"), ("leg", "leg")):
        cut = body_part(name, part)
        assert cut.layout is not whole and get_layout(f"{name}_{part}") == cut.layout
        root, *limbs = cut.joints
        assert sorted(limbs) == sorted(whole.parts[f"left_{limb}"] + whole.parts[f"right_{limb}"])
        assert cut.layout.parents[0] == 0
        assert cut.layout.joint_names == tuple(whole.joint_names[v] for v in cut.joints)
        ends = {whole.parts[f"{side}_{limb}"][0] for side in ("left", "right")}
        for v, parent in zip(cut.joints, cut.layout.parents, strict=True):
            above = cut.joints[parent]
            assert above == whole.graph_parents[v] or (v in ends and above == root) or v == root
    body = body_part(name, "body")
    assert body.joints == tuple(range(whole.num_joints)) and body.layout.parents == whole.parents


def test_what_has_no_such_part():
    assert body_part("hand21", "hand").layout.num_joints == 21
    has = r"a layout with the part leg, got hand21 \(palm, thumb"
    with pytest.raises(ValueError, match=f"body_part: expected {has}"):
        body_part("hand21", "leg")
    with pytest.raises(ValueError, match=r"with the part body, got smplx42 \(no parts\)"):
        body_part("smplx42", "body")
    with pytest.raises(ValueError, match=r"expected part in .*, got 'foot'"):
        body_part("ntu25", "foot")
    with pytest.raises(ValueError, match=r"get_layout: expected one of .*, got 'ntu25_foot'"):
        get_layout("ntu25_foot")
    assert set(BODY_PARTS) == {"body", "hand", "leg"}
