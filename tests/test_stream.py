"""Predictions while frames come in: windows, people, missing joints, networks by frame."""

import io
import json

import numpy as np
import pytest
import torch

from skelops import nn
from skelops.data import ClipDataset, synthetic
from skelops.models import create_model
from skelops.nn import STAttention
from skelops.ops import temporal_shift
from skelops.stream import (
    CausalAttention,
    Continual,
    Recognizer,
    TemporalShift,
    main,
    read_frames,
)

V = 25


@pytest.fixture(scope="module")
def clips():
    return synthetic.generate(4, seed=0)


def network(name="st_gcn_pp", **options):
    torch.manual_seed(0)
    options = {"base_channels": 16, "stages": [(16, 1), (32, 2), (32, 1)], **options}
    return create_model(name, num_classes=6, layout="ntu25", **options).eval()


def feed(recognizer, frames):
    return [p for p in map(recognizer.update, frames) if p is not None]


def test_a_window_gives_what_the_dataset_gives(clips):
    model, clip = network("ctr_gcn"), clips[0]
    found = feed(Recognizer(model, "ntu25", window=len(clip), stride=len(clip)), clip)
    x = ClipDataset(clips, "ctr_gcn").__getitems__([0]).x
    with torch.no_grad():
        expected = model(x).softmax(-1)[0]
    assert [p.frame for p in found] == [len(clip)]
    torch.testing.assert_close(found[0].scores, expected)


def test_stride_and_window(clips):
    recognizer = Recognizer(network(), "ntu25", window=16, stride=4)
    found = feed(recognizer, clips[0][:32])
    assert [p.frame for p in found] == [4, 8, 12, 16, 20, 24, 28, 32]
    assert len(recognizer.frames) == 16
    fresh = Recognizer(network(), "ntu25", window=16, stride=16)
    again = feed(fresh, clips[0][16:32])
    torch.testing.assert_close(again[0].scores, found[-1].scores)


def test_missing_joints_stay_where_they_were(clips):
    frames = clips[0][:4, :1].copy()
    recognizer = Recognizer(network(), "ntu25", stride=4)
    frames[2, 0, 5] = np.nan
    feed(recognizer, frames)
    np.testing.assert_array_equal(recognizer.frames[2][0, 5], frames[1, 0, 5])
    first = Recognizer(network(), "ntu25", stride=1)
    start = frames[0].copy()
    start[0, 5] = np.nan
    assert torch.isfinite(first.update(start).scores).all()
    np.testing.assert_allclose(first.frames[0][0, 5], np.nanmean(start[0], axis=0), rtol=1e-5)


def test_people_keep_their_slots(clips):
    a, b, c = (clips[0][i, 0] for i in range(3))
    recognizer = Recognizer(network(), "ntu25", window=3, stride=1)
    assert recognizer.update({"ann": a, "bob": b}).persons == ("ann", "bob")
    assert recognizer.update({"bob": b}).persons == ("ann", "bob")
    assert not recognizer.frames[-1][0].any()
    # No slot for a third one, until Ann has been away for a window.
    assert recognizer.update({"cid": c, "bob": b}).persons == ("ann", "bob")
    recognizer.update({"bob": b})
    assert recognizer.update({"bob": b, "cid": c}).persons == ("cid", "bob")


def test_nobody_gives_no_prediction():
    recognizer = Recognizer(network(), "ntu25", stride=1)
    assert recognizer.update({}) is None
    assert recognizer.update(np.full((V, 3), np.nan)) is None
    assert recognizer.count == 2


def test_reset_forgets(clips):
    recognizer = Recognizer(network(), "ntu25", stride=4)
    first = feed(recognizer, clips[0][:8])
    recognizer.reset()
    again = feed(recognizer, clips[0][:8])
    assert torch.equal(first[-1].scores, again[-1].scores)


def test_other_layouts_are_converted():
    recognizer = Recognizer(network(), "nw_ucla20", stride=1)
    frame = np.random.default_rng(0).normal(size=(20, 3))
    assert recognizer.update(frame).scores.shape == (6,)


def test_bad_frames_are_not_taken(clips):
    recognizer = Recognizer(network(), "ntu25", stride=1)
    recognizer.update(clips[0][0], time=1.0)
    with pytest.raises(ValueError, match=r"stream: expected a frame after 1.0 s, got one of 1.0 s"):
        recognizer.update(clips[0][1], time=1.0)
    with pytest.raises(ValueError, match=r"of shape \(25, 3\) \(ntu25\), got \(20, 3\)"):
        recognizer.update(np.zeros((20, 3)))
    with pytest.raises(ValueError, match="expected finite or NaN joints"):
        recognizer.update(np.full((V, 3), np.inf))
    assert recognizer.count == 1
    with pytest.raises(ValueError, match="stream: expected stride >= 1, got 0"):
        Recognizer(network(), "ntu25", stride=0)


