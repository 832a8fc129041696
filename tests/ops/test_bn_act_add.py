"""bn_act_add: equality with PyTorch's modules, what the mathematics demands, how it refuses."""

import copy
import re

import pytest
import torch
from torch import nn

from skelops import bn_act_add
from skelops.ops._dropout import LEVELS, kept


def norm_of(bn):
    return bn.weight, bn.bias, bn.running_mean, bn.running_var


def module(channels=6):
    bn = nn.BatchNorm2d(channels, momentum=0.2, eps=1e-3)
    nn.init.normal_(bn.weight, 1, 0.3)
    nn.init.normal_(bn.bias)
    return bn


def tolerance(dtype):
    return {
        torch.float64: dict(rtol=1e-9, atol=1e-9),
        torch.float32: dict(rtol=1e-4, atol=1e-5),
        torch.bfloat16: dict(rtol=2e-2, atol=5e-2),
        torch.float16: dict(rtol=2e-3, atol=5e-3),
    }[dtype]


@pytest.mark.parametrize("residual", [None, "plain", "norm"])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_equals_modules_over_steps(dtype, relu, residual):
    """Results, gradients and running statistics of three training steps and an evaluation."""
    bn, res_bn = module(), module()
    if dtype == torch.float64:
        bn, res_bn = bn.double(), res_bn.double()
    ours, res_ours = copy.deepcopy(bn), copy.deepcopy(res_bn)
    for training in (True, True, True, False):
        bn.train(training), res_bn.train(training)
        x = (2 * torch.randn(3, 6, 4, 5) + 1).to(dtype).requires_grad_()
        r = torch.randn(3, 6, 4, 5).to(dtype).requires_grad_()
        grad = torch.randn(3, 6, 4, 5).to(dtype)

        y = bn(x.to(bn.weight.dtype))
        if residual is not None:
            wide = r.to(bn.weight.dtype)
            y = y + (res_bn(wide) if residual == "norm" else wide)
        y = (y.relu() if relu else y).to(dtype)

        second = norm_of(res_ours) if residual == "norm" else (None,) * 4
        out = bn_act_add(
            x, *norm_of(ours), None if residual is None else r, *second,
            training=training, relu=relu, momentum=0.2, eps=1e-3,
        )  # fmt: skip
        torch.testing.assert_close(out, y, **tolerance(dtype))

        theirs, mine = [x, bn.weight, bn.bias], [x, ours.weight, ours.bias]
        if residual is not None:
            theirs, mine = [*theirs, r], [*mine, r]
        if residual == "norm":
            theirs += [res_bn.weight, res_bn.bias]
            mine += [res_ours.weight, res_ours.bias]
        expected = torch.autograd.grad(y, theirs, grad)
        for got, e in zip(torch.autograd.grad(out, mine, grad), expected, strict=True):
            torch.testing.assert_close(got, e, **tolerance(dtype))
    for a, b in ((ours, bn), (res_ours, res_bn)):
        torch.testing.assert_close(a.running_mean, b.running_mean)
        torch.testing.assert_close(a.running_var, b.running_var)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("residual", ["plain", "norm"])
def test_dropout_lies_between_the_norm_and_the_residual(residual, training):
    bn, res_bn = module().double().train(training), module().double().train(training)
    x, r, grad = (torch.randn(3, 6, 5, 30, dtype=torch.float64) for _ in range(3))
    x.requires_grad_(), r.requires_grad_()
    seed, p = torch.tensor([11]), 0.25
    mask = kept(seed, 18, 150, round(p * LEVELS)).view(x.shape)
    y = (bn(x) * mask / (1 - p) + (res_bn(r) if residual == "norm" else r)).relu()
    ours, res_ours = module().double(), module().double()
    ours.load_state_dict(bn.state_dict()), res_ours.load_state_dict(res_bn.state_dict())
    second = norm_of(res_ours) if residual == "norm" else (None,) * 4
    out = bn_act_add(
        x, *norm_of(ours), r, *second, training=training, eps=1e-3, dropout=p, seed=seed
    )
    torch.testing.assert_close(out, y)
    theirs, mine = [x, r, bn.weight, bn.bias], [x, r, ours.weight, ours.bias]
    if residual == "norm":
        theirs += [res_bn.weight, res_bn.bias]
        mine += [res_ours.weight, res_ours.bias]
    expected = torch.autograd.grad(y, theirs, grad)
    for got, e in zip(torch.autograd.grad(out, mine, grad), expected, strict=True):
        torch.testing.assert_close(got, e, rtol=1e-9, atol=1e-9)


