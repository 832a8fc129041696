"""STAttention: PyTorch's attention, learnt biases, and the ragged form."""

import pytest
import torch
from torch import nn

from skelops import st_attention
from skelops.nn import STAttention


def test_it_is_pytorchs_attention():
    ours, theirs = STAttention(24, 4), nn.MultiheadAttention(24, 4, batch_first=True)
    names = {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias"}
    names |= {f"proj.{end}": f"out_proj.{end}" for end in ("weight", "bias")}
    theirs.load_state_dict({names[key]: value for key, value in ours.state_dict().items()})
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_biases_start_at_zero_and_are_learnt():
    x = torch.randn(2, 12, 16)
    layer = STAttention(16, 2, joints=4, joint_bias=True, max_lag=1)
    assert layer.joint_bias.shape == (2, 4, 4) and layer.lag_bias.shape == (2, 3)
    plain = STAttention(16, 2)
    plain.load_state_dict(layer.state_dict(), strict=False)
    torch.testing.assert_close(layer(x), plain(x))
    layer(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in (layer.joint_bias, layer.lag_bias))


def test_structure_and_tokens_reach_the_op():
    layer = STAttention(16, 2, joints=4, within="frame", scale=0.5)
    x, mask = torch.randn(2, 12, 16), torch.rand(2, 12) < 0.7
    options = {"joints": 4, "within": "frame", "scale": 0.5, "key_mask": mask}
    torch.testing.assert_close(
        layer(x, key_mask=mask), layer.proj(st_attention(layer.qkv(x), 2, **options))
    )


def test_ragged_sequences_are_those_of_a_batch():
    layer = STAttention(16, 2, qkv_bias=False)
    assert layer.qkv.bias is None
    a, b = torch.randn(1, 5, 16), torch.randn(1, 3, 16)
    packed = torch.cat([a[0], b[0]])
    ends = torch.tensor([0, 5, 8])
    y = layer(packed, cu_seqlens=ends, max_len=5)
    torch.testing.assert_close(y, torch.cat([layer(a)[0], layer(b)[0]]))


def test_bad_input():
    with pytest.raises(ValueError, match="STAttention: expected channels of 5 heads, got 24"):
        STAttention(24, 5)
