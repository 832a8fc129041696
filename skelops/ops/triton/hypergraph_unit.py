"""Unit on a hyper-graph on a GPU: the kernels of the convolution and of the normalisation."""

from __future__ import annotations

from skelops.ops.triton import _tiles, bn_act_add, hypergraph_conv

GRADS = ("x", "A", "weight", "bias", "virtual", "norm_weight", "norm_bias")
CONV = (1 << len(hypergraph_conv.GRADS)) - 1
PLAIN = (None, None, None, None, None, 0)  # a residual as it is, no dropout


def supports(x, A, weight, bias, virtual, *_) -> str | None:
    return hypergraph_conv.supports(x, A, weight, bias, virtual) or bn_act_add.supports(x)


def forward(
    x, A, weight, bias, virtual, norm_weight, norm_bias, running_mean, running_var, residual,
    training, keep, eps,
):  # fmt: skip
    z = hypergraph_conv.forward(x, A, weight, bias, virtual)
    r = x if residual else None
    out, mean, var, *_ = bn_act_add.forward(
        z, norm_weight, norm_bias, running_mean, running_var, r, *PLAIN, training, True, eps
    )
    return out, z if keep else x.new_empty(0), mean, var


def backward(
    grad, x, A, weight, bias, virtual, norm_weight, norm_bias, running_mean, running_var, residual,
    training, keep, eps, z, mean, var, needs,
):  # fmt: skip
    wants = _tiles.wants(GRADS, needs)
    mask = bool(needs & CONV) | wants("norm_weight") << 1 | wants("norm_bias") << 2
    mask |= (residual and wants("x")) << 3
    empty = grad.new_empty(0)
    r = x if residual else None
    dz, dweight, dbias, dx, *_ = bn_act_add.backward(
        grad, z, norm_weight, norm_bias, running_mean, running_var, r, *PLAIN, training, True, eps,
        mean, var, empty, empty, mask,
    )  # fmt: skip
    if not needs & CONV:
        return (*(empty,) * len(hypergraph_conv.GRADS), dweight, dbias)
    found = hypergraph_conv.backward(dz, x, A, weight, bias, virtual, needs & CONV)
    if wants("x") and residual:
        found[0].add_(dx)
    return (*found, dweight, dbias)