def test_torch_draws_the_seed_of_dropout():
    a = arguments() | {"training": True, "dropout": 0.5}
    torch.manual_seed(0)
    first, second = bn_act_add(**a), bn_act_add(**a)
    torch.manual_seed(0)
    assert torch.equal(bn_act_add(**a), first)
    assert not torch.equal(first, second)


def arguments(shape=(3, 6, 4, 5), dtype=torch.float64):
    C = shape[1]
    return dict(
        x=torch.randn(shape, dtype=dtype),
        weight=torch.randn(C, dtype=dtype),
        bias=torch.randn(C, dtype=dtype),
        running_mean=torch.randn(C, dtype=dtype),
        running_var=torch.rand(C, dtype=dtype) + 0.5,
    )


def residual_arguments(**kwargs):
    return {"residual" if n == "x" else f"res_{n}": t for n, t in arguments(**kwargs).items()}


def test_result_is_normalised():
    a = arguments() | {"weight": torch.ones(6).double(), "bias": torch.zeros(6).double()}
    y = bn_act_add(**a, training=True, relu=False, eps=0.0)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(6).double())
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(6).double())


def test_scale_of_the_input_does_not_matter():
    a = arguments()
    moved = a | {"x": 100 * a["x"] + 7}
    torch.testing.assert_close(
        bn_act_add(**a, training=True, eps=0.0), bn_act_add(**moved, training=True, eps=0.0)
    )


def test_residuals_commute():
    a, r = arguments(), residual_arguments()
    swapped = {n.removeprefix("res_") if n != "residual" else "x": t for n, t in r.items()}
    swapped |= {"residual" if n == "x" else f"res_{n}": t for n, t in a.items()}
    torch.testing.assert_close(
        bn_act_add(**a, **r, training=False), bn_act_add(**swapped, training=False)
    )


def test_absent_persons_do_not_mix_outside_training():
    a = arguments()
    a["x"][1] = 0
    y = bn_act_add(**a, training=False)
    torch.testing.assert_close(y[0], bn_act_add(**a | {"x": a["x"][:1]}, training=False)[0])
    assert torch.equal(y[1], y[1, :, :1, :1].expand_as(y[1]))


def test_statistics_may_be_left_out_in_training():
    a = arguments()
    tracked = bn_act_add(**a, training=True)
    a["running_mean"] = a["running_var"] = None
    assert torch.equal(bn_act_add(**a, training=True), tracked)


