"""The recurrence of M-Mixer: its equation step by step, what follows from it, bad input."""

import re

import pytest
import torch
import torch.nn.functional as F

from skelops import mcu_scan

F64 = torch.float64


def inputs(S=2, N=3, T=4, D=5, dtype=F64, norm=True, start=True):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=F64).to(dtype)

    return {
        "pre": normal(S, N, T, 3 * D),
        "weight": normal(S, 3 * D, D) / D**0.5,
        "ln_weight": 1 + 0.2 * normal(S, 3, D) if norm else None,
        "ln_bias": 0.2 * normal(S, 3, D) if norm else None,
        "h0": normal(S, N, D) if start else None,
    }


def step_by_step(pre, weight, ln_weight, ln_bias, h0, reset_after):
    """Modality by modality, with the layers of torch."""
    D, found = weight.shape[-1], []
    for s in range(len(pre)):
        U_r, U_z, U_n = weight[s].chunk(3)

        def gate(k, a, s=s):
            norm = ln_weight is not None
            return F.layer_norm(a, (D,), ln_weight[s, k], ln_bias[s, k]) if norm else a

        h = pre.new_zeros(pre.shape[1], D) if h0 is None else h0[s]
        for t in range(pre.shape[2]):
            p_r, p_z, p_n = pre[s, :, t].chunk(3, -1)
            r = torch.sigmoid(gate(0, p_r + h @ U_r.T))
            z = torch.sigmoid(gate(1, p_z + h @ U_z.T))
            n = torch.tanh(gate(2, p_n + (r * (h @ U_n.T) if reset_after else (r * h) @ U_n.T)))
            h = (1 - z) * h + z * n
            found.append(h)
    return torch.stack(found).view(len(pre), pre.shape[2], *h.shape).transpose(1, 2)


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("norm, start", [(True, False), (False, True), (True, True)])
def test_equals_its_equation(norm, start, reset_after):
    a = inputs(N=27, norm=norm, start=start)  # more clips than a tile has
    leaves = {k: t.requires_grad_() for k, t in a.items() if t is not None}
    out = mcu_scan(**a, reset_after=reset_after)
    expected = step_by_step(**a, reset_after=reset_after)
    torch.testing.assert_close(out, expected)
    grad = torch.linspace(-1, 1, out.numel(), dtype=F64).view(out.shape)
    for name, ours, theirs in zip(
        leaves,
        torch.autograd.grad(out, list(leaves.values()), grad),
        torch.autograd.grad(expected, list(leaves.values()), grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_gru_of_torch():
    """Without normalisation and with the reset behind the product it is a GRU, z mirrored."""
    a = inputs(S=1, norm=False, start=False)
    gru = torch.nn.GRU(15, 5, batch_first=True, dtype=F64)
    r, z, n = a["pre"][0].chunk(3, -1)
    with torch.no_grad():
        gru.weight_ih_l0.copy_(torch.eye(15))
        sign = torch.tensor([1.0, -1, 1], dtype=F64).repeat_interleave(5)[:, None]
        gru.weight_hh_l0.copy_(a["weight"][0] * sign)
        gru.bias_ih_l0.zero_(), gru.bias_hh_l0.zero_()
        expected, _ = gru(torch.cat([r, -z, n], -1))
    torch.testing.assert_close(mcu_scan(**a, reset_after=True)[0], expected)


def test_goes_on_from_a_state():
    a = inputs(T=6)
    whole = mcu_scan(**a)
    first = mcu_scan(**a | {"pre": a["pre"][:, :, :4]})
    rest = mcu_scan(**a | {"pre": a["pre"][:, :, 4:], "h0": first[:, :, -1]})
    torch.testing.assert_close(torch.cat([first, rest], 2), whole)


def test_modalities_do_not_mix():
    a = inputs()
    expected = mcu_scan(**a)
    for s in range(2):
        alone = mcu_scan(**{name: t[s : s + 1] for name, t in a.items()})
        torch.testing.assert_close(alone, expected[s : s + 1])


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e30])
def test_any_scale(scale):
    a = inputs(dtype=torch.float32)
    a["pre"] = (a["pre"] * scale).requires_grad_()
    out = mcu_scan(**a)
    assert out.isfinite().all() and out.abs().max() <= max(1, a["h0"].abs().max())
    if scale < 1e30:  # squares overflow
        assert torch.autograd.grad(out.sum(), a["pre"])[0].isfinite().all()


def test_nan_stays_in_its_clip():
    a = inputs(dtype=torch.float32)
    expected = mcu_scan(**a)
    a["pre"][1, 2, 1, 0] = torch.nan
    out = mcu_scan(**a)
    assert out[1, 2, 1:].isnan().all()
    out[1, 2, 1:] = expected[1, 2, 1:]
    assert torch.equal(out, expected)


BAD = [
    (dict(pre=torch.ones(2, 3, 15)), ValueError, "pre of shape (S, N, T, 3*D), got (2, 3, 15)"),
    (dict(pre=torch.ones(2, 3, 4, 14)), ValueError, "pre of 3 * D channels, got (2, 3, 4, 14)"),
    (dict(pre=torch.ones(2, 3, 4, 15).int()), TypeError, "pre of a floating dtype"),
    (dict(weight=torch.ones(2, 5, 5)), ValueError, "weight of shape (S, 3*D, D) with S=2"),
    (dict(weight=torch.ones(2, 15, 5).half()), TypeError, "weight of pre's dtype"),
    (dict(ln_bias=None), ValueError, "ln_weight and ln_bias or neither, got ln_weight"),
    (dict(ln_weight=torch.ones(3, 5)), ValueError, "ln_weight of shape (S, 3, D) with S=2"),
    (dict(ln_weight=torch.ones(2, 3, 5).half()), TypeError, "ln_weight of dtype torch.float32"),
    (dict(h0=torch.ones(3, 5)), ValueError, "h0 of shape (S, N, D) with S=2, N=3, D=5"),
    (dict(h0=0.0), TypeError, "h0 to be a tensor, got float"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match="^" + re.escape(f"mcu_scan: expected {message}")):
        mcu_scan(**inputs(dtype=torch.float32) | change)