@pytest.mark.parametrize("name", ["st_gcn", "st_gcn_pp"])
def test_frame_by_frame_is_the_network_on_the_clip(name):
    model = network(name)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.uniform_(-0.5, 0.5)
            m.running_var.uniform_(0.5, 1.5)
    T = 48
    x = torch.randn(1, 3, T, V, 2)
    with torch.no_grad():
        whole = model.features(x).mean((0, 3))  # (C', T')
    steps = Continual(model, window=T)
    for t in range(T):
        steps(x[0, :, t])
    online = torch.stack(list(steps.pooled), dim=1)
    assert online.shape[1] >= T // 2 - 8
    # The frames behind the clip are not zeros to a stream, they have not come yet.
    torch.testing.assert_close(online, whole[:, : online.shape[1]], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        scores = model.fc(online.mean(1))
    torch.testing.assert_close(steps.scores(), scores)
    steps.reset()
    assert steps(x[0, :, 0]) is None


def test_networks_that_need_the_whole_clip_are_refused():
    with pytest.raises(ValueError, match="graph convolutions of one frame, got CTRGraphConv"):
        Continual(network("ctr_gcn"))
    replicating = network("st_gcn")
    conv = next(m for m in replicating.modules() if isinstance(m, nn.TemporalConv)).conv
    conv.padding_mode = "replicate"
    with pytest.raises(ValueError, match="frames padded with zeros, got 'replicate'"):
        Continual(replicating)


NEAR = (torch.arange(5)[:, None] - torch.arange(5)).abs() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"within": "joint", "scale": 0.3},
        {"within": "frame"},
        {"pairs": NEAR, "joint_bias": True, "max_lag": 2},
        {"window": 2, "max_lag": 4},
    ],
)
def test_causal_attention_is_the_last_frame_of_the_window(options):
    N, T, V, C, window = 2, 9, 5, 16, 4
    torch.manual_seed(0)
    attention = STAttention(C, 2, joints=V, **options)
    for bias in (attention.joint_bias, attention.lag_bias):
        if bias is not None:
            torch.nn.init.normal_(bias)
    steps = CausalAttention(attention, window)
    x = torch.randn(N, T, V, C)
    for t in range(T):
        seen = x[:, max(t + 1 - window, 0) : t + 1].flatten(1, 2)
        with torch.no_grad():
            expected = attention(seen)[:, -V:]
        torch.testing.assert_close(steps(x[:, t]), expected, atol=1e-5, rtol=1e-5)
    steps.reset()
    torch.testing.assert_close(steps(x[:, 0]), attention(x[:, 0]), atol=1e-5, rtol=1e-5)


def test_causal_attention_takes_the_window_of_the_attention():
    attention = STAttention(8, 2, joints=3, window=2)
    assert CausalAttention(attention).window == 3
    with pytest.raises(ValueError, match="CausalAttention: expected window >= 1, got None"):
        CausalAttention(STAttention(8, 2, joints=3))
    with pytest.raises(ValueError, match="CausalAttention: expected x of shape"):
        CausalAttention(attention)(torch.randn(1, 4, 8))


def test_temporal_shift_of_a_stream():
    x = torch.randn(2, 9, 6, 5)  # (N, C, T, V)
    steps = TemporalShift(fold_div=4)
    found = [steps(x[:, :, t]) for t in range(6)]
    assert found[0] is None
    torch.testing.assert_close(torch.stack(found[1:], 2), temporal_shift(x, 4)[:, :, :5])
    steps.reset()
    assert steps(x[:, :, 0]) is None
    with pytest.raises(ValueError, match="TemporalShift: expected fold_div of at least 2, got 1"):
        TemporalShift(1)


def test_json_lines():
    lines = ['{"people": {"7": [[0, 1, 2], null]}, "time": 0.5}', "", '{"people": [[[1, 2]]]}']
    (first, time), (second, none) = read_frames(lines)
    np.testing.assert_array_equal(first["7"], [[0, 1, 2], [np.nan] * 3])
    assert (time, none) == (0.5, None)
    assert second[0].shape == (1, 2)
    with pytest.raises(ValueError, match="in line 1, got 'nonsense'"):
        list(read_frames(["nonsense"]))


@pytest.mark.parametrize("settings", [{}, {"streams": ["joint", "bone"], "layout": "coco17"}])
def test_command_line(settings, tmp_path, capsys, monkeypatch, clips):
    """Streams and layout of the network are those of its training."""
    lightning = pytest.importorskip("lightning")
    from skelops.train import Recognizer as Trained

    net = {"base_channels": 16, "stages": [(16, 1)]}
    channels, layout = 3 * len(settings.get("streams", ["joint"])), settings.get("layout", "ntu25")
    trained = Trained("st_gcn_pp", 6, layout, 2, net, channels)
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(trained)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    checkpoint["datamodule_hyper_parameters"] = settings
    torch.save(checkpoint, tmp_path / "last.ckpt")
    rows = [json.dumps({"people": [frame[0].tolist()]}) for frame in clips[0][:8]]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(rows)))
    main([str(tmp_path / "last.ckpt"), "--layout", "ntu25", "--classes", *"abcdef"])
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["frame"] for row in printed] == [4, 8]
    assert printed[0]["name"] in "abcdef"
