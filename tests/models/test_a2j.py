"""A2J: anchors, votes, losses, checkpoints, and how it refuses."""

import pytest
import torch

from skelops.models import load_published, published_state
from skelops.models.a2j import A2J, STRIDE, Votes, a2j_loss, a2j_space_loss, image_anchors

SMALL = dict(num_joints=5, blocks=(1, 1, 1, 1), width=8, tower_width=16)


def test_anchors_stand_where_the_heads_look():
    """A head that answers in one cell only moves the joint there."""
    model = A2J(**SMALL)
    votes = model(torch.randn(1, 1, 64, 96))
    anchors = image_anchors(4, 6)
    assert votes.logits.shape == (1, 384, 5) and anchors.shape == (384, 2)
    assert anchors.amin(0).tolist() == [2, 2] and anchors.amax(0).tolist() == [62, 94]
    logits = torch.full((1, 80, 4, 6), -100.0)
    logits[:, :, 1, 5] = 0
    flat = logits.permute(0, 3, 2, 1).reshape(1, -1, 5)
    still = Votes(flat, torch.zeros(1, 384, 5, 2), torch.zeros(1, 384, 5))
    center = torch.tensor([1.5, 5.5]) * STRIDE
    torch.testing.assert_close(model.joints(still, 64, 96)[0, :, :2], center.expand(5, -1))


def test_a_perfect_answer_has_no_regression_loss():
    votes = Votes(torch.zeros(2, 64, 5), torch.zeros(2, 64, 5, 2), torch.full((2, 64, 5), 3.0))
    anchors = image_anchors(2, 2)
    target = torch.cat([anchors.mean(0), torch.tensor([3.0])]).expand(2, 5, 3)
    assert [term.item() for term in a2j_loss(votes, anchors, target)] == pytest.approx([0, 0])


def test_joints_that_are_not_valid_do_not_count():
    logits, offset = torch.randn(2, 9, 5), torch.randn(2, 9, 5, 3)
    anchors, target = torch.randn(9, 3), torch.randn(2, 5, 3)
    valid = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    found = a2j_space_loss(logits, offset, anchors, target, valid)
    target[:, 2:4] = 1e6
    assert found == a2j_space_loss(logits, offset, anchors, target, valid)
    assert all(term.isfinite() for term in found)


def test_checkpoints_go_round():
    state = published_state(A2J(**SMALL))
    assert {"Backbone.model.fc.weight", "DepthRegressionModel.output.bias"} <= state.keys()
    report = load_published(A2J(**SMALL), state)
    assert not report.missing and not report.unexpected


def test_it_learns():
    torch.manual_seed(0)
    model, x = A2J(**SMALL), torch.randn(2, 1, 32, 32)
    anchors, target = image_anchors(2, 2), torch.rand(2, 5, 3) * 20
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        anchor, regression = a2j_loss(model(x), anchors, target)
        optimizer.zero_grad()
        (anchor + 3 * regression).backward()
        optimizer.step()
        losses.append(regression.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 30, 32), (2, 32, 32)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match="A2J: expected"):
        A2J(**SMALL)(torch.zeros(shape))
