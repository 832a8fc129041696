"""knn: against all distances, ties, points that are none, and how it refuses."""

import re

import pytest
import torch

from skelops import knn


@pytest.mark.parametrize("L, k", [(1, 1), (9, 9), (300, 17), (513, 64)])
def test_nearest_first(L, k):
    query, points = torch.rand(2, 21, 3, dtype=torch.float64), torch.rand(2, L, 3).double()
    index, distance = knn(query, points, k)
    exact = torch.cdist(query, points).square()
    torch.testing.assert_close(distance, exact.sort(2).values[..., :k])
    torch.testing.assert_close(exact.gather(2, index), distance)


def test_ties_go_to_the_first():
    points = torch.zeros(1, 40, 3)
    points[0, 7] = 1
    index, distance = knn(torch.zeros(1, 1, 3), points, 39)
    assert index[0, 0].tolist() == [i for i in range(40) if i != 7]
    assert not distance.any()


def test_a_point_that_is_none_comes_last():
    points = torch.rand(1, 20, 3)
    points[0, 3] = torch.nan
    index, distance = knn(points[:, :3], points, 20)
    assert (index[..., -1] == 3).all() and distance[..., -1].isinf().all()


def test_half_types_give_float32_distances():
    points = torch.rand(1, 20, 3).half()
    assert knn(points, points, 3)[1].dtype == torch.float32


@pytest.mark.parametrize(
    "args, error, message",
    [
        ((torch.zeros(2, 5, 2), torch.zeros(2, 5, 3), 3), ValueError, "query of shape (N, Q, 3)"),
        ((torch.zeros(2, 5, 3), torch.zeros(3, 5, 3), 3), ValueError, "points of shape (N, L, 3)"),
        ((torch.zeros(2, 5, 3), torch.zeros(2, 4, 3), 5), ValueError, "k from 1 to the 4 points"),
        ((torch.zeros(2, 5, 3), torch.zeros(2, 4, 3).double(), 3), TypeError, "points"),
        ((torch.zeros(2, 5, 3, requires_grad=True), torch.zeros(2, 4, 3), 3), TypeError, "query"),
    ],
)
def test_bad_input(args, error, message):
    with pytest.raises(error, match=re.escape(message)) as raised:
        knn(*args)
    assert str(raised.value).startswith("knn: expected")
