"""FineTec: completion of missing frames, streams, physics, and what is refused."""

import pickle

import pytest
import torch

from skelops.graph import Layout, get_layout
from skelops.models import create_model, load_published, published_state
from skelops.models.finetec import (
    SHEARED,
    CrossFusion,
    Draws,
    part_motion,
    perturb_dynamic,
    perturb_static,
)
from skelops.nn.completion import Completion, fill_frames
from skelops.nn.lagrangian import AccelerationNetwork
from skelops.train.completion import draw_gaps

COCO = get_layout("coco17")
PARTS = list(COCO.parts.values())
SMALL = {"num_classes": 5, "frames": 8, "stages": [(8, 1), (16, 2)], "fusion_width": 8}
SMALL |= {"completion": {"layers": 4, "bank": 3}}
SMALL |= {"physics": {"hidden": [8, 8], "mass_hidden": [8, 8]}}
# Of one motion of nine frames in the plane: nothing is perturbed.
DRAWS = Draws(
    torch.ones(1, 2), torch.ones(1, 9), torch.full((1, 2, 2), 0.5), torch.ones(1), torch.zeros(1)
)
VARIANTS = [{}, {"completion": False}, {"decomposition": False}, {"physics": False}]
VARIANTS += [{"completion": False, "decomposition": False, "physics": False}]


