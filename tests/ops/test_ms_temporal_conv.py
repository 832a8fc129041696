"""ms_temporal_conv: equality with PyTorch's modules, what the mathematics demands, refusals."""

import re

import pytest
import torch
from torch import nn

from skelops import ms_temporal_conv


class Branches(nn.Module):
    """The branches as a framework's user writes them: one Sequential each."""

    def __init__(self, channels, widths, pool, plain, dilations, k, stride=1, replicate=False):
        super().__init__()
        self.dilations, self.stride, self.replicate = dilations, stride, replicate
        mode = "replicate" if replicate else "zeros"
        branches = []
        for width, d in zip(widths, dilations, strict=True):
            pad = d * (k // 2)
            conv = nn.Conv2d(width, width, (k, 1), (stride, 1), (pad, 0), (d, 1), padding_mode=mode)
            branches.append(nn.Sequential(*self.entry(channels, width), conv))
        if pool:
            size = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
            branches.append(nn.Sequential(*self.entry(channels, pool), size))
        if plain:
            branches.append(nn.Conv2d(channels, plain, 1, (stride, 1)))
        self.branches = nn.ModuleList(branches)

    def entry(self, channels, width):
        bn = nn.BatchNorm2d(width, momentum=0.2)
        nn.init.normal_(bn.weight, 1, 0.3)
        nn.init.normal_(bn.bias)
        return nn.Conv2d(channels, width, 1), bn, nn.ReLU()

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)

    def fused(self, x):
        """The same by the op, on this module's parameters; statistics are returned."""
        entries = [b[0] if isinstance(b, nn.Sequential) else b for b in self.branches]
        norms = [b[1] for b in self.branches if isinstance(b, nn.Sequential)]
        convs = [b[3] for b in self.branches[: len(self.dilations)]]
        mean, var = (torch.cat([getattr(n, s) for n in norms]).clone() for s in STATISTICS)
        out = ms_temporal_conv(
            x,
            torch.cat([e.weight.flatten(1) for e in entries]),
            torch.cat([e.bias for e in entries]),
            [c.weight.squeeze(-1) for c in convs],
            [c.bias for c in convs],
            torch.cat([n.weight for n in norms]),
            torch.cat([n.bias for n in norms]),
            mean,
            var,
            dilations=self.dilations,
            training=self.training,
            stride=self.stride,
            padding_mode="replicate" if self.replicate else "zeros",
            momentum=0.2,
        )
        return out, mean, var

    def statistics(self):
        norms = [b[1] for b in self.branches if isinstance(b, nn.Sequential)]
        return [torch.cat([getattr(n, s) for n in norms]) for s in STATISTICS]


STATISTICS = ("running_mean", "running_var")
CONFIGURATIONS = {
    "mstcn4": dict(widths=(3, 3), pool=3, plain=3, dilations=(1, 2), k=5),
    "mstcn": dict(widths=(4, 2, 2, 2), pool=2, plain=2, dilations=(1, 2, 3, 4), k=3),
    "no_pool": dict(widths=(2, 3), pool=0, plain=1, dilations=(1, 3), k=3),
    "no_plain": dict(widths=(2,), pool=2, plain=0, dilations=(2,), k=3),
    "no_conv": dict(widths=(), pool=2, plain=3, dilations=(), k=1),
    "only_conv": dict(widths=(5,), pool=0, plain=0, dilations=(1,), k=9),
}


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("replicate", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_equals_modules(name, replicate, stride, frames):
    """Results, gradients and running statistics of two training steps and an evaluation."""
    options = CONFIGURATIONS[name] | {"stride": stride, "replicate": replicate}
    model = Branches(4, **options).double()
    for training in (True, True, False):
        model.train(training)
        x = torch.randn(3, 4, frames, 5, dtype=torch.float64, requires_grad=True)
        sources = [x, *model.parameters()]
        out, mean, var = model.fused(x)
        expected = model(x)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close([mean, var], model.statistics())
        grad = torch.randn_like(out)
        torch.testing.assert_close(
            torch.autograd.grad(out, sources, grad), torch.autograd.grad(expected, sources, grad)
        )


def arguments(shape=(2, 4, 6, 5), dtype=torch.float64):
    """Branches of widths 2, 3 (convolutions), 2 (pool), 1 (plain)."""

    def normal(*size):
        return torch.randn(size, dtype=dtype)

    return dict(
        x=normal(*shape),
        weight=normal(8, 4),
        bias=normal(8),
        conv_weights=[normal(2, 2, 3), normal(3, 3, 3)],
        conv_biases=[normal(2), normal(3)],
        norm_weight=normal(7),
        norm_bias=normal(7),
        running_mean=normal(7),
        running_var=normal(7).abs() + 0.5,
        dilations=[1, 2],
        training=False,
    )


def test_joints_and_samples_do_not_mix_outside_training():
    a = arguments()
    p = torch.randperm(5)
    y = ms_temporal_conv(**a)
    torch.testing.assert_close(ms_temporal_conv(**a | {"x": a["x"][..., p]}), y[..., p])
    torch.testing.assert_close(ms_temporal_conv(**a | {"x": a["x"][1:]}), y[1:])


def test_stride_selects_frames():
    a = arguments()
    y = ms_temporal_conv(**a)
    torch.testing.assert_close(ms_temporal_conv(**a, stride=2), y[:, :, ::2])
    torch.testing.assert_close(ms_temporal_conv(**a, stride=4), y[:, :, ::4])


def test_reversed_time():
    """Reversed frames and taps give the reversed result, padding being symmetric."""
    a = arguments()
    flipped = a | {"x": a["x"].flip(2), "conv_weights": [w.flip(-1) for w in a["conv_weights"]]}
    torch.testing.assert_close(ms_temporal_conv(**flipped), ms_temporal_conv(**a).flip(2))


def test_constant_clip_stays_constant_with_replicate_padding():
    a = arguments()
    a["x"] = a["x"][:, :, :1].expand(2, 4, 6, 5)
    y = ms_temporal_conv(**a, padding_mode="replicate")
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y))


