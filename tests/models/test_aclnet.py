"""ACLNet: its graph, what its losses count, and their memory."""

import math

import pytest
import torch
import torch.nn.functional as F

from skelops.models import create_model, load_published, published_keys, published_state
from skelops.models.aclnet import InterClassLoss, IntraClassLoss, confusions, superclasses
from skelops.nn import DynamicGraphConv

SMALL = dict(num_classes=5, base_channels=8, stages=[(8, 1), (16, 2)], width=12, memory=8)


def test_published_size_and_keys():
    model = create_model("aclnet", num_classes=60)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(4.049, abs=0.001)
    keys = published_keys(model)
    assert keys["cls_head.inter_loss.cl_fc.weight"].shape == (256, 625)
    assert keys["backbone.gcn.9.gcn.A"].shape == (8, 25, 25)
    plain = create_model("aclnet", num_classes=60, weights=(0, 0))
    assert sum(p.numel() for p in plain.parameters()) / 1e6 == pytest.approx(3.729, abs=0.001)
    report = load_published(plain, published_state(model), strict=False)
    assert not report.missing and {k.split(".")[1] for k in report.unexpected} == {
        "inter_loss",
        "intra_loss",
    }


@pytest.mark.parametrize("terms", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("per_subset", [False, True])
@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_mean_graph(terms, per_subset, per_frame, act):
    torch.manual_seed(0)
    conv = DynamicGraphConv(
        4, 6, torch.rand(2, 5, 5), channel_wise=terms[0], joint_wise=terms[1],
        per_subset=per_subset, per_frame=per_frame, channel_act=act,
    )  # fmt: skip
    for name in ("alpha", "beta"):
        torch.nn.init.normal_(getattr(conv, name))
    alpha, beta = (s.view(-1, 1, 1, 1) if per_subset else s[0] for s in (conv.alpha, conv.beta))
    x = torch.randn(3, 4, 7, 5, requires_grad=True)
    p, q = (
        torch.einsum("krc,nctv->ntkrv", w, x if per_frame else x.mean(2, keepdim=True))
        + b[..., None]
        for w, b in zip(conv.weight12, conv.bias12, strict=True)
    )
    graph = torch.zeros(3, p.shape[1], 2, 3, 5, 5)
    if terms[0]:
        graph = graph + alpha * getattr(torch, act)(p[..., :, None] - q[..., None, :])
    if terms[1]:
        scores = torch.einsum("ntkru,ntkrv->ntkuv", p, q).softmax(-2)
        graph = graph + beta * scores[:, :, :, None]
    found = conv.mean_graph(x)
    torch.testing.assert_close(found, graph.mean((1, 2, 3)))
    wanted = (x, conv.weight12, conv.alpha if terms[0] else conv.beta)
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), wanted),
        torch.autograd.grad(graph.mean((1, 2, 3)).square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_labels_change_no_logits():
    torch.manual_seed(0)
    model = create_model("aclnet", **SMALL).eval()
    x, y = torch.randn(4, 3, 8, 25, 2), torch.arange(4)
    logits, further = model(x, y)
    torch.testing.assert_close(logits, model(x))
    assert further == 0
    assert create_model("aclnet", weights=(0, 0), **SMALL).takes_labels is False


def test_confusions_by_hand():
    label, predicted = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 1, 0, 0, 1])
    wrong = torch.tensor([[0, 2, 0], [1, 0, 0], [0, 0, 0]])
    clips = torch.tensor([[3], [2], [0]])
    assert torch.equal(confusions(label, predicted, 3), wrong + clips * wrong.T)


def test_superclasses_by_hand():
    torch.manual_seed(0)
    bank = torch.randint(0, 5, (30, 30))
    near = [set(sorted(range(30), key=lambda b: (-bank[a, b].item(), b))[:10]) for a in range(30)]
    found = superclasses(bank)
    for a in range(30):
        expected = near[a] | {b for b in range(30) if b != a and len(near[a] & near[b]) > 4}
        assert set(found[a].nonzero()[:, 0].tolist()) == expected


def test_fewer_classes_than_a_superclass_has():
    assert superclasses(torch.zeros(3, 3, dtype=torch.int64)).all()


def test_inter_class_loss_starts_after_its_epoch():
    torch.manual_seed(0)
    loss = InterClassLoss(4, 9, 6, start=1)
    graph, label = torch.randn(8, 9), torch.arange(8) % 4
    logits = torch.randn(8, 4)
    loss.start_epoch(0)
    assert loss(graph, label, logits) == 0 and not loss.confusion.any()
    loss.start_epoch(1)
    assert loss(graph, label, logits) == 0 and loss.confusion.any()
    loss.start_epoch(2)
    assert loss(graph, label, logits) > 0 and loss.superclass.any()
    before = loss.superclass.clone()
    loss(graph, label, logits.flip(1))
    assert torch.equal(loss.superclass, before), "found anew within an epoch"
    loss.start_epoch(2)
    assert not loss.outdated


def test_means_follow_recognised_clips_only():
    torch.manual_seed(0)
    loss = InterClassLoss(3, 4, 5, start=0)
    graph, label = torch.randn(4, 4), torch.tensor([0, 0, 1, 1])
    logits = F.one_hot(torch.tensor([0, 2, 2, 2]), 3).float()
    before = loss.mean.clone()
    loss(graph, label, logits)
    expected = 0.9 * before[0] + 0.1 * loss.project(graph)[0]
    torch.testing.assert_close(loss.mean[0], expected.detach())
    assert torch.equal(loss.mean[1:], before[1:])


def test_intra_class_loss_waits_for_a_full_memory():
    torch.manual_seed(0)
    loss = IntraClassLoss(4, 5, memory=8)
    label = torch.tensor([0, 0, 1])
    found = [loss(torch.randn(3, 4), label).item() for _ in range(3)]
    assert found[:2] == [0, 0] and found[2] > 0
    assert math.isclose(loss.memory.norm(dim=1).min().item(), 1, rel_tol=1e-6)
    with pytest.raises(ValueError, match=r"^IntraClassLoss: expected a batch of at most memory=8"):
        loss(torch.randn(9, 4), torch.zeros(9, dtype=torch.int64))