def clip(N=3, C=2, T=8, V=17, M=1, lost=0.5):
    x = torch.randn(N, C, T, V, M).cumsum(2)
    x[:, :, torch.arange(T) % 4 > 4 * (1 - lost) - 1] = 0
    return x


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: "-".join(o) or "full")
@pytest.mark.parametrize("layout, C, M", [("coco17", 2, 1), ("ntu25", 3, 2)])
def test_forward_and_backward(options, layout, C, M):
    torch.manual_seed(0)
    model = create_model("finetec", layout=layout, in_channels=C, num_persons=M, **SMALL | options)
    x = clip(C=C, V=get_layout(layout).num_joints, M=M)
    y = model(x)
    assert y.shape == (3, 5)
    (y.square().sum() + model.auxiliary_loss()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("completion")
        assert parameter.requires_grad is not frozen
        assert frozen or parameter.grad.isfinite().all(), name
    y = model.eval()(x)
    assert torch.equal(y, model(x))
    alone = model(x[1:2])
    torch.testing.assert_close(alone, y[1:2], rtol=1e-4, atol=1e-5)


def test_the_head_alone_sees_straight_lines_and_their_differences():
    off = {"completion": False, "decomposition": False, "physics": False}
    model = create_model("finetec", **SMALL | off).eval()
    x = clip()
    base = fill_frames(x[..., 0].permute(0, 2, 3, 1), (x != 0).any(1).any(2)[..., 0])
    curve = torch.zeros_like(base)
    curve[:, 1:-1] = base.diff(n=2, dim=1)
    whole, moved = (t.permute(0, 3, 1, 2)[..., None] for t in (base, curve))
    expected = model.head["position"](whole) + model.head["acceleration"](moved)
    torch.testing.assert_close(model(x), expected)
    assert model.auxiliary_loss() == 0


def test_absent_persons_stay_finite():
    model = create_model("finetec", num_persons=2, **SMALL)
    x = clip(M=2)
    x[..., 1] = 0
    x.requires_grad_()
    y = model(x)
    (y.square().sum() + model.auxiliary_loss()).backward()
    assert y.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("change, message", [
    ({"shape": (2, 2, 7, 17, 1)}, r"finetec: expected x of shape"),
    ({"shape": (2, 2, 8, 16, 1)}, r"finetec: expected x of shape"),
    ({"layout": Layout("chain", (0, 0, 1))}, r"finetec: expected a layout with parts of the body"),
])  # fmt: skip
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        model = create_model("finetec", layout=change.get("layout", "coco17"), **SMALL)
        model(torch.zeros(change["shape"]))


def test_auxiliary_loss_needs_a_forward():
    model = create_model("finetec", **SMALL)
    with pytest.raises(RuntimeError, match="finetec: expected a forward before auxiliary_loss"):
        model.auxiliary_loss()


def test_state_holds_the_bank():
    model = create_model("finetec", **SMALL)
    model.completion.remember(torch.randn(2, 8, 17, 2))
    model(clip())
    model.auxiliary_loss()
    other = create_model("finetec", **SMALL)
    assert not other.completion.ready
    assert load_published(other, published_state(model)) == ([], [], [])
    assert other.completion.ready
    x = clip()
    torch.testing.assert_close(other.eval()(x), model.eval()(x))
    assert pickle.loads(pickle.dumps(model)).completion.ready


# Completion.


def test_straight_lines():
    x = torch.tensor([0.0, 9, 4, 9, 9, 10, 9])[None, :, None]
    kept = torch.tensor([[False, False, True, False, False, True, False]])
    assert fill_frames(x, kept).flatten().tolist() == [4, 4, 4, 6, 8, 10, 10]
    assert torch.equal(fill_frames(x, torch.zeros_like(kept)), x[:, -1:].expand_as(x))
    assert torch.equal(fill_frames(x, torch.ones_like(kept)), x)


def test_gaps():
    kept = draw_gaps(4000, 32, torch.Generator().manual_seed(0))
    shares = {8: 0.75, 16: 0.5, 24: 0.25}
    count = kept.sum(1)
    assert set(count.tolist()) == set(shares)
    for frames in shares:
        assert (count == frames).double().mean().item() == pytest.approx(1 / 3, abs=0.04)
    prefix = ~kept[:, 0] & kept[:, -1] & (kept.diff(dim=1).sum(1) == 1)
    suffix = kept[:, 0] & ~kept[:, -1] & (kept.diff(dim=1).sum(1) == 1)
    middle = kept[:, 0] & kept[:, -1] & (kept.diff(dim=1).sum(1) == 2)
    for kind in (prefix, suffix, middle):
        assert kind.double().mean().item() == pytest.approx(0.2, abs=0.04)
    assert draw_gaps(50, 1).all()


def test_completion_learns_by_example():
    torch.manual_seed(0)
    t = torch.linspace(0, 6, 16)
    phase, speed = torch.rand(2, 64, 1)
    wave = torch.sin(t * (1 + speed) + 6 * phase)
    x = (wave[:, :, None] * torch.linspace(0.5, 1, 4)).unflatten(2, (2, 2))
    model = Completion(2, 2, 16, layers=6, bank=8)
    model.remember(x[:8])
    kept = draw_gaps(56, 16)
    filled = fill_frames(x[8:], kept)
    torch.testing.assert_close(model(x[8:], kept), filled, rtol=0, atol=1e-4)  # before training
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(x[8:], kept).backward()
        optimizer.step()
    found = model(x[8:], kept)
    assert torch.equal(found[kept], x[8:][kept])
    assert (found - x[8:]).square().mean() < 0.5 * (filled - x[8:]).square().mean()


def test_completions_that_tremble_cost_more(monkeypatch):
    model = Completion(3, 2, 12, layers=2, bank=4)
    model.remember(torch.randn(4, 12, 3, 2))
    x, kept = torch.randn(5, 12, 3, 2), torch.arange(12) % 3 == 0
    kept = kept.expand(5, -1)

    def loss(pattern):
        off = 0.1 * torch.tensor(pattern).repeat(6)[:, None] * torch.ones(6)
        monkeypatch.setattr(model, "_complete", lambda *_: (x.flatten(2) + off, prompt + off))
        return model.loss(x, kept)

    prompt = model._example(fill_frames(x, kept).flatten(2), kept)
    assert loss([1.0, -1.0]) > 2 * loss([1.0, 1.0])


def test_a_bank_of_other_motions():
    with pytest.raises(ValueError, match="Completion: expected motions of 8 x 34 values"):
        Completion(17, 2, 8).remember(torch.zeros(2, 7, 17, 2))


# Streams.


def test_parts_that_move_most():
    x = torch.zeros(1, 4, 17, 2)
    x[0, :, 9, 0] = torch.arange(4.0) * 3  # a wrist: an arm moves 1 on average
    x[0, :, 16, 1] = torch.arange(4.0) * 6
    motion = part_motion(x, PARTS)
    assert motion.top.tolist() == [[1, 4]]
    torch.testing.assert_close(motion.parts, torch.tensor([[0.0, 1, 0, 0, 2]]))
    assert motion.dynamic[0].nonzero().flatten().tolist() == [5, 7, 9, 12, 14, 16]


def test_crops_are_stretched_and_dropped_frames_refilled():
    x = torch.arange(9.0).view(1, 9, 1, 1).expand(1, 9, 17, 2)
    still, center = DRAWS._replace(crop=torch.tensor([[1.0, 0.3]])), x[:, :, :1]
    torch.testing.assert_close(perturb_dynamic(x, center, still), x)
    half = still._replace(crop=torch.tensor([[0.0, 0.5]]))
    torch.testing.assert_close(perturb_dynamic(x, center, half), 2 + x / 2)
    lost = half._replace(drop=torch.tensor([[1.0, 0.1, 1, 1, 1, 1, 1, 1, 0]]))
    y = perturb_dynamic(x, center, lost)[0, :, 0, 0]
    torch.testing.assert_close(y, torch.tensor([2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 5.5]))


def test_shears_leave_the_hips():
    x = torch.randn(1, 9, 17, 2)
    center = x[:, :, [11, 12]].mean(2, keepdim=True)
    draws = DRAWS._replace(shear=torch.tensor([[[0.5, 1.0], [0.5, 0.5]]]))
    y = perturb_dynamic(x, center, draws)
    torch.testing.assert_close(y[..., 0], x[..., 0])
    torch.testing.assert_close(y[..., 1], x[..., 1] + SHEARED * (x - center)[..., 0])
    torch.testing.assert_close(y[:, :, [11, 12]].mean(2, keepdim=True), center)


def test_mirror_about_the_hips():
    x = torch.randn(2, 5, 17, 2)
    center = x[:, :, [11, 12]].mean(2, keepdim=True)
    draws = DRAWS._replace(flip=torch.tensor([0.4, 0.6]))
    y = perturb_static(x, torch.tensor(COCO.mirror), center, draws)
    assert torch.equal(y[1], x[1])
    torch.testing.assert_close(y[0, :, 9, 0], 2 * center[0, :, 0, 0] - x[0, :, 10, 0])
    torch.testing.assert_close(y[0, :, 9, 1], x[0, :, 10, 1])


def test_streams():
    torch.manual_seed(0)
    model = create_model("finetec", **SMALL)
    base = torch.randn(4, 8, 17, 2)
    moving = part_motion(base, PARTS).dynamic[:, None, :, None].expand_as(base)
    same, dynamic, static = model.streams(base, Draws.of(base))
    assert torch.equal(same, base) and torch.equal(dynamic[~moving], base[~moving])
    assert torch.equal(static[moving], base[moving]) and not torch.equal(dynamic, base)


def test_a_sample_is_one_of_its_streams(monkeypatch):
    torch.manual_seed(0)
    model = create_model("finetec", **SMALL | {"completion": False, "physics": False})
    x, seen = clip(), {}
    for name, net in model.head.items():
        net.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    of = Draws.of
    for stream, share in enumerate((0.1, 0.5, 0.9)):
        draws = of(x[..., 0].permute(0, 2, 3, 1))._replace(stream=torch.full((3,), share))
        monkeypatch.setattr(Draws, "of", lambda _, draws=draws: draws)
        model(x)
        wanted = model.streams(model.complete(x[..., 0].permute(0, 2, 3, 1)), draws)[stream]
        assert torch.equal(seen["position"][..., 0].permute(0, 2, 3, 1), wanted)
        assert torch.equal(
            seen["acceleration"][:, :, 1:-1, :, 0], seen["position"][..., 0].diff(n=2, dim=2)
        )


def test_fusion_starts_as_the_query_and_ignores_copies():
    fusion = CrossFusion(2, 8)
    x = torch.randn(2, 3, 5, 2)
    assert torch.equal(fusion(x, [x, x]), x)
    torch.nn.init.normal_(fusion.out.weight)
    torch.testing.assert_close(fusion(x, [x]), fusion(x, [x, x, x]))


def test_fusion_is_attention():
    torch.manual_seed(0)
    fusion = CrossFusion(2, 8).double()
    torch.nn.init.normal_(fusion.out.weight)
    x = torch.randn(2, 3, 5, 2, dtype=torch.float64)
    streams = list(torch.randn(3, 2, 3, 5, 2, dtype=torch.float64))
    context = torch.cat(streams, 2)
    found = torch.nn.functional.scaled_dot_product_attention(
        fusion.query(x), fusion.key(context), fusion.value(context)
    )
    torch.testing.assert_close(fusion(x, streams), x + fusion.out(found))


def test_accelerations_are_linear_in_the_forces():
    net = AccelerationNetwork(4, (8, 8), (8, 8))
    position, velocity = torch.randn(2, 3, 8)
    state = torch.cat([position, velocity], -1)
    S = torch.zeros(3, 4, 4)
    rows, columns = torch.tril_indices(4, 4)
    S[:, rows, columns] = net.minv(state)
    S = S + S.tril(-1).mT
    expected = (S @ net.tau(state)[..., None]).squeeze(-1)
    expected = expected - net.coriolis(state) - net.gravity(position)
    torch.testing.assert_close(net(position, velocity), expected)
