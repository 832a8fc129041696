"""Contrastive ops: bad input, and what only the mathematics knows."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import skelops
from skelops import ops


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# ---- info_nce -----------------------------------------------------------------------------------


def test_hallucinated_positives_lie_on_the_geodesic():
    k, P = unit(6, 32), unit(5, 32, seed=1)
    pick = torch.randint(4, (6, 9))
    found = ops.hallucinate_positives(unit(6, 32, seed=2), k, P, pick, torch.rand(6, 9))
    z = found.vectors(k, P)
    torch.testing.assert_close(z.norm(dim=2), torch.ones(6, 9))
    angle = torch.arccos((z * k[:, None]).sum(2)) + torch.arccos((z * P[found.prototype]).sum(2))
    whole = (k[:, None] * P[found.prototype]).sum(2).arccos()
    torch.testing.assert_close(angle, whole, rtol=0, atol=1e-4)


def test_at_the_edge_both_prototypes_are_as_close():
    k, P = unit(6, 32), unit(2, 32, seed=1)
    pick = torch.zeros(6, 1, dtype=torch.int64)
    z = ops.hallucinate_positives(k, k, P, pick, torch.zeros(6, 1)).vectors(k, P)
    torch.testing.assert_close(z[:, 0] @ P[0], z[:, 0] @ P[1], rtol=0, atol=1e-5)


def test_a_key_on_a_prototype_gives_no_nan():
    P = unit(3, 16)
    pick = torch.tensor([[0, 1]] * 3)
    found = ops.hallucinate_positives(P, P, P, pick, torch.full((3, 2), 0.5))
    assert found.similarity.isfinite().all() and found.mix.isfinite().all()
    opposite = torch.stack([P[0], -P[0]])
    pick = torch.zeros(3, 1, dtype=torch.int64)
    found = ops.hallucinate_positives(P, P, opposite, pick, torch.zeros(3, 1))
    assert found.similarity.isfinite().all()


def test_kmeans_finds_separate_clusters():
    centres = unit(4, 24)
    x = F.normalize(centres.repeat(30, 1) + 0.02 * torch.randn(120, 24), dim=1)
    found, label = ops.sphere_kmeans(x, x[:4])
    assert (found @ centres.T).max(0).values.min() > 0.99
    assert torch.equal(label, torch.arange(4).repeat(30))


def test_kmeans_starts_at_different_points():
    x = unit(12, 24)
    start = ops.sphere_kmeans_start(x, 12, generator=torch.Generator().manual_seed(0))
    assert (start @ x.T > 0.999).sum(0).tolist() == [1] * 12


def test_kmeans_with_more_centroids_than_directions():
    x = unit(1, 8).expand(6, 8)
    found, _ = ops.sphere_kmeans(x, x[:3])
    torch.testing.assert_close(found, x[:3])
    with pytest.raises(ValueError, match="1 to L=6 centroids"):
        ops.sphere_kmeans(x, unit(7, 8))


# ---- Distillation -------------------------------------------------------------------------------


def test_distillation_of_all_rows_is_the_divergence_of_softmaxes():
    q, k = unit(2, 4, 8), unit(2, 4, 8, seed=1)
    queue = unit(2, 32, 8, seed=2)
    found = ops.cmd_loss(q, k, queue, top=32)
    expected = sum(
        F.kl_div(
            (q[b] @ queue[b].T / 0.1).log_softmax(1), (k[a] @ queue[a].T / 0.05).softmax(1),
            reduction="batchmean",
        )
        for a, b in ((0, 1), (1, 0))
    )  # fmt: skip
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("top", [0, 33])
def test_distillation_of_too_many_rows(top):
    with pytest.raises(ValueError, match=r"top in 1..32"):
        ops.cmd_loss(unit(2, 4, 8), unit(2, 4, 8), unit(2, 32, 8), top=top)


# ---- Queue, momentum, neighbours ----------------------------------------------------------------


def test_a_queue_wraps_around():
    queue, pointer = torch.zeros(5, 1), torch.tensor([3])
    skelops.queue_push_(queue, pointer, torch.tensor([[1.0], [2.0], [3.0]]))
    assert queue[:, 0].tolist() == [3, 0, 0, 1, 2] and pointer.item() == 1
    assert skelops.queue_recent(queue, pointer, 3)[:, 0].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="at most K=5 keys, got 6"):
        skelops.queue_push_(queue, pointer, torch.zeros(6, 1))
    with pytest.raises(TypeError, match=r"pointer of dtype torch.int64"):
        skelops.queue_push_(queue, pointer.float(), torch.zeros(1, 1))


def test_momentum():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = 0.9 * a.weight.detach() + 0.1 * b.weight.detach()
    skelops.momentum_update_(a, b, 0.9)
    torch.testing.assert_close(a.weight.detach(), expected)
    with pytest.raises(ValueError, match="parameters of the same shapes"):
        skelops.momentum_update_(a, nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"momentum in \[0, 1\]"):
        skelops.momentum_update_(a, b, 1.5)


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_in_tiles(k, monkeypatch):
    test, train = torch.randn(23, 8), torch.randn(101, 8)
    label = torch.randint(4, (101,))
    near = (F.normalize(test, dim=1) @ F.normalize(train, dim=1).T).topk(k).indices
    votes = F.one_hot(label[near], 4).sum(1)
    monkeypatch.setattr(sys.modules["skelops.ops.knn_vote"], "_BLOCK", 700)
    assert torch.equal(skelops.knn_classify(test, train, label, k), votes.argmax(1))


def test_neighbours_that_are_not_there():
    x, label = torch.randn(3, 4), torch.tensor([0, 1, 5])
    with pytest.raises(ValueError, match=r"k in 1..3, got 4"):
        skelops.knn_classify(x, x, label, 4)
    with pytest.raises(ValueError, match=r"labels in 0..4, got 0..5"):
        skelops.knn_classify(x, x, label, 1, num_classes=5)
    assert skelops.knn_classify(x[:0], x, label).shape == (0,)