@pytest.mark.parametrize("training", [True, False])
def test_absent_person_gets_finite_gradients(training):
    """All-zero samples tie in every window of the pool."""
    a = arguments() | {"training": training}
    a["x"][1] = 0
    a["x"].requires_grad_()
    y = ms_temporal_conv(**a)
    assert y.isfinite().all()
    assert torch.autograd.grad(y.square().sum(), a["x"])[0].isfinite().all()


def test_inference_keeps_nothing_and_equals_training_graph():
    a = arguments()
    a["weight"].requires_grad_()
    y = ms_temporal_conv(**a)
    with torch.inference_mode():
        torch.testing.assert_close(ms_temporal_conv(**a), y)
    with torch.no_grad():
        assert not ms_temporal_conv(**a).requires_grad


def test_empty_batch_changes_nothing():
    a = arguments(shape=(0, 4, 6, 5)) | {"training": True}
    before = a["running_mean"].clone()
    a["norm_weight"].requires_grad_()
    y = ms_temporal_conv(**a)
    y.sum().backward()
    assert y.shape == (0, 8, 6, 5)
    assert torch.equal(a["running_mean"], before)
    assert not a["norm_weight"].grad.any()


F32 = torch.float32
BAD = [
    (dict(x=torch.ones(2, 4, 6)), ValueError, "x of shape (N, C, T, V), got (2, 4, 6)"),
    (dict(x=torch.ones(2, 4, 0, 5)), ValueError, "x with at least one frame, got (2, 4, 0, 5)"),
    (dict(x=torch.ones(2, 4, 6, 5).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(x=[1.0]), TypeError, "x to be a tensor, got list"),
    (dict(weight=torch.ones(8, 5)), ValueError, "weight of shape (C', C) with C=4, got (8, 5)"),
    (dict(weight=torch.ones(8, 4).double()), TypeError, "weight of x's dtype torch.float32, got"),
    (dict(bias=torch.ones(7)), ValueError, "bias of shape (C') with C'=8, got (7,)"),
    (dict(bias=torch.ones(8, device="meta")), ValueError, "bias on x's device cpu, got meta"),
    (dict(stride=0), ValueError, "stride >= 1, got 0"),
    (dict(padding_mode="reflect"), ValueError, 'padding_mode "zeros" or "replicate", got'),
    (dict(dilations=[1]), ValueError, "as many dilations as conv_weights and conv_biases, got 1"),
    (dict(dilations=[1, 0]), ValueError, "dilations >= 1, got"),
    (
        dict(conv_weights=[torch.ones(2, 2, 4), torch.ones(3, 3, 4)]),
        ValueError,
        "conv_weights of an odd kernel size, got 4",
    ),
    (
        dict(conv_weights=[torch.ones(2, 2, 3), torch.ones(3, 2, 3)]),
        ValueError,
        "conv_weights[1] of shape (w, w, k) with w=3, k=3, got (3, 2, 3)",
    ),
    (
        dict(conv_weights=[torch.ones(2, 2, 3), torch.ones(3, 3, 5)]),
        ValueError,
        "conv_weights[1] of shape (w, w, k) with w=3, k=3, got (3, 3, 5)",
    ),
    (
        dict(conv_biases=[torch.ones(2), torch.ones(2)]),
        ValueError,
        "conv_biases[1] of shape (w) with w=3, got (2,)",
    ),
    (dict(norm_weight=torch.ones(4)), ValueError, "norm_bias of shape (C) with C=4, got (7,)"),
    (
        dict(norm_weight=torch.ones(4), norm_bias=torch.ones(4), running_mean=torch.ones(4),
             running_var=torch.ones(4)),
        ValueError,
        "norm_weight of 5 (convolutions) to 8 channels, got 4",
    ),
    (dict(norm_bias=torch.ones(7).half()), TypeError, "norm_bias of dtype torch.float32 or"),
    (dict(running_mean=None), ValueError, "running_mean and running_var outside training, got"),
    (
        dict(x=torch.ones(1, 4, 1, 1), training=True),
        ValueError,
        "x with more than one value per channel in training, got (1, 4, 1, 1)",
    ),
]  # fmt: skip


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match="^" + re.escape(f"ms_temporal_conv: expected {message}")):
        ms_temporal_conv(**arguments(dtype=F32) | change)
