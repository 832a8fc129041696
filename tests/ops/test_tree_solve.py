"""tree_solve: the inverse of the mass matrix, and how it refuses."""

import re

import pytest
import torch

from skelops import mass_matrix, tree_solve
from tests.ops.test_forward_dynamics import random_tree, state


@pytest.mark.parametrize("branching", [True, False], ids=["tree", "chain"])
def test_undoes_the_mass_matrix(branching):
    tree = random_tree(30, 0, branching)
    q, x, _ = state(tree, 2, 5)
    force = (mass_matrix(tree, q) @ x[..., None]).squeeze(-1)
    packed = mass_matrix(tree, q, packed=True)
    torch.testing.assert_close(tree_solve(tree, packed, force), x, rtol=1e-9, atol=1e-9)


def test_batches_broadcast():
    tree = random_tree(12, 1)
    q, force, _ = state(tree, 4)
    packed = mass_matrix(tree, q, packed=True)
    expected = tree_solve(tree, packed, force[:1].expand(4, -1).contiguous())
    torch.testing.assert_close(tree_solve(tree, packed, force[0]), expected)


def test_keeps_full_precision_under_autocast():
    tree = random_tree(12, 1)
    q, force, _ = (t.float() for t in state(tree, 4))
    packed = mass_matrix(tree, q, packed=True)
    expected = tree_solve(tree, packed, force)
    with torch.autocast("cpu", torch.bfloat16):
        found = tree_solve(tree, packed, force)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), rtol=0, atol=0)


def test_bad_input():
    tree = random_tree(12, 1)
    q, force, _ = state(tree, 4)
    packed = mass_matrix(tree, q, packed=True)
    size = packed.shape[1]
    for arguments, error, message in (
        ((packed[:, 1:], force), ValueError, f"packed of shape (..., {size}), got (4, {size - 1})"),
        ((packed, force[:, 1:]), ValueError, f"force of shape (..., n) with n={len(tree)}, got"),
        ((packed, force.long()), TypeError, "force of a floating dtype, got torch.int64"),
    ):
        with pytest.raises(error, match="^" + re.escape(f"tree_solve: expected {message}")):
            tree_solve(tree, *arguments)
