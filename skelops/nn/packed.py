"""Parameters packed for the ops, and the published tensors inside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Part(NamedTuple):
    """A published tensor as a view of a packed one: ``tensor[index].view(shape)``.

    Args:
        source: name of the parameter or buffer that holds it.
        index: of the slice.
        shape: as published.
        transposed: the published matrix is the transpose of the slice.
    """

    source: str
    index: tuple[int | slice, ...]
    shape: tuple[int, ...]
    transposed: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """The view inside ``tensor``, which is the source itself, its gradient or the like."""
        part = tensor[self.index]
        return part.mT if self.transposed else part.view(self.shape)


class Packed(nn.Module):
    """A module with packed parameters: it can name the published tensors they hold."""

    def published(self) -> dict[str, Part]:
        """Published name within the module -> where it lives. Others keep their own names."""
        raise NotImplementedError

    def reset_parameters(self, kaiming: bool = False) -> None:
        """Initialise as PyTorch does convolutions, or Kaiming-normal (fan-out) with zero biases."""
        raise NotImplementedError


def published_parts(module: nn.Module) -> dict[str, Part]:
    """Every tensor of ``module.state_dict()`` under its published name."""
    parts: dict[str, Part] = {}
    held: set[str] = set()
    for prefix, child in module.named_modules():
        if isinstance(child, Packed):
            dot = f"{prefix}." if prefix else ""
            for name, part in child.published().items():
                parts[dot + name] = part._replace(source=dot + part.source)
                held.add(dot + part.source)
    for name, value in module.state_dict().items():
        if name not in held:
            parts[name] = Part(name, (), tuple(value.shape))
    return parts


def norm_parts(published: str, source: str, rows: slice) -> Iterator[tuple[str, Part]]:
    """A batch normalisation that is some rows of a packed one."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield (
            f"{published}.{name}",
            Part(f"{source}.{name}", (rows,), (rows.stop - rows.start,)),
        )
    counter = "num_batches_tracked"
    yield f"{published}.{counter}", Part(f"{source}.{counter}", (), ())


@torch.no_grad()
def init_conv(weight: Tensor, bias: Tensor, fan_in: int, fan_out: int, kaiming: bool) -> None:
    """Fill a convolution as PyTorch does, or Kaiming-normal (fan-out) with a zero bias."""
    if kaiming:
        weight.normal_(0, math.sqrt(2 / fan_out))
        bias.zero_()
    else:
        bound = 1 / math.sqrt(fan_in)
        weight.uniform_(-bound, bound)
        bias.uniform_(-bound, bound)


def kaiming_(module: nn.Module) -> None:
    """Kaiming-normal (fan-out) convolutions with zero biases, as in 2s-AGCN and CTR-GCN."""
    for child in module.modules():
        if isinstance(child, Packed):
            child.reset_parameters(kaiming=True)
        elif isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out")
            nn.init.zeros_(child.bias)
