"""nn_contrastive_loss: against the formula, large similarities, and how it refuses."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops import nn_contrastive_loss


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("N, P, offset", [(3, 3, 0), (9, 40, 2), (150, 300, 149)])
def test_own_predictions_against_all(N, P, offset):
    pred, queue = unit(P, 16).requires_grad_(), unit(50, 16, seed=1)
    idx = torch.randint(50, (N,), generator=torch.Generator().manual_seed(2))
    log_p = (queue[idx] @ pred.T / 0.1).log_softmax(1)
    expected = -log_p[torch.arange(N), torch.arange(N) + offset].mean()
    found = nn_contrastive_loss(pred, queue, idx, 0.1, label_offset=offset)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(loss, pred)[0] for loss in (found, expected))
    torch.testing.assert_close(*gradients)


def test_parts_of_a_batch_are_its_mean():
    pred, queue, idx = unit(8, 16), unit(50, 16, seed=1), torch.arange(8)
    parts = [nn_contrastive_loss(pred, queue, idx[i : i + 4], label_offset=i) for i in (0, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(), nn_contrastive_loss(pred, queue, idx))


def test_the_queue_may_be_written_before_the_backward():
    pred, queue = unit(4, 8).requires_grad_(), unit(9, 8, seed=1)
    loss = nn_contrastive_loss(pred, queue, torch.arange(4))
    expected = torch.autograd.grad(nn_contrastive_loss(pred, queue.clone(), torch.arange(4)), pred)
    queue.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, pred), expected)


def test_no_gradient_flows_to_the_queue():
    pred, queue = unit(4, 8).requires_grad_(), unit(9, 8, seed=1).requires_grad_()
    nn_contrastive_loss(pred, queue, torch.arange(4)).backward()
    assert queue.grad is None and pred.grad.abs().sum() > 0


def test_large_similarities_do_not_overflow():
    pred = (100 * unit(3, 8)).requires_grad_()
    loss = nn_contrastive_loss(pred, 100 * unit(3, 8), torch.arange(3), 0.01)
    loss.backward()
    assert 0 <= loss < 1e-3 and pred.grad.isfinite().all()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"temperature": 0}, ValueError, "temperature > 0, got 0"),
        ({"label_offset": 1}, ValueError, "label_offset in 0..0, got 1"),
        ({"queue": torch.zeros(5, 3)}, ValueError, "queue of shape (K, D) with D=4"),
        ({"idx": torch.zeros(2)}, TypeError, "idx of dtype torch.int64, got torch.float32"),
    ],
)
def test_bad_input(changes, error, message):
    given = {"pred": unit(2, 4), "queue": unit(5, 4), "idx": torch.arange(2)} | changes
    with pytest.raises(error, match=re.escape(f"nn_contrastive_loss: expected {message}")):
        nn_contrastive_loss(**given)


def test_rows_outside_the_queue_are_refused():
    with pytest.raises(IndexError):
        nn_contrastive_loss(unit(2, 4), unit(5, 4), torch.tensor([0, 5]))
