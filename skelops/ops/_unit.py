"""What units at inference share: parameters in pieces, and the tail y = relu(BN(z) + r)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops import _check
from skelops.ops.bn_act_add import normalise

Pieces = Tensor | Sequence[Tensor]
TAIL = "Tensor[] norm, Tensor? residual, bool relu, float eps"


def pieces(op: str, x: Tensor, **named: Pieces | None) -> list[Sequence[Tensor]]:
    """Parameters as their pieces, themselves or those given, cast in an autocast region of x's
    device; none for None."""
    region = torch.is_autocast_enabled(x.device.type)
    found: list[Sequence[Tensor]] = []
    for name, value in named.items():
        given = () if value is None else (value,) if isinstance(value, Tensor) else value
        for t in given:
            if not isinstance(t, Tensor):
                raise TypeError(f"{op}: expected {name} of tensors, got {type(t).__name__}")
        found.append(_check.autocast(*given) if region and given else given)
    return found


def numel(given: Sequence[Tensor]) -> int:
    return sum(t.numel() for t in given)


def check_features(op: str, x: Tensor) -> None:
    _check.tensors(op, x=x)
    _check.shape(op, "x", x, "N C T V")
    if 0 in x.shape[1:]:
        raise _check.fail(op, "x with a channel, a frame and a joint", _check.shape_text(x.shape))
    if x.requires_grad and torch.is_grad_enabled():
        raise _wrong_piece(op, "x", x, x)


def check_pieces(op: str, name: str, x: Tensor, given: Sequence[Tensor], count: int) -> None:
    """Tensors of x's dtype on its device that have ``count`` elements and want no gradient."""
    dtype, device, recorded = x.dtype, x.device, torch.is_grad_enabled()
    found = 0
    for t in given:
        if t.dtype != dtype or t.device != device or (recorded and t.requires_grad):
            raise _wrong_piece(op, name, x, t)
        found += t.numel()
    if found != count:
        raise _check.fail(op, f"{name} of {count} elements", found)


def _wrong_piece(op: str, name: str, x: Tensor, t: Tensor) -> Exception:
    if t.dtype != x.dtype:
        return TypeError(f"{op}: expected {name} of x's dtype {x.dtype}, got {t.dtype}")
    if t.device != x.device:
        return ValueError(f"{op}: expected {name} on x's device {x.device}, got {t.device}")
    return TypeError(f"{op}: expected {name} that requires no gradient, got one that does")


def check_norm(op: str, name: str, x: Tensor, norm: Sequence[Tensor], channels: int) -> None:
    """4 P tensors of x's dtype or float32: ``channels`` weights, biases, means and variances."""
    each, rest = divmod(len(norm), 4)
    if rest:
        raise _check.fail(
            op, f"{name} of weights, biases, means and variances", f"{len(norm)} tensors"
        )
    device, recorded = x.device, torch.is_grad_enabled()
    for i in range(0, len(norm), max(each, 1)):
        part, found = norm[i : i + each], 0
        dtype = part[0].dtype
        if dtype != x.dtype:
            dtype = torch.float32
        for t in part:
            if t.dtype != dtype or t.device != device or (recorded and t.requires_grad):
                raise _wrong_piece(op, name, x.new_empty(0, dtype=dtype), t)
            found += t.numel()
        if found != channels:
            raise _check.fail(op, f"{name} of {channels} elements", found)


def check_tail(
    op: str, x: Tensor, norm: Sequence[Tensor], residual: Tensor | None, shape: Sequence[int]
) -> None:
    if norm:
        check_norm(op, "norm", x, norm, shape[1])
    if residual is not None:
        check_pieces(op, "residual", x, (residual,), residual.numel())
        if residual.shape != shape:
            sizes = dict(zip("NCTV", shape, strict=True))
            _check.shape(op, "residual", residual, "N C T V", **sizes)


def joined(given: Sequence[Tensor], *shape: int) -> Tensor:
    return torch.cat([t.reshape(-1) for t in given]).view(shape)


def normalised(x: Tensor, norm: Sequence[Tensor], eps: float) -> Tensor:
    each = len(norm) // 4
    weight, bias, mean, var = (joined(norm[i * each : (i + 1) * each], -1) for i in range(4))
    return normalise(x, weight, bias, mean, var, False, eps)[0]


def tail(
    z: Tensor, norm: Sequence[Tensor], residual: Tensor | None, relu: bool, eps: float
) -> Tensor:
    y = normalised(z, norm, eps) if norm else z
    y = y if residual is None else y + residual
    return (y.relu() if relu else y).to(z.dtype).contiguous()
