"""Sampling of volumes: agreement with grid_sample, what the mathematics knows, bad input."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops import deform_attention_3d, deform_sample_3d

F64 = torch.float64


def inputs(N=2, T=3, H=4, W=5, G=2, C=3, Q=6, P=2, dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([T, H, W])
    loc = torch.rand(N, Q, G, P, 3, generator=generator, dtype=F64) * (size + 2) - 1.5
    value = torch.randn(N, T, H, W, G, C, generator=generator, dtype=F64)
    weight = torch.randn(N, Q, G, P, generator=generator, dtype=F64)
    return {"value": value.to(dtype), "loc": loc.to(dtype), "weight": weight.to(dtype)}


def grid_sample(value, loc, weight, padding):
    """The same by torch, channels first and in places of [-1, 1]."""
    N, T, H, W, G, C = value.shape
    Q, P = loc.shape[1], loc.shape[3]
    grid = ((2 * loc + 1) / loc.new_tensor([T, H, W]) - 1).flip(-1)
    grid = grid.transpose(1, 2).reshape(N * G, Q, P, 1, 3)
    volume = value.permute(0, 4, 5, 1, 2, 3).reshape(N * G, C, T, H, W)
    found = F.grid_sample(volume, grid, padding_mode=padding, align_corners=False)
    found = found.view(N, G, C, Q, P) * weight.transpose(1, 2).unsqueeze(2)
    return found.sum(-1).permute(0, 3, 1, 2)


def with_gradients(function, a):
    leaves = {name: t.clone().requires_grad_() for name, t in a.items()}
    out = function(**leaves)
    grad = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out, *torch.autograd.grad(out, list(leaves.values()), grad)


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_equals_grid_sample(padding):
    a = inputs()
    ours = with_gradients(lambda **t: deform_sample_3d(**t, padding=padding), a)
    theirs = with_gradients(lambda **t: grid_sample(**t, padding=padding), a)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y)


def test_whole_places_are_cells():
    a = inputs(P=1)
    at = torch.stack(torch.meshgrid(*map(torch.arange, (3, 4, 5)), indexing="ij"), -1).flatten(0, 2)
    loc = at[None, :, None, None].expand(2, -1, 2, 1, 3).to(F64)
    assert torch.equal(deform_sample_3d(a["value"], loc), a["value"].flatten(1, 3))


def test_linear_volumes_are_reproduced():
    a = inputs(P=1, C=1)
    a["loc"] = a["loc"].clamp(min=0).minimum(torch.tensor([2.0, 3, 4], dtype=F64))
    grid = torch.stack(torch.meshgrid(*map(torch.arange, (3, 4, 5)), indexing="ij"), -1).to(F64)
    slope = torch.tensor([2.0, -3, 0.5], dtype=F64)
    value = (grid @ slope)[None, ..., None, None].expand(2, -1, -1, -1, 2, 1)
    expected = (a["loc"][:, :, :, 0] @ slope).unsqueeze(-1)
    torch.testing.assert_close(deform_sample_3d(value, a["loc"]), expected)


def test_one_frame_is_sampling_in_2d():
    a = inputs(T=1)
    flat = a["loc"].clone()
    flat[..., 0] = 0
    torch.testing.assert_close(deform_sample_3d(**a), deform_sample_3d(**a | {"loc": flat}))


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_places_without_bounds(padding):
    a = inputs(P=1) | {"weight": None}
    a["loc"] = torch.full_like(a["loc"], 1e30)
    a["loc"][0, 0], a["loc"][0, 1] = torch.inf, -torch.inf
    out = deform_sample_3d(**a, padding=padding)
    corner = a["value"][:, -1, -1, -1] if padding == "border" else torch.zeros(2, 2, 3, dtype=F64)
    torch.testing.assert_close(out[:, 2], corner)
    assert out.isfinite().all()


def test_nan_stays_in_its_sample():
    for dtype in (torch.float32, F64):
        a = inputs(dtype=dtype)
        expected = deform_sample_3d(**a)
        a["loc"][1, 2, 1, 0, 1] = torch.nan
        out = deform_sample_3d(**a)
        assert out[1, 2, 1].isnan().all()
        out[1, 2, 1] = expected[1, 2, 1]
        assert torch.equal(out, expected)


def test_places_stay_in_float32_under_autocast():
    a = inputs(T=8, H=60, W=60, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = deform_sample_3d(**a)
    assert out.dtype == torch.bfloat16
    rounded = {name: a[name].bfloat16().float() for name in ("value", "weight")}
    torch.testing.assert_close(out.float(), deform_sample_3d(**a | rounded), rtol=1e-2, atol=1e-2)


def test_deformable_attention():
    a, G, P = inputs(), 2, 2
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(6, 3, generator=generator, dtype=F64) * 3
    offset = torch.randn(2, 6, G, P, 3, generator=generator, dtype=F64)
    logits = torch.randn(2, 6, G, P, generator=generator, dtype=F64)
    expected = grid_sample(
        a["value"], reference[:, None, None] + offset, logits.softmax(-1), "border"
    )
    found = deform_attention_3d(a["value"], reference, offset, logits)
    torch.testing.assert_close(found, expected)


BAD = [
    (dict(value=torch.ones(2, 3)), ValueError, "value of shape (N, T, H, W, G, C), got (2, 3)"),
    (dict(value=torch.ones(2, 3, 4, 5, 2, 3).int()), TypeError, "value of a floating dtype"),
    (dict(value=torch.ones(2, 3, 0, 5, 2, 3)), ValueError, "value with at least one cell, got"),
    (dict(loc=torch.ones(2, 6, 2, 2, 2)), ValueError, "loc of shape (N, Q, G, P, 3) with N=2, G=2"),
    (dict(loc=torch.ones(2, 6, 2, 2, 3).half()), TypeError, "loc of dtype torch.float32"),
    (dict(loc=[0.0]), TypeError, "loc to be a tensor, got list"),
    (dict(weight=torch.ones(2, 6, 2, 3)), ValueError, "weight of shape (N, Q, G, P) with N=2, Q=6"),
    (dict(weight=torch.ones(2, 6, 2, 2).half()), TypeError, "weight of value's dtype"),
    (dict(padding="reflect"), ValueError, "padding in ('border', 'zeros'), got 'reflect'"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match="^" + re.escape(f"deform_sample_3d: expected {message}")):
        deform_sample_3d(**inputs(dtype=torch.float32) | change)


def test_bad_reference():
    a = inputs()
    offset, logits = a["loc"], a["weight"]
    for reference, message in (
        (torch.ones(6, 2), "reference of shape ([N,] Q, 3), got (6, 2)"),
        (torch.ones(5, 3), "reference of 6 queries, got (5, 3)"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"deform_attention_3d: expected {message}")):
            deform_attention_3d(a["value"], reference, offset, logits)
