"""ms_temporal_unit: the ops of which it is made; how it refuses."""

import re

import pytest
import torch

from skelops import bn_act_add, ms_temporal_conv, ms_temporal_unit

OPTIONS = {"widths": [2, 2, 3], "dilations": [1, 2], "kernel_size": 3}


def arguments():
    torch.manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, dtype=torch.float64)

    return {
        "x": draw(2, 4, 9, 5), "weight": draw(9, 4), "bias": draw(9),
        "conv_weights": [draw(2, 2, 3), draw(2, 2, 3)], "conv_biases": [draw(2), draw(2)],
        "inner_norm": [*(torch.rand(4, 7, dtype=torch.float64) + 0.5)],
    }  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_is_its_ops(mode, stride):
    a = arguments()
    norm = torch.rand(4, 9, dtype=torch.float64) + 0.5
    options = {"stride": stride, "padding_mode": mode}
    z = ms_temporal_conv(
        *(a[name] for name in ("x", "weight", "bias", "conv_weights", "conv_biases")),
        *a["inner_norm"], dilations=[1, 2], training=False, eps=1e-3, **options,
    )  # fmt: skip
    residual = torch.randn_like(z)
    expected = bn_act_add(z, *norm, residual, training=False)
    end = {"norm": [*norm], "residual": residual, "inner_eps": 1e-3}
    torch.testing.assert_close(ms_temporal_unit(**a, **OPTIONS, **options, **end), expected)


ONES = torch.ones(9).double()
BAD = [
    (dict(stride=0), ValueError, "stride >= 1, got 0"),
    (dict(padding_mode="circular"), ValueError, 'padding_mode "zeros" or "replicate", got'),
    (dict(kernel_size=2), ValueError, "an odd kernel_size, got 2"),
    (dict(dilations=[0, 1]), ValueError, "widths and dilations >= 1, got [2, 2, 3] and [0, 1]"),
    (dict(dilations=[1]), ValueError, "a width per dilation and at most one more, got 3 and 1"),
    (dict(widths=[2, 2, 7]), ValueError, "widths of at most 9 channels, got [2, 2, 7]"),
    (dict(weight=ONES), ValueError, "weight of 36 elements, got 9"),
    (dict(conv_weights=[ONES]), ValueError, "conv_weights of 24 elements, got 9"),
    (dict(conv_biases=[ONES]), ValueError, "conv_biases of 4 elements, got 9"),
    (dict(inner_norm=[]), ValueError, "an inner_norm, got none"),
    (dict(inner_norm=[ONES] * 4), ValueError, "inner_norm of 7 elements, got 9"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match="^" + re.escape(f"ms_temporal_unit: expected {message}")):
        ms_temporal_unit(**(arguments() | OPTIONS | change))