def test_evaluation_leaves_the_statistics():
    a = arguments()
    before = [a["running_mean"].clone(), a["running_var"].clone()]
    bn_act_add(**a, training=False)
    assert torch.equal(a["running_mean"], before[0]) and torch.equal(a["running_var"], before[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_empty_batch_changes_nothing(dtype):
    a = arguments(shape=(0, 6, 4, 5), dtype=dtype)
    before = a["running_mean"].clone()
    a["weight"].requires_grad_()
    y = bn_act_add(**a, training=True)
    y.sum().backward()
    assert y.shape == (0, 6, 4, 5)
    assert torch.equal(a["running_mean"], before)
    assert not a["weight"].grad.any()


def test_constant_channel_is_finite():
    a = arguments()
    a["x"][:, 2] = 3.0
    a = {n: t.requires_grad_() if n in ("x", "weight", "bias") else t for n, t in a.items()}
    y = bn_act_add(**a, training=True, relu=False)
    torch.testing.assert_close(y[:, 2], a["bias"][2].expand_as(y[:, 2]))
    for g in torch.autograd.grad(y.square().sum(), [a["x"], a["weight"], a["bias"]]):
        assert g.isfinite().all()


def test_inference_mode():
    a = arguments()
    a["weight"].requires_grad_()
    with torch.inference_mode():
        y = bn_act_add(**a, training=False)
    assert torch.equal(y, bn_act_add(**a, training=False))


def test_nan_stays_in_its_channel():
    a = arguments()
    a["x"][0, 1, 0, 0] = float("nan")
    y = bn_act_add(**a, training=True, relu=False)
    channels = torch.arange(6) == 1
    assert torch.equal(y.isnan(), channels[:, None, None].expand_as(y))


@pytest.mark.parametrize("training", [True, False])
def test_relu_of_nan_is_nan(training):
    a = arguments()
    a["weight"][1] = float("nan")
    y = bn_act_add(**a, training=training)
    assert y[:, 1].isnan().all() and y[:, 0].isfinite().all()


BAD = [
    (dict(x=torch.ones(3, 6, 4)), ValueError, "x of shape (N, C, T, V), got (3, 6, 4)"),
    (dict(x=torch.ones(3, 6, 4, 5).long()), TypeError, "x of a floating dtype, got torch.int64"),
    (dict(x=None), TypeError, "x to be a tensor, got NoneType"),
    (dict(dropout=-0.1), ValueError, "dropout in [0, 1), got -0.1"),
    (dict(dropout=0.1, seed=torch.ones(1)), TypeError, "seed of dtype torch.int64, got"),
    (dict(weight=torch.ones(5)), ValueError, "weight of shape (C) with C=6, got (5,)"),
    (dict(weight=torch.ones(6, 1)), ValueError, "weight of shape (C) with C=6, got (6, 1)"),
    (dict(weight=torch.ones(6).half()), TypeError, "weight of dtype torch.float32 or"),
    (dict(weight=[1.0] * 6), TypeError, "weight to be a tensor, got list"),
    (dict(bias=torch.ones(6, device="meta")), ValueError, "bias on x's device cpu, got meta"),
    (dict(running_mean=torch.ones(4)), ValueError, "running_mean of shape (C) with C=6, got (4,)"),
    (dict(running_var=None, training=False), ValueError, "running_mean and running_var outside"),
    (dict(residual=torch.ones(3, 6, 4, 4)), ValueError, "residual of shape (N, C, T, V) with N=3"),
    (dict(residual=torch.ones(3, 6, 4, 5).half()), TypeError, "residual of x's dtype"),
    (dict(res_weight=torch.ones(6)), ValueError, "residual together with res_weight, got"),
    (
        dict(residual=torch.ones(3, 6, 4, 5), res_weight=torch.ones(6), res_bias=torch.ones(6),
             training=False),
        ValueError,
        "running_mean and running_var outside training, got None",
    ),
    (
        dict(x=torch.ones(1, 6, 1, 1)),
        ValueError,
        "x with more than one value per channel in training, got (1, 6, 1, 1)",
    ),
    (
        dict(residual=torch.ones(3, 6, 4, 5), res_weight=torch.ones(6)),
        ValueError,
        "res_bias together with res_weight, got res_weight alone",
    ),
    (
        dict(residual=torch.ones(3, 6, 4, 5), res_bias=torch.ones(6)),
        ValueError,
        "res_weight together with res_bias, got res_bias alone",
    ),
]  # fmt: skip


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    a = arguments(dtype=torch.float32) | {"training": True} | change
    with pytest.raises(error, match="^" + re.escape(f"bn_act_add: expected {message}")):
        bn_act_add(**a)
