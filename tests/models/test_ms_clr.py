"""MS-CLR: several skeletons in one network, attention drop, and its training step."""

import pytest
import torch

from skelops.graph import conversion, get_layout
from skelops.models import create_pretext, load_published, published_state
from skelops.models.ms_clr import MSCLR, UnifiedSTGCN
from skelops.nn.simam import simam_attention, simam_drop

PAIR = ("ntu25", "smpl24")


def small(**kwargs):
    torch.manual_seed(0)
    return MSCLR(*kwargs.pop("layouts", ("nw_ucla20", ["ntu25"])), base_channels=2, width=8,
                 queue_size=kwargs.pop("queue_size", 16), **kwargs)  # fmt: skip


def test_published_size():
    model = UnifiedSTGCN(60, ("ntu25", "smplx42"))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(0.924, abs=0.001)


def test_padded_joints_cannot_be_seen_in_evaluation():
    torch.manual_seed(0)
    model = UnifiedSTGCN(5, PAIR, base_channels=2).eval()
    x = torch.randn(2, 3, 8, 24, 2)
    alone = UnifiedSTGCN(5, "smpl24", base_channels=2).eval()
    state = {
        k: v[..., :24, :24] if k.startswith(("A_", "edge")) else v
        for k, v in model.state_dict().items()
        if "ntu25" not in k
    }
    alone.load_state_dict(state)
    torch.testing.assert_close(alone(x), model(x))
    model.train()
    assert model(x).shape == (2, 5)


def test_layout_is_told_by_the_joints_or_by_name():
    model = UnifiedSTGCN(5, ("h36m17", "coco17"), base_channels=2).eval()
    x = torch.randn(1, 3, 8, 17, 1)
    assert not torch.equal(model(x, "h36m17"), model(x, "coco17"))
    with pytest.raises(ValueError, match=r"^ms_clr: expected x with the joints of one of h36m17"):
        model(x)
    with pytest.raises(ValueError, match=r"^ms_clr: expected layout one of h36m17, coco17"):
        model(x, "ntu25")
    with pytest.raises(ValueError, match=r"^ms_clr: expected x of shape"):
        model(x[:, :, :, :5], "coco17")


def test_ensemble_is_the_mean_of_its_heads():
    model = UnifiedSTGCN(5, PAIR, base_channels=2, head="ensemble").eval()
    clips = {name: torch.randn(2, 3, 8, get_layout(name).num_joints, 2) for name in PAIR}
    expected = (model(clips["ntu25"]) + model(clips["smpl24"])) / 2
    torch.testing.assert_close(model.ensemble(clips), expected)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(head="tail"), 'head "linear", "mlp" or "ensemble", got \'tail\''),
        (dict(layout=[]), "different layouts, at least one"),
        (dict(layout=["ntu25", "ntu25"]), "different layouts, at least one"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=f"^ms_clr: expected {message}"):
        UnifiedSTGCN(5, **kwargs)


def test_the_most_attended_is_dropped():
    x = torch.zeros(2, 3, 4, 5)
    x[0, 1, 2, 3] = 9.0
    assert simam_attention(x).argmax() == x.argmax()
    assert not simam_drop(x).any(), "the only cell with a value attracts attention"
    same = torch.ones(2, 3, 4, 5, requires_grad=True)
    torch.testing.assert_close(simam_drop(same), same)
    assert torch.autograd.grad(simam_drop(same).sum(), same)[0].eq(1).all()


def test_attention_on_everything_leaves_nothing():
    x = torch.randn(2, 3, 4, 5)
    assert not simam_drop(x, keep=0.0).any()


def test_a_step_moves_keys_and_queue():
    model = small(dropout=0.0)
    x = torch.randn(4, 3, 3, 16, 20, 1)
    before = {k: v.clone() for k, v in model.encoder_k.named_parameters()}
    for pushed in (4, 8):
        queue = model.bank.clone()
        loss = model.loss(x, torch.arange(4))
        loss.backward()
        model.end_step()
        assert loss.isfinite() and model.queue_ptr.item() == pushed
        assert not torch.equal(model.bank, queue)
        assert all(p.grad is not None for p in model.encoder_q.parameters())
    moved = model.encoder_k.fc[2].weight
    query = model.encoder_q.fc[2].weight
    expected = torch.lerp(before["fc.2.weight"], query, 1 - 0.999**2)
    torch.testing.assert_close(moved, expected)
    with pytest.raises(ValueError, match=r"^ms_clr: expected x of shape .* with views=3"):
        model.loss(x[:, :2], torch.arange(4))


def test_conversion():
    model = small()
    x = torch.randn(2, 3, 4, 20, 1)
    index, weight = conversion("nw_ucla20", "ntu25")
    expected = (x[:, :, :, index, :] * weight[..., None]).sum(4)
    torch.testing.assert_close(model.converted(x, "ntu25"), expected)
    assert model.converted(x, "nw_ucla20") is x


def test_mining_adds_positives():
    model = small(dropout=0.0, layouts=("nw_ucla20", []))
    x = torch.randn(3, 4, 3, 16, 20, 1)
    model.eval()
    plain = model(*x).terms["info_nce"]
    model.mining = True
    assert model(*x).terms["info_nce"] != plain


def test_pretext_and_published_names():
    model = create_pretext("ms_clr", layout="ntu25", num_frames=16, num_persons=1, in_channels=3,
                           skeletons=["smplx42"], base_channels=2, queue_size=16)  # fmt: skip
    encoder = model.encoder
    assert encoder(torch.randn(2, 3, 16, 25, 1)).shape == (2, encoder.num_features)
    state = published_state(model)
    assert state["queue"].shape == (128, 16)
    assert "encoder_q.edge_importance.ntu-rgb+d.9" in state
    assert "encoder_k.st_gcn_networks.4.residual.0.weight" in state
    load_published(model, state)
    with pytest.raises(ValueError, match="joints that ntu25 tells, got left_eyeball"):
        model.converted(torch.randn(1, 3, 4, 25, 1), "smplx42")
