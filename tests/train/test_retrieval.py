"""Retrieval: the protocols by hand, and what they refuse."""

import math

import pytest
import torch

from skelops.train.retrieval import casia_b, cross_view_rank1, reidentify

NAMES = ("nm-01", "nm-05", "bg-01", "cl-02")


def walks(subjects=3, views=2):
    """A one-hot feature per subject; those of view 1 in a coat look like the next one."""
    rows = [(s, n, v) for s in range(subjects) for n in NAMES for v in range(views)]
    looks = [(s + (n == "cl-02" and v == 1)) % subjects for s, n, v in rows]
    feature = torch.eye(subjects)[looks]
    subject, names, view = zip(*rows, strict=True)
    return feature, torch.tensor(subject), names, torch.tensor(view)


def test_casia_b():
    found = casia_b(*walks())
    assert found == {"NM": 1, "BG": 1, "CL": 0.5, "mean": pytest.approx(2.5 / 3)}


def test_identical_views_do_not_count():
    feature, subject, names, view = walks()
    here = torch.tensor([n == "nm-01" for n in names])
    rank1 = cross_view_rank1(feature, subject, view, here & (view == 0), ~here)
    assert rank1[:, 1].isnan().all() and (rank1[:, 0] < 1).any()
    keep = (~here | (view == 0)) & (here | (view == 0))
    with pytest.raises(ValueError, match=r"^casia_b: expected probes of NM and a gallery of"):
        casia_b(feature[keep], subject[keep],
                [n for n, k in zip(names, keep, strict=True) if k], view[keep])  # fmt: skip


def test_reidentification():
    gallery = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    found = reidentify(
        torch.tensor([[1.0, 0.1], [0.1, 1.0]]),
        torch.tensor([0, 1]),
        gallery,
        torch.tensor([0, 1, 0]),
        ranks=(1, 2),
    )
    # Precisions: of the first query (1 + 2/3) / 2, of the second, whose match comes second, 1/2.
    assert found == {"rank1": 0.5, "rank2": 1.0, "mAP": pytest.approx((5 / 6 + 1 / 2) / 2)}


def test_the_own_camera_is_left_out():
    x = torch.eye(2)
    who, camera = torch.tensor([0, 0]), torch.tensor([0, 1])
    found = reidentify(x[:1], who[:1], x, who, camera[:1], camera)
    assert found["rank1"] == 1
    with pytest.raises(ValueError, match=r"^reidentify: expected a query with a match"):
        reidentify(x[:1], who[:1], x[:1], who[:1], camera[:1], camera[:1])
    with pytest.raises(ValueError, match=r"^reidentify: expected cameras of both sides"):
        reidentify(x[:1], who[:1], x, who, camera[:1])


def test_bad_input():
    feature, subject, names, view = walks()
    with pytest.raises(ValueError, match=r"^casia_b: expected 24 names of sequences, got 2"):
        casia_b(feature, subject, names[:2], view)
    with pytest.raises(ValueError, match=r"subject of shape \(N\) with N=24, got \(3,\)"):
        casia_b(feature, subject[:3], names, view)


def test_nothing_to_compare():
    none = torch.zeros(0, dtype=torch.int64)
    assert cross_view_rank1(torch.zeros(0, 4), none, none, none.bool(), none.bool()).shape == (0, 0)
    assert math.isnan(
        cross_view_rank1(torch.ones(1, 4), none.new_zeros(1), none.new_zeros(1),
                         torch.tensor([True]), torch.tensor([False]))[0, 0].item()
    )  # fmt: skip
