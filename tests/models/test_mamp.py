"""MAMP and STARS: what is saved changes no result; what they refuse."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skelops import ops
from skelops.models import (
    LinearProbe,
    build_classifier,
    create_pretext,
    load_published,
    published_state,
)
from skelops.models.mamp import masked_rows, resize_segments
from skelops.nn import DropPath, TransformerBlock

SMALL = {"layout": "nw_ucla20", "num_frames": 16, "width": 16, "depth": 4, "heads": 2}
DECODER = {"decoder_width": 24, "decoder_depth": 3}


def clips(N=2, M=2, **changes):
    return torch.randn(N, 3, 16, 20, M, **changes)


def mamp(name="mamp", **changes):
    torch.manual_seed(0)
    return create_pretext(name, **SMALL | DECODER | changes)


def plainly(model, x, noise):
    """The published order of work: all tokens through every block of the decoder."""
    x = model.encoder.fold(x)
    ids, mask, restore = model.hide(x, noise)
    z = model.decoder_embed(model.encoder.tokens(x, ids))
    B, L = restore.shape
    places = (model.decoder_pos_embed + model.decoder_temp_embed).flatten(1, 2)
    full = torch.cat([z, model.mask_token.expand(B, L - z.shape[1], -1)], dim=1)
    y = full.gather(1, restore[..., None].expand(-1, -1, z.shape[2])) + places
    for block in model.decoder_blocks:
        y = block(y)
    pred = model.decoder_pred(model.decoder_norm(y))
    return ops.masked_motion_loss(x, pred, mask, **model.target), pred


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("name", ["mamp", "mae"])
def test_shared_rows_and_masked_rows_change_no_loss_and_no_gradient(name, depth):
    model, x = mamp(name, decoder_depth=depth).double(), clips().double()
    noise = torch.rand(4, 80)

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    expected, pred = plainly(model, x, noise)
    found = model(x, noise)
    torch.testing.assert_close(found.pred, pred)
    for loss in (found.loss, model.loss(x, torch.arange(2), noise)):
        torch.testing.assert_close(loss, expected)
    wanted = gradients(expected)
    for loss in (model(x, noise).loss, model.loss(x, torch.arange(2), noise)):
        torch.testing.assert_close(gradients(loss), wanted)


def test_tokens_of_several_joints():
    model, x = mamp(patch=5, mask_ratio=0.5).double(), clips().double().requires_grad_()
    flat = x.permute(0, 4, 1, 2, 3).flatten(0, 1)  # (B, C, T, V)
    patches = flat.view(4, 3, 4, 4, 4, 5).permute(0, 2, 4, 3, 5, 1).reshape(4, 16, -1)
    noise = torch.rand(4, 16, dtype=torch.float64)
    intensity = patches.view(4, 4, 4, -1).diff(dim=1).abs().mean(-1)
    intensity = torch.cat([intensity[:, :1], intensity], 1).flatten(1)
    scaled = intensity / (0.8 * intensity.amax(1, keepdim=True))
    order = (scaled - torch.log(-torch.log(noise))).argsort(1)

    proj = model.encoder.joints_embed["proj"]
    tokens = F.conv2d(flat, proj.weight, proj.bias, stride=(4, 5)).permute(0, 2, 3, 1)
    tokens = (tokens + model.encoder.temp_embed + model.encoder.pos_embed).flatten(1, 2)
    z = tokens.gather(1, order[:, :8, None].expand(-1, -1, 16))
    for block in model.encoder.blocks:
        z = block(z)
    found = model(x, noise, exact=True)
    assert torch.equal(found.ids_keep, order[:, :8])
    torch.testing.assert_close(model.encoder.tokens(model.encoder.fold(x), order[:, :8]),
                               model.encoder.norm(z))  # fmt: skip

    motion = F.pad(flat.diff(dim=2), (0, 0, 0, 1)).detach()
    target = motion.view(4, 3, 4, 4, 4, 5).permute(0, 2, 4, 3, 5, 1).reshape(4, 16, -1)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    error = (found.pred - target).square().mean(-1)
    torch.testing.assert_close(found.loss, error[~found.mask].mean())
    published = published_state(model)
    assert published["joints_embed.proj.weight"].shape == (16, 3, 4, 5)
    assert published["decoder_pred.weight"].shape == (60, 24)
    classifier = build_classifier(model.encoder, 5, hidden=8).double().eval()
    assert classifier(x).shape == (2, 5)


@pytest.mark.parametrize("patch", [0, 3, 40])
def test_patches_have_to_fill_the_joints(patch):
    with pytest.raises(
        ValueError, match=f"MAMP: expected patches that 20 joints fill, got {patch}"
    ):
        mamp(patch=patch)


@pytest.mark.parametrize("ratio", [0.0, 0.99, 1.0])
def test_nothing_masked_or_nothing_kept(ratio):
    model, x = mamp(mask_ratio=ratio), clips()
    noise = torch.rand(4, 80)
    loss = model.loss(x, torch.arange(2), noise)
    torch.testing.assert_close(loss, model(x, noise).loss)
    loss.backward()
    assert loss.isfinite() and (loss > 0) == (ratio > 0)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_last_block_ends_before_kept_rows():
    model = mamp()
    rows = []
    model.decoder_blocks[-1].mlp.register_forward_pre_hook(lambda _, x: rows.append(x[0].shape))
    model.loss(clips(), torch.arange(2))
    assert rows == [(4 * (80 - int(80 * (1 - 0.9))), 24)]
    shared = []
    model.decoder_blocks[0].attn.qkv.register_forward_pre_hook(lambda _, x: shared.append(x[0]))
    model.loss(clips(), torch.arange(2))
    assert [t.shape for t in shared] == [(80, 24), (4, 7, 24)]


def test_masked_rows():
    ids_keep, mask, restore = ops.motion_mask(torch.randn(3, 8, 5, 3), torch.rand(3, 10))
    rows = masked_rows(restore, ids_keep.shape[1])
    assert torch.equal(rows, (~mask).flatten().nonzero()[:, 0])


def test_published_sizes():
    def millions(module):
        return sum(p.numel() for p in module.parameters()) / 1e6

    model = create_pretext("mamp")
    assert millions(model) == pytest.approx(8.79, abs=0.01)
    assert millions(model.encoder) == pytest.approx(6.34, abs=0.01)
    assert millions(model.encoder.classifier(60)) == pytest.approx(19.57, abs=0.01)
    stars = create_pretext("stars", queue_size=8)
    assert millions(stars) == pytest.approx(8.44, abs=0.01)
    tuned = [p for p in stars.parameters() if p.requires_grad]
    assert sum(p.numel() for p in tuned) / 1e6 == pytest.approx(5.27, abs=0.01)


def test_a_published_checkpoint_goes_into_classifiers():
    model = mamp()
    state = {"model": published_state(model)}
    assert {"blocks.0.attn.qkv.weight", "decoder_pred.bias", "mask_token"} <= set(state["model"])
    for network in (LinearProbe(mamp().encoder, 5), build_classifier(mamp().encoder, 5)):
        report = load_published(network, state, strict=False)
        assert all(key.startswith("head") for key in report.missing)
        assert all(key.startswith(("decoder", "mask_token")) for key in report.unexpected)
        assert torch.equal(network.encoder.norm.bias, model.encoder.norm.bias)
        assert network.eval()(clips()).shape == (2, 5)


def test_another_number_of_segments():
    state = published_state(mamp())
    longer = mamp(num_frames=32)
    load_published(longer, resize_segments(state, 8))
    assert longer.encoder.temp_embed.shape == (1, 8, 1, 16)
    assert torch.equal(resize_segments(state, 4)["temp_embed"], state["temp_embed"])


def test_a_probe_leaves_the_encoder_alone():
    probe = LinearProbe(mamp(drop_path=0.5).encoder, 5).train()
    x = clips()
    assert not probe.encoder.training and probe.head.training
    assert torch.equal(probe.encoder(x), probe.encoder(x))
    probe(x).sum().backward()
    assert {n for n, p in probe.named_parameters() if p.grad is not None} == {
        "head.1.weight",
        "head.1.bias",
    }


def test_a_probe_without_normalisation_is_a_linear_layer():
    probe = LinearProbe(mamp().encoder, 5, normalize=False).train()
    x = clips()
    feature, fc = probe.encoder(x), probe.head[1]
    expected = feature @ fc.weight.T + fc.bias
    torch.testing.assert_close(probe(x), expected)
    torch.testing.assert_close(probe(feature), expected)


def test_layer_decay():
    network = build_classifier(mamp().encoder, 5, layer_decay=0.5)
    scales = {name: network.lr_scale(name) for name, _ in network.named_parameters()}
    assert scales["encoder.joints_embed.proj.weight"] == scales["encoder.pos_embed"] == 0.5**5
    assert scales["encoder.blocks.0.norm1.bias"] == 0.5**4
    assert scales["encoder.blocks.3.mlp.fc2.weight"] == 0.5
    assert scales["encoder.norm.weight"] == scales["head.fc1.weight"] == 1


def test_drop_path_leaves_out_whole_samples():
    drop = DropPath(0.5)
    y = drop(torch.ones(200, 3, 2)).flatten(1)
    assert set(y.unique().tolist()) == {0, 2} and (y == y[:, :1]).all()
    assert torch.equal(drop.eval()(y), y)
    encoder = mamp(drop_path=0.3).encoder
    assert [round(b.drop_path.rate, 3) for b in encoder.blocks] == [0, 0.1, 0.2, 0.3]


def test_under_autocast():
    model = mamp()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(clips(), torch.arange(2))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"create_pretext: expected one of .*mae, mamp, .*stars"):
        create_pretext("mask")
    with pytest.raises(ValueError, match="MAMP: expected frames that fill segments of 4, got 18"):
        mamp(num_frames=18)
    with pytest.raises(ValueError, match="MAMP: expected decoder_depth >= 1, got 0"):
        mamp(decoder_depth=0)
    with pytest.raises(ValueError, match=r"expected x of shape .* with T=16, V=20, got \(4, 12"):
        mamp().encoder(clips()[:, :, :12])
    with pytest.raises(ValueError, match=r"STARS: expected tuned blocks in 0..4, got 5"):
        create_pretext("stars", **SMALL, tuned=5)
    with pytest.raises(ValueError, match="STARS: expected 1 or 2 views, got 3"):
        create_pretext("stars", **SMALL, views=3)


@pytest.mark.parametrize("name", ["mae", "mamp", "stars"])
def test_degenerate_clips(name):
    """Nobody, people that stand still and persons that are absent: a finite loss."""
    torch.manual_seed(0)
    few = {"queue_size": 8, "hidden": 16} if name == "stars" else DECODER
    model = create_pretext(name, **SMALL | few)
    x = clips()
    x[0] = 0
    x[1, :, :, :, 1] = x[1, :, :1, :, 1]
    loss = model.loss(x, torch.arange(2))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_block_is_torchs():
    ours = TransformerBlock(16, 2, 2)
    theirs = nn.TransformerEncoderLayer(
        16, 2, 32, dropout=0, activation="gelu", norm_first=True, batch_first=True
    )
    names = (("norm1", "norm1"), ("norm2", "norm2"), ("mlp.fc1", "linear1"))
    names += (("mlp.fc2", "linear2"), ("attn.proj", "self_attn.out_proj"))
    for a, b in names:
        theirs.get_submodule(b).load_state_dict(ours.get_submodule(a).state_dict())
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(ours.attn.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.attn.qkv.bias)
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
