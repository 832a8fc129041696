"""3D Deformable Transformer: its parts against plain formulas, its symmetries, bad input."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops.models import DeformTransformer, joint_pool
from skelops.models.deform_transformer import LocalJointStride
from skelops.nn import CrossAttention, DeformAttention3d, TokenSearch3d

F64 = torch.float64
SMALL = {"num_classes": 5, "frames": 4, "image_size": 16, "dim": 16, "depth": 2, "heads": 2}
SMALL |= {"groups": 2, "widths": (4, 8), "blocks": 1, "layout": "coco17"}


def model(**changes):
    torch.manual_seed(0)
    net = DeformTransformer(**SMALL | changes).eval()
    for name, p in net.named_parameters():
        if name.endswith("pw.weight"):  # zero at the start
            torch.nn.init.normal_(p)
    return net


def sample(N=2, T=4, V=17, M=2, size=16):
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand(N, 3, T, V, M, generator=generator)
    keypoints[:, :2] = 2 * keypoints[:, :2] - 1
    return {"rgb": torch.randn(N, 3, T, size, size, generator=generator), "keypoints": keypoints}


def attention(q, k, v, heads):
    """Softmax attention of every head, one after the other."""
    parts = zip(*(t.chunk(heads, -1) for t in (q, k, v)), strict=True)
    return torch.cat([(a @ b.mT / a.shape[-1] ** 0.5).softmax(-1) @ c for a, b, c in parts], -1)


@pytest.mark.parametrize("size", [(4, 6, 6), (3, 5, 7), (1, 2, 2)])
def test_token_search(size):
    """Places of the paper in [-1, 1], sampled by grid_sample."""
    T, H, W = size
    search = TokenSearch3d(12, 3).double()
    torch.nn.init.normal_(search.pw.weight)
    z = torch.randn(2, T, H, W, 12, dtype=F64)
    found = []
    for g in range(3):
        volume = z[..., 4 * g : 4 * g + 4].permute(0, 4, 1, 2, 3)
        o = search.pw(F.gelu(search.dw(volume)))
        steps = o.shape[2:]
        axes = [(2 * torch.arange(n, dtype=F64) + 1) / n - 1 for n in steps]
        ref = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        reach = 2 * 2 / torch.tensor(steps, dtype=F64)
        p = (ref + torch.tanh(o).permute(0, 2, 3, 4, 1) * reach).clamp(-1, 1)
        sampled = F.grid_sample(volume, p.flip(-1), padding_mode="border", align_corners=False)
        found.append(sampled.flatten(2).mT)
    torch.testing.assert_close(search(z), torch.cat(found, -1))


def test_token_search_starts_from_the_strided_grid():
    z = torch.randn(1, 4, 6, 6, 8)
    expected = F.avg_pool3d(z.permute(0, 4, 1, 2, 3), 2).flatten(2).mT
    torch.testing.assert_close(TokenSearch3d(8, 2)(z), expected)


def test_deformable_attention():
    layer = DeformAttention3d(8, heads=2, groups=2).double()
    torch.nn.init.normal_(layer.offset.pw.weight)
    z, modal = torch.randn(2, 2, 4, 4, 8, dtype=F64), torch.randn(2, 2, 8, dtype=F64)
    queries = torch.cat([z.flatten(1, 3), modal], 1)
    keys = torch.cat([layer.offset(z), modal], 1)
    expected = layer.proj(attention(layer.q(queries), layer.k(keys), layer.v(keys), 2))
    torch.testing.assert_close(layer(z, modal), expected)


def test_masked_keys_are_as_if_absent():
    layer = CrossAttention(8, 2)
    x, tokens = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    kept = torch.tensor([True, False, True, True, False]).expand(2, -1)
    torch.testing.assert_close(layer(x, tokens, kept), layer(x, tokens[:, [0, 2, 3]]))


@pytest.mark.parametrize("persons", [1, 2])
def test_local_joint_stride(persons):
    """Windows one by one, their overlaps averaged; those of absent persons are not looked at."""
    V, J, K = 5, 5 * persons, 2
    layer = LocalJointStride(8, 2, J, V).double()
    pose, modal = torch.randn(2, 3, J, 8, dtype=F64), torch.randn(2, K, 8, dtype=F64)
    kept = torch.ones(2, 3, J, dtype=torch.bool)
    kept[0, 1, J - V :] = persons == 1
    starts = [0] if persons == 1 else [0, 3, 5]
    total, count, shared = torch.zeros_like(pose), torch.zeros(J, 1), 0.0
    qkv, proj = layer.attention.qkv, layer.attention.proj
    for s in starts:
        for n in range(2):
            for t in range(3):
                tokens = torch.cat([pose[n, t, s : s + V], modal[n]])
                seen = torch.cat([kept[n, t, s : s + V], torch.ones(K, dtype=torch.bool)])
                q, k, v = qkv(tokens).chunk(3, -1)
                y = proj(attention(q, k[seen], v[seen], 2))
                total[n, t, s : s + V] += y[:V]
                shared = shared + F.one_hot(torch.tensor(n), 2).view(2, 1, 1) * y[V:]
        count[s : s + V] += 1
    local, found = layer(pose, modal, kept)
    torch.testing.assert_close(local, total / count)
    torch.testing.assert_close(found, shared / (3 * len(starts)))


def test_joint_pool():
    features = torch.randn(2, 3, 2, 4, 6, dtype=F64)
    keypoints = sample(T=2, V=5)["keypoints"].to(F64)
    found = joint_pool(features, keypoints, sigma=0.8)
    for n, t, v, m in ((0, 0, 0, 0), (1, 1, 4, 1), (0, 1, 2, 1)):
        x, y, score = keypoints[n, :, t, v, m]
        column, row = ((x + 1) * 6 - 1) / 2, ((y + 1) * 4 - 1) / 2
        square = (torch.arange(6) - column) ** 2 + (torch.arange(4)[:, None] - row) ** 2
        w = score * torch.exp(-square / (2 * 0.8**2))
        expected = (w * features[n, :, t]).sum((1, 2)) / (w.sum() + 1e-6)
        torch.testing.assert_close(found[n, t, m * 5 + v], expected)


def test_everything_counts():
    net, x = model(drop_path=0.0).train(), sample()
    leaves = {name: t.clone().requires_grad_() for name, t in x.items()}
    loss = net(leaves).square().sum()
    grads = torch.autograd.grad(loss, [*leaves.values(), *net.parameters()])
    assert all(g.isfinite().all() and g.any() for g in grads)
    assert (grads[0].abs().sum((0, 1, 3, 4)) > 0).all()


def test_absent_persons_do_not_count():
    net, x = model(), sample()
    x["keypoints"][:, 2, :, :, 1] = 0
    expected = net(x)
    x["keypoints"][:, :2, :, :, 1] = 0.3
    torch.testing.assert_close(net(x), expected)
    x["keypoints"][:, 2] = 0  # nobody is there
    assert net(x).isfinite().all()


def test_clips_do_not_mix():
    net, x = model(), sample(N=3)
    alone = net({name: t[1:2] for name, t in x.items()})
    torch.testing.assert_close(net(x)[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(keypoints=None), "modalities rgb, keypoints, got rgb"),
        (dict(rgb=torch.ones(2, 3, 5, 16, 16)), "as many frames of rgb, keypoints, got [5, 4]"),
        (dict(rgb=torch.ones(2, 3, 4, 32, 32)), "rgb of shape (N, 3, T, H, W) with T=4, H=16"),
        (dict(keypoints=torch.ones(2, 3, 4, 25, 2)), "keypoints of shape (N, 3, T, V, M) with"),
    ],
)
def test_bad_input(change, message):
    x = {name: t for name, t in (sample() | change).items() if t is not None}
    expected = re.escape(f"DeformTransformer: expected {message}")
    with pytest.raises(ValueError, match="^" + expected):
        model()(x)


def test_bad_arguments():
    for options in ({"image_size": 18}, {"widths": (8,)}):
        with pytest.raises(ValueError, match="DeformTransformer: expected image_size of whole"):
            model(**options)
    with pytest.raises(ValueError, match="TokenSearch3d: expected channels of 3 groups, got 16"):
        model(groups=3)
