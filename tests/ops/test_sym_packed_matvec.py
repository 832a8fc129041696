"""sym_packed_matvec: the matrix it stands for, and how it refuses."""

import re

import pytest
import torch

from skelops import sym_packed_matvec


def test_is_the_mirrored_matrix():
    packed, x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), torch.tensor([1.0, 10.0, 100.0])
    S = torch.tensor([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0], [4.0, 5.0, 6.0]])
    torch.testing.assert_close(sym_packed_matvec(packed, x), S @ x)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 34, 63])
def test_is_symmetric(n):
    packed = torch.randn(3, 2, n * (n + 1) // 2, dtype=torch.float64)
    x, y = torch.randn(2, 3, 2, n, dtype=torch.float64)
    left = (y * sym_packed_matvec(packed, x)).sum(-1)
    torch.testing.assert_close(left, (x * sym_packed_matvec(packed, y)).sum(-1))


def test_packed_identity():
    x = torch.randn(5, 7)
    rows, columns = torch.tril_indices(7, 7)
    packed = (rows == columns).to(x).expand(5, -1)
    torch.testing.assert_close(sym_packed_matvec(packed, x), x)


BAD = [
    (torch.zeros(2, 5), torch.zeros(2, 3), ValueError, "packed of shape (2, 6), got (2, 5)"),
    (torch.zeros(3, 6), torch.zeros(2, 3), ValueError, "packed of shape (2, 6), got (3, 6)"),
    (torch.zeros(1), torch.zeros(()), ValueError, "x of shape (..., n), got ()"),
    (torch.zeros(2, 6), torch.zeros(2, 3).double(), TypeError, "x of packed's dtype torch.float32"),
]


@pytest.mark.parametrize("packed, x, error, message", BAD)
def test_bad_input(packed, x, error, message):
    with pytest.raises(error, match="^" + re.escape(f"sym_packed_matvec: expected {message}")):
        sym_packed_matvec(packed, x)
