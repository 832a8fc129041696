"""M-Mixer: its units against the paper's formulas, which content a modality sees, bad input."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops.models import MMixer
from skelops.models.m_mixer import CFEM, MCU, FrameEncoder

SMALL = {"dim": 16, "widths": (4, 8), "heads": 2, "num_classes": 5}


def model(*modalities, **changes):
    torch.manual_seed(0)
    return MMixer(modalities=modalities or ("rgb", "depth"), **SMALL | changes).eval()


def pictures(N=2, T=4, size=16, **frames):
    generator = torch.Generator().manual_seed(0)
    channels = {"rgb": 3, "depth": 1, "infrared": 1}
    found = {
        name: torch.randn(N, C, frames.get(name, T), size, size, generator=generator)
        for name, C in channels.items()
    }
    found["skeleton"] = torch.randn(N, 3, T, 25, 2, generator=generator)
    return found


def paper_unit(unit: MCU, f, g, reset_after):
    """One modality, frame by frame: mix, reset, update."""
    a = torch.tanh(unit.ln_f(unit.f(f)))
    b = torch.tanh(unit.ln_g(unit.g(g)))
    h, states = torch.zeros(len(f), unit.dim), []
    W_h = unit.h.weight
    for t in range(f.shape[1]):
        s = torch.sigmoid(unit.ln_s(unit.s(torch.cat([a[:, t], b], 1))))
        u = s * a[:, t] + (1 - s) * b
        r = torch.sigmoid(unit.ln_r(unit.r(torch.cat([u, h], 1))))
        z = torch.sigmoid(unit.ln_z(unit.z(torch.cat([u, h], 1))))
        if reset_after:
            n = F.linear(u, W_h[:, : unit.dim], unit.h.bias) + r * (h @ W_h[:, unit.dim :].T)
        else:
            n = unit.h(torch.cat([u, r * h], 1))
        h = (1 - z) * h + z * torch.tanh(unit.ln_h(n))
        states.append(h)
    return torch.stack(states, 1)


def paper_content(cfem: CFEM, features, i):
    """The query of modality i on the frames of the others."""
    T, D = features[0].shape[1], cfem.query.shape[1]
    half = torch.arange(T)[:, None] / 10000 ** (torch.arange(0, D, 2) / D)
    place = torch.stack([half.sin(), half.cos()], -1).flatten(1)
    bank = torch.cat(
        [
            F.linear(f, cfem.bank.weight, cfem.bank.bias) + cfem.mod_embed[j] + place
            for j, f in enumerate(features)
            if j != i
        ],
        1,
    )
    q = cfem.query[i].expand(len(bank), 1, D)
    k, v = cfem.kv.weight.chunk(2), cfem.kv.bias.chunk(2)
    mixed, _ = F.multi_head_attention_forward(
        q.transpose(0, 1), bank.transpose(0, 1), bank.transpose(0, 1), D, cfem.heads,
        torch.cat([cfem.q.weight, k[0], k[1]]), torch.cat([cfem.q.bias, v[0], v[1]]),
        None, None, False, 0.0, cfem.proj.weight, cfem.proj.bias,
    )  # fmt: skip
    y = cfem.norm1(q[:, 0] + mixed[0])
    return cfem.norm2(y + cfem.fc2(F.gelu(cfem.fc1(y))))


@pytest.mark.parametrize("names", [("rgb", "depth"), ("depth", "skeleton", "infrared")])
@pytest.mark.parametrize("content", ["cfem", "mean"])
@pytest.mark.parametrize("norm, reset_after", [(True, False), (False, True)])
def test_equals_the_formulas(names, content, norm, reset_after):
    net = model(*names, content=content, norm=norm, reset_after=reset_after)
    for p in net.mcu.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = pictures()
    features = [net.encoder[name](x[name]) for name in names]
    assert all(f.shape == (2, 4, 8) for f in features)
    last = []
    for i, name in enumerate(names):
        others = torch.cat([f.mean(1) for j, f in enumerate(features) if j != i], 1)
        g = others if content == "mean" else paper_content(net.cfem, features, i)
        last.append(paper_unit(net.mcu[name], features[i], g, reset_after)[:, -1])
    torch.testing.assert_close(net(x), net.fc(torch.cat(last, 1)), rtol=1e-4, atol=1e-5)


def test_sizes_of_the_paper():
    """2.62 M in a unit of two modalities, 11.2 M in an encoder, as counted by the formulas."""
    unit = MCU(512, 512, 512)
    assert sum(p.numel() for p in unit.parameters()) / 1e6 == pytest.approx(2.62, abs=0.01)
    encoder = FrameEncoder()
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(11.18, abs=0.01)
    assert {f"mcu.rgb.{g}.weight" for g in "fgsrzh"} <= set(model().state_dict())


def test_every_modality_and_frame_counts():
    net, x = model("rgb", "depth", "skeleton"), pictures()
    leaves = {name: x[name].clone().requires_grad_() for name in net.modalities}
    grads = torch.autograd.grad(net(leaves).square().sum(), list(leaves.values()))
    for g in grads:
        assert g.isfinite().all() and (g.abs().sum((0, 1, 3, 4)) > 0).all()


def test_a_modality_is_blind_to_itself_in_its_content():
    net, x = model("rgb", "depth"), pictures()
    features = [net.encoder[name](x[name]) for name in net.modalities]
    changed = [features[0] + 1, features[1]]
    before, after = net.cfem(features), net.cfem(changed)
    assert torch.equal(before[:, 0], after[:, 0]) and not torch.equal(before[:, 1], after[:, 1])


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(depth=None), "modalities rgb, depth, got rgb, infrared, skeleton"),
        (dict(depth=torch.ones(2, 1, 5, 16, 16)), "as many frames of rgb, depth, got [4, 5]"),
        (dict(depth=torch.ones(3, 1, 4, 16, 16)), "as many clips of rgb, depth, got [2, 3]"),
        (dict(depth=torch.ones(2, 4, 16)), "depth of shape (N, C, T, H, W) or (N, C, T, V, M)"),
    ],
)
def test_bad_input(change, message):
    x = {name: t for name, t in (pictures() | change).items() if t is not None}
    with pytest.raises(ValueError, match="^" + re.escape(f"MMixer: expected {message}")):
        model()(x)
    with pytest.raises(TypeError, match="MMixer: expected a mapping of modalities, got Tensor"):
        model()(torch.ones(2, 3, 4, 16, 16))


@pytest.mark.parametrize(
    "modalities, options, message",
    [
        (("rgb",), {}, "two or more of rgb, depth, infrared, skeleton, got rgb"),
        (("rgb", "rgb"), {}, "two or more of"),
        (("rgb", "sound"), {}, "two or more of"),
        (("rgb", "depth"), {"content": "sum"}, "content in ('cfem', 'mean'), got 'sum'"),
    ],
)
def test_bad_arguments(modalities, options, message):
    with pytest.raises(ValueError, match="^" + re.escape(f"MMixer: expected {message}")):
        model(*modalities, **options)
