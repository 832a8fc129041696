"""ball_query: the first points inside, what fills the slots, and how it refuses."""

import re

import pytest
import torch

from skelops import ball_query


def test_first_points_inside():
    query, points = torch.rand(2, 21, 3, dtype=torch.float64), torch.rand(2, 300, 3).double()
    index, count = ball_query(query, points, 0.4, 16)
    inside = torch.cdist(query, points) < 0.4
    assert torch.equal(count, inside.sum(2).clamp(max=16))
    for n in range(2):
        for q in range(21):
            hits = inside[n, q].nonzero()[:16, 0].tolist()
            expected = hits + [hits[0] if hits else 0] * (16 - len(hits))
            assert index[n, q].tolist() == expected


def test_the_surface_is_outside():
    points = torch.tensor([[0.5, 0, 0], [0, 0.25, 0]])[None]
    index, count = ball_query(torch.zeros(1, 1, 3), points, 0.5, 2)
    assert index.tolist() == [[[1, 1]]] and count.tolist() == [[1]]


def test_nothing_inside():
    index, count = ball_query(torch.zeros(1, 2, 3), torch.ones(1, 9, 3), 0.5, 4)
    assert not index.any() and not count.any()


def test_points_that_are_none_are_outside():
    points = torch.full((1, 9, 3), torch.nan)
    points[0, 4] = 0
    index, count = ball_query(torch.zeros(1, 1, 3), points, 1e30, 3)
    assert index.tolist() == [[[4, 4, 4]]] and count.tolist() == [[1]]


@pytest.mark.parametrize(
    "args, error, message",
    [
        ((torch.zeros(2, 5, 3), torch.zeros(2, 5), 1.0, 3), ValueError, "points of shape"),
        ((torch.zeros(2, 5, 3), torch.zeros(2, 5, 3), 0.0, 3), ValueError, "radius > 0, got 0.0"),
        ((torch.zeros(2, 5, 3), torch.zeros(2, 4, 3), 1.0, 5), ValueError, "k from 1 to the 4"),
        ((torch.zeros(2, 5, 3), torch.zeros(2, 4, 3).half(), 1.0, 3), TypeError, "points"),
    ],
)
def test_bad_input(args, error, message):
    with pytest.raises(error, match=re.escape(message)) as raised:
        ball_query(*args)
    assert str(raised.value).startswith("ball_query: expected")
