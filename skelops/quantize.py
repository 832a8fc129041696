"""Networks whose linear layers multiply in int8, on a CPU."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from skelops import _check
from skelops.nn import PackedAttention


class Int8Linear(nn.Module):
    r"""A linear layer in int8: its weights are rounded once, per channel, its inputs at every call.

    .. math:: y_{nd} = s_d \, s \sum_c \hat W_{dc} \, (\hat x_{nc} - z) + b_d, \qquad
        \hat W_{dc} = \mathrm{round}(W_{dc} / s_d)

    by PyTorch's ``quantized::linear_dynamic``, which takes scale s and zero z from the range of x.

    Args:
        layer: what to round.

    Shape: (..., C) float32 -> (..., D) float32; for inference.

    Source: Jacob et al., Quantization and Training of Neural Networks, CVPR 2018, section 2.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float().cpu()
        scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        zero = torch.zeros_like(scale, dtype=torch.int64)
        rounded = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        bias = None if layer.bias is None else layer.bias.detach().float().cpu()
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"

    def forward(self, x: Tensor) -> Tensor:
        # Seven bits of an input, as PyTorch has it: products of eight overflow on older processors.
        return torch.ops.quantized.linear_dynamic(x.float(), self.packed, reduce_range=True)


def quantize(model: nn.Module) -> nn.Module:
    """A copy of a network, in evaluation mode, whose linear layers are ``Int8Linear``.

    These are the layers of transformers: projections of every attention, feed-forward, embeddings
    and heads. Convolutions and recurrent weights stay in float32, and so do layers whose weights a
    module multiplies with in a way of its own and names in ``reads``: the fused convolutions of
    graphs gain nothing, see the guide to deployment.

    Args:
        model: on a CPU.

    Raises:
        ValueError: there is no linear layer.

    Example:
        >>> fast = quantize(build_classifier(create_pretext("mamp").encoder, num_classes=60))
    """
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if isinstance(module, PackedAttention):
            module.unpack()
    found = 0
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear) and name not in getattr(module, "reads", ()):
                setattr(module, name, Int8Linear(layer))
                found += 1
    if not found:
        raise _check.fail("quantize", "a network with linear layers", type(model).__name__)
    return model
