"""HiCLR: encoders, noise on edges and joints, and what happens over steps."""

from __future__ import annotations

import pytest
import torch

from skelops.models import HiCLR, HiCLRDSTA, HiCLRGCN, create_pretext
from skelops.models.hiclr import MASKS, add_edges, draw_mask, drop_edges, swap_statistics

SMALL = {
    "st_gcn": {"stages": ((8, 1), (8, 2))},
    "dsta": {"stages": ((8, 4, 1), (16, 4, 2))},
    "gru": {"hidden_size": 8, "num_layers": 1},
}


def views(N=4, count=4):
    return torch.randn(N, count, 3, 8, 25, 2)


@pytest.mark.parametrize("encoder", SMALL)
def test_a_step(encoder):
    torch.manual_seed(0)
    options = {"encoder": encoder, "encoder_kwargs": SMALL[encoder], "queue_size": 16}
    model = create_pretext("hiclr", layout="ntu25", num_frames=8, width=16, **options)
    before = model.queue.clone()
    model.start_epoch(0)
    model.loss(views(), None).backward()
    model.end_step()
    assert model.queue_ptr.item() == 4 and torch.equal(model.queue[:, 4:], before[:, 4:])
    assert model.mask_param.grad is not None
    assert all(p.grad is None for p in model.encoder_k.parameters())
    model.start_epoch(150)
    assert model.mining and model.loss(views(), None).isfinite()
    model.end_step()
    assert model.encoder(views()[:, 0]).shape == (4, model.encoder.num_features)


def test_a_queue_that_is_not_a_multiple_of_the_batch_wraps_around():
    model = HiCLR(width=16, queue_size=10, encoder="gru", encoder_kwargs=SMALL["gru"])
    for _ in range(3):
        model.loss(views(), None)
        model.end_step()
    assert model.queue_ptr.item() == 2
    assert model.bank.is_contiguous()


def test_the_mask_is_one_for_the_whole_batch():
    kept = HiCLR(encoder="gru", encoder_kwargs=SMALL["gru"]).draw(50)
    assert kept.shape == (50, 25) and (~kept).sum(1).tolist() == [2] * 50


def test_kinds_of_masks():
    torch.manual_seed(0)
    joints, shared, frames = (~draw_mask(30, 25, 0.3, kind) for kind in MASKS)
    assert joints.sum(1).eq(7).all() and not joints.eq(joints[0]).all()
    assert shared.sum(1).eq(7).all() and shared.eq(shared[0]).all()
    assert frames.sum(0).eq(9).all() and frames.eq(frames[:, :1]).all()
    model = HiCLR(encoder="gru", encoder_kwargs=SMALL["gru"], mask_ratio=0.5, mask_kind="frames")
    assert model.draw(20).all(1).sum() == 10


@pytest.mark.parametrize("per_frame", [False, True])
def test_statistics_of_another_clip(per_frame):
    x, style = torch.randn(2, 3, 3, 8, 25, 2)
    found = swap_statistics(x, 3 * style + 1, per_frame)
    axes = 3 if per_frame else (2, 3)
    torch.testing.assert_close(found.mean(axes), 3 * style.mean(axes) + 1, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.std(axes), 3 * style.std(axes), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(swap_statistics(x, x, per_frame), x, atol=1e-4, rtol=1e-4)


def test_a_head_of_one_layer():
    kwargs = SMALL["st_gcn"] | {"mlp": False}
    model = HiCLR(width=16, queue_size=16, encoder_kwargs=kwargs)
    assert isinstance(model.encoder_q.fc, torch.nn.Linear)
    model.loss(views(), None).backward()
    assert model.encoder_q.fc.weight.grad.isfinite().all()


def test_edges_keep_their_sum():
    A = HiCLRGCN().A
    drawn = torch.rand_like(A) < 0.05
    torch.testing.assert_close(add_edges(A, drawn).sum(), A.sum())
    assert torch.equal(drop_edges(A, torch.ones_like(A), 0.0), A)


def test_edges_change_in_training_only():
    model = HiCLRGCN(drop=0.5, add=0.5, stages=((8, 1),))
    assert torch.equal(model.eval().graph(), model.A)
    assert not torch.equal(model.train().graph(), model.A)


@pytest.mark.parametrize(("encoder", "count"), [(HiCLRGCN, 0.837), (HiCLRDSTA, 1.562)])
def test_published_sizes(encoder, count):
    assert sum(p.numel() for p in encoder(60).parameters()) / 1e6 == pytest.approx(count, abs=1e-3)


def test_what_is_refused():
    with pytest.raises(ValueError, match="encoder one of st_gcn, dsta, gru, got 'lstm'"):
        HiCLR(encoder="lstm")
    with pytest.raises(ValueError, match=r"mask_kind one of joints, .*, frames, got 'hands'"):
        HiCLR(mask_kind="hands")
