"""CascadeFormer: keys, persons, pre-training, and the parts that the replays do not show."""

import pytest
import torch
from torch import nn

from skelops.models import (
    build_classifier,
    create_model,
    create_pretext,
    load_published,
    published_state,
)
from skelops.models.cascade_former import Size, select_person
from skelops.nn import PackedAttention, PostNormBlock

SMALL = Size(40, 40, 2, 1, 16, False)
LARGE = Size(40, 80, 4, 1, 16, True)  # 1.2: joints of 4 channels
VERSIONS = ("1.0", "1.1", "1.2")


def build(version="1.0", size=SMALL, **options):
    return create_model(
        "cascade_former", num_classes=5, layout="nw_ucla20", version=version, size=size, **options
    )


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("version", VERSIONS)
def test_forward_and_backward(version, size):
    model = build(version, size)
    y = model(torch.randn(3, 3, 9, 20, 2))
    assert y.shape == (3, 5)
    y.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == [
        "t1.reconstruction_head.weight",
        "t1.reconstruction_head.bias",
    ]


@pytest.mark.parametrize(
    "options, million",
    [
        (dict(layout="ntu25", size="ntu_xview"), 77.6),
        (dict(layout="ntu25", size="ntu_xview", version="1.2"), 96.5),
        (dict(layout="ntu25", size="ntu_xsub"), 180.8),
        (dict(layout="ntu25", size="ntu_xsub", version="1.2"), 191.9),
    ],
    ids=lambda v: str(v) if isinstance(v, float) else None,
)
def test_published_sizes(options, million):
    with torch.device("meta"):
        model = create_model("cascade_former", **options)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(million, abs=0.15)


@pytest.mark.parametrize("version", VERSIONS)
def test_four_files(version):
    """The parts are published as a file each."""
    model, other = build(version), build(version)
    state = published_state(model)
    for part in ("t1", "t2", "cross_attn", "head"):
        own = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        assert load_published(getattr(other, part), own) == ([], [], [])
    x = torch.randn(2, 3, 8, 20, 1)
    assert torch.equal(model.eval()(x), other.eval()(x))


def test_the_older_name_of_the_embedding():
    model = build()
    state = {
        k.replace("joint_embedding", "embedding"): v for k, v in published_state(model).items()
    }
    assert "t1.embedding.weight" in state
    assert load_published(build(), state) == ([], [], [])


def test_the_most_moving_person_is_seen():
    x = torch.randn(3, 3, 4, 20, 2)
    x[1, ..., 0] = 0
    x[2, ..., 1] = torch.nan
    y, index = select_person(x)
    assert index.tolist()[1:] == [1, 0]
    assert torch.equal(y[2], x[2, ..., 0].permute(1, 2, 0))
    model = build().eval()
    absent = torch.cat([x[:1, ..., :1], torch.zeros(1, 3, 4, 20, 1)], -1)
    assert torch.equal(model(absent), model(x[:1, ..., :1]))


def test_pre_training_then_fine_tuning():
    pretext = create_pretext(
        "cascade_former_pretrain", layout="nw_ucla20", num_frames=8, version="1.1", size=SMALL
    )
    x = torch.randn(2, 3, 8, 20, 1)
    pretext.loss(x).backward()
    assert all(p.grad is not None for p in pretext.parameters())
    assert pretext.encoder(x).shape == (2, pretext.encoder.num_features)
    model = build_classifier(pretext.encoder, 5, cross_heads=1)
    assert model.t1 is pretext.encoder and model(x).shape == (2, 5)
    fresh = build("1.1", SMALL._replace(positions=8))
    assert load_published(fresh.t1, published_state(pretext)) == ([], [], [])


def test_only_masked_slots_count():
    pretext = create_pretext("cascade_former_pretrain", layout="nw_ucla20", size=SMALL).eval()
    x, noise = torch.randn(1, 3, 4, 20, 1), torch.rand(1, 80)
    masked = (noise.argsort().argsort() < 24).view(1, 4, 20, 1)
    clip = select_person(x)[0]
    rec = pretext.encoder.reconstruct(clip.masked_fill(masked, 0))
    expected = ((rec - clip)[masked.expand_as(clip)] ** 2).mean()
    torch.testing.assert_close(pretext.loss(x, noise=noise), expected)


@pytest.mark.parametrize("channels, hidden", [(24, 64), (96, 32)])
def test_block_is_pytorchs(channels, hidden):
    ours = PostNormBlock(channels, 8, hidden, 0.0)
    theirs = nn.TransformerEncoderLayer(channels, 8, hidden, 0.0, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 7, channels)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_attention_is_pytorchs():
    ours, theirs = PackedAttention(24, 4), nn.MultiheadAttention(24, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    q, k, v = torch.randn(3, 2, 7, 24)
    for args in ((q,), (q, k), (q, k, v)):
        key, value = (args[1] if len(args) > 1 else q), args[-1]
        torch.testing.assert_close(ours(*args), theirs(q, key, value)[0])


@pytest.mark.parametrize("channels", [24, 96])
def test_dropout_in_training_only(channels):
    block = PostNormBlock(channels, 4, 32, 0.5)
    x = torch.randn(2, 5, channels)
    assert not torch.equal(block(x), block(x))
    torch.manual_seed(1)
    first = block(x)
    torch.manual_seed(1)
    assert torch.equal(block(x), first)
    block.eval()
    assert torch.equal(block(x), block(x))


def test_bad_input():
    with pytest.raises(ValueError, match=r"expected version one of 1.0, 1.1, 1.2, got '2'"):
        build("2")
    with pytest.raises(ValueError, match="expected size one of base, ntu_xview, ntu_xsub, got 'a'"):
        build(size="a")
    with pytest.raises(ValueError, match="expected at most 16 frames, got 17"):
        build()(torch.randn(1, 3, 17, 20, 1))
    with pytest.raises(ValueError, match=r"expected x of shape \(N, T, V, C\) with V=20, C=3"):
        build()(torch.randn(1, 3, 4, 25, 1))
    with pytest.raises(ValueError, match="expected channels of 20 joints with 4 heads, got 44"):
        build("1.2", LARGE._replace(channels_12=44))
    with pytest.raises(ValueError, match="PackedAttention: expected channels of 5 heads, got 24"):
        PackedAttention(24, 5)
    with pytest.raises(ValueError, match="PackedAttention: expected keys of the shape"):
        PackedAttention(24, 4)(torch.ones(1, 3, 24), torch.ones(1, 4, 24))
