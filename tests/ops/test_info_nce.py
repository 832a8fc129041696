"""InfoNCE without logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from skelops import ops


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# ---- info_nce -----------------------------------------------------------------------------------


def plain(q, key, bank, tau=0.07):
    return torch.cat([(q * key).sum(-1, keepdim=True), q @ bank.T], -1) / tau


def test_a_queue():
    q, key, bank = unit(5, 16), unit(5, 16, seed=1), unit(64, 16, seed=2)
    label = torch.zeros(5, dtype=torch.long)
    expected = F.cross_entropy(plain(q, key, bank), label, reduction="none")
    torch.testing.assert_close(ops.info_nce(3 * q, 2 * key, bank), expected)


def test_keys_of_the_batch_get_a_gradient():
    q, key = unit(6, 16).requires_grad_(), unit(6, 16, seed=1).requires_grad_()
    same = torch.arange(6)[:, None]
    found = ops.info_nce(q, None, key, positives=same, temperature=0.2, normalize=False).mean()
    expected = F.cross_entropy(q @ key.T / 0.2, same[:, 0])
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, (q, key)), torch.autograd.grad(expected, (q, key)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_weighted_positives_are_a_soft_target():
    q, bank = unit(4, 8).requires_grad_(), unit(9, 8, seed=2)
    rows = torch.tensor([[0, 3, -1], [1, -1, -1], [2, 5, 8], [-1, 4, -1]])
    weights = torch.rand(4, 3, generator=torch.Generator().manual_seed(3))
    share = (weights * (rows >= 0)) / (weights * (rows >= 0)).sum(1, keepdim=True)
    target = torch.zeros(4, 9).scatter_add(1, rows.clamp(min=0), share)
    expected = -(target * (q @ bank.T / 0.1).log_softmax(1)).sum(1)
    found = ops.info_nce(q, None, bank, positives=rows, weights=weights, temperature=0.1)
    torch.testing.assert_close(found, expected)


def test_a_temperature_per_row_has_a_gradient():
    q, key, bank = unit(4, 8), unit(4, 8, seed=1), unit(9, 8, seed=2)
    tau = torch.tensor([0.1, 0.2, 0.5, 1.0], requires_grad=True)
    other = tau.detach().clone().requires_grad_()
    found = ops.info_nce(q, key, bank, temperature=tau)
    expected = -plain(q, key, bank, other[:, None]).log_softmax(1)[:, 0]
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(tau.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mine", [1, 3])
def test_mined_positives_count_once(mine):
    q, key, bank = unit(2, 7, 8), unit(7, 8, seed=1), unit(40, 8, seed=2)
    logits = plain(q, key, bank)
    target = torch.zeros(7, 41)
    target[:, 0] = 1
    for z in logits:
        target.scatter_(1, z[:, 1:].topk(mine, 1).indices + 1, 1)
    target /= target.sum(1, keepdim=True)
    expected = -(target * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(ops.info_nce(q, key, bank, mine=mine), expected)


def test_a_queue_in_half_precision():
    q, key, bank = unit(4, 8), unit(4, 8, seed=1), unit(300, 8, seed=2).half()
    expected = ops.info_nce(q, key, bank.float())
    torch.testing.assert_close(ops.info_nce(q, key, bank), expected)


def test_large_similarities_do_not_overflow():
    q = 100 * unit(3, 8)
    found = ops.info_nce(q, q, q, temperature=0.01, normalize=False)
    assert found.isfinite().all() and (found >= 0).all()


def test_zero_features_are_orthogonal_to_all():
    found = ops.info_nce(torch.zeros(2, 8), unit(2, 8), unit(9, 8))
    torch.testing.assert_close(found, torch.full((2,), math.log(10)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bank": torch.zeros(0, 8)}, "a bank of at least one key"),
        ({"key": None}, "a key, positives or mine"),
        ({"key": torch.zeros(3, 8)}, "key of shape"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"mine": 10}, "mine in 0..9"),
        ({"targets": [0, 1]}, "1 targets"),
        ({"weights": torch.ones(2, 1)}, "weights together with positives"),
        ({"positives": torch.zeros(3, 1, dtype=torch.int64)}, "positives of shape"),
    ],
)
def test_bad_values(changes, message):
    given = {"q": unit(2, 8), "key": unit(2, 8), "bank": unit(9, 8)} | changes
    with pytest.raises(ValueError, match=message):
        ops.info_nce(**given)


def test_bad_dtypes():
    with pytest.raises(TypeError, match=r"bank of dtype torch.float32 or a half one"):
        ops.info_nce(unit(2, 8), unit(2, 8), unit(9, 8).double())
    with pytest.raises(TypeError, match=r"positives of dtype torch.int64"):
        ops.info_nce(unit(2, 8), None, unit(9, 8), positives=torch.zeros(2, 1))
