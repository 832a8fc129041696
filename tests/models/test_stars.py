"""STARS: one view and a short backward do what two views and a whole one do."""

import copy

import pytest
import torch
import torch.nn.functional as F

from skelops import ops
from skelops.models import create_pretext, load_published, published_state
from skelops.models.stars import NeighbourQueue

SMALL = {"layout": "nw_ucla20", "num_frames": 16, "width": 16, "depth": 4, "heads": 2}
SMALL |= {"hidden": 32, "queue_size": 24}


def stars(**changes):
    torch.manual_seed(0)
    return create_pretext("stars", **SMALL | changes).double()


def clips(N=6):
    torch.manual_seed(1)
    return torch.randn(N, 3, 16, 20, 2).double()


@pytest.mark.parametrize("tuned", [0, 2])
def test_one_view_updates_as_two_equal_ones(tuned):
    x, ids = clips(), torch.arange(6)
    models = {
        "short": (stars(tuned=tuned), x),
        "whole": (stars(tuned=4, views=2), torch.stack([x, x], 1)),
    }
    for model, given in models.values():
        model.loss(given, ids).backward()
    (short, _), (whole, _) = models.values()
    theirs = dict(whole.named_parameters())
    trained = 0
    for name, p in short.named_parameters():
        assert (p.grad is not None) == p.requires_grad
        if p.requires_grad:
            torch.testing.assert_close(p.grad, theirs[name].grad)
            trained += name.startswith("encoder.blocks")
    assert trained == 12 * tuned
    for name, buffer in short.named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(buffer, dict(whole.named_buffers())[name])


def test_one_of_the_nearest():
    queue = NeighbourQueue(12, 4)
    queue.queue_id.copy_(torch.arange(12))
    z, ids = F.normalize(torch.randn(5, 4)), torch.tensor([3, 0, 11, 7, 40])
    similar = z @ queue.queue.T
    similar[torch.arange(4), ids[:4]] = -1
    order = similar.argsort(1, descending=True)
    pick = torch.tensor([0, 2, 1, 2, 0])
    assert torch.equal(queue.nearest(z, ids, 3, pick), order[torch.arange(5), pick])
    torch.manual_seed(0)
    drawn = torch.stack([queue.nearest(z, ids, 3) for _ in range(100)])
    assert all(
        set(d.tolist()) == set(o.tolist()) for d, o in zip(drawn.T, order[:, :3], strict=True)
    )


def test_loss_towards_a_random_neighbour():
    model, x = stars(among=5), clips()
    losses = {float(model.eval().loss(x, torch.arange(6)).detach()) for _ in range(5)}
    assert len(losses) == 5
    with pytest.raises(ValueError, match=r"STARS: expected among in 1..24, got 25"):
        stars(among=25)


def test_nothing_is_kept_for_frozen_blocks():
    model = stars()
    kept = []
    for block in model.encoder.blocks:
        block.register_forward_hook(lambda _, __, y: kept.append(y.requires_grad))
    model.loss(clips(), torch.arange(6))
    assert kept == [False, False, True, True]


def test_learning_rates():
    model = stars(gamma=0.5)
    scales = {name: model.lr_scale(name) for name, _ in model.named_parameters()}
    assert scales["encoder.blocks.2.attn.qkv.weight"] == 0.25
    assert scales["encoder.blocks.3.norm1.weight"] == 0.5
    assert scales["encoder.norm.weight"] == scales["predictor.0.weight"] == 1


def test_the_queue_wraps_and_evaluation_leaves_it_alone():
    queue = NeighbourQueue(5, 3)
    for first in (0, 3, 6):
        queue.push(torch.arange(first, first + 3.0)[:, None].expand(-1, 3), torch.arange(3) + first)
    assert queue.queue_ptr.item() == 4
    assert queue.queue_id.tolist() == [5, 6, 7, 8, 4]
    assert queue.queue[:, 0].tolist() == [5, 6, 7, 8, 4]
    queue.push(torch.arange(7.0)[:, None].expand(-1, 3), torch.arange(7))
    assert queue.queue_ptr.item() == 1 and queue.queue_id.tolist() == [6, 2, 3, 4, 5]
    model = stars().eval()
    before = copy.deepcopy(dict(model.named_buffers()))
    model.loss(clips(), torch.arange(6))
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


def test_published_state_round_trip():
    model, other = stars(), create_pretext("stars", **SMALL).double()
    state = published_state(model)
    assert state["queue"].shape == (16, 24)
    assert {"encoder_student.blocks.0.norm1.weight", "queue_ptr", "queue_id"} <= set(state)
    assert "encoder_student.head.predictor.3.bias" in state
    assert load_published(other, state) == ([], [], [])
    assert torch.equal(other.queue.queue, model.queue.queue)


def test_votes():
    bank = F.normalize(torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1], [0, 1.0]]))
    label = torch.tensor([0, 1, 1, 1, 2])
    x = torch.tensor([[1.0, 0], [0, 1.0]])
    vote = ops.knn_vote(x, bank, label, 3, k=2)
    assert vote.tolist() == [[1, 1, 0], [0, 1, 1]] and vote.argmax(1).tolist() == [0, 1]
    weighted = ops.knn_vote(x, bank, label, 3, k=9, temperature=0.1)
    torch.testing.assert_close(weighted.sum(1), (x @ bank.T / 0.1).exp().sum(1))


@pytest.mark.parametrize(
    "call, expected",
    [
        (lambda z, Q, i: ops.knn_vote(z, Q, i, 5, k=0), "k >= 1, got 0"),
        (lambda z, Q, i: ops.knn_vote(z, Q, i[:2], 5), r"label of shape \(5,\), got \(2,\)"),
    ],
)
def test_what_is_refused(call, expected):
    with pytest.raises(ValueError, match=expected):
        call(torch.randn(2, 4), torch.randn(5, 4), torch.arange(5))
