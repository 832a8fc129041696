"""HaLP: the encoder's recurrence, several streams, and what happens over steps."""

from __future__ import annotations

import pytest
import torch

from skelops.models import BiGRU, HaLP, create_pretext, load_published, published_state

SMALL = {"hidden_size": 8, "num_layers": 2, "width": 16, "queue_size": 32, "prototypes": 4}


def views(N=8, C=3, count=2):
    return torch.randn(N, count, C, 6, 25, 2)


def test_both_directions_run_forward():
    model = BiGRU(5, hidden_size=8, num_layers=2).eval()
    x = torch.randn(2, 3, 6, 25, 2)
    frames = model.input_norm(x.permute(0, 2, 3, 1, 4).flatten(2).mT).mT
    gru = model.encoder.gru
    state = {name: torch.zeros(2, 8) for name in ("l0", "l0_reverse", "l1", "l1_reverse")}
    for frame in frames.unbind(1):
        for layer in ("l0", "l1"):
            for name in (layer, f"{layer}_reverse"):
                weights = [getattr(gru, f"{w}_{name}") for w in ("weight_ih", "weight_hh")]
                biases = [getattr(gru, f"{b}_{name}") for b in ("bias_ih", "bias_hh")]
                state[name + "+"] = torch.gru_cell(frame, state[name], *weights, *biases)
            frame = torch.cat([state.pop(layer + "+"), state.pop(f"{layer}_reverse+")], 1)
            state[layer], state[f"{layer}_reverse"] = frame.chunk(2, 1)
    torch.testing.assert_close(model.pooled(x), frame)


def test_a_step_fills_the_queue_and_positives_begin():
    torch.manual_seed(0)
    model = HaLP(**SMALL)
    before = model.streams["joint"].prototypes.clone()
    for step in range(10):
        model.loss(views(), None).backward()
        model.end_step()
        assert model.hallucinates == (8 * (step + 1) > 64)
    contrast = model.streams["joint"]
    assert contrast.queue_ptr.item() == 80 % 32
    assert not torch.equal(contrast.prototypes, before)
    done = model(views().unbind(1))
    assert set(done.terms) == {"info_nce", "positives"} and done.loss.isfinite()
    assert all(p.grad is None for p in contrast.encoder_k.parameters())
    assert all(p.grad is not None for p in contrast.encoder_q.parameters())


def test_positives_wait_for_their_epoch():
    torch.manual_seed(0)
    model = HaLP(**SMALL, positives_from=1)
    model.start_epoch(0)
    before = model.streams["joint"].prototypes.clone()
    for _ in range(9):
        model.loss(views(), None)
        model.end_step()
    assert not model.hallucinates
    assert not torch.equal(model.streams["joint"].prototypes, before)
    model.start_epoch(1)
    assert set(model(views().unbind(1)).terms) == {"info_nce", "positives"}


def test_its_keys_follow_an_encoder_that_was_loaded():
    model = HaLP(**SMALL)
    contrast = model.streams["joint"]
    contrast.encoder_q.fc[2].weight.data += 1
    model.encoder_loaded()
    assert torch.equal(contrast.encoder_k.fc[2].weight, contrast.encoder_q.fc[2].weight)


def test_draws_replay():
    model = HaLP(**SMALL).eval()
    pair, drawn = views().unbind(1), [model.draw(8, torch.Generator().manual_seed(3))]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    first = model(pair, drawn).loss
    model.load_state_dict(state)
    assert torch.equal(model(pair, drawn).loss, first)


def test_three_streams_distil():
    model = HaLP(in_channels=9, streams=("joint", "motion", "bone"), top=8, **SMALL)
    done = model(views(C=9).unbind(1))
    assert set(done.terms) == {"info_nce", "distillation"} and done.keys.shape == (3, 8, 16)
    keys = published_state(model)
    names = {"queue", "queue_motion", "queue_ptr_bone", "prototypes_j", "prototypes_m"}
    names |= {"encoder_q_motion.encoder.gru.weight_ih_l0", "encoder_k_bone.fc.2.bias"}
    assert names <= set(keys)
    load_published(model, keys)


def test_what_is_refused():
    with pytest.raises(ValueError, match="streams among joint, motion, bone"):
        HaLP(streams=("limb",))
    with pytest.raises(ValueError, match=r"skip in 1..3, got 4"):
        HaLP(skip=4, **SMALL)
    with pytest.raises(ValueError, match="channels of 3 streams, got 4"):
        HaLP(in_channels=4, streams=("joint", "motion", "bone"), **SMALL)


def test_its_encoder_is_what_remains():
    model = create_pretext("halp", layout="ntu25", num_frames=6, num_persons=2, **SMALL)
    assert model.encoder(views(count=1)[:, 0]).shape == (8, model.encoder.num_features)
