"""Shifted 1x1 convolution on a GPU: the transform of channels that come from their own frames."""

from __future__ import annotations

from torch import Tensor

from skelops.ops.triton import _pointwise, _tiles

GRADS = ("x", "weight")


def _planes(x: Tensor) -> Tensor:
    """(N, C, T, ...) -> (N, C, T, pixels)."""
    return x.reshape(*x.shape[:3], x.shape[3:].numel())


def supports(x, weight, fold) -> str | None:
    return _tiles.unsupported(_planes(x), joints=None)


@_tiles.on_device
def forward(x: Tensor, weight: Tensor, fold: int) -> Tensor:
    planes, weight = _planes(x.contiguous()), weight.contiguous()
    y = _pointwise.transform(weight, planes, "in", fold)
    return y.view(x.shape[0], weight.shape[0], *x.shape[2:])


@_tiles.on_device
def backward(grad, x, weight, fold, needs):
    grad, planes = _planes(grad.contiguous()), _planes(x.contiguous())
    wants = _tiles.wants(GRADS, needs)
    dx = dweight = grad.new_empty(0)
    if wants("x"):
        dx = _pointwise.transform(weight.contiguous().mT, grad, "out", fold).view(x.shape)
    if wants("weight"):
        dweight = _pointwise.weight_grad(grad, planes, shift="in", fold=fold)[0].to(weight.dtype)
    return dx, dweight
