"""farthest_point_sample: what it covers, ties, points that are none, and how it refuses."""

import re

import pytest
import torch

from skelops import farthest_point_sample


def test_every_choice_is_the_farthest():
    points = torch.rand(2, 500, 3, dtype=torch.float64)
    chosen = farthest_point_sample(points, 40, start=17)
    assert (chosen[:, 0] == 17).all()
    for cloud, index in zip(points, chosen, strict=True):
        for k in range(1, 40):
            distance = torch.cdist(cloud, cloud[index[:k]]).amin(1)
            assert distance[index[k]] == pytest.approx(distance.max().item())


def test_ties_go_to_the_first():
    corners = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    assert farthest_point_sample(corners[None], 4).tolist() == [[0, 1, 2, 4]]


def test_too_few_distinct_points_repeat_the_first():
    points = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 0, 0.0]])
    assert farthest_point_sample(points[None], 3).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_points_that_are_not_finite(bad):
    points = torch.rand(1, 20, 3)
    points[0, 5, 1] = bad
    chosen = farthest_point_sample(points, 19)[0].tolist()
    assert sorted(chosen) == [i for i in range(20) if i != 5]
    assert farthest_point_sample(points, 2, start=5)[0, 0] == 5


def test_padding_at_the_origin():
    points = torch.rand(2, 30, 3) + 1
    points[:, 20:] = 0
    chosen = farthest_point_sample(points, 20, skip_origin=True)
    assert (chosen.sort(1).values == torch.arange(20)).all()
    assert farthest_point_sample(points, 2)[0, 1] >= 20


@pytest.mark.parametrize(
    "args, error, message",
    [
        ((torch.zeros(2, 5, 2), 3), ValueError, "points of shape (N, L, 3), got (2, 5, 2)"),
        ((torch.zeros(2, 5, 3), 6), ValueError, "count from 1 to the 5 points, got 6"),
        ((torch.zeros(2, 5, 3), 0), ValueError, "count from 1 to the 5 points, got 0"),
        ((torch.zeros(2, 5, 3).long(), 3), TypeError, "points"),
        ((torch.zeros(2, 5, 3, requires_grad=True), 3), TypeError, "requires no gradient"),
    ],
)
def test_bad_input(args, error, message):
    with pytest.raises(error, match=re.escape(message)) as raised:
        farthest_point_sample(*args)
    assert str(raised.value).startswith("farthest_point_sample: expected")


def test_bad_start():
    with pytest.raises(ValueError, match="start from 0 to 4, got 5"):
        farthest_point_sample(torch.zeros(1, 5, 3), 2, start=5)
