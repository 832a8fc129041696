"""Unit on a hyper-graph on a GPU: the kernels of the convolution and of the normalisation."""

from __future__ import annotations

from skelops.ops.triton import _tiles, bn_act_add, hypergraph_conv

GRADS = ("x", "A", "weight", "bias", "virtual", "norm_weight", "norm_bias")
CONV = (1 << len(hypergraph_conv.GRADS)) - 1
PLAIN = (None, None, None, None, None, 0)  # a residual as it is, no dropout


def supports(x, A, weight, bias, virtual, *_) -> str | None:
    return hypergraph_conv.supports(x, A, weight, bias, virtual) or bn_act_add.supports(x)


def _normalise(x, z, weight, bias, mean, var, residual, training, eps):
    r = x if residual else None
    return bn_act_add.forward(z, weight, bias, mean, var, r, *PLAIN, training, True, eps)


def forward(
    x, A, weight, bias, virtual, norm_weight, norm_bias, running_mean, running_var, residual,
    training, keep, eps,
):  # fmt: skip
    z = hypergraph_conv.forward(x, A, weight, bias, virtual)
    out, mean, var, *_ = _normalise(
        x, z, norm_weight, norm_bias, running_mean, running_var, residual, training, eps
    )
    return out, z if keep else x.new_empty(0), mean, var


def backward(
    grad, x, A, weight, bias, virtual, norm_weight, norm_bias, running_mean, running_var, residual,
    training, keep, eps, z, mean, var, needs,
):  # fmt: skip
    wants = _tiles.wants(GRADS, needs)
    statistics = (mean, var) if training else (running_mean, running_var)
    out, *_ = _normalise(x, z, norm_weight, norm_bias, *statistics, residual, False, eps)
    mask = bool(needs & CONV) | wants("norm_weight") << 1 | wants("norm_bias") << 2
    mask |= (residual and wants("x")) << 3
    empty = grad.new_empty(0)
    r = x if residual else None
    dz, dweight, dbias, dx, *_ = bn_act_add.backward(
        grad, z, norm_weight, norm_bias, running_mean, running_var, r, *PLAIN, training, True, eps,
        out, mean, var, empty, empty, mask,
    )  # fmt: skip
    if not needs & CONV:
        return (*(empty,) * len(hypergraph_conv.GRADS), dweight, dbias)
    found = hypergraph_conv.backward(dz, x, A, weight, bias, virtual, needs & CONV)
    if wants("x") and residual:
        found[0].add_(dx)
    return (*found, dweight, dbias)
