"""Graph convolution by the compiled aggregation; the 1x1 transform is a batched product."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops.ops import _gemm

GRADS = ("x", "A", "weight", "bias")
MAX_JOINTS = 128


def supports(x, A, weight, bias, transposed) -> str | None:
    return f"at most {MAX_JOINTS} joints, got {x.shape[3]}" if x.shape[3] > MAX_JOINTS else None


def _features(x: Tensor, A: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """(N, K, C', T, V)."""
    K = A.shape[-3]
    f = x.contiguous()
    if weight is not None:
        f = _gemm.transform(weight.flatten(0, 1), f)
    f = f.unflatten(1, (K, f.shape[1] // K))
    if bias is not None and bias.dim() == 2:
        f = f + bias[:, :, None, None]
    return f


def _aggregate(f: Tensor, A: Tensor, transposed: bool) -> Tensor:
    return torch.ops.skelops._graph_aggregate_cuda(f, A.contiguous(), transposed)


def forward(x, A, weight, bias, transposed):
    z = _aggregate(_features(x, A, weight, bias), A, transposed)
    return z + bias[:, None, None] if bias is not None and bias.dim() == 1 else z


def backward(grad, x, A, weight, bias, transposed, needs):
    grad, x = grad.contiguous(), x.contiguous()
    wanted = [name for i, name in enumerate(GRADS) if needs >> i & 1]
    found = {name: grad.new_empty(0) for name in GRADS}
    output_bias = "bias" in wanted and bias.dim() == 1
    if "A" in wanted:
        found["A"] = torch.ops.skelops._graph_aggregate_grad_a_cuda(
            grad, _features(x, A, weight, bias), A.dim() == 4, transposed
        )
    if output_bias:
        found["bias"] = grad.sum((0, 2, 3))
    if set(wanted) - {"A"} - ({"bias"} if output_bias else set()):
        subsets = A.split(1, dim=-3)
        df = torch.stack([_aggregate(grad.unsqueeze(1), a, not transposed) for a in subsets], 1)
        if "x" in wanted:
            found["x"] = (
                df.view(x.shape) if weight is None else _gemm.transform(weight.flatten(0, 1).mT, df)
            )
        if "weight" in wanted:
            found["weight"] = _gemm.weight_grad(df, x).view(weight.shape).to(weight.dtype)
        if "bias" in wanted and not output_bias:
            found["bias"] = df.sum((0, 3, 4))
    return tuple(found.values())
